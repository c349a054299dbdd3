"""Trained models that travel with the package, each NAME.safetensors with its card NAME.md."""

DEFAULT = "student-nano"  # the model that answers where none is named
