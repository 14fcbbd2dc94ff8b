"""Rays, and the pixel centres that they pass through."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from warpdvr.kernels import rays as _rays
from warpdvr.kernels.rays import ROUNDING
from warpdvr.runtime.arguments import check_device
from warpdvr.runtime.launch import launch


@dataclass(frozen=True)
class Rays:
    """Rays x = origin + t direction."""

    origin: Float[Tensor, "n 3"]
    """Where each ray starts [scene unit]."""
    direction: Float[Tensor, "n 3"]
    """Where each ray goes. Of unit length for the rays of a camera, so that t is a length; any other length is the unit
    of t. A direction that is 0 or not finite is that of no ray: its search gives up."""
    shape_index: Int[Tensor, " n"] | None = None
    """Which shape of a conditional field each ray looks at, int64; None for a field of one shape."""

    def __post_init__(self) -> None:
        o, d, index = self.origin, self.direction, self.shape_index
        for name, part in (("origin", o), ("direction", d)):
            if not isinstance(part, Tensor) or part.ndim != 2 or part.shape[1] != 3 or not part.is_floating_point():
                raise ValueError(f"Rays: {name} must be a tensor of floats of shape (n, 3), got {_described(part)}")
        if len(o) != len(d) or o.device != d.device:
            raise ValueError(
                f"Rays: origin and direction must have one row for each ray, on one device, got {len(o)} on {o.device} "
                f"and {len(d)} on {d.device}"
            )
        if index is not None and (not isinstance(index, Tensor) or index.shape != (len(o),)):
            raise ValueError(f"Rays: shape_index must be a tensor of shape ({len(o)},), got {_described(index)}")
        check_device("Rays", o.device, "origin", shape_index=index)

    def __len__(self) -> int:
        return len(self.origin)

    def __getitem__(self, index: Int[Tensor, " k"] | Bool[Tensor, " n"] | slice) -> "Rays":
        return Rays(
            self.origin[index], self.direction[index], None if self.shape_index is None else self.shape_index[index]
        )

    def to(self, device: torch.device | str) -> "Rays":
        """Return the rays on a device."""
        index = None if self.shape_index is None else self.shape_index.to(device)
        return Rays(self.origin.to(device), self.direction.to(device), index)

    def normalised(self) -> tuple["Rays", Float[Tensor, " n"]]:
        """Return the rays with directions of unit length, and the lengths that these had; both differentiable.

        A length that is 1 up to `ROUNDING` counts as 1, and its direction is left unchanged. It is NaN for what is no
        ray: an origin or a direction that is not finite, or a direction of length 0.
        """
        length = self.direction.norm(dim=-1)
        length = torch.where((length - 1).abs() <= ROUNDING, 1.0, length)
        valid = (length > 0) & length.isfinite() & self.origin.isfinite().all(-1)
        # divided by 1 and replaced, so that the gradient of what is no ray is 0 and not NaN
        direction = torch.where(valid[:, None], self.direction / torch.where(valid, length, 1.0)[:, None], torch.nan)
        return Rays(self.origin, direction, self.shape_index), torch.where(valid, length, torch.nan)

    def clip(self, bounds: Float[Tensor, "2 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Return near and far, the values of t between which each ray is inside the box `bounds` (low, high).

        `near` is at least 0; `near > far` means that the ray misses the box. Not differentiable.
        """
        near, far = self.origin.new_empty(2, len(self), dtype=torch.float32)
        o, d, box = (a.detach().float().contiguous() for a in (self.origin, self.direction, bounds))
        launch(_rays.clip, len(self), [o, d, box], [near, far], per_row=[o, d])
        return near, far

    def at(self, t: Float[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        """Return the points at `t`; differentiable."""
        return self.origin + t[:, None] * self.direction


def pixel_centres(width: int, height: int, device: torch.device | str = "cpu") -> Float[Tensor, "n 2"]:
    """Return the centres (u, v) of all n = width * height pixels in row-major order."""
    v, u = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([u, v], -1).reshape(-1, 2) + 0.5


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)} of {value.dtype}"
    return f"a {type(value).__name__}"
