"""Activities, one a file: which products are computed at a time step."""
