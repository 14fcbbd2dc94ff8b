"""Lights, in linear Rec.709: how much light reaches a surface."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Intensity = float | tuple[float, float, float]
"""The same for all colours, or linear (red, green, blue)."""


class Light(ABC):
    """Something that a surface is lit by."""

    @abstractmethod
    def irradiance(self, normal: Tensor) -> Tensor:
        """Return the light that arrives at surfaces with outward unit normals (n, 3), linear, shape (n, 1) or (n, 3).

        The unit is that of white: a white matte surface under an irradiance of 1 is white. Differentiable.
        """


@dataclass(frozen=True)
class AmbientLight(Light):
    """Light that comes from everywhere alike."""

    intensity: Intensity = 0.3
    """Irradiance of any surface, see `Light.irradiance`."""

    def irradiance(self, normal: Tensor) -> Tensor:
        return _row(self.intensity, normal).expand(len(normal), -1)


@dataclass(frozen=True)
class DirectionalLight(Light):
    """A lamp so far away that its rays are parallel, such as the sun. It casts no shadows."""

    direction: Sequence[float] | Tensor
    """From the surface towards the lamp, shape (3,), of any length but 0."""
    intensity: Intensity = 0.7
    """Irradiance of a surface that faces the lamp, see `Light.irradiance`."""

    def __post_init__(self) -> None:
        direction = torch.as_tensor(self.direction, dtype=torch.float64)
        if tuple(direction.shape) != (3,) or not 0 < float(direction.norm()) < torch.inf:
            raise ValueError(f"DirectionalLight: direction must be three numbers, not all 0, got {self.direction}")

    def irradiance(self, normal: Tensor) -> Tensor:
        direction = torch.as_tensor(self.direction)
        direction = direction if direction.is_floating_point() else direction.double()
        towards = torch.nn.functional.normalize(direction, dim=0).to(normal)
        return _row(self.intensity, normal) * (normal @ towards).clamp_min(0)[:, None]


def total_irradiance(lights: Sequence[Light], normal: Tensor) -> Tensor:
    """Return the sum of what several lights give to surfaces with unit normals (n, 3), shape (n, 1) or (n, 3)."""
    return sum((light.irradiance(normal) for light in lights), start=normal.new_zeros(len(normal), 1))


def _row(intensity: Intensity, like: Tensor) -> Tensor:
    return torch.as_tensor(intensity, dtype=like.dtype, device=like.device).view(1, -1)
