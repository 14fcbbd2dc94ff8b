"""Convert between sRGB values and linear light (IEC 61966-2-1)."""

import torch
from jaxtyping import Float
from torch import Tensor


def linear(srgb: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return linear Rec.709 values of sRGB values in [0, 1]."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)


def encode(light: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return sRGB values of linear Rec.709 values in [0, 1]; the inverse of `linear`."""
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)
