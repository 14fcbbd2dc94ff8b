"""Say why nothing is seen: no value is negative, rays start inside, the sign is turned round, rays stay undecided.

Pictures warn of it; fits, meshes and `warpdvr.testing.check_field` refuse it.
"""

import math
import warnings
from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field, query, query_all
from warpdvr.intersection.hit import Hit, Status

SIGN = "is the sign turned round? A value is < 0 inside and > 0 outside"
NOTHING_INSIDE = f"no sampled value is negative, so there is nothing inside; {SIGN}"
STARTS_INSIDE = f"start inside: the camera, or a side of the bounds, may be inside of the object; or {SIGN}"

INSIDE_OUT = (
    "most values on the sides of the bounds are negative, and positive ones lie in the middle, so the surface is open "
    f"at the bounds; {SIGN}, also in a room, whose mesh is that of the air in it"
)

MANY_UNDECIDED = (
    "many rays stay undecided (GAVE_UP): give SphereTrace or RangeMarch more max_steps or CachedMarch more cells, or "
    "take intersect=DenseMarch(), for which a ray is undecided only where a value is not a number"
)

FEW = 0.01
"""Largest share of rays that may hit a field without a negative value: those with a sample of exactly 0."""

INSIDE = 0.6, 0.9
"""Shares of the rays that start inside, among those that hit or start inside, from which on this is told: the first one
counts if the field is inside out, the second one anyway. An object may be cut off by the bounds."""

UNDECIDED = 0.05
"""Share of the rays that do not miss from which on those that gave up are more than a few grazing ones."""

LATTICES = 5, 17
"""Points along each side of the bounds at which a negative value is looked for, one lattice after the other."""

ROUNDS = 6
"""How often the neighbourhoods of the smallest values are then looked at, each time at half the distance."""

KEPT = 8
"""Number of these neighbourhoods."""

DEEPER = 1.25
"""Factor by which positive points lie deeper in the bounds than negative ones in a field that is inside out; 1 for a
pattern that the bounds cut off anywhere."""


@torch.no_grad()
def lowest_value(field: Field, sign: int = 1) -> tuple[float, int]:
    """Return a small value inside the bounds, and the number of evaluations, which ends with the first negative one.

    Lattices of the bounds are evaluated, then points around the smallest values: up to about 8,000 points, and 125
    for most fields that have a negative value.

    Args:
        field: of one shape.
        sign: 1, or -1 for the lowest of the negative values, so that a positive value ends it.
    """
    low, high = field.bounds
    around = torch.cartesian_prod(*[torch.arange(-1, 2)] * 3).to(low)
    lowest, evaluations = math.inf, 0
    for n in LATTICES:
        x, step = low + (high - low) * torch.cartesian_prod(*[torch.linspace(0, 1, n)] * 3).to(low), (high - low) / n
        for _ in range(ROUNDS + 1):
            value = (sign * query_all(field, x)).nan_to_num(math.inf, math.inf, -math.inf)
            evaluations += len(x)
            lowest = min(lowest, float(value.min()))
            if lowest < 0:
                return lowest, evaluations
            best, step = x[value.topk(KEPT, largest=False).indices], step / 2
            x = (best[:, None] + step * around).reshape(-1, 3).clamp(low, high)
    return lowest, evaluations


@torch.no_grad()
def all_start_inside(field: Field, rays: Rays) -> tuple[bool, int]:
    """Return whether all rays that meet the bounds, and at least one does, start inside, and the evaluations."""
    near, far = rays.clip(field.bounds)
    crossing = rays[near <= far]
    value = query(field, crossing.at(near[near <= far]).to(field.bounds.dtype))
    return len(value) > 0 and bool((value < 0).all()), len(value)


@torch.no_grad()
def is_inside_out(field: Field) -> bool:
    """Return whether most of the bounds' sides are inside, and what is outside lies deep within the bounds.

    So it is where the sign is turned round, and in a room that is seen from within. An object that is cut off by the
    bounds has its outside along their sides. Evaluates 4,913 points.
    """
    low, high = field.bounds
    share = torch.cartesian_prod(*[torch.linspace(0, 1, LATTICES[-1])] * 3).to(low)
    inside = query_all(field, low + (high - low) * share) < 0
    depth = (0.5 - (share - 0.5).abs()).amin(1)
    on_sides = float(inside[depth == 0].float().mean())
    if on_sides <= 0.5 or inside.all():
        return False
    return float(depth[~inside].mean()) > DEEPER * float(depth[inside].mean())


def check_start(who: str, field: Field, rays: Rays, *, creates: bool) -> int:
    """Refuse to fit a field that no ray can hit; return the number of evaluations.

    Args:
        who: what the sentence begins with.
        field: of one shape.
        rays: some of those that the fit begins with.
        creates: whether the fit can make a surface where there is none. It cannot turn one round.

    Raises:
        ValueError: if no value is negative, or all rays start inside.
    """
    lowest, evaluations = lowest_value(field)
    if lowest >= 0 and not creates:
        raise ValueError(f"{who}: {NOTHING_INSIDE}")
    inside, at_rays = all_start_inside(field, rays)
    if not inside:
        return evaluations + at_rays
    highest, for_positive = lowest_value(field, -1)
    if highest < 0 or not creates:
        raise ValueError(f"{who}: all rays {STARTS_INSIDE}")
    return evaluations + at_rays + for_positive


def check_signs(who: str, field: Field) -> None:
    """Refuse a field without a negative value inside its bounds, and one that is inside out.

    Raises:
        ValueError: in one sentence, which begins with `who`.
    """
    if lowest_value(field)[0] >= 0:
        raise ValueError(f"{who}: {NOTHING_INSIDE}")
    if is_inside_out(field):
        raise ValueError(f"{who}: {INSIDE_OUT}")


def warn_of_rays(
    who: str, field: Field, rays: Callable[[], Rays], status: Int[Tensor, " n"], *, stacklevel: int
) -> int:
    """Warn if rays see nothing for another reason than that they look past the surface; return the evaluations.

    The field is evaluated only if most rays start inside, or hardly any of those that meet the bounds hits. The text
    depends on the kind of fault alone, so that a warning of many pictures is shown once.

    Args:
        who: the function that the sentence begins with.
        field: of one shape, or of several with `Rays.shape_index`.
        rays: returns the rays of a whole picture, of which most pictures need none here.
        status: what became of them.
        stacklevel: as for `warnings.warn`, counted from the caller.
    """
    if len(status) and (status != int(Status.HIT)).any():
        sentence, evaluations = _complaint(field, rays, status)
        if sentence:
            warnings.warn(f"{who}: {sentence}", stacklevel=stacklevel + 1)
        return evaluations
    return 0


def _complaint(field: Field, rays: Callable[[], Rays], status: Int[Tensor, " n"]) -> tuple[str, int]:
    """Return what is to be said of rays, if anything, and the evaluations that it took to find out."""
    hits, inside, gave_up = (int((status == s).sum()) for s in (Status.HIT, Status.INSIDE, Status.GAVE_UP))
    share, evaluations = inside / max(hits + inside, 1), 0
    turned = share >= INSIDE[1]
    if INSIDE[0] <= share < INSIDE[1] and rays().shape_index is None:
        turned, evaluations = is_inside_out(field), LATTICES[-1] ** 3
    if turned:
        return f"{'nearly all' if hits else 'no ray hits, because'} rays {STARTS_INSIDE}", evaluations
    if gave_up and gave_up >= UNDECIDED * (hits + inside + gave_up):
        return MANY_UNDECIDED, evaluations
    if hits <= FEW * len(status) and hits <= FEW * (crossing := _crossing(field, rays())) and crossing:
        lowest, evaluations = lowest_value(field)
        return f"hardly any ray hits: {NOTHING_INSIDE}" if lowest >= 0 else "", evaluations
    return "", evaluations


def _crossing(field: Field, rays: Rays) -> int:
    """Return how many rays meet the bounds, or 0 if they look at several shapes, of which only some may be empty."""
    near, far = rays.clip(field.bounds)
    return 0 if rays.shape_index is not None else int((near <= far).sum())


def nothing_hit(hit: Hit, steps: int, step: int) -> str:
    """Return the sentence that ends a fit in which no ray has hit anything for some steps."""
    inside = float((hit.status == int(Status.INSIDE)).float().mean())
    what = "fills the cameras' surroundings" if inside > 0.5 else "is empty"
    return (
        f"fit: the level set {what}, no ray has hit it for {steps} steps (step {step}); check that masks are white on "
        f"the object and that cameras and images belong together; {SIGN}"
    )
