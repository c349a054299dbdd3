"""Evaluation of trained models, and result tables."""
