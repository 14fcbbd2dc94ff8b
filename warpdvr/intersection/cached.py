"""The solver of a fit: crossings predicted from remembered values, corrected with few evaluations of the field."""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.adapter import warp_value_of
from warpdvr.fields.base import Field, query, query_all
from warpdvr.fields.bounds import longest_side
from warpdvr.fields.slope import current_bound
from warpdvr.fields.version import Change, Version
from warpdvr.intersection.base import EARLY, Solver
from warpdvr.intersection.boxes import dilate
from warpdvr.intersection.hit import Hit, Status
from warpdvr.intersection.lowest import values_along
from warpdvr.intersection.root import polish
from warpdvr.intersection.surface_box import surface_box
from warpdvr.kernels import cached as _cached
from warpdvr.kernels import fused_cached as _settle
from warpdvr.kernels.fused_cached import SETTLED, SIDES, STEEP
from warpdvr.runtime.arguments import check_device, check_fields
from warpdvr.runtime.launch import Packed, launch, launch_parts

SHARES = 32
"""A corner far from the surface is evaluated again in one of so many refreshes."""

MIN_STEP = 5e-7
"""A step of the secant method that is shorter gives no slope [longest side of the bounds]."""

REFRESH = 16
"""Steps of a fit after which the values are refreshed, besides at `EARLY` ones."""


@dataclass(frozen=True)
class CachedMarch(Solver):
    """Nearly exact hits for `corrections` + 1 field evaluations on a ray that hits, and none on one that misses by far.

    Remembers the field's values at the corners of a grid (`CachedValues`). A ray is marched through their trilinear
    interpolant; the crossing found there is corrected by the secant method with the field's own values, and given up
    (`GAVE_UP`) if it has not converged. The interpolant rounds edges off, so a ray that passes close to the surface is
    checked again: the field is evaluated at 4 `SIDES` points around the nearest one, and the ray may still hit.

    Made for fits, where the surface moves all the time, hits slightly off it serve as well, and many rounds of small
    operations are the cost. It misses what a grid of `cells` misses: use `DenseMarch` or `SphereTrace` for pictures.

    Called without `prepare`, it remembers nothing between calls and evaluates the whole grid in each.
    """

    cells: int = 64
    """Cells along the longest side of the field's bounds, at least 2."""
    corrections: int = 2
    """Steps of the secant method, at least 1."""
    fused: bool = True
    """Whether the field is asked in one kernel, where it offers its value as a Warp function (`Field.warp_value`)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.cells < 2 or self.corrections < 1:
            raise ValueError(
                f"CachedMarch: needs cells >= 2 and corrections >= 1, got {self.cells} and {self.corrections}"
            )

    @property
    def points_per_ray(self) -> int:
        return 1

    def prepare(self, field: Field) -> "CachedValues":
        return CachedValues(self, field)

    def __call__(self, field: Field, rays: Rays) -> Hit:
        return self.prepare(field)(field, rays)


class CachedValues(Solver):
    """A `CachedMarch` that remembers one field: its values at the corners of a grid.

    Evaluated at the first call or `refresh`. A fit calls `refresh` before every step, and the values may then be some
    steps old. Called with other weights than at the last `refresh`, it evaluates all corners again.
    """

    def __init__(self, march: CachedMarch, field: Field):
        self.march = march
        self.low, high = field.bounds.detach().float()
        extent = high - self.low
        self.n = (extent / extent.max() * march.cells - 1e-4).ceil().clamp_min(1).int() + 1
        self.side = extent / (self.n - 1)
        self.x = self.low + self.side * torch.cartesian_prod(*(torch.arange(n) for n in self.n.tolist())).to(extent)
        """The corners, shape (k, 3) [scene unit]."""
        self.value = self.low.new_empty(0)
        """The field's values there, shape (k,); none before the first evaluation."""
        self.near_surface = torch.zeros(0, dtype=torch.bool, device=self.low.device)
        """Whether a corner belongs to a cell with a change of sign, shape (k,)."""
        self.turn = 0
        self._known: Version | None = None
        self._bound: float | None = None
        self._scheduled = False
        """Whether values, and the field's bound, may be some steps old."""

    @property
    def points_per_ray(self) -> int:
        return 1

    def refresh(self, field: Field, iteration: int | None = None) -> int:
        """Sample the field: every `REFRESH` steps of a fit and at `EARLY` ones, at all corners in its first steps."""
        known = self._known
        self._check(known is None or known.is_of(field) or known.change(field) is Change.NONE)
        self._scheduled = iteration is not None
        if iteration is None:
            return self.sample(field, full=True)
        if iteration in EARLY or iteration % REFRESH == 0:
            return self.sample(field, full=iteration <= EARLY[-1])
        self._known = Version(field, frozenset() if known is None else known.ignored, exact=False)
        return 0

    @torch.no_grad()
    def sample(self, field: Field, *, full: bool = False) -> int:
        """Evaluate the field at the corners around the surface and at one in `SHARES` of the others; return how many.

        With `full`, and the first time, at all of them.
        """
        check_device("CachedMarch", self.low.device, "the remembered values", field=field.bounds)
        version, evaluations = Version(field, exact=not self._scheduled), 0
        if not self._scheduled:
            self._bound, evaluations = current_bound(field)
        if full or len(self.value) == 0:
            corner = torch.arange(len(self.x), device=self.x.device)
            self.value = torch.empty_like(self.x[:, 0])
        else:
            self.turn += 1
            refreshed = self.near_surface.clone()
            refreshed[self.turn % SHARES :: SHARES] = True
            corner = torch.nonzero(refreshed)[:, 0]
        self.value[corner] = query_all(field, self.x[corner])
        if len(corner) == len(self.x):
            surface_box(field, field.lipschitz, partial(query, field), (self.x, self.value))  # warns if it is tiny
        self.near_surface = self._near_surface()
        self._known = version.settled(field)
        return evaluations + len(corner)

    def follow(self, field: Field) -> int:
        """Sample the field if its weights have changed, or never were sampled; return the evaluations."""
        check_device("CachedMarch", self.low.device, "the remembered values", field=field.bounds)
        change = Change.WEIGHTS if self._known is None else self._known.change(field)
        self._check(change is not Change.FIELD)
        if change is Change.NONE and len(self.value):
            return 0
        self._scheduled = False
        return self.sample(field, full=True)

    def _check(self, is_own: bool) -> None:
        if not is_own:
            raise ValueError("CachedMarch: remembers another field; call `prepare` with this one")

    def state(self) -> dict[str, Tensor]:
        return {"remembered": torch.cat([self.value, self.value.new_tensor([self.turn])])}

    def resume(self, state: dict[str, Tensor]) -> None:
        remembered = state.get("remembered")
        if remembered is None:
            return
        if len(remembered) not in (1, len(self.x) + 1):
            raise ValueError(
                f"CachedMarch: expected a state of {len(self.x)} corners, got one of {len(remembered) - 1}"
            )
        self._known = None
        self.value, self.turn = remembered[:-1].to(self.x.device).clone(), int(remembered[-1])
        if len(self.value):
            self.near_surface = self._near_surface()

    @torch.no_grad()
    def __call__(self, field: Field, rays: Rays) -> Hit:
        if rays.shape_index is not None:
            raise ValueError(
                "CachedMarch: remembers a field of one shape, but these rays look at several (Rays.shape_index)"
            )
        check_device("intersect", field.bounds.device, rays=rays.origin)
        rays, length = Rays(rays.origin.detach(), rays.direction.detach()).normalised()
        given = rays
        rays = Rays(rays.origin.float().contiguous(), rays.direction.float().contiguous())
        evaluations = self.follow(field)
        status, t, descent, nearest, close = self._guess(field, rays)
        no_ray = length.isnan()
        status.masked_fill_(no_ray, int(Status.GAVE_UP))
        close.masked_fill_(no_ray, False)
        value = warp_value_of(field) if self.march.fused else None
        if value is None:
            evaluations += self._settle(field, rays, status, t, descent, nearest, close)
        else:
            inputs = [value.parameters, rays.origin, rays.direction, self._lengths(field)]
            steps = torch.empty_like(status)
            state = [status, t, descent, nearest, close]
            launch_parts(value.cached_kernels.settle, (len(t),), [*inputs, *state], [steps], 0)
            evaluations += int(steps.sum())
        hit = torch.nonzero(status == int(Status.HIT))[:, 0]
        t, for_digits = polish(field, given[hit], t[hit], 1e-3 * float(self.side.max()))
        return Hit(t / length[hit].to(t), hit, status, nearest / length.float(), evaluations + for_digits)

    def _lengths(self, field: Field) -> Packed:
        """Return the lengths of the corrections for kernels."""
        width, least = float(self.side.max()), MIN_STEP * longest_side(field.bounds)
        return Packed(_settle.Settings, width=width, least=least, corrections=self.march.corrections)

    def _settle(
        self,
        field: Field,
        rays: Rays,
        status: Int[Tensor, " n"],
        t: Float[Tensor, " n"],
        descent: Float[Tensor, " n"],
        nearest: Float[Tensor, " n"],
        close: Bool[Tensor, " n"],
    ) -> int:
        """Sample again where a ray passes close by, and correct the crossings, in place; return the evaluations.

        Fused kernels do the same (kernels/fused_cached.py).
        """
        recheck = torch.nonzero(close)[:, 0]
        if len(recheck):
            nearest[recheck], t[recheck], descent[recheck], crosses = self._look_closer(
                field, rays[recheck], nearest[recheck]
            )
            status[recheck[crosses]] = int(Status.HIT)
        ray = torch.nonzero(status == int(Status.HIT))[:, 0]
        corrected, settled = self._correct(field, rays[ray], t[ray], descent[ray])
        status[ray[~settled]] = int(Status.GAVE_UP)
        t[ray[settled]] = nearest[ray[settled]] = corrected[settled]
        return len(ray) * (self.march.corrections + 1) + len(recheck) * 4 * SIDES

    def _guess(
        self, field: Field, rays: Rays
    ) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"], Bool[Tensor, " n"]]:
        """Return status, t, descent, nearest and close, the outputs of `kernels.cached.guess`."""
        near, far = rays.clip(field.bounds)
        o, d = rays.origin, rays.direction
        far.masked_fill_(~(o + d).isfinite().all(1), -1.0)  # what is no ray ends before it begins
        status, t = torch.empty_like(near, dtype=torch.int32), torch.empty_like(near)
        descent, nearest = torch.empty_like(near), torch.empty_like(near)
        close = torch.empty_like(near, dtype=torch.bool)
        bound, shape = field.lipschitz if self._scheduled else self._bound, self.n.tolist()
        frame = [self.value.view(shape), self.near_surface.view(shape), self.low.tolist(), (1 / self.side).tolist()]
        steps = [0.5 * float(self.side.min()), float("inf") if bound is None else float(bound)]
        outputs = [status, t, descent, nearest, close]
        launch(_cached.guess, len(rays), [o, d, near, far, *frame, *steps], outputs, per_row=[o, d, near, far])
        return status, t, descent, nearest, close

    def _look_closer(
        self, field: Field, rays: Rays, t: Float[Tensor, " k"]
    ) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"], Float[Tensor, " k"], Bool[Tensor, " k"]]:
        """Return where the field's value around ray lengths `t` is smallest, and a crossing ahead of it.

        The crossing and the descent there are those of a line through neighbouring values of opposite signs; the last
        tensor says whether there are any.
        """
        offset = torch.arange(-SIDES, SIDES, device=t.device) + 0.5
        width = float(self.side.max())
        times, values = [], []
        for spacing in (width / SIDES, 0.5 * width / SIDES**2):
            at = t[:, None] + spacing * offset
            value = values_along(field, rays, at).float()
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

    def _correct(
        self, field: Field, rays: Rays, t: Float[Tensor, " k"], descent: Float[Tensor, " k"]
    ) -> tuple[Float[Tensor, " k"], Bool[Tensor, " k"]]:
        """Return the crossings after steps of the secant method, and whether the last step was small."""
        width, least = float(self.side.max()), MIN_STEP * longest_side(field.bounds)
        before = t
        f = query(field, rays.at(t))
        t = t + (f / descent).clamp(-width, width)
        for _ in range(self.march.corrections):
            g = query(field, rays.at(t))
            step = t - before
            secant = (f - g) / step
            # between nearly equal values or points the last slope is the better one
            descent = torch.where((step.abs() > least) & (secant > STEEP * descent), secant, descent)
            before, f = t, g
            t = t + (f / descent).clamp(-width, width)
        return t, (t - before).abs() < SETTLED * width

    def _near_surface(self) -> Bool[Tensor, " k"]:
        """Return True for the corners of cells with a change of sign."""
        solid = (self.value <= 0).view(1, 1, *self.n.tolist()).float()
        return (dilate(solid) != -dilate(-solid)).view(-1)
