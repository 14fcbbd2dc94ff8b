"""Cameras, their rays and projections, where they stand, and the way between scene and data."""
