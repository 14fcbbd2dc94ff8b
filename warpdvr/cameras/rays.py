"""Rays through the pixels of cameras."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from warpdvr.kernels import rays as _rays
from warpdvr.runtime.launch import launch

PROJECTIONS = {"perspective": _rays.perspective}
"""The kernel that makes the rays of each kind of camera."""


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

    def __getitem__(self, index: Any) -> "Rays":
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


def rays_of(K: Tensor, pose: Tensor, view: Tensor, pixel: Tensor, projection: str = "perspective") -> Rays:
    """Return rays through any pixels of many cameras.

    Args:
        K, pose: one matrix per camera, shapes (v, 3, 3) and (v, 4, 4); differentiable.
        view: camera of each ray, shape (n,), integer.
        pixel: position of each ray in its image, shape (n, 2) [pixel].
        projection: the kind of the cameras, a key of `PROJECTIONS`.
    """
    return Rays(*_RaysOf.apply(K, pose, view, pixel, PROJECTIONS[projection]))  # type: ignore[no-untyped-call]


class _RaysOf(torch.autograd.Function):
    """Forward by a kernel; backward by the derivative of normalize(R K^-1 (u, v, 1)), written out."""

    @staticmethod
    def forward(ctx: Any, K: Tensor, pose: Tensor, view: Tensor, pixel: Tensor, kernel: Any) -> tuple[Tensor, Tensor]:
        n = len(view)
        view, pixel = view.int().contiguous(), pixel.detach().float().contiguous()
        origin, direction = pixel.new_empty(2, n, 3)
        matrices = K.detach().float().contiguous(), pose.detach().float().contiguous()
        launch(kernel, n, [*matrices, view, pixel], [origin, direction], per_row=[view, pixel])
        ctx.save_for_backward(K, pose, view, pixel)
        return origin, direction

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        K, pose, view, pixel = ctx.saved_tensors
        with torch.enable_grad():
            k, m = K.detach().requires_grad_(), pose.detach().requires_grad_()
            (u, v), at = pixel.to(k).unbind(1), k[view]  # from here on as in the kernel
            y = (v - at[:, 1, 2]) / at[:, 1, 1]
            x = (u - at[:, 0, 2] - at[:, 0, 1] * y) / at[:, 0, 0]
            local = torch.stack([x, y, torch.ones_like(x)], 1)
            d = torch.nn.functional.normalize((m[view][:, :3, :3] @ local[..., None])[..., 0], dim=-1)
            o = m[view][:, :3, 3]
            needed = [g.to(d) for g in grads]
            grad_k, grad_m = torch.autograd.grad([o, d], [k, m], needed, allow_unused=True)
        return grad_k, grad_m, None, None, None
