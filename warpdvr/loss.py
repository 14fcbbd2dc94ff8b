"""What a fit makes small. Every term is a mean over a set that its docstring states, so that no weight depends on the
number of pixels; over an empty set it is 0, with a gradient of 0."""

import torch
from torch import Tensor


def photometric(color: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of sRGB colours, over k pixels where the surface is seen and should be.

    Args:
        color, target: shape (k, 3), in [0, 1].
    """
    return _mean((color - target).abs().mean(-1))


def silhouette(soft: Tensor, target: Tensor, n: int) -> Tensor:
    """Binary cross entropy of the soft mask, mean over the n rays whose mask is known (Yariv et al. 2020, eq. 7).

    Args:
        soft: logits of the soft mask, -sharpness * value at the smallest value on the ray, for those of the n rays that
            do not hit the object where the mask has it, shape (k,). The others count as 0: their value is 0 by
            construction, and their colour teaches more.
        target: True where the mask has the object, shape (k,).
        n: number of rays whose mask is known.
    """
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(soft, target.to(soft), reduction="sum")
    return entropy / max(n, 1)


def eikonal(slope: Tensor) -> Tensor:
    """Mean squared deviation of |grad value| from 1, over n points (Gropp et al. 2020).

    Args:
        slope: |grad value|, shape (n,).
    """
    return _mean((slope - 1).square())


def smoothness(normal: Tensor, beside: Tensor) -> Tensor:
    """Mean distance between the normals of neighbouring points, over k pairs (Niemeyer et al. 2020, supplement).

    Args:
        normal, beside: unit normals, shape (k, 3).
    """
    return _mean((normal - beside).square().sum(-1).clamp_min(1e-12).sqrt())


def _mean(x: Tensor) -> Tensor:
    return x.sum() / max(len(x), 1)
