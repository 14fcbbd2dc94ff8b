"""Cameras that are refined together with the shape."""

import torch
from torch import Tensor, nn


class Poses(nn.Module):
    """Camera-to-world matrices (v, 4, 4), each moved by a learnable twist that is 0 at first, see `perturb`.

    Photographs do not determine where the scene as a whole lies: rotating and shifting all cameras together with the
    shape changes nothing.
    """

    start: Tensor

    def __init__(self, start: Tensor):
        super().__init__()
        self.register_buffer("start", start.detach().clone())
        self.twist = nn.Parameter(start.new_zeros(len(start), 6))

    def forward(self) -> Tensor:
        return perturb(self.start, self.twist)

    @torch.no_grad()
    def resume(self, twist: Tensor) -> None:
        """Move the cameras by the twists (v, 6) of an earlier session.

        Raises:
            ValueError: if it had other cameras.
        """
        if twist.shape != self.twist.shape:
            raise ValueError(f"fit: the saved state has {len(twist)} cameras, but there are {len(self.twist)}")
        self.twist.copy_(twist)


def perturb(pose: Tensor, twist: Tensor) -> Tensor:
    """Return camera-to-world matrices (v, 4, 4), moved in their own axes by `twist` = (w, u), (v, 6); differentiable.

    A camera turns by the rotation vector w [radian] about the scene's origin, where the object is, and then shifts by u
    [scene unit]: with the origin at o in its axes, [R | c] becomes [R | c] [exp(w) | o - exp(w) o + u], which keeps R a
    rotation. Each number so changes the picture in a way of its own: w by what is seen of the object and by its roll, u
    by its place and size. A camera that turned about its centre would hardly tell w from u, and an optimiser that
    scales each number by itself, as Adam does, would creep.
    """
    turn, u = rotation(twist[:, :3]), twist[:, 3:]
    o = scene_origin(pose)
    shift = o - (turn @ o[..., None])[..., 0] + u
    R, centre = pose[:, :3, :3], pose[:, :3, 3]
    moved = centre + (R @ shift[..., None])[..., 0]
    return torch.cat([torch.cat([R @ turn, moved[..., None]], 2), pose[:, 3:]], 1)


def rotation(w: Tensor) -> Tensor:
    """Return the rotations (v, 3, 3) about axes by angles |w|, w (v, 3) [radian]; differentiable."""
    zero = torch.zeros_like(w[:, 0])
    rows = [zero, -w[:, 2], w[:, 1], w[:, 2], zero, -w[:, 0], -w[:, 1], w[:, 0], zero]
    turn: Tensor = torch.linalg.matrix_exp(torch.stack(rows, 1).view(-1, 3, 3))
    return turn


def scene_origin(pose: Tensor) -> Tensor:
    """Return where the scene's origin is in the axes of cameras (v, 4, 4), shape (v, 3)."""
    return -(pose[:, :3, :3].mT @ pose[:, :3, 3:])[..., 0]
