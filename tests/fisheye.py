"""A projection that nobody ships, for tests of projections."""

from dataclasses import dataclass

import torch
from torch import Tensor

from warpdvr.cameras.projection import Projection, register_projection, to_pixel, to_plane


@register_projection
@dataclass(frozen=True, eq=False)
class Fisheye(Projection):
    """Of a lens that takes the angle theta off its axis to the radius tan(s theta) / s; s = 1/2 is stereographic."""

    name = "test-fisheye"
    s: Tensor

    def local_rays(self, K: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
        plane = to_plane(K, pixel)
        radius = plane.norm(dim=1, keepdim=True).clamp_min(1e-12)
        theta = torch.atan(self.s.to(K) * radius) / self.s.to(K)
        direction = torch.cat([plane * theta.sin() / radius, theta.cos()], 1)
        return torch.zeros_like(direction), direction

    def local_project(self, K: Tensor, x: Tensor) -> Tensor:
        radius = x[:, :2].norm(dim=1, keepdim=True).clamp_min(1e-12)
        theta = torch.atan2(radius, x[:, 2:])
        return to_pixel(K, x[:, :2] / radius * torch.tan(self.s.to(K) * theta) / self.s.to(K))
