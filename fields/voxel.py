"""Fields on a grid of voxels: a value and a colour at each corner, trilinear in between."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from warpdvr.fields.base import Field, Kind
from warpdvr.fields.bounds import Bounds
from warpdvr.fields.encoding import HashEncoding
from warpdvr.fields.logit import logit
from warpdvr.fields.slope import store_slope
from warpdvr.fields.version import Version
from warpdvr.fields.warp_value import WarpValue
from warpdvr.kernels import voxels as _voxels
from warpdvr.runtime.arguments import check_counts, check_positive
from warpdvr.runtime.numbers import numbers

MAX_RESOLUTION = 1289
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
        """The bound from the last call of `bound_slope`."""
        return float(numbers(self.slope))

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        return self.distance(x)[:, 0]

    def warp_value(self) -> WarpValue | None:
        return _trilinear(self.distance, sign=1.0, offset=0.0)

    def geometry(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"]]:
        return self.value(x), self.radiance(x)

    def color(
        self,
        x: Float[Tensor, "n 3"],
        normal: Float[Tensor, "n 3"],
        direction: Float[Tensor, "n 3"],
        feature: Float[Tensor, "n k"] | None,
    ) -> Float[Tensor, "n 3"]:
        return _color("voxel-sdf", feature)

    @torch.no_grad()
    def bound_slope(self) -> int:
        """Bound |grad value| by the values at the corners; `lipschitz` is that bound. Takes no evaluations.

        Inside of a cell each component of the gradient is an average of the slopes of its four edges along that axis,
        so that the steepest of each axis bound it; outside of the bounds the value moves no more than on them.
        """
        r = self.distance.resolutions[0]
        value = self.distance.table.reshape(r + 1, r + 1, r + 1)  # z, y, x
        edge = ((self.bounds[1] - self.bounds[0]) / r).tolist()
        square = torch.zeros(r, r, r).to(value)
        for axis in range(3):
            steep = value.diff(dim=2 - axis).abs() / edge[axis]
            window = [1 if a == axis else 2 for a in (2, 1, 0)]
            square += nn.functional.max_pool3d(steep[None, None], window, stride=1)[0, 0].square()
        store_slope(self, Version(self), square.max().sqrt() * (1 + 1e-5))  # more than float32 rounding
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
        check_positive("voxel-occupancy", steepness=steepness)
        self.offset = logit("voxel-occupancy", level)
        self.logit, self.radiance = _grids("voxel-occupancy", resolution, radius, self.bounds)
        self.logit.table.data[:, 0] = -steepness * _sphere(self.logit, radius)

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        return self.offset - self.logit(x)[:, 0]

    def warp_value(self) -> WarpValue | None:
        return _trilinear(self.logit, sign=-1.0, offset=self.offset)

    def geometry(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"]]:
        return self.value(x), self.radiance(x)

    def color(
        self,
        x: Float[Tensor, "n 3"],
        normal: Float[Tensor, "n 3"],
        direction: Float[Tensor, "n 3"],
        feature: Float[Tensor, "n k"] | None,
    ) -> Float[Tensor, "n 3"]:
        return _color("voxel-occupancy", feature)


def _grids(
    name: str, resolution: int, radius: float, bounds: Float[Tensor, "2 3"]
) -> tuple[HashEncoding, HashEncoding]:
    """Return a grid of values and one of colours: each is a hash encoding of one level that needs no hash."""
    check_counts(name, least=-MAX_RESOLUTION, resolution=resolution)
    if not 2 <= resolution <= MAX_RESOLUTION or not radius > 0:
        raise ValueError(
            f"{name}: needs a resolution of 2 to {MAX_RESOLUTION} and a radius > 0, got {resolution} and {radius}"
        )
    size = 2 ** math.ceil(3 * math.log2(resolution + 1))
    options = {"levels": 1, "coarsest": resolution, "finest": resolution, "size": size, "bounds": bounds}
    return HashEncoding(features=1, **options), HashEncoding(features=3, **options)


def _trilinear(grid: HashEncoding, sign: float, offset: float) -> WarpValue | None:
    """Return the value offset + sign * that of a grid of one level as a Warp function."""
    if grid.active != 1:
        return None
    cells = grid.resolutions[0]
    table, bounds = grid.table.detach().view(-1), grid.bounds.float()
    voxels, kind = _voxels.voxels, _voxels.Voxels
    return WarpValue(voxels, kind, table=table, bounds=bounds, cells=cells, sign=sign, offset=offset)


def _sphere(grid: HashEncoding, radius: float) -> Float[Tensor, " rows"]:
    """Return the distance to a sphere at the corners of a grid, in the order of its table.

    It is rounded off over the length of a cell; otherwise the slope at the centre of the sphere would be sqrt(3).
    """
    line = torch.linspace(0, 1, grid.resolutions[0] + 1).to(grid.bounds)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    low, high = grid.bounds
    corner = low + (high - low) * torch.stack([x, y, z], -1).reshape(-1, 3)
    return (corner.square().sum(-1) + grid.cell**2).sqrt() - math.hypot(radius, grid.cell)


def _color(name: str, feature: Float[Tensor, "n 3"] | None) -> Float[Tensor, "n 3"]:
    if feature is None:
        raise ValueError(f"{name}: color needs the features that geometry returns")
    return torch.sigmoid(feature)
