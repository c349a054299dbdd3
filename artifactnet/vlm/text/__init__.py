"""Chain-of-thought texts: parsing, building, repairing."""
