"""Occupancy as a logit: its level set, and the ball that a field starts from (Niemeyer et al., DVR, 2020)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def logit(field: str, level: float) -> float:
    """Return the logit of the occupancy probability on the surface, tau in the paper.

    Args:
        field: name of the field, for the error.
        level: the probability.

    Raises:
        ValueError: if the level does not lie between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"{field}: level must lie between 0 and 1, got {level}")
    return math.log(level / (1 - level))


def ball(x: Float[Tensor, "n 3"], radius: float, steepness: float) -> Float[Tensor, " n"]:
    """Return -logit(occupancy) of a ball around the origin: < 0 inside, differentiable at its centre too."""
    length: Tensor = torch.sqrt(x.square().sum(-1) + 1e-12)
    return steepness * length - steepness * radius
