"""Progressive inference: networks whose answers are refined term by term, as time allows."""
