"""Data sets: the embedded one, registered ones and a user's own."""
