"""Shade surface points. A field's colour is evaluated here and nowhere else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.shading.lights import Light
from warpdvr.shading.materials import Material
from warpdvr.shading.srgb import encode, linear

CLAY = 0.85
"""sRGB of a surface without colours under a material; without one, `Field.color` shows it as lit by the camera."""


@runtime_checkable
class Colored(Protocol):
    """Something that colours its surface: a `warpdvr.fields.base.Field`."""

    @property
    def name(self) -> str:
        """The name of the field in messages."""

    @property
    def has_color(self) -> bool:
        """Whether `color` is that of the surface, instead of a default."""

    def color(
        self,
        x: Float[Tensor, "n 3"],
        normal: Float[Tensor, "n 3"],
        direction: Float[Tensor, "n 3"],
        feature: Float[Tensor, "n k"] | None,
    ) -> Float[Tensor, "n 3"]:
        """Return the sRGB colour in [0, 1] that leaves x against the ray direction."""


@dataclass(frozen=True)
class SurfacePoints:
    """Points of a surface, and the directions from which they are seen."""

    field: Colored
    """The field of the surface; if it has several shapes, `Field.select` for these points."""
    x: Float[Tensor, "n 3"]
    """Positions [scene unit]."""
    normal: Float[Tensor, "n 3"]
    """Outward unit normals."""
    direction: Float[Tensor, "n 3"]
    """Unit directions of the rays that see the points."""
    feature: Float[Tensor, "n k"] | None
    """The field's features at the points, the second part of `Field.geometry`."""


Shader = Callable[[SurfacePoints], Float[Tensor, "n 3"]]
"""From surface points to their sRGB colours: `shade`, perhaps with a material and lights bound to it."""


def shade(
    surface: SurfacePoints, material: Material | None = None, lights: Sequence[Light] = ()
) -> Float[Tensor, "n 3"]:
    """Return the sRGB colours in [0, 1] of surface points; differentiable.

    Args:
        surface: the points.
        material: how the points reflect the lights, with the field's colour, or `CLAY` if it has none, as that of the
            surface. None returns the field's colour itself: the light that leaves the surface, which a fit to
            photographs learns.
        lights: the lights; they cast no shadows.

    Raises:
        ValueError: if the field returns colours of another shape.
    """
    if material is None or surface.field.has_color:
        color = _field_color(surface)
    else:
        color = torch.full_like(surface.x, CLAY)
    if material is None:
        return color
    return encode(material.reflected(linear(color), surface.normal, surface.direction, lights).clamp(0, 1))


def _field_color(surface: SurfacePoints) -> Float[Tensor, "n 3"]:
    field, n = surface.field, len(surface.x)
    try:
        color: object = field.color(surface.x, surface.normal, surface.direction, surface.feature)
    except Exception:
        if n:
            raise
        return surface.x  # no colour at all, of a field that cannot be asked for none
    if not isinstance(color, Tensor) or tuple(color.shape) != (n, 3):
        shape = tuple(color.shape) if isinstance(color, Tensor) else type(color).__name__
        hint = "; write it with Torch" if shape == "ndarray" else ""
        raise ValueError(f"{field.name}.color: expected shape ({n}, 3) for {n} points, got {shape}{hint}")
    if not color.is_floating_point() or color.device != surface.x.device:
        raise ValueError(
            f"{field.name}.color: expected floating point sRGB in [0, 1] on {surface.x.device}, got {color.dtype} on "
            f"{color.device}"
        )
    return color.to(surface.x.dtype)
