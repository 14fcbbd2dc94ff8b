"""Equidistant samples along each ray, and a root finder where they change sign."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field
from warpdvr.fields.bounds import longest_side
from warpdvr.intersection.base import Solver
from warpdvr.intersection.grid import BoundGrid
from warpdvr.intersection.grid_march import MAX_STEPS, begin, march_grid
from warpdvr.intersection.hit import Hit, Status
from warpdvr.intersection.surface_box import surface_box
from warpdvr.intersection.wavefront import RayBatch
from warpdvr.kernels import dense_march as _march
from warpdvr.runtime.arguments import check_fields
from warpdvr.runtime.launch import launch

TOLERANCE = 2.5e-6
"""Default of `DenseMarch.tolerance` [longest side of the bounds]."""


@dataclass(frozen=True)
class DenseMarch(Solver):
    """Equidistant samples between the ends of the bounds, front to back, for any field.

    The first interval with f > 0 at its start and f <= 0 at its end is narrowed by a bracketing root finder. A ray
    costs nothing once it is decided. Where the slopes around an interval allow a crossing to hide in it, the
    interval is split up to `splits` times: parts down to (far - near) / (n - 1) / 2**splits are resolved there.
    Parts that are thinner than the spacing and give no such hint are missed: so is an object that is tiny in its
    bounds, unless a Lipschitz bound of the field proves where it is (warpdvr/intersection/surface_box.py). Sampling
    after Niemeyer et al., "Differentiable Volumetric Rendering" (2020), section 3.
    """

    n: int = 128
    """Samples on each ray, at least 2."""
    splits: int = 5
    """How often an interval that may hide a crossing is halved; 0 never halves one."""
    safety: float = 2.0
    """Factor on the slopes around such an interval."""
    block: int = 8
    """Samples that are evaluated together before finished rays are left out."""
    tolerance: float | None = None
    """Largest distance of a hit from the crossing [scene unit]; by default 2.5e-6 of the longest side of the bounds."""
    grid: BoundGrid | None = None
    """Bounds of the field: it is then evaluated only where they leave room for a surface, as closely as they demand.
    The shortest step is an eighth of the last split: the length of the bounds' diagonal / (n - 1) / 2**(splits + 3)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.n < 2 or self.block < 1 or self.splits < 0:
            raise ValueError(
                f"DenseMarch: needs n >= 2, block >= 1 and splits >= 0, got {self.n}, {self.block} and {self.splits}"
            )

    @property
    def points_per_ray(self) -> int:
        return 1 if self.grid else min(self.block, self.n)

    def refresh(self, field: Field, iteration: int | None = None) -> int:
        return 0 if self.grid is None else self.grid.refresh(field, full=iteration is None)

    @torch.no_grad()
    def __call__(self, field: Field, rays: Rays) -> Hit:
        if self.grid is not None:
            batch = begin(self.grid, field, rays)
            diagonal = float((batch.bounds[1] - batch.bounds[0]).norm())
            thinnest = diagonal / (self.n - 1) / 2 ** (self.splits + 3)
            march_grid(self.grid, batch, thinnest, 1.5, MAX_STEPS, self._tolerance(batch))
            return batch.finish(self._tolerance(batch))
        batch = RayBatch(field, rays)
        self._march(batch)
        if (box := self._small_box(batch)) is not None:
            evaluations, batch = batch.evaluations, RayBatch(field, rays, box)
            batch.evaluations = evaluations
            self._march(batch)
        return batch.finish(self._tolerance(batch))

    def _tolerance(self, batch: RayBatch) -> float:
        """Return the tolerance: that given, or a share of the box in which the surface is searched."""
        return TOLERANCE * longest_side(batch.bounds) if self.tolerance is None else self.tolerance

    def _small_box(self, batch: RayBatch) -> Float[Tensor, "2 3"] | None:
        """Return the box of a surface that is tiny in its bounds, if most rays may have stepped over one."""
        bound, length = batch.field.lipschitz, (batch.far - batch.near).nan_to_num(0).clamp_min(0)
        if bound is None or batch.shape_index is not None or len(length) == 0:
            return None
        if not batch.mostly_passes(0.5 * bound * float(length.max()) / (self.n - 1)):
            return None
        return surface_box(batch.field, bound, batch.evaluate_one)

    def _march(self, batch: RayBatch) -> None:
        """Sample rays until each is decided."""
        spacing = (batch.far - batch.near) / (self.n - 1)
        before = spacing.new_full((len(spacing), 3), torch.nan)
        for first in range(0, self.n, self.block):
            active, block = batch.active(), min(self.block, self.n - first)
            size = len(active)
            if size == 0:
                break
            x, dip = spacing.new_empty(size, block, 3), spacing.new_empty(size, block + 2)
            launch(_march.propose, (size, block), [batch.lines, spacing, first, active], [x])
            fresh = batch.evaluate(x.view(-1, 3), active.repeat_interleave(block)).view(size, block)
            value = torch.cat([before[active], fresh], 1)
            inputs = [value, batch.lines, spacing, first, self.n - 1, self.safety, active]
            launch(_march.narrow, size, inputs, [dip], state=[batch.rays], per_row=[value])
            before[active] = value[:, -3:]
            i, j = torch.nonzero(dip, as_tuple=True)
            ray = active[i].long()
            t = batch.near[ray] + (first + j - 3) * spacing[ray]
            ends = t, t + spacing[ray], value[i, j], value[i, j + 1]
            self._split(batch, ray, ends, dip[i, j])

    def _split(
        self,
        batch: RayBatch,
        ray: Int[Tensor, " m"],
        ends: tuple[Float[Tensor, " m"], ...],
        change: Float[Tensor, " m"],
    ) -> None:
        """Halve intervals that may hide a crossing; such a crossing lies ahead of any that its ray has so far."""
        low, high, f_low, f_high = ends
        for _ in range(self.splits):
            if len(ray) == 0:
                break
            middle = 0.5 * (low + high)
            f = batch.evaluate(batch.o[ray] + middle[:, None] * batch.d[ray], ray)
            batch.cross(ray, (low, middle, f_low, f), f <= 0)
            batch.status[ray[f.isnan()]] = int(Status.GAVE_UP)
            change = 0.5 * change
            left, right = (f_low + f < change) & (f > 0), (f + f_high < change) & (f > 0)
            low, high, f_low, f_high, ray, change = (
                torch.cat([a[left], b[right]])
                for a, b in ((low, middle), (middle, high), (f_low, f), (f, f_high), (ray, ray), (change, change))
            )
