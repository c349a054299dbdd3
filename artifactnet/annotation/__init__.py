"""Building an Expl-AIGI-Eval style data set with language models."""
