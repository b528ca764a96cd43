"""Datasets: the embedded one, published ones and a user's own."""
