"""Masks that grow, and what lies along their outlines."""

import torch
from torch import Tensor


def dilate(mask: Tensor, radius: int) -> Tensor:
    """Return the pixels (h, w), bool, with one of the mask (h, w) at most `radius` away along rows and columns."""
    return torch.nn.functional.max_pool2d(mask.float()[None], 2 * radius + 1, stride=1, padding=radius)[0] > 0


def outline_band(mask: Tensor, radius: int) -> Tensor:
    """Return the pixels (h, w), bool, at most `radius` away from the mask (h, w) and from what is not of it."""
    return dilate(mask, radius) & dilate(~mask, radius)
