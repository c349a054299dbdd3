"""Trained models that travel with the package, each NAME.safetensors with its card NAME.md."""
