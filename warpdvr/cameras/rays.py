"""Rays, and the pixel centres that they pass through."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from warpdvr.kernels import rays as _rays
from warpdvr.runtime.launch import launch


@dataclass(frozen=True)
class Rays:
    """Rays x = origin + t direction."""

    origin: Float[Tensor, "n 3"]
    """Where each ray starts [scene unit]."""
    direction: Float[Tensor, "n 3"]
    """Unit length, so that t is a length."""
    shape_index: Int[Tensor, " n"] | None = None
    """Which shape of a conditional field each ray looks at, int64; None for a field of one shape."""

    def __len__(self) -> int:
        return len(self.origin)

    def __getitem__(self, index: Int[Tensor, " k"] | Bool[Tensor, " n"] | slice) -> "Rays":
        return Rays(
            self.origin[index], self.direction[index], None if self.shape_index is None else self.shape_index[index]
        )

    def clip(self, bounds: Float[Tensor, "2 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Return near and far, the ray lengths between which each ray is inside the box `bounds` (low, high).

        `near` is at least 0; `near > far` means that the ray misses the box. Not differentiable.
        """
        near, far = self.origin.new_empty(2, len(self), dtype=torch.float32)
        low, high = bounds.tolist()
        o, d = (a.detach().float().contiguous() for a in (self.origin, self.direction))
        launch(_rays.clip, len(self), [o, d, low, high], [near, far], per_row=[o, d])
        return near, far

    def at(self, t: Float[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        """Return the points at ray lengths `t`; differentiable."""
        return self.origin + t[:, None] * self.direction


def pixel_centres(width: int, height: int, device: torch.device | str = "cpu") -> Float[Tensor, "n 2"]:
    """Return the centres (u, v) of all n = width * height pixels in row-major order."""
    v, u = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([u, v], -1).reshape(-1, 2) + 0.5
