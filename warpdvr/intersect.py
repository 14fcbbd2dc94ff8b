"""Where rays meet a field: solvers that propose points in Warp kernels and ask the field in Torch.

Nothing here is recorded for autograd, so memory does not grow with the number of samples; `warpdvr.implicit.reattach`
makes a hit differentiable afterwards.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import torch
from torch import Tensor

from warpdvr.bracket import ask, close_in
from warpdvr.bridge import launch
from warpdvr.camera import Rays
from warpdvr.kernels import march as _march
from warpdvr.kernels import status as _status
from warpdvr.kernels import trace as _trace


class Status(IntEnum):
    """What became of a ray."""

    HIT = int(_status.HIT)
    """It entered the surface from outside."""
    MISS = int(_status.MISS)
    """It left the bounds without meeting the surface, or never met the bounds."""
    INSIDE = int(_status.INSIDE)
    """Its first sample was already inside: nothing is seen."""
    GAVE_UP = int(_status.GAVE_UP)
    """It was not decided: too many steps, or a value that is not a number."""


@dataclass(frozen=True)
class Hit:
    """Where n rays met the surface; `t` and `ray` are packed and hold the k rays that hit."""

    t: Tensor
    """Ray length to the surface, shape (k,), float32 [scene unit]; not differentiable."""
    ray: Tensor
    """Which ray each hit belongs to, ascending, shape (k,), int64."""
    status: Tensor
    """A `Status` for every ray, shape (n,), int32."""
    nearest: Tensor
    """Ray length at the smallest sample of a ray that does not hit, and `t` of one that does, shape (n,); NaN where the
    field was not asked."""
    evaluations: int
    """How often the field was asked for a value, counted in points."""


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

    def __post_init__(self) -> None:
        if self.n < 2 or self.block < 1 or self.splits < 0:
            raise ValueError(f"DenseMarch: needs n >= 2, block >= 1 and splits >= 0, got {self}")

    @property
    def points_per_ray(self) -> int:
        return min(self.block, self.n)

    @torch.no_grad()
    def __call__(self, field: Any, rays: Rays) -> Hit:
        batch = _Batch(field, rays)
        spacing = (batch.far - batch.near) / (self.n - 1)
        before = spacing.new_full((len(rays), 3), torch.nan)
        for first in range(0, self.n, self.block):
            active, block = batch.active(), min(self.block, self.n - first)
            size = len(active)
            if size == 0:
                break
            x, dip = spacing.new_empty(size, block, 3), spacing.new_empty(size, block + 2)
            launch(_march.propose, (size, block), [batch.o, batch.d, batch.near, spacing, first, active], [x])
            value = torch.cat([before[active], batch.ask(x.view(-1, 3)).view(size, block)], 1)
            march = [value, batch.near, spacing, first, self.n - 1, self.safety, active]
            launch(_march.scan, size, march, [dip], state=batch.state(), per_row=[value])
            before[active] = value[:, -3:]
            i, j = torch.nonzero(dip, as_tuple=True)
            ray = active[i].long()
            t = batch.near[ray] + (first + j - 3) * spacing[ray]
            ends = t, t + spacing[ray], value[i, j], value[i, j + 1]
            self._split(batch, ray, ends, dip[i, j])
        return batch.finish(self.tolerance)

    def _split(self, batch: "_Batch", ray: Tensor, ends: tuple[Tensor, ...], change: Tensor) -> None:
        """Halve intervals that may hide a crossing; one that is found lies ahead of all that its ray has so far."""
        low, high, f_low, f_high = ends
        for _ in range(self.splits):
            if len(ray) == 0:
                break
            middle = 0.5 * (low + high)
            f = batch.ask(batch.o[ray] + middle[:, None] * batch.d[ray])
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

    def __post_init__(self) -> None:
        if not 1 <= self.relaxation < 2 or self.thinnest <= 0 or self.max_steps < 1:
            raise ValueError(f"SphereTrace: needs 1 <= relaxation < 2, thinnest > 0 and max_steps >= 1, got {self}")

    @property
    def points_per_ray(self) -> int:
        return 1

    @torch.no_grad()
    def __call__(self, field: Any, rays: Rays) -> Hit:
        bound = getattr(field, "lipschitz", None)
        if bound is None:
            raise ValueError(
                f"SphereTrace: {type(field).__name__}.lipschitz is None, but sphere tracing needs an upper bound of "
                "|grad value|; use DenseMarch for this field"
            )
        if not 0 < bound < float("inf"):
            raise ValueError(f"SphereTrace: {type(field).__name__}.lipschitz must be positive and finite, got {bound}")
        batch = _Batch(field, rays)
        for _ in range(self.max_steps):
            active = batch.active()
            if len(active) == 0:
                break
            x = batch.o.new_empty(len(active), 3)
            launch(_trace.propose, len(active), [batch.o, batch.d, batch.high, active], [x])
            value = batch.ask(x)
            launch(
                _trace.narrow,
                len(active),
                [value, batch.far, float(bound), self.relaxation, self.thinnest, active],
                [],
                state=batch.state(),
                per_row=[value],
            )
        return batch.finish(self.tolerance)


class _Batch:
    """A batch of rays on its way: what every solver keeps per ray."""

    def __init__(self, field: Any, rays: Rays):
        self.field = field
        self.o, self.d = (a.detach().float().contiguous() for a in (rays.origin, rays.direction))
        self.near, self.far = rays.clip(field.bounds)
        self.status = torch.where(self.near <= self.far, int(_status.ACTIVE), int(Status.MISS)).int()
        self.low, self.f_low, self.f_high, self.nearest = self.near.new_full((4, len(rays)), torch.nan)
        self.high = self.near.clone()
        self.f_nearest = torch.full_like(self.near, torch.inf)
        self.evaluations = 0

    def active(self) -> Tensor:
        """Return the rays that are not decided yet, int32."""
        return torch.nonzero(self.status == int(_status.ACTIVE))[:, 0].int()

    def state(self) -> list[Tensor]:
        """Return what a kernel updates, in the kernels' order."""
        return [self.status, self.low, self.high, self.f_low, self.f_high, self.nearest, self.f_nearest]

    def ask(self, x: Tensor) -> Tensor:
        """Return the field's values at points (n, 3), and count them."""
        self.evaluations += len(x)
        return ask(self.field, x)

    def cross(self, ray: Tensor, ends: tuple[Tensor, ...], found: Tensor) -> None:
        """Give each ray the foremost of the brackets `ends` that were found for it."""
        ray, (low, high, f_low, f_high) = ray[found], (a[found] for a in ends)
        foremost = torch.full_like(self.low, torch.inf).scatter_reduce_(0, ray, low, "amin")
        lower = (low == foremost[ray]) & ~(self.low[ray] < low)
        ray = ray[lower]
        self.status[ray] = int(Status.HIT)
        self.low[ray], self.high[ray] = low[lower], high[lower]
        self.f_low[ray], self.f_high[ray] = f_low[lower], f_high[lower]

    def finish(self, tolerance: float) -> Hit:
        """Close the brackets in and say what became of every ray."""
        self.status[self.status == int(_status.ACTIVE)] = int(Status.GAVE_UP)
        ray = torch.nonzero(self.status == int(Status.HIT))[:, 0]
        ends = self.low[ray], self.high[ray], self.f_low[ray], self.f_high[ray]
        t, evaluations = close_in(self.field, self.o[ray], self.d[ray], ends, tolerance)
        self.status[ray[t.isnan()]] = int(Status.GAVE_UP)
        ray, t = ray[~t.isnan()], t[~t.isnan()]
        self.nearest[ray] = t
        return Hit(t, ray, self.status, self.nearest, self.evaluations + evaluations)
