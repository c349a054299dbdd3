"""Metrics: pure functions, each with a thin torchmetrics class."""
