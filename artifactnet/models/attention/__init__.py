"""Attention of a ViT: recorded, and multiplied without being stored."""
