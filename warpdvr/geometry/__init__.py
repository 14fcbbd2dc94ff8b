"""Meshes: extracted from fields, read, written, searched."""
