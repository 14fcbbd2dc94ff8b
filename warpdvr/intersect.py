"""Where rays meet a field: solvers that propose points in Warp kernels and ask the field in Torch.

Nothing here is recorded for autograd, so memory does not grow with the number of samples; `warpdvr.implicit.reattach`
makes a hit differentiable afterwards.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from warpdvr.batch import Batch, Hit, Status
from warpdvr.bridge import launch
from warpdvr.camera import Rays
from warpdvr.grid import BoundGrid, slope_limit
from warpdvr.kernels import grid as _grid
from warpdvr.kernels import march as _march
from warpdvr.kernels import status as _status
from warpdvr.kernels import trace as _trace

__all__ = ["DenseMarch", "Hit", "Intersect", "SphereTrace", "Status"]

MOST_STEPS = 1024
"""Samples on one ray through a grid after which a `DenseMarch` gives up."""


class Intersect(Protocol):
    """What finds hits: `DenseMarch`, `SphereTrace`, or any callable like them."""

    @property
    def points_per_ray(self) -> int:
        """How many points of one ray are evaluated together; decides how many rays fit into memory."""

    def __call__(self, field: Any, rays: Rays) -> Hit:
        """Find the first crossing from outside to inside on each ray, inside of the field's bounds."""


@dataclass(frozen=True)
class DenseMarch:
    """Equidistant samples between the ends of the bounds, front to back, for any field.

    The first interval with f > 0 at its start and f <= 0 at its end is closed in by a bracketed root finder. A ray
    stops being paid for once it is decided. Where the slopes seen around an interval allow a crossing to hide in it, it
    is split up to `splits` times: parts down to (far - near) / (n - 1) / 2**splits are seen there. What is thinner than
    the spacing and gives no such hint is missed. Sampling after Niemeyer et al., "Differentiable Volumetric Rendering"
    (2020), section 3.
    """

    n: int = 128
    """Samples on each ray, at least 2."""
    splits: int = 5
    """How often an interval that may hide a crossing is halved; 0 takes the samples as they are."""
    safety: float = 2.0
    """Factor on the slopes seen around such an interval."""
    block: int = 8
    """Samples that are evaluated together before it is asked who is done."""
    tolerance: float = 1e-6
    """Length to which the crossing is closed in [scene unit]."""
    grid: BoundGrid | None = None
    """Bounds of the field: it is then asked only where they leave room for a surface, as closely as they demand. The
    shortest step is an eighth of the last split: the length of the bounds' diagonal / (n - 1) / 2**(splits + 3)."""

    def __post_init__(self) -> None:
        if self.n < 2 or self.block < 1 or self.splits < 0:
            raise ValueError(f"DenseMarch: needs n >= 2, block >= 1 and splits >= 0, got {self}")

    @property
    def points_per_ray(self) -> int:
        return 1 if self.grid else min(self.block, self.n)

    @torch.no_grad()
    def __call__(self, field: Any, rays: Rays) -> Hit:
        batch = Batch(field, rays)
        if self.grid is not None:
            diagonal = float((field.bounds[1] - field.bounds[0]).norm())
            _through(self.grid, batch, diagonal / (self.n - 1) / 2 ** (self.splits + 3), 1.5, MOST_STEPS)
            return batch.finish(self.tolerance)
        spacing = (batch.far - batch.near) / (self.n - 1)
        before = spacing.new_full((len(rays), 3), torch.nan)
        for first in range(0, self.n, self.block):
            active, block = batch.active(), min(self.block, self.n - first)
            size = len(active)
            if size == 0:
                break
            x, dip = spacing.new_empty(size, block, 3), spacing.new_empty(size, block + 2)
            launch(_march.propose, (size, block), [batch.o, batch.d, batch.near, spacing, first, active], [x])
            asked = batch.ask(x.view(-1, 3), active.repeat_interleave(block))
            value = torch.cat([before[active], asked.view(size, block)], 1)
            march = [value, batch.near, spacing, first, self.n - 1, self.safety, active]
            launch(_march.scan, size, march, [dip], state=batch.state(), per_row=[value])
            before[active] = value[:, -3:]
            i, j = torch.nonzero(dip, as_tuple=True)
            ray = active[i].long()
            t = batch.near[ray] + (first + j - 3) * spacing[ray]
            ends = t, t + spacing[ray], value[i, j], value[i, j + 1]
            self._split(batch, ray, ends, dip[i, j])
        return batch.finish(self.tolerance)

    def _split(self, batch: "Batch", ray: Tensor, ends: tuple[Tensor, ...], change: Tensor) -> None:
        """Halve intervals that may hide a crossing; one that is found lies ahead of all that its ray has so far."""
        low, high, f_low, f_high = ends
        for _ in range(self.splits):
            if len(ray) == 0:
                break
            middle = 0.5 * (low + high)
            f = batch.ask(batch.o[ray] + middle[:, None] * batch.d[ray], ray)
            batch.cross(ray, (low, middle, f_low, f), f <= 0)
            batch.status[ray[f.isnan()]] = int(Status.GAVE_UP)
            change = 0.5 * change
            left, right = (f_low + f < change) & (f > 0), (f + f_high < change) & (f > 0)
            low, high, f_low, f_high, ray, change = (
                torch.cat([a[left], b[right]])
                for a, b in ((low, middle), (middle, high), (f_low, f), (f, f_high), (ray, ray), (change, change))
            )


@dataclass(frozen=True)
class SphereTrace:
    """Steps as long as the field's Lipschitz bound says is free, for fields that have one.

    Over-relaxed, with the way back when a step went too far, and a bracketed finish (kernels/bracket.py). Parts thinner
    than `thinnest` along the ray may be stepped over.
    """

    max_steps: int = 256
    """Field evaluations on one ray before it gives up."""
    relaxation: float = 1.5
    """Factor on the free distance, from 1 (plain sphere tracing) to below 2."""
    thinnest: float = 2e-3
    """The shortest step [scene unit]."""
    tolerance: float = 1e-6
    """Length to which the crossing is closed in [scene unit]."""
    grid: BoundGrid | None = None
    """Bounds of the field: it is then asked only where they leave room for a surface, and steps are as long as the
    slopes there allow. Fields without a Lipschitz bound can be traced with it."""

    def __post_init__(self) -> None:
        if not 1 <= self.relaxation < 2 or self.thinnest <= 0 or self.max_steps < 1:
            raise ValueError(f"SphereTrace: needs 1 <= relaxation < 2, thinnest > 0 and max_steps >= 1, got {self}")

    @property
    def points_per_ray(self) -> int:
        return 1

    @torch.no_grad()
    def __call__(self, field: Any, rays: Rays) -> Hit:
        if self.grid is not None:
            batch = Batch(field, rays)
            _through(self.grid, batch, self.thinnest, self.relaxation, self.max_steps)
            return batch.finish(self.tolerance)
        bound = getattr(field, "lipschitz", None)
        if bound is None:
            raise ValueError(
                f"SphereTrace: {type(field).__name__}.lipschitz is None, but sphere tracing needs an upper bound of "
                "|grad value|; use DenseMarch for this field, or give SphereTrace a BoundGrid"
            )
        if not 0 < bound < float("inf"):
            raise ValueError(f"SphereTrace: {type(field).__name__}.lipschitz must be positive and finite, got {bound}")
        batch = Batch(field, rays)
        for _ in range(self.max_steps):
            active = batch.active()
            if len(active) == 0:
                break
            x = batch.o.new_empty(len(active), 3)
            launch(_trace.propose, len(active), [batch.o, batch.d, batch.high, active], [x])
            value = batch.ask(x, active)
            launch(
                _trace.narrow,
                len(active),
                [value, batch.far, float(bound), self.relaxation, self.thinnest, active],
                [],
                state=batch.state(),
                per_row=[value],
            )
        return batch.finish(self.tolerance)


def _through(grid: BoundGrid, batch: Batch, thinnest: float, relaxation: float, max_steps: int) -> None:
    """March a batch through a grid, no step shorter than `thinnest` (kernels/grid.py)."""
    if batch.which is not None:
        raise ValueError("BoundGrid: holds for a field of one shape, but these rays look at several (Rays.which)")
    grid.check(batch.field)
    slopes = [grid.lower, grid.upper, grid.slope, slope_limit(batch.field), relaxation, thinnest]
    lines, ends = [batch.o, batch.d, batch.near, batch.far], [batch.near, batch.far]
    memory = batch.near.new_full((len(batch.near), _grid.memory._length_), torch.nan)
    memory[:, int(_grid.DROP)], memory[:, int(_grid.LEAST)] = 0.0, torch.inf
    active = batch.active()
    walks = torch.ones(len(active), dtype=torch.bool, device=active.device)
    for step in range(max_steps + 1):
        x = batch.o.new_empty(len(active), 3)
        state = [batch.status, batch.low, batch.high, batch.f_low, memory]
        launch(_grid.walk, len(active), [*lines, *grid.frame(), *slopes, walks, active], [x], state=state)
        going = batch.status[active.long()] == int(_status.ACTIVE)
        active, x = active[going], x[going]
        if len(active) == 0 or step == max_steps:
            break
        value, walks = batch.ask(x, active), torch.empty(len(active), dtype=torch.bool, device=x.device)
        launch(_grid.judge, len(active), [value, *ends, thinnest, active], [walks], state=[*batch.state(), memory])
    batch.guess(memory[:, int(_grid.WHERE)], memory[:, int(_grid.LEAST)])
