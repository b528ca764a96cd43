"""The page of a sweep, a choice or a run: one HTML file that needs no network."""
