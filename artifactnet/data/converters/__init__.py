"""Data sets of other formats become manifests: one file per format."""
