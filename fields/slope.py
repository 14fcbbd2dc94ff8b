"""How steep a field is."""

from collections.abc import Callable

import torch
from torch import Tensor


def steepest(value: Callable[[Tensor], Tensor], bounds: Tensor, points: int) -> Tensor:
    """Return the largest |grad value| among random points of the bounds, always the same ones.

    An estimate of the Lipschitz bound: a network has none that is both proven and useful.
    """
    low, high = bounds
    generator = torch.Generator().manual_seed(0)
    x = low + (high - low) * torch.rand(points, 3, generator=generator).to(low)
    with torch.enable_grad():
        x.requires_grad_()
        (slope,) = torch.autograd.grad(value(x).sum(), x)
    return slope.norm(dim=-1).max()
