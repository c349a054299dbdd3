"""Controlled edits of photographs, and data sets made of them."""
