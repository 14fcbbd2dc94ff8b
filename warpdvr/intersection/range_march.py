"""Hits that are proven to be the first: bounds of a plain network along each ray.

Sharp and Jacobson, "Spelunking the Deep: Guaranteed Queries on General Neural Implicit Surfaces via Range Analysis"
(SIGGRAPH 2022). The arithmetic and the validity of its bounds are explained in warpdvr/intersection/affine.py.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field
from warpdvr.fields.bounds import longest_side
from warpdvr.intersection.affine import COST, Affine
from warpdvr.intersection.base import Solver
from warpdvr.intersection.hit import Hit, Status
from warpdvr.intersection.wavefront import RayBatch
from warpdvr.runtime.arguments import check_fields

TOLERANCE = 5e-6
"""Default of `RangeMarch.tolerance` [longest side of the bounds]."""

CHUNK = 1 << 12
"""Segments or boxes that are bounded at once."""

GROW, SHRINK = 1.25, 0.35
"""Factors on the length of the next segment: after a free one, and the least after one that is not."""

MIN_SEGMENT = 2.0**-10
"""A segment without a change of sign is shortened to this many tolerances; then the ray gives up."""


def bounds_in_boxes(field: Field, low: Tensor, high: Tensor) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """Return proven bounds (lower, upper) of the value in n boxes.

    A lower bound above 0 proves that there is no surface in a box, an upper bound below 0 that the box lies inside.

    Args:
        field: a field with `as_layers` (warpdvr/fields/layers.py).
        low, high: corners of the boxes, shape (n, 3), low <= high [scene unit].

    Raises:
        ValueError: if the field is not a plain network or the corners do not make boxes.
    """
    if low.shape != high.shape or low.shape[1:] != (3,) or not bool((low <= high).all()):
        shapes = f"{tuple(low.shape)} and {tuple(high.shape)}"
        raise ValueError(f"bounds_in_boxes: needs corners low <= high of shape (n, 3), got {shapes}")
    low, high = low.detach().double(), high.detach().double()
    spread = torch.diag_embed(0.5 * (high - low))
    base, slope, error = _bounds(Affine(field), 0.5 * (low + high), spread)
    radius = slope.abs().sum(1) + error
    return base - radius, base + radius


@dataclass(frozen=True)
class RangeMarch(Solver):
    """Segments of each ray that are proven free, until one is as short as the tolerance, for fields with `as_layers`.

    No crossing is stepped over, however thin the part: a ray that hits is proven free up to a segment of `tolerance`, a
    ray that misses is proven free as a whole, and a ray for which neither can be proven gives up. This holds for the
    network in exact arithmetic; in the last segment, where the bounds decide nothing, the float32 sign counts.

    Along a ray the value is a straight line up to an error. Where the line is certainly below 0 further on, the
    crossing lies between the first place where it can be 0 and the last where it must be: that is the next segment.

    `Hit.evaluations` counts points at which the field is evaluated, and each bound as `COST` = 4: it takes as many
    products with the weights as 4 points, in float64.
    """

    tolerance: float | None = None
    """Length of the segment that holds the crossing, and largest distance of a hit from it [scene unit]; by default
    5e-6 of the longest side of the bounds."""
    first: int = 16
    """The first segment is this fraction, 1 / `first`, of the ray's part inside the bounds."""
    max_steps: int = 1024
    """Number of segments on one ray after which it gives up."""

    def __post_init__(self) -> None:
        check_fields(self)
        wrong = self.tolerance is not None and not self.tolerance > 0
        if wrong or self.first < 1 or self.max_steps < 1:
            raise ValueError(
                "RangeMarch: needs tolerance > 0, first >= 1 and max_steps >= 1, got "
                f"{self.tolerance}, {self.first} and {self.max_steps}"
            )

    @property
    def points_per_ray(self) -> int:
        return 1

    @torch.no_grad()
    def __call__(self, field: Field, rays: Rays) -> Hit:
        if rays.shape_index is not None:
            raise ValueError(
                "RangeMarch: holds for a field of one shape, but these rays look at several (Rays.shape_index)"
            )
        batch, network = RayBatch(field, rays), Affine(field)
        tolerance = TOLERANCE * longest_side(batch.bounds) if self.tolerance is None else self.tolerance
        near, far = batch.near.double(), batch.far.double()
        march = _March(near.clone(), (far - near) / self.first)
        for _ in range(self.max_steps):
            ray = batch.active().long()
            if len(ray) == 0:
                break
            start = march.t[ray]
            inside = march.advance(network, batch, ray, torch.minimum(start + march.step[ray], far[ray]))
            batch.status[ray[inside & (start == near[ray])]] = int(Status.INSIDE)
            batch.status[ray[march.t[ray] >= far[ray]]] = int(Status.MISS)
            ray = batch.active().long()
            _close(batch, march, ray[march.step[ray] <= tolerance], tolerance)
        batch.note_lowest(march.lowest_at.float(), march.lowest.float())
        return batch.finish(tolerance)


class _March:
    """How far each of n rays is proven free."""

    def __init__(self, t: Float64[Tensor, " n"], step: Float64[Tensor, " n"]):
        self.t, self.step = t, step
        """Everything before `t` is proven free; the next segment is `step` long [scene unit]."""
        self.enters = torch.zeros_like(t, dtype=torch.bool)
        """Whether the next segment is proven to end inside."""
        self.lowest_at, self.lowest = torch.full_like(t, torch.nan), torch.full_like(t, torch.inf)
        """Ray length where the line was lowest, and its value there."""

    def advance(
        self, network: Affine, batch: RayBatch, ray: Int[Tensor, " k"], end: Float64[Tensor, " k"]
    ) -> Bool[Tensor, " k"]:
        """Bound the segments of rays from `t` to `end`, go as far as they are free, and set the next step.

        Returns:
            Whether they are proven to start inside.
        """
        batch.evaluations += COST * len(ray)
        o, d = batch.o[ray].double(), batch.d[ray].double()
        start = self.t[ray]
        half = 0.5 * (end - start)
        base, slope, error = _bounds(network, o + (start + half)[:, None] * d, (half[:, None] * d)[:, None])
        slope = slope[:, 0]
        self._note_lowest(ray, start + half * (1 - slope.sign()), base - slope.abs())
        # where the value can first be 0, and where it must be below, in halves of the segment from its middle on
        first_zero = torch.where(slope < 0, (error - base) / slope, torch.inf)
        first_zero = torch.where(base - slope - error > 0, first_zero, -1.0)
        last_zero = torch.where(slope < 0, (-error - base) / slope, torch.inf)
        free = (0.5 * (first_zero + 1)).clamp(0, 1)
        self.t[ray] = torch.where(free >= 1, end, start + 2 * free * half)
        gap = torch.where(last_zero < 1, (last_zero - first_zero.clamp_min(-1)) * half * (1 + 1e-9), torch.inf)
        usual = 2 * half * torch.where(free >= 1, GROW, free.clamp_min(SHRINK))
        self.enters[ray] = gap <= usual
        self.step[ray] = torch.minimum(usual, gap)
        return base - slope + error < 0

    def _note_lowest(self, ray: Int[Tensor, " k"], at: Float64[Tensor, " k"], value: Float64[Tensor, " k"]) -> None:
        lower = value < self.lowest[ray]
        self.lowest_at[ray[lower]], self.lowest[ray[lower]] = at[lower], value[lower]


def _close(batch: RayBatch, march: _March, ray: Tensor, tolerance: float) -> None:
    """Evaluate the field at the ends of the last segments; a proven sign overrules an evaluated one."""
    t, enters = march.t[ray], march.enters[ray]
    low, high = t.float(), torch.minimum(t + march.step[ray], batch.far[ray].double()).float()
    o, d = batch.o[ray], batch.d[ray]
    f_low, f_high = (batch.evaluate(o + at[:, None] * d, ray) for at in (low, high))
    undecided = f_low.isnan() | f_high.isnan() | ((f_high > 0) & (f_low > 0) & ~enters)
    short = march.step[ray] <= MIN_SEGMENT * tolerance
    batch.status[ray[undecided & (short | f_low.isnan() | f_high.isnan())]] = int(Status.GAVE_UP)
    inside = (f_low <= 0) & (low == batch.near[ray])
    batch.status[ray[inside]] = int(Status.INSIDE)
    f_low, f_high = f_low.clamp_min(0), f_high.clamp_max(0)  # other signs are rounding: 0 ends the search there
    batch.cross(ray, (low, high, f_low, f_high), ~undecided & ~inside)


def _bounds(
    network: Affine, x: Float64[Tensor, "n 3"], spread: Float64[Tensor, "n k 3"]
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, "n k"], Float64[Tensor, " n"]]:
    """Return `Affine.bound` of any number of segments or boxes."""
    bounds = [network.bound(*part) for part in zip(x.split(CHUNK), spread.split(CHUNK), strict=True)]
    base, slope, error = (torch.cat(column) for column in zip(*bounds, strict=True))
    return base, slope, error
