"""Occupancy as a logit: its level set, and the ball that a field starts from (Niemeyer et al., DVR, 2020)."""

import math

import torch
from torch import Tensor


def logit(field: str, level: float) -> float:
    """Return the logit of the occupancy probability on the surface, tau in the paper; `field` is named in the error.

    Raises:
        ValueError: if it is no probability between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"{field}: level must lie between 0 and 1, got {level}")
    return math.log(level / (1 - level))


def ball(x: Tensor, radius: float, steepness: float) -> Tensor:
    """Return -logit(occupancy) of a ball around the origin at x (n, 3): < 0 inside, with a slope at its centre too."""
    length: Tensor = torch.sqrt(x.square().sum(-1) + 1e-12)
    return steepness * length - steepness * radius
