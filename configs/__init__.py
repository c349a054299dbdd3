"""Recipes of runs; an installed package has this folder as ``artifactnet.configs``."""
