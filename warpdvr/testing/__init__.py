"""Checks for the fields of others."""

from warpdvr.testing.field import check_field

__all__ = ["check_field"]
