"""Trained models that travel with the package, each NAME.safetensors with its card NAME.md."""

DEFAULT = "artifactnet-small"  # the model that answers where none is named
