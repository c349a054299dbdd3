"""Training a model from its config."""
