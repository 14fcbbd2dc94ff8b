"""The box in which a surface is looked for: how it is given, and its size."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.runtime.inference_mode import outside_inference
from warpdvr.runtime.numbers import numbers

Bounds = Sequence[Sequence[float]] | Tensor | float
"""Two corners (low, high), or half the side of a cube around the origin [scene unit]."""


@outside_inference
def box(bounds: Bounds | object) -> Float[Tensor, "2 3"]:
    """Return the corners (low, high) of bounds, float32.

    Raises:
        ValueError: if the bounds are neither a positive number nor two finite corners low < high.
    """
    message = f"bounds must be a positive number or two corners low < high, got {bounds!r}"
    try:
        corners = torch.as_tensor(bounds, dtype=torch.float32)
    except (RuntimeError, TypeError, ValueError) as error:  # text, or rows of different lengths
        raise ValueError(message) from error
    if corners.ndim == 0:
        corners = corners * corners.new_tensor([[-1.0], [1.0]]).expand(2, 3)
    if tuple(corners.shape) != (2, 3) or not bool((corners.isfinite() & (corners[0] < corners[1])).all()):
        raise ValueError(message)
    return corners.clone()


def corner_numbers(bounds: Float[Tensor, "2 3"]) -> tuple[list[float], list[float]]:
    """Return the corners (low, high) of a box as numbers."""
    low, high = numbers(bounds)
    return low, high


def longest_side(bounds: Float[Tensor, "2 3"]) -> float:
    """Return the longest side of a box (low, high): the length that all lengths which nobody gives are shares of."""
    return max(b - a for a, b in zip(*corner_numbers(bounds), strict=True))
