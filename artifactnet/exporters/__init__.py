"""Exporting, quantizing, checking and packing trained models."""
