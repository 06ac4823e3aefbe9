"""Nonlinearities, one a file: how σ and tanh are computed in integers."""
