"""Removals of hidden units, one a file: which units of a recurrent layer stay."""
