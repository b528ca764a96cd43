"""Helpers for files, images, sizes and text; nothing in this room depends on detection."""
