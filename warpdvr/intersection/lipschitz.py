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


def pairs(
    evaluate: Callable[[Float[Tensor, "n 3"]], Float[Tensor, " n"]], bounds: Float[Tensor, "2 3"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, " n"]]:
    """Return the points of n / 2 = `PAIRS` pairs in a box, first the one half and then the other, and their values.

    Args:
        evaluate: returns the values at points.
        bounds: corners of the box [scene unit].
    """
    low, high = bounds.detach().float()
    generator = torch.Generator().manual_seed(0)
    place = torch.rand(PAIRS, 3, generator=generator, device="cpu").to(low)
    offset = torch.nn.functional.normalize(torch.randn(PAIRS, 3, generator=generator, device="cpu"), dim=-1).to(low)
    a = low + (high - low) * place
    x = torch.cat([a, (a + SPACING * (high - low).norm() * offset).clamp(low, high)])
    return x, evaluate(x)


def steepest_difference(x: Float[Tensor, "n 3"], value: Float[Tensor, " n"]) -> float:
    """Return the steepest difference of the values at pairs of points, see `pairs`.

    A check before tracing: a ray that leaps over everything after one sample cannot notice that the bound is wrong.
    """
    (a, b), (f, g) = x.chunk(2), value.chunk(2)
    return float(((f - g).abs() / (a - b).norm(dim=-1)).nan_to_num().max())
