"""Scores of pictures, surfaces and volumes against the truth."""
