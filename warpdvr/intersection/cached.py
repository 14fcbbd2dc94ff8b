"""The intersector of a fit: crossings guessed from remembered values, corrected with few questions to the field."""

import torch
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field, query, query_all
from warpdvr.intersection.hit import Hit, Status
from warpdvr.intersection.octree import dilate
from warpdvr.kernels import cached as _quick
from warpdvr.runtime.launch import launch

SIDES = 4
"""Points on either side of a near miss at which the field is asked, twice: over a cell, and over a part of one."""

SHARES = 32
"""A corner far from the surface is asked again in one of so many refreshments."""


class CachedMarch:
    """Nearly exact hits for `corrections` + 1 field evaluations on a ray that hits, and none on one that misses by far.

    Remembers the field's values at the corners of a grid. A ray is marched through their trilinear interpolant; the
    crossing found there is corrected by the secant method with the field's own values, and given up (`GAVE_UP`) if it
    has not settled. The interpolant rounds edges off, so a ray that passes close to the surface is looked at again: the
    field is asked at 4 `SIDES` points around the nearest one, and the ray may yet hit.

    Made for fits, where the surface moves before long, hits a little beside it teach the same, and many rounds of small
    operations are what costs. It sees what a grid of `cells` shows: use `DenseMarch` or `SphereTrace` for pictures.

    Args:
        field: a `Field`.
        cells: along the longest side of its bounds.
        corrections: steps of the secant method, at least 1.
    """

    points_per_ray = 1

    def __init__(self, field: Field, *, cells: int = 64, corrections: int = 2):
        if cells < 2 or corrections < 1:
            raise ValueError(f"CachedMarch: needs cells >= 2 and corrections >= 1, got {cells} and {corrections}")
        self.corrections = corrections
        self.low, high = field.bounds.detach().float()
        extent = high - self.low
        self.n = (extent / extent.max() * cells - 1e-4).ceil().clamp_min(1).int() + 1
        self.side = extent / (self.n - 1)
        self.x = self.low + self.side * torch.cartesian_prod(*(torch.arange(n) for n in self.n.tolist())).to(extent)
        self.value = self.low.new_empty(0)
        self.around = torch.zeros(0, dtype=torch.bool, device=self.low.device)
        self.turn = 0

    @torch.no_grad()
    def refresh(self, field: Field, *, full: bool = False) -> int:
        """Ask again at the corners around the surface and at one in `SHARES` of the others; return how many were asked.

        Call it every few steps, as the field moves: with `full`, which asks everywhere, while it moves fast.
        """
        if full or len(self.value) == 0:
            asked = torch.arange(len(self.x), device=self.x.device)
            self.value = torch.empty_like(self.x[:, 0])
        else:
            self.turn += 1
            again = self.around.clone()
            again[self.turn % SHARES :: SHARES] = True
            asked = torch.nonzero(again)[:, 0]
        self.value[asked] = query_all(field, self.x[asked])
        self.around = self._around()
        return len(asked)

    def state(self) -> Tensor:
        """Return what is remembered, shape (k + 1,); `resume` takes it."""
        return torch.cat([self.value, self.value.new_tensor([self.turn])])

    def resume(self, state: Tensor) -> None:
        """Remember what `state` returned.

        Raises:
            ValueError: if it is of another grid.
        """
        if len(state) not in (1, len(self.x) + 1):
            raise ValueError(f"CachedMarch: expected a state of {len(self.x)} corners, got one of {len(state) - 1}")
        self.value, self.turn = state[:-1].to(self.x.device).clone(), int(state[-1])
        if len(self.value):
            self.around = self._around()

    @torch.no_grad()
    def __call__(self, field: Field, rays: Rays) -> Hit:
        if rays.shape_index is not None:
            raise ValueError(
                "CachedMarch: remembers a field of one shape, but these rays look at several (Rays.shape_index)"
            )
        evaluations = self.refresh(field) if len(self.value) == 0 else 0
        near, far = rays.clip(field.bounds)
        o, d = (a.detach().float().contiguous() for a in (rays.origin, rays.direction))
        status, t = torch.empty_like(near, dtype=torch.int32), torch.empty_like(near)
        descent, nearest = torch.empty_like(near), torch.empty_like(near)
        close = torch.empty_like(near, dtype=torch.bool)
        half = 0.5 * float(self.side.min())
        bound = field.lipschitz
        shape = self.n.tolist()
        frame = [self.value.view(shape), self.around.view(shape), self.low.tolist(), (1 / self.side).tolist()]
        steps = [half, float("inf") if bound is None else float(bound)]
        outputs = [status, t, descent, nearest, close]
        launch(_quick.guess, len(rays), [o, d, near, far, *frame, *steps], outputs, per_row=[o, d, near, far])
        again = torch.nonzero(close)[:, 0]
        if len(again):
            looked = self._look(field, (o[again], d[again]), nearest[again])
            nearest[again], t[again], descent[again], crossed = looked
            status[again[crossed]] = int(Status.HIT)
        ray = torch.nonzero(status == int(Status.HIT))[:, 0]
        found, settled = self._correct(field, (o[ray], d[ray]), t[ray], descent[ray])
        status[ray[~settled]] = int(Status.GAVE_UP)
        hit, t = ray[settled], found[settled]
        nearest[hit] = t
        evaluations += len(ray) * (self.corrections + 1) + len(again) * 4 * SIDES
        return Hit(t, hit, status, nearest, evaluations)

    def _look(self, field: Field, ray: tuple[Tensor, Tensor], t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the smallest of the field's values around ray lengths `t`: where; and a crossing ahead of it.

        The crossing and the descent there are those of a line through neighbouring values of both signs, if there are
        any, which the last tensor tells.
        """
        o, d = ray
        side = torch.arange(-SIDES, SIDES, device=t.device) + 0.5
        reach = float(self.side.max())
        times, values = [], []
        for spacing in (reach / SIDES, 0.5 * reach / SIDES**2):
            at = t[:, None] + spacing * side
            x = o[:, None] + at[..., None] * d[:, None]
            value = query(field, x.view(-1, 3)).view(at.shape)
            times.append(at)
            values.append(value)
            t = at.gather(1, value.argmin(1, keepdim=True))[:, 0]
        at, order = torch.cat(times, 1).sort(1)
        value = torch.cat(values, 1).gather(1, order)
        entering = (value[:, :-1] > 0) & (value[:, 1:] <= 0)
        first = entering.to(torch.int8).argmax(1, keepdim=True)
        a, b, f, g = (x.gather(1, i)[:, 0] for x in (at, value) for i in (first, first + 1))
        descent = (f - g) / (b - a)
        return t, a + f / descent, descent, entering.any(1)

    def _correct(self, field: Field, ray: tuple[Tensor, Tensor], t: Tensor, descent: Tensor) -> tuple[Tensor, Tensor]:
        """Return the crossings after steps of the secant method, and whether the last step was small."""
        o, d = ray
        reach = float(self.side.max())
        before = t
        f = query(field, o + t[:, None] * d)
        t = t + (f / descent).clamp(-reach, reach)
        for _ in range(self.corrections):
            g = query(field, o + t[:, None] * d)
            moved = t - before
            secant = (f - g) / moved
            # between nearly equal values or points the last slope is the better one
            descent = torch.where((moved.abs() > 1e-6) & (secant > 0.1 * descent), secant, descent)
            before, f = t, g
            t = t + (f / descent).clamp(-reach, reach)
        return t, (t - before).abs() < 0.25 * reach

    def _around(self) -> Tensor:
        """Return True for the corners of cells with a change of sign, shape (k,)."""
        solid = (self.value <= 0).view(1, 1, *self.n.tolist()).float()
        return (dilate(solid) != -dilate(-solid)).view(-1)
