"""A category of shapes, and shapes from single pictures."""
