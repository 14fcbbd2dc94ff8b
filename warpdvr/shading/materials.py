"""Materials: how a surface reflects light, in linear Rec.709."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.shading.lights import Light, as_numbers, total_irradiance
from warpdvr.shading.srgb import linear


class Material(ABC):
    """How a surface reflects."""

    @abstractmethod
    def reflected(
        self,
        color: Float[Tensor, "n 3"],
        normal: Float[Tensor, "n 3"],
        direction: Float[Tensor, "n 3"],
        lights: Sequence[Light],
    ) -> Float[Tensor, "n 3"]:
        """Return the linear light that leaves a surface against the rays; differentiable.

        Args:
            color: linear colour of the surface.
            normal: outward unit normals.
            direction: unit directions of the rays that see the surface.
            lights: the lights.
        """


@dataclass(frozen=True)
class Lambert(Material):
    """A matte surface, equally bright from every direction (Lambert 1760)."""

    albedo: Sequence[float] | Tensor | None = None
    """sRGB colour in [0, 1] of the whole surface, such as clay; None: the colour of the field."""
    two_sided: bool = False
    """Light the visible side, for sheets whose normals may point away from the camera."""

    def __post_init__(self) -> None:
        if self.albedo is None:
            return
        albedo = as_numbers(self.albedo)
        if albedo is None or tuple(albedo.shape) != (3,) or not bool(((albedo >= 0) & (albedo <= 1)).all()):
            raise ValueError(
                f"Lambert: albedo must be three numbers in [0, 1], red, green and blue, got {self.albedo!r}"
            )

    def reflected(
        self,
        color: Float[Tensor, "n 3"],
        normal: Float[Tensor, "n 3"],
        direction: Float[Tensor, "n 3"],
        lights: Sequence[Light],
    ) -> Float[Tensor, "n 3"]:
        if self.albedo is not None:
            color = linear(torch.as_tensor(self.albedo).to(color)).expand_as(color)
        if self.two_sided:
            normal = torch.where((normal * direction).sum(1, keepdim=True) > 0, -normal, normal)
        return total_irradiance(lights, normal) * color
