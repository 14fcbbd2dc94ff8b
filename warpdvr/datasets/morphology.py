"""Dilate masks, and find the pixels along their outlines."""

import torch
from jaxtyping import Bool
from torch import Tensor


def dilate(mask: Bool[Tensor, "*views h w"], radius: int) -> Bool[Tensor, "*views h w"]:
    """Return the pixels with a pixel of the mask at most `radius` rows and `radius` columns away."""
    return torch.nn.functional.max_pool2d(mask.float()[None], 2 * radius + 1, stride=1, padding=radius)[0] > 0


def outline_band(mask: Bool[Tensor, "*views h w"], radius: int) -> Bool[Tensor, "*views h w"]:
    """Return the pixels at most `radius` away both from a pixel of the mask and from one outside it."""
    return dilate(mask, radius) & dilate(~mask, radius)
