"""Readers of other people's models and data."""
