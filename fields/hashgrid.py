"""Fields on multiresolution hash grids: fine detail for few operations."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from warpdvr.fields.base import Field, Kind
from warpdvr.fields.bounds import Bounds
from warpdvr.fields.encoding import HashEncoding
from warpdvr.fields.logit import ball, logit
from warpdvr.fields.mlp import MLP, PositionalEncoding, Squareplus
from warpdvr.fields.slope import SLOPE_POINTS, steepest, store_slope
from warpdvr.fields.version import Version
from warpdvr.fields.warp_value import WarpValue
from warpdvr.kernels import perceptron as _perceptron
from warpdvr.runtime.arguments import check_counts, check_positive
from warpdvr.runtime.numbers import numbers

RATES: Mapping[str, float] = {"": 1e-2, "table": 2e-3, "radiance.encode.table": 1e-2}
"""Tables of the geometry get a lower rate: the finer a level, the more its entries change the slope."""

SHAPE_RATE = 1e-3
"""Rate of the perceptron of a distance: each of its weights moves the whole surface, so that higher rates shake it."""


TYPES = {"float32": torch.float32, "float16": torch.float16}
"""Types that the rows of a table may have, by the names that a scene file can hold."""


class GridSize(NamedTuple):
    """The size of a hash grid: levels, cells along an axis of the first and the last level, rows of a hashed level."""

    levels: int
    coarsest: int
    finest: int
    size: int
    dtype: torch.dtype = torch.float32
    """Of the rows."""


class _HashGridField(Field):
    """Common base of distance and occupancy: a perceptron on one hash grid, and a colour on another."""

    rates = RATES
    slope_points = SLOPE_POINTS
    radiance: "Radiance"

    def __init__(self, grid: GridSize, perceptron: tuple[int, int, int], activation: nn.Module, bounds: Bounds):
        """Take the hidden width and depth and the number of features of `perceptron`."""
        super().__init__(bounds)
        width, depth, features = perceptron
        self.encode = HashEncoding(**grid._asdict(), bounds=self.bounds)
        self.perceptron = MLP(3 + self.encode.width, width, depth, 1 + features, activation)

    def _outputs(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"]]:
        """Return the first output of the perceptron at points, and the features."""
        out = self.perceptron(torch.cat([x, self.encode(x)], -1))
        return out[:, 0], out[:, 1:]

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        return self.geometry(x)[0]

    def color(
        self,
        x: Float[Tensor, "n 3"],
        normal: Float[Tensor, "n 3"],
        direction: Float[Tensor, "n 3"],
        feature: Float[Tensor, "n k"] | None,
    ) -> Float[Tensor, "n 3"]:
        return self.radiance(x, normal, direction, feature)

    def anneal(self, progress: float) -> None:
        activate_levels(progress, self.encode, self.radiance.encode)


class HashGrid(_HashGridField):
    """Signed distance and radiance, each from its own hash encoding and a small perceptron.

    Encoding after Mueller et al., "Instant NGP" (2022); distance, its start as a sphere and a colour that depends
    on position, normal, direction and features after Yariv et al., IDR (2020). A fit activates the levels one after the
    other, coarse to fine (Li et al., "Neuralangelo", 2023, section 3.2).

    Args:
        levels, coarsest, finest: grids of the geometry, and the cells of the first and the last along an axis.
        size: rows of a hashed level, a power of two.
        width, depth: hidden layers of the geometry.
        features: number of features that the geometry passes to the colour.
        color_levels, color_finest, color_size: grids of the colour.
        color_width, color_depth: hidden layers of the colour.
        view_frequencies: octaves of the encoding of the viewing direction; 0 takes the direction as it is.
        dtype: "float16" halves the memory of the tables, for pictures and meshes; everything else stays float32. A fit
            needs "float32", in whose weights its small steps are not lost; `load_state_dict` takes them from there.
        radius: of the sphere that it starts from [scene unit].
        sharpness: of the smooth ReLU in the geometry.
        numerical: take normals from central differences over a cell of the finest active level, instead of
            exact derivatives: smoother surfaces (Neuralangelo, section 3.1) for seven evaluations instead of one.
        bounds: see `Field`.
    """

    lipschitz_is_measured = True
    slope: Tensor

    def __init__(
        self,
        levels: int = 8,
        coarsest: int = 16,
        finest: int = 256,
        size: int = 2**15,
        width: int = 64,
        depth: int = 1,
        features: int = 15,
        color_levels: int = 8,
        color_finest: int = 512,
        color_size: int = 2**16,
        color_width: int = 64,
        color_depth: int = 2,
        view_frequencies: int = 0,
        radius: float = 0.5,
        sharpness: float = 100.0,
        numerical: bool = False,
        bounds: Bounds = 1.0,
        dtype: str | torch.dtype = "float32",
    ):
        check_counts("hashgrid", features=features)
        check_counts("hashgrid", least=0, view_frequencies=view_frequencies)
        check_positive("hashgrid", radius=radius)
        rows = _table_type("hashgrid", dtype)
        grid = GridSize(levels, coarsest, finest, size, rows)
        super().__init__(grid, (width, depth, features), Squareplus(sharpness), bounds)
        own = (f"perceptron.{name}" for name, _ in self.perceptron.named_parameters())
        self.rates = {**RATES, **dict.fromkeys(own, SHAPE_RATE)}
        self.numerical = numerical
        self.register_buffer("slope", torch.tensor(1.0))
        color_grid = GridSize(color_levels, coarsest, color_finest, color_size, rows)
        self.radiance = Radiance(features, color_grid, color_width, color_depth, view_frequencies, self.bounds)
        self.perceptron.start_as_sphere(radius)
        with torch.no_grad():
            self.perceptron.layers[0].weight[:, 3:].normal_(
                0.0, 0.1
            )  # otherwise neither they nor the table would learn
            x = radius * nn.functional.normalize(torch.randn(4096, 3), dim=-1)
            self.perceptron.layers[-1].bias[0] -= self.value(x).mean()
        self.bound_slope()

    @property
    def step(self) -> float | None:  # type: ignore[override]
        return self.encode.cell if self.numerical else None

    @property
    def lipschitz(self) -> float:  # type: ignore[override]
        """The bound from the last call of `bound_slope`."""
        return float(numbers(self.slope))

    def bound_slope(self) -> int:
        store_slope(self, Version(self), steepest(self, self.slope_points))
        return self.slope_points

    def geometry(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"]]:
        return self._outputs(x)

    def warp_value(self) -> WarpValue | None:
        encode, perceptron = self.encode, self.perceptron  # which a user may have replaced
        if type(encode) is not HashEncoding or encode.table.dtype != torch.float32 or type(perceptron) is not MLP:
            return None
        if (weights := perceptron.for_kernels()) is None:
            return None
        levels, features = len(encode.weight), encode.table.shape[1]
        made = _perceptron.hash_perceptron(levels, features, perceptron.layers[0].out_features)
        tensors = {"table": encode.table, "bounds": encode.bounds, "weight": encode.weight, "levels": encode.layout}
        return WarpValue(made.value, made.Parameters, **tensors, **weights)


class HashGridOccupancy(_HashGridField):
    """Occupancy and radiance on hash grids: `HashGrid` with a logit in place of the distance.

    The value is logit(level) - logit(occupancy), as in Niemeyer et al., DVR (2020); the network adds to the logit of
    a sphere, from which it starts.

    Args:
        steepness: slope of that sphere's logit [1 / scene unit].
        level: the occupancy probability on the surface.
        levels, coarsest, finest, size, width, depth, features: see `HashGrid`.
        color_levels, color_finest, color_size, color_width, color_depth: see `HashGrid`.
        view_frequencies, radius, bounds, dtype: see `HashGrid`.
    """

    kind: Kind = "occupancy"

    def __init__(
        self,
        levels: int = 8,
        coarsest: int = 16,
        finest: int = 256,
        size: int = 2**15,
        width: int = 64,
        depth: int = 1,
        features: int = 15,
        color_levels: int = 8,
        color_finest: int = 512,
        color_size: int = 2**16,
        color_width: int = 64,
        color_depth: int = 2,
        view_frequencies: int = 0,
        radius: float = 0.5,
        steepness: float = 10.0,
        level: float = 0.5,
        bounds: Bounds = 1.0,
        dtype: str | torch.dtype = "float32",
    ):
        check_counts("hashgrid-occupancy", features=features)
        check_counts("hashgrid-occupancy", least=0, view_frequencies=view_frequencies)
        check_positive("hashgrid-occupancy", radius=radius, steepness=steepness)
        rows = _table_type("hashgrid-occupancy", dtype)
        super().__init__(GridSize(levels, coarsest, finest, size, rows), (width, depth, features), nn.ReLU(), bounds)
        self.radius, self.steepness, self.offset = radius, steepness, logit("hashgrid-occupancy", level)
        color_grid = GridSize(color_levels, coarsest, color_finest, color_size, rows)
        self.radiance = Radiance(features, color_grid, color_width, color_depth, view_frequencies, self.bounds)
        with torch.no_grad():
            self.perceptron.layers[-1].weight[0] = 0.0
            self.perceptron.layers[-1].bias[0] = 0.0

    def geometry(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"]]:
        out, feature = self._outputs(x)
        return self.offset + ball(x, self.radius, self.steepness) - self.steepness * out, feature


class Radiance(nn.Module):
    """Colour from position (as it is, and on a hash grid), normal, direction and the features of the geometry.

    A further input is the cosine between normal and view, as in Ref-NeRF (Verbin et al. 2022): it shows a light that
    moves with the camera, and a product of inputs is hard to learn for a small perceptron.
    """

    def __init__(
        self,
        features: int,
        grid: GridSize,
        width: int,
        depth: int,
        frequencies: int,
        bounds: Float[Tensor, "2 3"],
    ):
        super().__init__()
        self.encode = HashEncoding(**grid._asdict(), bounds=bounds)
        self.encode_view = PositionalEncoding(frequencies)
        self.network = MLP(7 + self.encode_view.width + features + self.encode.width, width, depth, 3, torch.relu)

    def forward(
        self,
        x: Float[Tensor, "n 3"],
        normal: Float[Tensor, "n 3"],
        direction: Float[Tensor, "n 3"],
        feature: Float[Tensor, "n k"] | None,
    ) -> Float[Tensor, "n 3"]:
        if feature is None:
            raise ValueError("hashgrid: color needs the features that geometry returns")
        facing = -(normal * direction).sum(-1, keepdim=True)
        inputs = [x, normal, facing, self.encode_view(direction), feature, self.encode(x)]
        return torch.sigmoid(self.network(torch.cat(inputs, -1)))


def _table_type(where: str, dtype: object) -> torch.dtype:
    """Return the type of that name.

    Raises:
        ValueError: if tables cannot have it.
    """
    found = TYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or found not in TYPES.values():
        raise ValueError(f"{where}: dtype, the type of the tables, must be 'float32' or 'float16', got {dtype!r}")
    return found


def activate_levels(progress: float, *encodings: HashEncoding) -> None:
    """Activate as many levels of the encodings as a fit has at `progress`, from 0 to 1."""
    for encode in encodings:
        encode.active = active_levels(len(encode.resolutions), progress)


def active_levels(levels: int, progress: float, first: int = 3, by: float = 0.6) -> float:
    """Return the number of active levels: `first` at the start of a fit, all after the part `by`; fractions fade in."""
    return min(levels, first + max(levels - first, 0) * progress / by)
