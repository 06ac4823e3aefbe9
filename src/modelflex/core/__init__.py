"""The core types that every other part speaks: weights, graphs, programs, recipes, costs, trials."""
