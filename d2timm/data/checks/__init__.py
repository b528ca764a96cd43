"""Checks of a dataset: what its files contain, what a detector can use, and what is left out."""
