"""Fields on a grid of voxels: a value and a colour at each corner, trilinear in between."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from warpdvr.fields.base import Bounds, Field, Kind
from warpdvr.fields.encoding import HashEncoding
from warpdvr.fields.logit import logit

FINEST = 1289
"""The largest resolution whose corners can be counted in 32 bits."""


class VoxelSDF(Field):
    """Distance and colour on a grid: starts as a sphere. The colour depends on the position alone.

    Args:
        resolution: cells along each axis of the bounds.
        radius: of the sphere that it starts from [scene unit].
        bounds: see `Field`.
    """

    rates: Mapping[str, float] = {"": 1e-2, "radiance.table": 5e-2}
    lipschitz_is_measured = True
    slope: Tensor

    def __init__(self, resolution: int = 64, radius: float = 0.5, bounds: Bounds = 1.0):
        super().__init__(bounds)
        self.distance, self.radiance = _grids("voxel-sdf", resolution, radius, self.bounds)
        self.distance.table.data[:, 0] = _sphere(self.distance, radius)
        self.register_buffer("slope", torch.tensor(0.0))
        self.bound_slope()

    @property
    def lipschitz(self) -> float:  # type: ignore[override]
        """The bound that `bound_slope` found last."""
        return float(self.slope)

    def value(self, x: Tensor) -> Tensor:
        return self.distance(x)[:, 0]

    def geometry(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(x), self.radiance(x)

    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor | None) -> Tensor:
        return _color("voxel-sdf", feature)

    @torch.no_grad()
    def bound_slope(self) -> int:
        """Bound |grad value| by the values at the corners; `lipschitz` is that bound. No point is asked for it.

        Inside of a cell each component of the gradient is an average of the slopes of its four edges along that axis,
        so that the steepest of each axis bound it; outside of the bounds the value moves no more than on them.
        """
        r = self.distance.resolutions[0]
        value = self.distance.table.reshape(r + 1, r + 1, r + 1)  # z, y, x
        edge = ((self.bounds[1] - self.bounds[0]) / r).tolist()
        square = torch.zeros(r, r, r).to(value)
        for axis in range(3):
            steep = value.diff(dim=2 - axis).abs() / edge[axis]
            around = [1 if a == axis else 2 for a in (2, 1, 0)]
            square += nn.functional.max_pool3d(steep[None, None], around, stride=1)[0, 0].square()
        self.slope.fill_(square.max().sqrt() * (1 + 1e-5))  # more than what float32 loses
        return 0


class VoxelOccupancy(Field):
    """Occupancy, as a logit, and colour on a grid: starts as a sphere. The colour depends on the position alone.

    The value is logit(level) - logit(occupancy): root finding works on logits.

    Args:
        resolution: cells along each axis of the bounds.
        radius: of the sphere that it starts from [scene unit].
        steepness: slope of that sphere's logit [1 / scene unit].
        level: the occupancy probability on the surface.
        bounds: see `Field`.
    """

    kind: Kind = "occupancy"
    rates: Mapping[str, float] = {"": 1e-1}

    def __init__(
        self,
        resolution: int = 64,
        radius: float = 0.5,
        steepness: float = 10.0,
        level: float = 0.5,
        bounds: Bounds = 1.0,
    ):
        super().__init__(bounds)
        self.offset = logit("voxel-occupancy", level)
        self.logit, self.radiance = _grids("voxel-occupancy", resolution, radius, self.bounds)
        self.logit.table.data[:, 0] = -steepness * _sphere(self.logit, radius)

    def value(self, x: Tensor) -> Tensor:
        return self.offset - self.logit(x)[:, 0]

    def geometry(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(x), self.radiance(x)

    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor | None) -> Tensor:
        return _color("voxel-occupancy", feature)


def _grids(name: str, resolution: int, radius: float, bounds: Tensor) -> tuple[HashEncoding, HashEncoding]:
    """Return a grid of values and one of colours: each is a hash encoding of one level that needs no hash."""
    if not 2 <= resolution <= FINEST or not radius > 0:
        raise ValueError(f"{name}: needs a resolution of 2 to {FINEST} and a radius > 0, got {resolution} and {radius}")
    size = 2 ** math.ceil(3 * math.log2(resolution + 1))
    options = {"levels": 1, "coarsest": resolution, "finest": resolution, "size": size, "bounds": bounds}
    return HashEncoding(features=1, **options), HashEncoding(features=3, **options)


def _sphere(grid: HashEncoding, radius: float) -> Tensor:
    """Return the distance to a sphere at the corners of a grid, in the order of its table, shape (rows,).

    It is rounded off over the length of a cell, or the slope would be sqrt(3) around the centre of the sphere.
    """
    line = torch.linspace(0, 1, grid.resolutions[0] + 1).to(grid.bounds)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    low, high = grid.bounds
    corner = low + (high - low) * torch.stack([x, y, z], -1).reshape(-1, 3)
    return (corner.square().sum(-1) + grid.cell**2).sqrt() - math.hypot(radius, grid.cell)


def _color(name: str, feature: Tensor | None) -> Tensor:
    if feature is None:
        raise ValueError(f"{name}: color needs the features that geometry returns")
    return torch.sigmoid(feature)
