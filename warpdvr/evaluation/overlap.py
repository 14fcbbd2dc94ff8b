"""Intersection over union."""

import torch
from torch import Tensor


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return how much two masks overlap, from 0 to 1: the size of their intersection over that of their union.

    Not differentiable for masks of bool. Where both are empty it is 0.

    Args:
        a, b: shape (..., h, w), one score for each picture; bool, or how much of each pixel is covered, from 0 to 1,
            where the smaller and the larger of both count as intersection and union.

    Returns:
        Shape (...), float.
    """
    both, either = torch.minimum(a, b).sum((-2, -1)), torch.maximum(a, b).sum((-2, -1))
    return torch.where(either > 0, both / either, 0.0)
