"""Timing benchmarks; run them with ``python tools/benchmark.py NAME``."""
