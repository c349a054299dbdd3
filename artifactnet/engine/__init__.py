"""Runs: training, evaluation and what they leave on disk."""
