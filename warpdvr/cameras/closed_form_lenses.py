"""Lenses with one or two coefficients whose inverse has a closed form: COLMAP's FOV, DIVISION and EUCM."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.cameras.lenses import Lens
from warpdvr.cameras.projection import register_projection


@register_projection
@dataclass(frozen=True, eq=False)
class FOVLens(Lens):
    """The field-of-view model: omega [radian]; Devernay and Faugeras (2001), "Straight lines have to be straight".

    A point at the radius r on the plane z = 1 appears at the radius atan(2 r tan(omega / 2)) / omega.
    """

    name = "fov"
    counts = (1,)

    def direction(self, plane: Float[Tensor, "n 2"]) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, " n"]]:
        omega = self.tensors()["coefficients"][0]
        q = (omega**2 * plane.square().sum(1, keepdim=True)).detach()
        exists = q < (math.pi / 2) ** 2
        plane = torch.where(exists, plane, 0.0)
        q = omega**2 * plane.square().sum(1, keepdim=True)
        small = q < 1e-5
        b = torch.where(small, 1.0, q).sqrt()
        scale = torch.where(small, 1 + q / 3 + 2 * q**2 / 15, b.tan() / b) / self._middle()
        return torch.cat([scale * plane, torch.ones_like(scale)], 1), exists[:, 0]

    def bend(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
        appears = x[:, 2] > 0
        x = torch.where(appears[:, None], x, torch.tensor([0.0, 0.0, 1.0]).to(x))
        p = x[:, :2] / x[:, 2:]
        omega = self.tensors()["coefficients"][0]
        q = (omega * self._middle()) ** 2 * p.square().sum(1, keepdim=True)
        small = q < 1e-5
        a = torch.where(small, 1.0, q).sqrt()
        return self._middle() * torch.where(small, 1 - q / 3 + q**2 / 5, a.atan() / a) * p, appears

    def pixel_size(self, K: Float[Tensor, "3 3"], z: Float[Tensor, "..."] | float) -> Float[Tensor, "... 2"]:
        return super().pixel_size(K, z) / self._middle().detach().to(K)

    def _middle(self) -> Float[Tensor, ""]:
        """Return the scale in the middle of the image, 2 tan(omega / 2) / omega."""
        omega = self.tensors()["coefficients"][0]
        small = omega.abs() < 1e-2
        safe = torch.where(small, 1.0, omega)
        return torch.where(small, 1 + omega**2 / 12 + omega**4 / 120, 2 * (safe / 2).tan() / safe)


@register_projection
@dataclass(frozen=True, eq=False)
class DivisionLens(Lens):
    """The division model: k; Fitzgibbon (2001), "Simultaneous linear estimation of multiple view geometry".

    The point (x, y) of the image plane shows the direction (x, y, 1 + k (x^2 + y^2)).
    """

    name = "division"
    counts = (1,)

    def direction(self, plane: Float[Tensor, "n 2"]) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, " n"]]:
        bent = self.tensors()["coefficients"] * plane.square().sum(1, keepdim=True)
        return torch.cat([plane, 1 + bent], 1), bent.detach()[:, 0] < 1

    def bend(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
        # k rho^2 s^2 - z s + 1 = 0 for the scale s of (x, y); the root that is 1 / z without distortion
        k, z = self.tensors()["coefficients"], x[:, 2:]
        under = z.square() - 4 * k * x[:, :2].square().sum(1, keepdim=True)
        appears = (under > 0) & (z + under.clamp_min(0).sqrt() > 0)
        root = torch.where(appears, under, 1.0).sqrt()
        return torch.where(appears, 2 / torch.where(appears, z + root, 1.0) * x[:, :2], 0.0), appears.detach()[:, 0]


@register_projection
@dataclass(frozen=True, eq=False)
class EUCMLens(Lens):
    """The enhanced unified camera model: alpha, beta; Khomutenko, Garcia and Martinet (2016).

    A point appears at (x, y) / (alpha sqrt(beta (x^2 + y^2) + z^2) + (1 - alpha) z).

    Raises:
        ValueError: if alpha is not in [0, 1] or beta is not positive.
    """

    name = "eucm"
    counts = (2,)

    def __post_init__(self) -> None:
        super().__post_init__()
        alpha, beta = self.tensors()["coefficients"].tolist()
        if not (0 <= alpha <= 1 and beta > 0):
            raise ValueError(f"EUCMLens: alpha must lie in [0, 1] and beta be positive, got {alpha:.6g} and {beta:.6g}")

    def direction(self, plane: Float[Tensor, "n 2"]) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, " n"]]:
        alpha, beta = self.tensors()["coefficients"].unbind()
        under = 1 - (2 * alpha - 1) * beta * plane.square().sum(1, keepdim=True)
        exists = under.detach() > 0
        q = torch.where(exists, plane, 0.0).square().sum(1, keepdim=True)
        root = torch.where(exists, under, 1.0).sqrt()
        z = (1 - beta * alpha**2 * q) / (alpha * root + 1 - alpha)
        return torch.cat([plane, z], 1), exists[:, 0]

    def bend(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
        alpha, beta = self.tensors()["coefficients"].unbind()
        z = x[:, 2:]
        length = (beta * x[:, :2].square().sum(1, keepdim=True) + z.square()).clamp_min(1e-300).sqrt()
        least = -torch.minimum(alpha, 1 - alpha) / torch.maximum(alpha, 1 - alpha)
        depth = alpha * length + (1 - alpha) * z
        appears = ((z > least * length) & (depth > 0)).detach()
        return torch.where(appears, x[:, :2] / torch.where(appears, depth, 1.0), 0.0), appears[:, 0]
