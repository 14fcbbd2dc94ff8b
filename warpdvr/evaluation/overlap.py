"""Intersection over union."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from warpdvr.runtime.arguments import check_device


def iou(a: Shaped[Tensor, "*#batch h w"], b: Shaped[Tensor, "*#batch h w"]) -> Float[Tensor, "..."]:
    """Return the overlap of two masks, from 0 to 1: the area of their intersection over that of their union.

    Differentiable unless the masks are bool. If both masks are empty it is 0.

    Args:
        a, b: masks; bool, or the covered share of each pixel, from 0 to 1, with the smaller share as the intersection
            and the larger one as the union.

    Returns:
        One score per pair of pictures.

    Raises:
        ValueError: if the masks are on different devices.
    """
    check_device("iou", a.device, "a", b=b)
    intersection, union = torch.minimum(a, b).sum((-2, -1)), torch.maximum(a, b).sum((-2, -1))
    return torch.where(union > 0, intersection / union, 0.0)
