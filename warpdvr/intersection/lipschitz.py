"""Lipschitz bounds of fields: who has one, and whether it is one."""

from collections.abc import Callable

import torch
from torch import Tensor

from warpdvr.fields.base import Field

ROUNDING = 1.02
"""By how much values may differ more than a bound allows before it is taken for wrong."""

GROWTH = 1.1
"""Factor on the steepest difference that was seen, for the bound that is tried next."""

PAIRS = 32
"""Pairs of random points at which a bound is checked before it is relied on."""

APART = 0.01
"""How far apart these are, as a part of the bounds' diagonal."""


def promised(field: Field) -> float:
    """Return the Lipschitz bound of a field.

    Raises:
        ValueError: if it has none, or one that bounds nothing.
    """
    bound = field.lipschitz
    if bound is None:
        raise ValueError(
            f"SphereTrace: {field.name}.lipschitz is None, but sphere tracing needs an upper bound of "
            "|grad value|; use DenseMarch for this field, or give SphereTrace a BoundGrid"
        )
    if not 0 < bound < float("inf"):
        raise ValueError(f"SphereTrace: {field.name}.lipschitz must be positive and finite, got {bound}")
    return float(bound)


def measures(field: Field) -> bool:
    """Return whether a field's bound is what it has measured (`Field.bound_slope`), and no promise."""
    return field.lipschitz_is_measured


def excess(steepest: float) -> float:
    """Return the factor that a bound needs after differences of `steepest` times it were seen; 1 if it may stay."""
    return GROWTH * steepest if steepest > ROUNDING else 1.0


def differences(ask: Callable[[Tensor], Tensor], bounds: Tensor) -> float:
    """Return the steepest difference of values at `PAIRS` pairs of points in a box.

    A ray that leaps over everything after one look cannot notice that the bound is wrong.

    Args:
        ask: returns the values (n,) at points (n, 3).
        bounds: corners of the box, shape (2, 3).
    """
    low, high = bounds.detach().float()
    generator = torch.Generator().manual_seed(0)
    place = torch.rand(PAIRS, 3, generator=generator).to(low)
    aside = torch.nn.functional.normalize(torch.randn(PAIRS, 3, generator=generator), dim=-1).to(low)
    a = low + (high - low) * place
    b = (a + APART * (high - low).norm() * aside).clamp(low, high)
    f, g = ask(torch.cat([a, b])).view(2, PAIRS)
    return float(((f - g).abs() / (a - b).norm(dim=-1).clamp_min(1e-6)).nan_to_num().max())
