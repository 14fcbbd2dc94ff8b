"""Sphere tracing: steps as long as a Lipschitz bound proves to be free."""

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.adapter import warp_value_of
from warpdvr.fields.base import Field
from warpdvr.fields.bounds import longest_side
from warpdvr.fields.slope import trust_slope
from warpdvr.fields.warp_value import WarpValue
from warpdvr.intersection import fused, lipschitz
from warpdvr.intersection.base import Solver
from warpdvr.intersection.cones import MIN_RAYS, compact_order, free_lengths
from warpdvr.intersection.grid import BoundGrid
from warpdvr.intersection.grid_march import MAX_STEPS as MAX_GRID_STEPS
from warpdvr.intersection.grid_march import begin, march_grid
from warpdvr.intersection.hit import Hit, Status
from warpdvr.intersection.surface_box import surface_box
from warpdvr.intersection.wavefront import RayBatch
from warpdvr.kernels import sphere_trace as _trace
from warpdvr.runtime.arguments import check_fields
from warpdvr.runtime.launch import Packed, launch

MAX_STEPS = 256
"""Samples on one ray after which a `SphereTrace` gives up."""

THINNEST = 2.5e-3
"""Default of `SphereTrace.thinnest` [longest side of the bounds]."""

TOLERANCE = 2.5e-5
"""Default of `SphereTrace.tolerance` [longest side of the bounds]."""

TRIES = 6
"""Number of bounds that are tried before misses are reported as undecided."""


@dataclass(frozen=True)
class SphereTrace(Solver):
    """Steps as long as the field's Lipschitz bound proves to be free, for fields that have one.

    Rays from one eye begin where cones around many of them end (warpdvr/intersection/cones.py); then each ray steps
    as far as its values suggest and checks that nothing was skipped (kernels/sphere_trace.py); a root finder
    narrows the crossing. Parts thinner than `thinnest` along the ray may be stepped over; where the surface is
    proven to be tiny in the bounds, only the box around it is searched, and lengths that are not given are shares
    of that box (warpdvr/intersection/surface_box.py). The bound is checked on the way: if values differ by more
    than it allows, all rays are traced again with a larger bound, with a warning if the field had promised the
    smaller one; rays that stay undecided give up. Tracing other rays along with it changes a hit by no more than
    `tolerance`.
    """

    max_steps: int | None = None
    """Field evaluations on one ray before it gives up; by default 256, and 1024 through a grid."""
    relaxation: float = 2.0
    """The longest step, as a factor on the free distance: from 1 (plain sphere tracing) to 2."""
    thinnest: float | None = None
    """The shortest step, and the longest gap between parts that are known to be free [scene unit]; by default 2.5e-3 of
    the longest side of the bounds."""
    tolerance: float | None = None
    """Largest distance of a hit from the crossing; usually it is a tenth of this [scene unit]. By default 2.5e-5 of the
    longest side of the bounds."""
    grid: BoundGrid | None = None
    """Bounds of the field, which is then evaluated only where they leave room for a surface, with steps as long as the
    slopes there allow. With a grid, fields without a Lipschitz bound can be traced too."""
    cones: bool = True
    """Whether rays from one eye share their free space, and all rays a check of the bound; otherwise each ray is traced
    alone."""
    fused: bool = True
    """Whether a ray is traced in one kernel, without a wait for Torch at every step, where the field offers its value
    as a Warp function (`Field.warp_value`)."""
    pixel: float = 0.0
    """Width of a pixel at distance 1 (`Camera.pixel`): `thinnest` is then at least the width of a pixel everywhere, and
    hits may be off by a tenth of one. With 0, all distances are resolved equally."""

    def __post_init__(self) -> None:
        check_fields(self)
        steps = 1 if self.max_steps is None else self.max_steps
        thinnest = 1.0 if self.thinnest is None else self.thinnest
        if not 1 <= self.relaxation <= 2 or not thinnest > 0 or steps < 1 or self.pixel < 0:
            raise ValueError(
                "SphereTrace: needs 1 <= relaxation <= 2, thinnest > 0, pixel >= 0 and max_steps >= 1, got "
                f"{self.relaxation}, {self.thinnest}, {self.pixel} and {self.max_steps}"
            )

    @property
    def points_per_ray(self) -> int:
        return 1

    def refresh(self, field: Field, iteration: int | None = None) -> int:
        if self.grid is None and iteration is not None:
            trust_slope(field)
        return 0 if self.grid is None else self.grid.refresh(field, full=iteration is None)

    @torch.no_grad()
    def __call__(self, field: Field, rays: Rays) -> Hit:
        if self.grid is not None:
            batch = begin(self.grid, field, rays)
            thinnest, tolerance = self._lengths(batch)
            march_grid(self.grid, batch, thinnest, self.relaxation, self.max_steps or MAX_GRID_STEPS, tolerance)
            return batch.finish(tolerance)
        value = warp_value_of(field) if self.fused and rays.shape_index is None else None
        if value is None or not self.cones or (order := compact_order(rays)) is None:
            return self._search(field, rays, value)
        return self._search(field, rays[order], value).reordered(order)

    def _search(self, field: Field, rays: Rays, value: WarpValue | None) -> Hit:
        """Find the hits without a grid; with the field's value as a Warp function, in a few launches."""
        batch, known = RayBatch(field, rays, value=value), None
        bound, batch.evaluations = lipschitz.require_bound(field)
        declared = bound
        if self.cones and len(rays) >= MIN_RAYS:
            any_shape = torch.zeros(2 * lipschitz.PAIRS, dtype=torch.int64, device=batch.o.device)
            known = lipschitz.pairs(lambda x: batch.evaluate(x, any_shape), field.bounds)
            bound *= lipschitz.growth(lipschitz.steepest_difference(*known) / bound)
        batch, bound = self._trace_checked(batch, rays, bound, known)
        if known is None and rays.shape_index is None and batch.mostly_passes(bound * self._lengths(batch)[0]):
            batch, bound = self._trace_checked(batch, rays, bound, lipschitz.pairs(batch.evaluate_one, field.bounds))
        if bound > declared and not field.lipschitz_is_measured:
            warnings.warn(
                f"SphereTrace: {field.name}.lipschitz is {declared:g}, but values differ by more; it was "
                f"traced with {bound:.3g}",
                stacklevel=4,  # torch.no_grad stands in between
            )
        tolerance = self._lengths(batch)[1]
        if self.pixel and len(hit := batch.high[batch.status == int(Status.HIT)]):
            tolerance = max(tolerance, 0.1 * self.pixel * float(hit.min()))
        return batch.finish(tolerance)

    def _trace_checked(
        self,
        batch: RayBatch,
        rays: Rays,
        bound: float,
        known: tuple[Float[Tensor, "n 3"], Float[Tensor, " n"]] | None,
    ) -> tuple[RayBatch, float]:
        """Trace rays, again with a larger bound if values differ by more; return them, and the bound that they took.

        With the values at `known` points, rays are only searched where the surface may be, if that is a small box.
        """
        field, box = batch.field, None
        for _ in range(TRIES):
            if known is not None and rays.shape_index is None:
                box = surface_box(field, bound, batch.evaluate_one, known)
            if box is not None or batch.is_traced:
                evaluations, batch = batch.evaluations, RayBatch(field, rays, box, batch.value)
                batch.evaluations = evaluations
            traced = bound
            factor = lipschitz.growth(self._trace(batch, bound))
            bound *= factor
            if factor == 1:
                break
        else:
            unsure = (batch.status == int(Status.MISS)) & (batch.near <= batch.far)
            batch.status[unsure] = int(Status.GAVE_UP)
        return batch, traced

    def _lengths(self, batch: RayBatch) -> tuple[float, float]:
        """Return `thinnest` and `tolerance`: those given, or shares of the box in which the surface is searched."""
        side = longest_side(batch.bounds)
        thinnest = THINNEST * side if self.thinnest is None else self.thinnest
        return thinnest, TOLERANCE * side if self.tolerance is None else self.tolerance

    def _trace(self, batch: RayBatch, bound: float) -> float:
        """Trace rays for at most `max_steps`; return the steepest difference of values in units of `bound`."""
        batch.is_traced = True
        thinnest, tolerance = self._lengths(batch)
        settings = Packed(
            _trace.Settings,
            lipschitz=bound,
            relaxation=self.relaxation,
            thinnest=thinnest,
            pixel=self.pixel,
        )
        if batch.value is not None:
            return fused.trace(batch.value, batch, settings, tolerance, self.max_steps or MAX_STEPS, cones=self.cones)
        memory = batch.near.new_zeros(len(batch.near), _trace.memory._length_)
        memory[:, int(_trace.FREE_UNTIL)], memory[:, int(_trace.SAMPLE_AHEAD)] = batch.near, torch.nan
        memory[:, int(_trace.SPACING)] = thinnest
        start = free_lengths(batch, bound, thinnest) if self.cones else None
        if start is not None:
            if lipschitz.growth(start.steepest) > 1:
                return start.steepest
            batch.high[start.ray] = start.t
            memory[start.ray, int(_trace.FREE_UNTIL)] = start.free_until
            memory[start.ray, int(_trace.FALL)] = start.fall
        for _ in range(self.max_steps or MAX_STEPS):
            active = batch.active()
            if len(active) == 0:
                break
            x = batch.o.new_empty(len(active), 3)
            launch(_trace.propose, len(active), [batch.lines, active], [x], state=[batch.rays])
            value = batch.evaluate(x, active)
            inputs = [value, batch.lines, settings, active]
            launch(_trace.narrow, len(active), inputs, [], state=[batch.rays, memory], per_row=[value])
        return float(memory[:, int(_trace.STEEPEST)].max()) if len(memory) else 0.0
