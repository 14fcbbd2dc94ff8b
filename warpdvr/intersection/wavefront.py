"""A batch of rays on its way to a surface: the state of each ray while it is marched."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field, query, select_shape
from warpdvr.fields.warp_value import WarpValue
from warpdvr.intersection.hit import Hit, Status
from warpdvr.intersection.root import close_in, polish
from warpdvr.kernels import ray_state as _ray_state
from warpdvr.kernels import status as _status
from warpdvr.runtime.arguments import check_device
from warpdvr.runtime.launch import Packed, launch


class RayBatch:
    """The state of a batch of rays, shared by all marches.

    The tensors are changed in place, so that they can be packed for kernels once, as `lines` and `rays`. Directions
    have unit length here; `finish` returns to the lengths that were given.
    """

    def __init__(
        self, field: Field, rays: Rays, box: Float[Tensor, "2 3"] | None = None, value: WarpValue | None = None
    ):
        """Start at the border of the bounds, or of a box in them that holds the whole surface.

        With the `value` of the field as a Warp function, kernels evaluate that instead of Torch.

        Raises:
            ValueError: if the rays are on another device than the field.
        """
        check_device("intersect", field.bounds.device, rays=rays.origin)
        self.field, self.shape_index, self.value = field, rays.shape_index, value
        given = Rays(rays.origin.detach(), rays.direction.detach())
        precise = torch.float64 in (given.origin.dtype, given.direction.dtype)
        given, exact = given.normalised() if precise else (given, None)
        self.o, d = (a.float().contiguous() for a in (given.origin, given.direction))
        self.d, length = torch.empty_like(d), d.new_empty(len(d))
        self.bounds = field.bounds if box is None else box
        """Where the surface is searched, shape (2, 3) [scene unit]."""
        rows = d.new_empty(8, len(d)).unbind(0)
        self.near, self.far, self.low, self.high, self.f_low, self.f_high, self.nearest, self.f_nearest = rows
        self.status = torch.empty_like(length, dtype=torch.int32)
        self.evaluations = 0
        self.is_traced = False
        """Whether its rays have been marched, and are not at the border any more."""
        self.lines = Packed(_ray_state.RayLines, origin=self.o, direction=self.d, near=self.near, far=self.far)
        self.rays = Packed(
            _ray_state.RayState,
            status=self.status,
            low=self.low,
            high=self.high,
            f_low=self.f_low,
            f_high=self.f_high,
            nearest=self.nearest,
            f_nearest=self.f_nearest,
        )
        bounds = self.bounds.detach().float().contiguous()
        launch(_ray_state.begin, len(d), [d, bounds], [length], state=[self.lines, self.rays], per_row=[d])
        self.length = length if exact is None else exact
        self.given = Rays(given.origin, given.direction if precise else self.d, self.shape_index)

    def active(self) -> Int[Tensor, " n_active"]:
        """Return the indices of rays that are still undecided, int32."""
        return torch.nonzero(self.status == int(_status.ACTIVE))[:, 0].int()

    def evaluate(self, x: Float[Tensor, "n 3"], ray: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return the field's values at points on rays, and count them."""
        if self.shape_index is None:
            return self.evaluate_one(x)
        self.evaluations += len(x)
        return query(select_shape(self.field, self.shape_index, ray), x)

    def evaluate_one(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Return the values of a field of one shape at points, and count them."""
        self.evaluations += len(x)
        return query(self.field, x) if self.value is None else self.value(x)

    def cross(self, ray: Int[Tensor, " m"], ends: tuple[Float[Tensor, " m"], ...], valid: Bool[Tensor, " m"]) -> None:
        """Mark rays as hit, and give each the foremost of its `valid` brackets (low, high, f_low, f_high)."""
        ray, (low, high, f_low, f_high) = ray[valid], (a[valid] for a in ends)
        foremost = torch.full_like(self.low, torch.inf).scatter_reduce_(0, ray, low, "amin")
        lower = (low == foremost[ray]) & ~(self.low[ray] < low)
        ray = ray[lower]
        self.status[ray] = int(Status.HIT)
        self.low[ray], self.high[ray] = low[lower], high[lower]
        self.f_low[ray], self.f_high[ray] = f_low[lower], f_high[lower]

    def note_lowest(self, t: Float[Tensor, " n"], value: Float[Tensor, " n"]) -> None:
        """Take t as the place of the smallest value on each ray, where no smaller one was evaluated."""
        self.nearest.copy_(torch.where(value < self.f_nearest, t, self.nearest))

    def mostly_passes(self, value: float) -> bool:
        """Return whether most rays in the bounds miss the surface, but have a smaller value on them.

        So they do where they step over a surface that is tiny in its bounds.
        """
        passes = (self.status == int(Status.MISS)) & (self.f_nearest < value)
        return 2 * int(passes.sum()) > int((self.near <= self.far).sum())

    def finish(self, tolerance: float) -> Hit:
        """Narrow the brackets to roots and return what became of every ray."""
        if self.value is None:
            self._close_in(tolerance)
        ray = torch.nonzero(self.status == int(Status.HIT))[:, 0]
        t, for_digits = polish(self.field, self.given[ray], self.high[ray], tolerance)
        evaluations = self.evaluations + for_digits
        return Hit(t / self.length[ray].to(t), ray, self.status, self._lowest() / self.length.float(), evaluations)

    def _close_in(self, tolerance: float) -> None:
        """Narrow the brackets of rays that hit to roots, in `high` and `nearest`; fused kernels do that themselves."""
        self.status[self.status == int(_status.ACTIVE)] = int(Status.GAVE_UP)
        ray = torch.nonzero(self.status == int(Status.HIT))[:, 0]
        ends = self.low[ray], self.high[ray], self.f_low[ray], self.f_high[ray]
        shape_index = None if self.shape_index is None else self.shape_index[ray]
        t, evaluations = close_in(self.field, self.o[ray], self.d[ray], ends, tolerance, shape_index)
        self.evaluations += evaluations
        self.status[ray[t.isnan()]] = int(Status.GAVE_UP)
        self.high[ray] = t
        ray, t = ray[~t.isnan()], t[~t.isnan()]
        self.nearest[ray] = t

    def _lowest(self) -> Float[Tensor, " n"]:
        """Return `nearest` and, for rays that pass the box in which the surface is searched, the place next to it."""
        lowest: Tensor = self.nearest
        if self.bounds is self.field.bounds:
            return lowest
        near, far = Rays(self.o, self.d).clip(self.field.bounds)
        t = ((self.bounds.mean(0) - self.o) * self.d).sum(-1)
        t = torch.minimum(torch.maximum(t, near), far)
        return torch.where(lowest.isnan() & (near <= far), t, lowest)
