"""Checks for third-party fields."""

from warpdvr.testing.field import check_field

__all__ = ["check_field"]
