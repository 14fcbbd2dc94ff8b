"""A texture in space: colours that vary on several scales, so that photographs tell where their points lie."""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.shading.srgb import linear

SCALES = ((0.3, 0.35), (0.11, 0.4), (0.045, 0.25))
"""Size of the cells of an octave [scene unit], and its share of the contrast."""

DARK, BRIGHT = 0.15, 0.98
"""The sRGB colours lie between them."""

REACH = 1.0
"""Largest coordinate at which the texture varies [scene unit]."""


def value_noise(x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Return linear colours of points [scene unit]: sums of random values at lattice corners, smoothly interpolated.

    After Perlin, "An Image Synthesizer" (1985), with values instead of gradients. They depend on the place alone.
    """
    total = torch.zeros_like(x)
    for octave, (size, share) in enumerate(SCALES):
        table = _table(octave)
        place = x.clamp(-REACH, REACH) / size
        low = place.floor()
        smooth = low + (place - low) ** 2 * (3 - 2 * (place - low))
        half = (table.shape[-1] - 1) // 2
        sampled = torch.nn.functional.grid_sample(table, (smooth / half)[None, None, None], align_corners=True)
        total += share * sampled[0, :, 0, 0].T
    steep = torch.sigmoid(14 * (total - 0.5))  # sums of random numbers gather in the middle
    return linear(DARK + (BRIGHT - DARK) * steep)


@cache
def _table(octave: int) -> Float[Tensor, "1 3 n n n"]:
    """Return three random values from 0 to 1 for each corner of a lattice around the origin."""
    half = int(REACH / SCALES[octave][0]) + 1
    generator = torch.Generator().manual_seed(octave)
    return torch.rand(1, 3, *[2 * half + 1] * 3, generator=generator)
