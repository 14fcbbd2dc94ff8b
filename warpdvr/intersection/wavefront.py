"""A batch of rays on its way to a surface, and what became of it."""

import torch
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field, query, select_shape
from warpdvr.intersection.hit import Hit, Status
from warpdvr.intersection.root import close_in
from warpdvr.kernels import status as _status


class RayBatch:
    """A batch of rays on its way: what every solver keeps of each."""

    def __init__(self, field: Field, rays: Rays):
        self.field, self.shape_index = field, rays.shape_index
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

    def ask(self, x: Tensor, ray: Tensor) -> Tensor:
        """Return the field's values at points (n, 3) on rays (n,), and count them."""
        self.evaluations += len(x)
        return query(select_shape(self.field, self.shape_index, ray), x)

    def cross(self, ray: Tensor, ends: tuple[Tensor, ...], found: Tensor) -> None:
        """Give each ray the foremost of the brackets `ends` that were found for it."""
        ray, (low, high, f_low, f_high) = ray[found], (a[found] for a in ends)
        foremost = torch.full_like(self.low, torch.inf).scatter_reduce_(0, ray, low, "amin")
        lower = (low == foremost[ray]) & ~(self.low[ray] < low)
        ray = ray[lower]
        self.status[ray] = int(Status.HIT)
        self.low[ray], self.high[ray] = low[lower], high[lower]
        self.f_low[ray], self.f_high[ray] = f_low[lower], f_high[lower]

    def guess(self, t: Tensor, value: Tensor) -> None:
        """Let rays have come nearest to the surface at t, shape (n,), where they are not known to come nearer."""
        self.nearest = torch.where(value < self.f_nearest, t, self.nearest)

    def finish(self, tolerance: float) -> Hit:
        """Close the brackets in and say what became of every ray."""
        self.status[self.status == int(_status.ACTIVE)] = int(Status.GAVE_UP)
        ray = torch.nonzero(self.status == int(Status.HIT))[:, 0]
        ends = self.low[ray], self.high[ray], self.f_low[ray], self.f_high[ray]
        shape_index = None if self.shape_index is None else self.shape_index[ray]
        t, evaluations = close_in(self.field, self.o[ray], self.d[ray], ends, tolerance, shape_index)
        self.status[ray[t.isnan()]] = int(Status.GAVE_UP)
        ray, t = ray[~t.isnan()], t[~t.isnan()]
        self.nearest[ray] = t
        return Hit(t, ray, self.status, self.nearest, self.evaluations + evaluations)
