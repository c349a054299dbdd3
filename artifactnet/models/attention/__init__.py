"""Attention of a ViT: how it is watched, and multiplied without being stored."""
