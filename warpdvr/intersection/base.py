"""The contract of what finds hits."""

from typing import Protocol

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field
from warpdvr.intersection.hit import Hit


class Solver(Protocol):
    """What finds hits: `DenseMarch`, `SphereTrace`, or any callable like them."""

    @property
    def points_per_ray(self) -> int:
        """How many points of one ray are evaluated together; decides how many rays fit into memory."""

    def __call__(self, field: Field, rays: Rays) -> Hit:
        """Find the first crossing from outside to inside on each ray, inside of the field's bounds."""
