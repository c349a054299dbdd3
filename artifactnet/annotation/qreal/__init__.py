"""Building a data set like Q-Real with language models, a detector, and people."""
