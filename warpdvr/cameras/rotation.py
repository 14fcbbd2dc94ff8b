"""Whether a matrix is a rotation, and what to do if it is not."""

import torch
from jaxtyping import Float
from torch import Tensor

MIRRORED = "a mirror image (determinant -1): negate one axis of the world, or one axis of every camera"
"""What messages say of matrices that are rotations of a mirrored frame."""

TOLERANCE = 1e-3
"""The largest deviation of R R^T from the identity."""


def check_rotation(R: Float[Tensor, "3 3"], expected: str) -> None:
    """Check that a matrix is a rotation, up to `TOLERANCE`.

    Args:
        R: the matrix.
        expected: the beginning of the message: what must be a rotation.

    Raises:
        ValueError: if it is not; the message says so where it is that of a mirrored frame.
    """
    R = R.detach()
    orthogonal = bool((R @ R.T - torch.eye(3).to(R)).abs().max() <= TOLERANCE)
    if orthogonal and R.det() > 0:
        return
    raise ValueError(f"{expected}, got {R.tolist()}{f', {MIRRORED}' if orthogonal else ''}")
