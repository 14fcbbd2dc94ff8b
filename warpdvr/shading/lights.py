"""Lights, and how much light they give to a surface, in linear Rec.709."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Intensity = float | Sequence[float] | Tensor
"""The same for all colours, or linear (red, green, blue); finite and not negative."""


class Light(ABC):
    """A source of light."""

    @abstractmethod
    def irradiance(self, normal: Float[Tensor, "n 3"]) -> Float[Tensor, "n _"]:
        """Return the linear light, in 1 or 3 columns, at surfaces with outward unit normals; differentiable.

        A white matte surface under an irradiance of 1 is white.
        """


@dataclass(frozen=True)
class AmbientLight(Light):
    """Light that is equal from all directions."""

    intensity: Intensity = 0.3
    """Irradiance of any surface, see `Light.irradiance`."""

    def __post_init__(self) -> None:
        _check_intensity("AmbientLight", self.intensity)

    def irradiance(self, normal: Float[Tensor, "n 3"]) -> Float[Tensor, "n _"]:
        return _row(self.intensity, normal).expand(len(normal), -1)


@dataclass(frozen=True)
class DirectionalLight(Light):
    """A distant lamp with parallel rays, such as the sun. It casts no shadows."""

    direction: Sequence[float] | Tensor
    """From the surface towards the lamp, shape (3,), of any length except 0."""
    intensity: Intensity = 0.7
    """Irradiance of a surface that faces the lamp, see `Light.irradiance`."""

    def __post_init__(self) -> None:
        _check_intensity("DirectionalLight", self.intensity)
        direction = as_numbers(self.direction)
        if direction is None or tuple(direction.shape) != (3,) or not 0 < float(direction.norm()) < torch.inf:
            raise ValueError(f"DirectionalLight: direction must be three numbers, not all 0, got {self.direction}")

    def irradiance(self, normal: Float[Tensor, "n 3"]) -> Float[Tensor, "n _"]:
        direction = torch.as_tensor(self.direction)
        direction = direction if direction.is_floating_point() else direction.double()
        towards = torch.nn.functional.normalize(direction, dim=0).to(normal)
        return _row(self.intensity, normal) * (normal @ towards).clamp_min(0)[:, None]


def total_irradiance(lights: Sequence[Light], normal: Float[Tensor, "n 3"]) -> Float[Tensor, "n _"]:
    """Return the sum of the irradiance of several lights, in 1 or 3 columns; differentiable."""
    return sum((light.irradiance(normal) for light in lights), start=normal.new_zeros(len(normal), 1))


def as_numbers(value: object) -> Tensor | None:
    """Return the numbers of a value as a tensor, or None if it does not consist of numbers."""
    try:
        return torch.as_tensor(value, dtype=torch.float64).detach()
    except (RuntimeError, TypeError, ValueError):
        return None


def _check_intensity(name: str, intensity: object) -> None:
    numbers = as_numbers(intensity)
    shaped = numbers is not None and tuple(numbers.shape) in ((), (1,), (3,))
    if numbers is None or not shaped or not bool((numbers.isfinite() & (numbers >= 0)).all()):
        raise ValueError(f"{name}: intensity must be one or three finite numbers >= 0, got {intensity!r}")


def _row(intensity: Intensity, like: Tensor) -> Float[Tensor, "1 _"]:
    return torch.as_tensor(intensity, dtype=like.dtype, device=like.device).view(1, -1)
