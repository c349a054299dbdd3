"""HEIE on a multimodal language model."""
