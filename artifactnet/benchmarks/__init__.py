"""Scoring of prediction files by the rules of published benchmarks."""
