"""Checks for the fields of others."""
