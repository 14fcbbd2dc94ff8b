"""Lipschitz bounds of fields: whether there is one, and whether values respect it."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.fields.base import Field
from warpdvr.fields.slope import current_bound

ROUNDING = 1.02
"""Factor by which values may exceed a bound before the bound is considered wrong."""

GROWTH = 1.1
"""Factor on the steepest difference of values, for the next bound to try."""

PAIRS = 32
"""Pairs of random points at which a bound is checked before it is relied on."""

SPACING = 0.01
"""Distance between the points of a pair, as a fraction of the bounds' diagonal."""


def require_bound(field: Field) -> tuple[float, int]:
    """Return the Lipschitz bound of a field, and the evaluations if a measured one had to be measured again.

    Raises:
        ValueError: if it has none, or one that bounds nothing.
    """
    bound, evaluations = current_bound(field)
    if bound is None:
        raise ValueError(
            f"SphereTrace: {field.name}.lipschitz is None, but sphere tracing needs an upper bound of "
            "|grad value|; use DenseMarch for this field, or give SphereTrace a BoundGrid"
        )
    if not 0 < bound < float("inf"):
        raise ValueError(f"SphereTrace: {field.name}.lipschitz must be positive and finite, got {bound}")
    return float(bound), evaluations


def growth(steepest: float) -> float:
    """Return the factor by which a bound must grow after differences of `steepest` times the bound; 1 if it holds."""
    return GROWTH * steepest if steepest > ROUNDING else 1.0


def steepest_difference(
    evaluate: Callable[[Float[Tensor, "n 3"]], Float[Tensor, " n"]], bounds: Float[Tensor, "2 3"]
) -> float:
    """Return the steepest difference of values at `PAIRS` pairs of points in a box.

    A check before tracing: a ray that leaps over everything after one sample cannot notice that the bound is wrong.

    Args:
        evaluate: returns the values at points.
        bounds: corners of the box [scene unit].
    """
    low, high = bounds.detach().float()
    generator = torch.Generator().manual_seed(0)
    place = torch.rand(PAIRS, 3, generator=generator).to(low)
    offset = torch.nn.functional.normalize(torch.randn(PAIRS, 3, generator=generator), dim=-1).to(low)
    a = low + (high - low) * place
    b = (a + SPACING * (high - low).norm() * offset).clamp(low, high)
    f, g = evaluate(torch.cat([a, b])).view(2, PAIRS)
    return float(((f - g).abs() / (a - b).norm(dim=-1).clamp_min(1e-6)).nan_to_num().max())
