"""Camera poses that are refined together with the shape."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Poses(nn.Module):
    """Camera-to-world matrices, each moved by a learnable twist that is 0 at first, see `perturb`.

    Photographs do not determine the pose of the scene as a whole: rotating and shifting all cameras together with the
    shape changes no image.
    """

    start: Float[Tensor, "v 4 4"]

    def __init__(self, start: Float[Tensor, "v 4 4"]):
        super().__init__()
        self.register_buffer("start", start.detach().clone())
        self.twist = nn.Parameter(start.new_zeros(len(start), 6))

    def forward(self) -> Float[Tensor, "v 4 4"]:
        return perturb(self.start, self.twist)

    @torch.no_grad()
    def resume(self, twist: Float[Tensor, "_ 6"]) -> None:
        """Move the cameras by the twists of an earlier session.

        Raises:
            ValueError: if that session had another number of cameras.
        """
        if twist.shape != self.twist.shape:
            raise ValueError(f"fit: the saved state has {len(twist)} cameras, but there are {len(self.twist)}")
        self.twist.copy_(twist)


def perturb(pose: Float[Tensor, "v 4 4"], twist: Float[Tensor, "v 6"]) -> Float[Tensor, "v 4 4"]:
    """Return camera-to-world matrices, moved in their own axes by `twist` = (w, u); differentiable.

    A camera turns by the rotation vector w [radian] about the scene's origin, where the object is, and then shifts by u
    [scene unit]: with the origin at o in its axes, [R | c] becomes `[R | c] [exp(w) | o - exp(w) o + u]`, which keeps R
    a rotation. The numbers thus change the picture in different ways: w the visible side of the object and its roll, u
    its position and size. For a camera that turns about its own centre, w and u would look almost the same, and an
    optimiser that scales each number separately, such as Adam, would converge slowly.
    """
    turn, u = rotation(twist[:, :3]), twist[:, 3:]
    o = scene_origin(pose)
    shift = o - (turn @ o[..., None])[..., 0] + u
    R, centre = pose[:, :3, :3], pose[:, :3, 3]
    new_centre = centre + (R @ shift[..., None])[..., 0]
    return torch.cat([torch.cat([R @ turn, new_centre[..., None]], 2), pose[:, 3:]], 1)


def rotation(w: Float[Tensor, "v 3"]) -> Float[Tensor, "v 3 3"]:
    """Return the rotations about the axes w by the angles |w| [radian]; differentiable."""
    zero = torch.zeros_like(w[:, 0])
    rows = [zero, -w[:, 2], w[:, 1], w[:, 2], zero, -w[:, 0], -w[:, 1], w[:, 0], zero]
    turn: Tensor = torch.linalg.matrix_exp(torch.stack(rows, 1).view(-1, 3, 3))
    return turn


def scene_origin(pose: Float[Tensor, "v 4 4"]) -> Float[Tensor, "v 3"]:
    """Return the scene's origin in the axes of each camera; differentiable."""
    return -(pose[:, :3, :3].mT @ pose[:, :3, 3:])[..., 0]
