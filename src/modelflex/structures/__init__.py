"""Weight structures, one a file."""
