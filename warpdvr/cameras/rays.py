"""Rays, and the pixel centres that they pass through."""

from dataclasses import dataclass

import torch
from torch import Tensor

from warpdvr.kernels import rays as _rays
from warpdvr.runtime.launch import launch


@dataclass(frozen=True)
class Rays:
    """Rays x = origin + t direction."""

    origin: Tensor
    """Shape (n, 3) [scene unit]."""
    direction: Tensor
    """Shape (n, 3), unit length, so that t is a length."""
    shape_index: Tensor | None = None
    """Which of a conditioned field's shapes each ray looks at, shape (n,), int64; None for a field of one shape."""

    def __len__(self) -> int:
        return len(self.origin)

    def __getitem__(self, index: Tensor | slice) -> "Rays":
        return Rays(
            self.origin[index], self.direction[index], None if self.shape_index is None else self.shape_index[index]
        )

    def clip(self, bounds: Tensor) -> tuple[Tensor, Tensor]:
        """Return near and far, each (n,): the part of each ray inside of the box `bounds` (2, 3).

        `near` is at least 0; `near > far` says that the ray misses the box. Not differentiable.
        """
        near, far = self.origin.new_empty(2, len(self), dtype=torch.float32)
        low, high = bounds.tolist()
        o, d = (a.detach().float().contiguous() for a in (self.origin, self.direction))
        launch(_rays.clip, len(self), [o, d, low, high], [near, far], per_row=[o, d])
        return near, far

    def at(self, t: Tensor) -> Tensor:
        """Return the points at ray lengths `t` (n,), shape (n, 3)."""
        return self.origin + t[:, None] * self.direction


def pixel_centres(width: int, height: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the centres (u, v) of all pixels in row-major order, shape (width * height, 2)."""
    v, u = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([u, v], -1).reshape(-1, 2) + 0.5
