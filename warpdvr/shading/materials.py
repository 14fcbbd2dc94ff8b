"""Materials: what a surface sends back of the light that reaches it, in linear Rec.709."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from warpdvr.shading.lights import Light, total_irradiance
from warpdvr.shading.srgb import linear


class Material(ABC):
    """How a surface reflects."""

    @abstractmethod
    def reflected(self, color: Tensor, normal: Tensor, direction: Tensor, lights: Sequence[Light]) -> Tensor:
        """Return the linear light (n, 3) that leaves a surface against the rays; differentiable.

        Args:
            color: the surface's own colour, linear, shape (n, 3).
            normal: outward unit normals, shape (n, 3).
            direction: unit directions of the rays that see it, shape (n, 3).
            lights: what it is lit by.
        """


@dataclass(frozen=True)
class Lambert(Material):
    """A matte surface: as bright from every side as the light that it gets (Lambert 1760)."""

    albedo: tuple[float, float, float] | None = None
    """sRGB colour in [0, 1] of all of it, such as clay; None: the surface's own."""
    two_sided: bool = False
    """Light the side that is seen, for sheets whose normals may point away from the camera."""

    def reflected(self, color: Tensor, normal: Tensor, direction: Tensor, lights: Sequence[Light]) -> Tensor:
        if self.albedo is not None:
            color = linear(torch.tensor(self.albedo).to(color)).expand_as(color)
        if self.two_sided:
            normal = torch.where((normal * direction).sum(1, keepdim=True) > 0, -normal, normal)
        return total_irradiance(lights, normal) * color
