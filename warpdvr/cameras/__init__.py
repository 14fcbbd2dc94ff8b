"""Cameras that are refined against a known shape, compared with others, and written out."""
