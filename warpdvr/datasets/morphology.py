"""Dilate masks, and find the pixels along their outlines."""

import torch
from jaxtyping import Bool
from torch import Tensor

BAND = 512
"""Rows that are dilated at once, for the memory."""


def dilate(mask: Bool[Tensor, "*views h w"], radius: int) -> Bool[Tensor, "*views h w"]:
    """Return the pixels with a pixel of the mask at most `radius` rows and `radius` columns away."""
    height, bands = mask.shape[-2], []
    for top in range(0, height, BAND):
        first, last = max(0, top - radius), min(top + BAND + radius, height)
        rows = mask[..., first:last, :].float()[None]
        grown = torch.nn.functional.max_pool2d(rows, 2 * radius + 1, stride=1, padding=radius)[0] > 0
        bands.append(grown[..., top - first : top - first + min(BAND, height - top), :])
    return torch.cat(bands, -2)


def outline_band(mask: Bool[Tensor, "*views h w"], radius: int) -> Bool[Tensor, "*views h w"]:
    """Return the pixels at most `radius` away both from a pixel of the mask and from one outside it."""
    return dilate(mask, radius) & dilate(~mask, radius)
