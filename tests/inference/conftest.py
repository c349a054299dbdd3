"""A tiny detector, and a working folder of its own for each test."""

from predictor_fixtures import here, predictor  # noqa: F401
