"""Models of targets, one family a file or package; chips are files in specs/."""
