"""Layers without state, one a file."""
