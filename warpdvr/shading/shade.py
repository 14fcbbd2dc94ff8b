"""From points of a surface to colours. What a surface's own colour is, is asked here and nowhere else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from warpdvr.shading.lights import Light
from warpdvr.shading.materials import Material
from warpdvr.shading.srgb import encode, linear

CLAY = 0.85
"""sRGB of what has no colour of its own, under a material; `Field.color` shows such a surface as lit by the camera."""


@runtime_checkable
class Colored(Protocol):
    """What says how its surface is coloured: a `warpdvr.fields.base.Field`."""

    @property
    def has_color(self) -> bool:
        """Whether `color` is that of the surface, and not made up."""

    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor | None) -> Tensor:
        """Return the sRGB colour (n, 3) in [0, 1] that leaves x against the ray direction."""


@dataclass(frozen=True)
class SurfacePoints:
    """n points of a surface, and how they are looked at."""

    field: Colored
    """Whose surface it is; of several shapes, as it answers at these points."""
    x: Tensor
    """Shape (n, 3) [scene unit]."""
    normal: Tensor
    """Outward unit normals, shape (n, 3)."""
    direction: Tensor
    """Unit directions of the rays that see them, shape (n, 3)."""
    feature: Tensor | None
    """The field's features there, the second part of `Field.geometry`, shape (n, k)."""


Shader = Callable[[SurfacePoints], Tensor]
"""From n points to their sRGB colours (n, 3): `shade`, perhaps with a material and lights bound to it."""


def shade(surface: SurfacePoints, material: Material | None = None, lights: Sequence[Light] = ()) -> Tensor:
    """Return the sRGB colours (n, 3) in [0, 1] that points of a surface show; differentiable.

    Args:
        surface: the points.
        material: how they reflect the lights, with the field's colour as that of the surface, or `CLAY` if it has none;
            None shows the field's colour as it is, which is what fits to photographs learn: the light that leaves the
            surface.
        lights: what they are lit by; there are no shadows.
    """
    if material is None or surface.field.has_color:
        color = surface.field.color(surface.x, surface.normal, surface.direction, surface.feature)
    else:
        color = torch.full_like(surface.x, CLAY)
    if material is None:
        return color
    return encode(material.reflected(linear(color), surface.normal, surface.direction, lights).clamp(0, 1))
