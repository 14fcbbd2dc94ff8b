"""A multiresolution hash encoding: look up features of a position in a table."""

import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from warpdvr.fields.bounds import Bounds, box
from warpdvr.fields.lookup import encode, scatter, slope
from warpdvr.runtime.arguments import check_device
from warpdvr.runtime.autograd import Context

MEMORY = Path("/proc/meminfo")
"""Where Linux says how much memory is free; other systems are not checked."""

PRIMES = (2654435761, 805459861)
"""Strides along y and z of a hashed level (Mueller et al. 2022, eq. 4; along x the stride is 1)."""

MAX_LEVELS = 64
"""More levels than a resolution below 2**24 has use for: they would differ by less than a third."""


class HashEncoding(nn.Module):
    """Features of positions on grids of growing resolution, as Mueller et al., "Instant NGP" (2022), section 3.

    Level l has floor(coarsest * b^l) cells along each axis of the bounds, with b such that the last one has `finest`. A
    level whose corners all fit into `size` rows is stored directly; a finer one shares `size` rows through a hash. The
    features are differentiable with respect to table and position, twice by kernels, and further in plain Torch.

    Outside of the bounds the features are those of the nearest point inside; across the boundary they have no slope. A
    position that is NaN has NaN features and adds nothing to the gradient of the table; while
    `torch.autograd.set_detect_anomaly` is on, it is refused.

    Args:
        levels: how many grids.
        features: per level, 1 to 8.
        size: most rows per level, a power of two.
        coarsest, finest: cells along an axis of the first and of the last level.
        bounds: two corners (low, high), or half the side of a cube around the origin [scene unit].
        dtype: of the table; a table of torch.float16 is for CUDA, its gradient is added up in float32.

    Example:
        >>> encode = HashEncoding(levels=4, size=2**12, finest=64)
        >>> encode(torch.zeros(5, 3)).shape
        torch.Size([5, 8])
    """

    bounds: Tensor
    weight: Tensor
    layout: Tensor

    def __init__(
        self,
        *,
        levels: int = 16,
        features: int = 2,
        size: int = 2**19,
        coarsest: int = 16,
        finest: int = 2048,
        bounds: Bounds = 1.0,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        rows = _layout(levels, features, size, coarsest, finest)
        self.width = levels * features
        self.resolutions = [row[0] for row in rows]
        total = rows[-1][1] + (rows[-1][4] + 1 if rows[-1][4] else (rows[-1][0] + 1) ** 3)
        _require_memory(total, features, dtype)
        self.register_buffer("bounds", box(bounds))
        self.register_buffer("weight", torch.ones(levels))
        self.register_buffer("layout", torch.tensor(rows, dtype=torch.int64).int(), persistent=False)
        self.table = nn.Parameter(torch.empty(total, features, dtype=dtype).uniform_(-1e-4, 1e-4))

    @property
    def active(self) -> float:
        """How many levels are active, from coarse to fine, 0 to `levels`: a fraction fades the last one in.

        The features of the others are 0 and cost nothing. The buffer `weight` holds this as a factor for each level.
        """
        return float(self.weight.sum())

    @active.setter
    def active(self, levels: float) -> None:
        index = torch.arange(len(self.weight), device=self.weight.device)
        self.weight.copy_((levels - index).clamp(0, 1))

    @property
    def cell(self) -> float:
        """The longest side of a cell of the finest active level [scene unit].

        A field that takes its slope by finite differences steps this far (Li et al., "Neuralangelo", 2023, sec. 3.2).
        """
        finest = max(int((self.weight > 0).sum()), 1) - 1
        return float((self.bounds[1] - self.bounds[0]).max()) / self.resolutions[finest]

    def forward(self, x: Tensor) -> Tensor:  # `torch.compile` cannot trace a check of shapes
        """Return the features (n, levels * features) of points (n, 3).

        Raises:
            ValueError: if the points have another shape, a type that does not fit the table, or are elsewhere.
        """
        if x.ndim != 2 or x.shape[1] != 3:
            raise ValueError(f"HashEncoding: expected points of shape (n, 3), got {tuple(x.shape)}")
        table = self.table
        expected = torch.float32 if table.dtype == torch.float16 else table.dtype
        if x.dtype != expected:
            raise ValueError(f"HashEncoding: a {table.dtype} table needs points in {expected}, got {x.dtype}")
        if not torch.compiler.is_compiling():
            check_device("HashEncoding", table.device, "the table", points=x)
        frame = (self.bounds.to(x.dtype), self.weight.to(x.dtype), self.layout)
        if torch.compiler.is_compiling():
            return encode(x, table, *frame)
        if torch.is_anomaly_enabled() and bool(x.isnan().any()):
            raise ValueError(f"HashEncoding: {int(x.isnan().any(-1).sum())} of {len(x)} points are not numbers")
        if not (torch.is_grad_enabled() and (x.requires_grad or table.requires_grad)):
            return encode(x, table, *frame)
        features, zeros = _ByPosition.apply(x, (table, *frame)), _ByTable.apply(table, (x, *frame))  # type: ignore[no-untyped-call]
        return _Join.apply(features, zeros)  # type: ignore[no-untyped-call]


class _ByPosition(torch.autograd.Function):
    """The features as a function of the position alone; autograd does not see the table.

    Autograd makes a node with two inputs compute both gradients even if only one is needed. With one node for each
    input, the gradient by position, which normals need, does not wait for one as large as the table.
    """

    @staticmethod
    def forward(ctx: Context, x: Float[Tensor, "n 3"], grid: tuple[Tensor, ...]) -> Float[Tensor, "n width"]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *grid)
        return encode(x, *grid)

    @staticmethod
    def backward(ctx: Context, *grad: Float[Tensor, "n width"] | None) -> tuple[Float[Tensor, "n 3"] | None, None]:
        return None if grad[0] is None else slope(grad[0], *ctx.saved_tensors), None


class _ByTable(torch.autograd.Function):
    """Zeros of the features' shape, whose gradient by table is that of the features."""

    @staticmethod
    def forward(
        ctx: Context, table: Float[Tensor, "rows features"], points: tuple[Tensor, ...]
    ) -> Float[Tensor, "n width"]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*points, table.new_empty(0, len(table)))  # its type and its rows, not itself
        x, _, weight, _ = points
        return x.new_zeros(()).expand(len(x), len(weight) * table.shape[1])

    @staticmethod
    def backward(
        ctx: Context, *grad: Float[Tensor, "n width"] | None
    ) -> tuple[Float[Tensor, "rows features"] | None, None]:
        if grad[0] is None:
            return None, None
        *frame, like = ctx.saved_tensors
        return scatter(grad[0], *frame, like.shape[1]).to(like.dtype), None


class _Join(torch.autograd.Function):
    """The sum of features and zeros."""

    @staticmethod
    def forward(
        ctx: Context, features: Float[Tensor, "n width"], zeros: Float[Tensor, "n width"]
    ) -> Float[Tensor, "n width"]:
        ctx.set_materialize_grads(False)  # a value that nobody differentiates must not cost a scatter of zeros
        return features.view_as(features)

    @staticmethod
    def backward(
        ctx: Context, *grad: Float[Tensor, "n width"] | None
    ) -> tuple[Float[Tensor, "n width"] | None, Float[Tensor, "n width"] | None]:
        return grad[0], grad[0]


def _layout(levels: int, features: int, size: int, coarsest: int, finest: int) -> list[list[int]]:
    """Return resolution, first row, strides along y and z, and mask of each level, as kernels/encode.py reads them."""
    if levels < 1 or not 1 <= features <= 8:
        raise ValueError(f"HashEncoding: needs levels >= 1 and 1 to 8 features, got {levels} and {features}")
    if levels > MAX_LEVELS:
        raise ValueError(f"HashEncoding: more than {MAX_LEVELS} levels cannot be meant, got {levels}")
    if size < 1 or size & (size - 1) or size >= 2**31:
        raise ValueError(f"HashEncoding: size must be a power of two, got {size}; at most 2**30")
    if not 1 <= coarsest <= finest < 2**24:
        raise ValueError(f"HashEncoding: needs 1 <= coarsest <= finest < 2**24, got {coarsest} and {finest}")
    if levels == 1 and coarsest != finest:
        raise ValueError(f"HashEncoding: one level has one resolution, got coarsest {coarsest} and finest {finest}")
    growth = math.log(finest / coarsest) / max(levels - 1, 1)
    rows, first = [], 0
    for level in range(levels):
        r = int(coarsest * math.exp(growth * level) + 1e-6)
        corners = (r + 1) ** 3
        if corners <= size:
            rows.append([r, first, r + 1, (r + 1) ** 2, 0])
        else:
            rows.append([r, first, *PRIMES, size - 1])
        first += min(corners, size)
    if first >= 2**31:
        raise ValueError(f"HashEncoding: the table would have {first} rows, more than 2**31: choose a smaller size")
    return rows


def _require_memory(rows: int, features: int, dtype: torch.dtype) -> None:
    """Refuse a table that does not fit into the memory of Torch's default device."""
    need, free, device = rows * features * dtype.itemsize, math.inf, torch.get_default_device()
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    elif device.type == "cpu" and MEMORY.is_file():
        free = 1024 * int(MEMORY.read_text().partition("MemAvailable:")[2].split()[0])
    if need > free:
        raise ValueError(
            f"HashEncoding: the table needs {need / 2**30:.2f} GiB, but {free / 2**30:.2f} GiB are free on {device}: "
            "choose a smaller size or fewer levels"
        )
