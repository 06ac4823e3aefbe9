"""Writers of artefacts."""
