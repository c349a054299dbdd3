"""Networks, attention maps and saved models."""
