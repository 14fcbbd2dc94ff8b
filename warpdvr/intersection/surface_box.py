"""The box that holds the whole surface, where a Lipschitz bound proves that most of the bounds is empty.

Lengths that nobody gives are shares of the bounds. Around an object that is tiny in its bounds they are too long, so
that rays would step over it; there they become shares of this box.
"""

import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.fields.base import Field
from warpdvr.fields.bounds import longest_side
from warpdvr.intersection import lipschitz

PROMISING = 0.7
"""The share of the longest side that may be left after the first points, if more are to be evaluated."""

SMALL = 1 / 8
"""A larger share of the longest side is no reason to search in a smaller box than the bounds."""

TINY = 1 / 100
"""A surface in a smaller share of the longest side than this is worth a warning."""

POINTS = 64
"""Known points that are used at first; as many are evaluated in every smaller box, as a lattice."""

CELLS = 8, 16
"""Cells along each side of a box that are proven free or not: of the bounds, and of each smaller box."""

ROUNDS = 40
"""Most boxes, one inside of the other."""

ROUNDING = 1e-6
"""Of a free ball, relative to its radius and to its distance from the origin."""

MARGIN = 0.05
"""Room that is left around the cells that may hold the surface [longest side of their box]."""

Evaluate = Callable[[Float[Tensor, "n 3"]], Float[Tensor, " n"]]


@torch.no_grad()
def surface_box(
    field: Field,
    bound: float | None,
    evaluate: Evaluate,
    known: tuple[Float[Tensor, "n 3"], Float[Tensor, " n"]] | None = None,
) -> Float[Tensor, "2 3"] | None:
    """Return a box in the bounds outside of which a field of one shape is positive, None unless it is small.

    Around a point the field is positive up to the distance value / `bound`. Boxes are divided into cells, those in
    such a ball are free, and the others span the next box. Ordinary objects cost no evaluation if some are `known`.

    Args:
        field: warns by its name, if the surface is tiny in its bounds.
        bound: an upper bound of |grad value|; None if there is none, then nothing is known. Nor is it if values
            differ by more.
        evaluate: returns its values at points.
        known: points that are spread over the bounds, and the values there; by default they are evaluated.
    """
    if bound is None or not 0 < bound < float("inf"):
        return None
    bounds = field.bounds.detach().float()
    size = longest_side(bounds)
    x, value = known or _evaluated(bounds, evaluate)
    if len(x) > POINTS:
        some = torch.randperm(len(x), generator=torch.Generator().manual_seed(0), device="cpu")[:POINTS].to(x.device)
        x, value = x[some], value[some]
    if bool((value <= 0).any()):  # then the inside is large: the cheapest answer for an ordinary object
        return None
    box = _left(bounds, CELLS[0], x, value / bound)
    if box is None or longest_side(box) > PROMISING * size:
        return None
    for _ in range(ROUNDS):
        x, value = _evaluated(box, evaluate)
        smaller = _left(box, CELLS[1], x, value / bound)
        if smaller is None:
            return None
        before, box = longest_side(box), smaller
        if longest_side(box) > 0.5 * before:
            break
    share = longest_side(box) / size
    steepest = lipschitz.steepest_difference(*lipschitz.pairs(evaluate, bounds))
    if share > SMALL or steepest > lipschitz.ROUNDING * bound:
        return None
    if share < TINY:
        _warn(field, box, share)
    margin = MARGIN * longest_side(box)
    return torch.stack([torch.maximum(box[0] - margin, bounds[0]), torch.minimum(box[1] + margin, bounds[1])])


def _evaluated(box: Float[Tensor, "2 3"], evaluate: Evaluate) -> tuple[Float[Tensor, "n 3"], Float[Tensor, " n"]]:
    """Return the centres of the cells of a lattice of `POINTS` cells, and the values there."""
    x = _centres(box, round(POINTS ** (1 / 3)))
    return x, evaluate(x)


def _left(
    box: Float[Tensor, "2 3"], n: int, x: Float[Tensor, "k 3"], radius: Float[Tensor, " k"]
) -> Float[Tensor, "2 3"] | None:
    """Return the box of those of n * n * n cells that lie in no ball around the points x; None if all do."""
    radius = torch.where(radius.isfinite(), (1 - ROUNDING) * radius - ROUNDING * x.norm(dim=-1), 0)
    cell, half = _centres(box, n), 0.5 * (box[1] - box[0]) / n
    distance = torch.cdist(cell, x, compute_mode="donot_use_mm_for_euclid_dist")
    free = (distance + half.norm() <= radius).any(1)
    if bool(free.all()):
        return None
    cell = cell[~free]
    return torch.stack([cell.amin(0) - half, cell.amax(0) + half])


def _centres(box: Float[Tensor, "2 3"], n: int) -> Float[Tensor, "m 3"]:
    place = (torch.arange(n, device=box.device) + 0.5) / n
    centres: Tensor = box[0] + (box[1] - box[0]) * torch.cartesian_prod(place, place, place)
    return centres


def _warn(field: Field, box: Float[Tensor, "2 3"], share: float) -> None:
    low, high = ([float(f"{a:.6g}") for a in corner.tolist()] for corner in box)
    warnings.warn(
        f"{field.name}: the surface lies within {low} to {high}, {share:.1g} of the longest side of its bounds; give "
        "bounds about as large as the object",
        stacklevel=4,
    )
