"""Heads on a backbone: segmentation (UPerNet), heatmap decoder, HEIE mapper, scorer."""
