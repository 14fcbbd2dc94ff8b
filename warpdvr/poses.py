"""Cameras that are refined together with the shape."""

import torch
from torch import Tensor, nn


class Poses(nn.Module):
    """Camera-to-world matrices (v, 4, 4), each moved by a small rotation about its centre and a shift.

    A pose [R | c] becomes [exp(w) R | c + u] with w in radian and u in scene units, both 0 at first: the exponential
    keeps R a rotation. The photographs do not say where the scene as a whole lies: to rotate and shift all cameras
    together with the shape changes nothing.
    """

    start: Tensor

    def __init__(self, start: Tensor):
        super().__init__()
        self.register_buffer("start", start.detach().clone())
        self.moved = nn.Parameter(start.new_zeros(len(start), 6))

    def forward(self) -> Tensor:
        w, u = self.moved[:, :3], self.moved[:, 3:]
        zero = torch.zeros_like(w[:, 0])
        rows = [zero, -w[:, 2], w[:, 1], w[:, 2], zero, -w[:, 0], -w[:, 1], w[:, 0], zero]
        turn = torch.linalg.matrix_exp(torch.stack(rows, 1).view(-1, 3, 3))
        top = torch.cat([turn @ self.start[:, :3, :3], (self.start[:, :3, 3] + u)[..., None]], 2)
        return torch.cat([top, self.start[:, 3:]], 1)

    @torch.no_grad()
    def resume(self, moved: Tensor) -> None:
        """Move the cameras as an earlier session had moved them.

        Raises:
            ValueError: if it had other cameras.
        """
        if moved.shape != self.moved.shape:
            raise ValueError(f"fit: the saved state has {len(moved)} cameras, but there are {len(self.moved)}")
        self.moved.copy_(moved)
