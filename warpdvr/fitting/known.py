"""Points that are known to lie on the surface: where pixels of known depth look at."""

from typing import Any

import torch
from torch import Tensor

from warpdvr.datasets.pixels import BACKGROUND, UNKNOWN, Drawn, Pixels


def beside(field: Any, drawn: Drawn, pixels: Pixels) -> tuple[Tensor, int]:
    """Return the mean |value| at the points of the object that are seen by rays of known depth, and how many they are.

    For a distance that is how far the surface passes beside them (Park et al., "DeepSDF", 2019, eq. 9 and section
    4.3). A difference of depths only exists where a ray hits, and its slope grows without bound where the ray grazes;
    this term has neither trouble, so it also draws a surface from afar to a few points. 0 if no depth is known.

    Args:
        field: any module that meets the contract of `warpdvr.Field`.
        drawn: rays of the training views, and what the photographs say.
        pixels: all of them: where no mask says whether a point is one of the object, those of the other views do.
    """
    right = ~drawn.depth.isnan() & (drawn.label != BACKGROUND)
    x = drawn.rays.at(torch.where(right, drawn.depth / drawn.forward, 0.0)).detach()
    if len(unsure := torch.nonzero(right & (drawn.label == UNKNOWN))[:, 0]):
        right[unsure] = pixels.inside(x[unsure], drawn.pose)
    low, high = field.bounds
    x = x.to(low)
    right &= ((low <= x) & (x <= high)).all(1)
    return field.value(x[right]).abs().sum() / max(int(right.sum()), 1), int(right.sum())
