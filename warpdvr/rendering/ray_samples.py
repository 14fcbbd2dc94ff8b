"""Samples along rays, packed: sections of one length, in cells that may hold something."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.intersection.occupied import Cells
from warpdvr.kernels import ray_samples as _kernels
from warpdvr.runtime.launch import launch


@dataclass(frozen=True)
class Sections:
    """Sections of n rays, from near to far, and the points at their ends, of which neighbours share one."""

    first: Int[Tensor, " _"]
    """Where the sections of each ray begin, and the number m of all, int64."""
    ray: Int[Tensor, " m"]
    """The ray of each section, int64."""
    start: Int[Tensor, " m"]
    """The point where each section starts; it ends at the next one, int64."""
    t: Float[Tensor, " p"]
    """Ray lengths of the points, float32 [lengths of `Rays.direction`]."""
    point_ray: Int[Tensor, " p"]
    """The ray of each point, int64."""

    @property
    def ends(self) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
        """Ray lengths where the sections start and end."""
        return self.t[self.start], self.t[self.start + 1]

    def __getitem__(self, kept: Bool[Tensor, " m"]) -> "Sections":
        """Return some of the sections, with their points only."""
        used = torch.zeros_like(self.t, dtype=torch.bool)
        start = self.start[kept]
        used[start] = True
        used[start + 1] = True
        place = used.cumsum(0) - 1
        first = torch.cat([self.first[:1], kept.cumsum(0)])[self.first]
        return Sections(first, self.ray[kept], place[start], self.t[used], self.point_ray[used])


@torch.no_grad()
def cut(
    rays: Rays,
    bounds: Float[Tensor, "2 3"],
    *,
    step: float,
    most: int,
    cells: Cells,
    jitter: torch.Generator | None = None,
) -> Sections:
    """Cut the part of each ray in the bounds into sections, and keep those that pass through occupied cells.

    All are of one length but the last one and, with jitter, the first one, whose random length moves the others.

    Args:
        rays: n rays of unit directions; what is no ray has no sections.
        bounds: the box (low, high).
        step: length of a section [scene unit]; longer on a ray of which more than `most` would be kept.
        most: largest number of sections on a ray.
        cells: where there may be something.
        jitter: draws the length of the first section of each ray.
    """
    n, device = len(rays), rays.origin.device
    near, far = rays.clip(bounds)
    o, d = (a.detach().float().contiguous() for a in (rays.origin, rays.direction))
    far = far.masked_fill(~(o + d).isfinite().all(1), -1.0)  # what is no ray ends before it begins
    offset = near.new_ones(n)
    if jitter is not None:
        offset = 1 - torch.rand(n, generator=jitter, device=jitter.device).to(near)
    frame = [cells.occupied, cells.low.tolist(), (1 / cells.side).tolist()]
    side = float(cells.side.min())
    count, points = torch.empty(2, n, dtype=torch.int64, device=device)
    size = torch.empty_like(near)
    ray = [o, d, near, far, offset]
    launch(_kernels.count, n, [*ray, *frame, step, side, most], [count, points, size], per_row=ray)
    first, first_point = (torch.nn.functional.pad(c.cumsum(0), (1, 0)) for c in (count, points))
    start = torch.empty(int(first[-1]), dtype=torch.int64, device=device)
    t = near.new_empty(int(first_point[-1]))
    packed = [start, t]
    launch(_kernels.place, n, [*ray, size, *frame, side, first, first_point], [], per_row=ray, state=packed)
    index = torch.arange(n, device=device)
    return Sections(first, index.repeat_interleave(count), start, t, index.repeat_interleave(points))
