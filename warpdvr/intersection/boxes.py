"""What the values at the corners of boxes tell about a function inside them: bounds, slopes, second differences.

Values come in m blocks of x * y * z corners, which hold (x - 1) * (y - 1) * (z - 1) boxes each. The corners and the
differences of a box are the first axis: a fit refreshes its grid every few steps, and this layout is the fastest.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

HALVES = torch.cartesian_prod(*[torch.arange(2)] * 3)
"""The corners of a box, and the places of its halves, in the order of kernels/grid.py, shape (8, 3)."""

MAX_EXCESS = 8.0
"""The largest `excess` that is believed: at a step of the value it has no limit."""


@dataclass(frozen=True)
class Boxes:
    """n boxes of one size, and what is known about a function in them."""

    node: Int[Tensor, " n"]
    """Their rows in a tree, int64."""
    cell: Int[Tensor, "n 3"]
    """Their places among boxes of that size, int64."""
    corner: Float[Tensor, "8 n"]
    """Values at the corners, in the order of `HALVES`."""
    bend: Float[Tensor, "3 n"]
    """`bends` of each."""
    neighbourhood: Float[Tensor, "12 n"]
    """Maxima over a box and its neighbours: of `differences`, of the `model_error` in the box of twice the size, of the
    `model_error` one generation before, and of the `excess` in the boxes of all larger sizes."""
    margin: Float[Tensor, " n"]
    """How much values may have changed since they were evaluated."""

    def __len__(self) -> int:
        return len(self.node)

    def __getitem__(self, index: Tensor) -> "Boxes":
        """Return the boxes at an index."""
        corner, bend, neighbourhood = self.corner[:, index], self.bend[:, index], self.neighbourhood[:, index]
        return Boxes(self.node[index], self.cell[index], corner, bend, neighbourhood, self.margin[index])

    def joined(self, other: "Boxes") -> "Boxes":
        """Return these boxes, then those of another."""
        along = {"cell": 0}
        columns = {name: [getattr(boxes, name) for boxes in (self, other)] for name in self.__dataclass_fields__}
        return Boxes(**{name: torch.cat(pair, along.get(name, -1)) for name, pair in columns.items()})

    def to(self, device: torch.device | str) -> "Boxes":
        """Return a copy on another device."""
        return Boxes(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})


def bounds(
    corner: Float[Tensor, "8 n"],
    neighbourhood: Float[Tensor, "rows n"],
    side: Float[Tensor, "3"],
    spread: float,
    bend: float,
    limit: float,
    growth: Float[Tensor, " n"] | float = 1.0,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, "n 4"]]:
    """Return the least and the largest value and the slope (g, r) in n boxes.

    Every gradient in the box is expected within r of g, the middle of the differences around it; r is `spread` times
    half their distance from each other, plus a twentieth of their length for what they missed. Between the corners
    a value is expected to differ from theirs by what a function with such gradients can reach (r included), and by no
    more than `bend` times the error of linear interpolation with the second differences around: an eighth of them along
    each axis if it is smooth, up to half of them if it has a kink, hence `bend` = 4.

    Args:
        corner: values at the corners.
        around: `differences` in the box and its neighbours, in the first 9 rows.
        side: of the boxes [scene unit].
        spread, bend: see `BoundGrid`.
        limit: a bound of |grad value|, infinite if there is none.
        growth: factor on r, see `excess`.
    """
    g, r = _slopes(neighbourhood, spread)
    length, r = _length(g), r * growth
    steepest = (length + r).clamp_max(limit)
    lower, upper = corner.amin(0), corner.amax(0)
    rounding = 1e-6 * torch.maximum(lower.abs(), upper.abs())
    width = torch.minimum(steepest * (float(side.norm()) / 2), neighbourhood[6:9].sum(0) * (bend / 8)) + rounding
    bounded = (width + r + lower + upper).isfinite()
    beyond = lower == torch.inf  # a field that is infinite around a box has no surface in it
    lower = torch.where(beyond, 1e-20, torch.where(bounded, lower - width, -torch.inf))
    upper = torch.where(bounded, upper + width, torch.inf)
    slope = torch.stack([*torch.where(bounded, g, 0.0), torch.where(bounded, r, 1e30)], 1)
    return lower, upper, slope


def excess(neighbourhood: Float[Tensor, "rows n"], inside: Float[Tensor, "6 n"], spread: float) -> Float[Tensor, " n"]:
    """Return how far the slopes in the halves of n boxes exceed those that were expected in the boxes, at least 1.

    On a smooth or polyhedral surface they hardly ever do. Where they do, the surface has parts that the larger boxes
    did not show, and the halves may hide still smaller and steeper ones.

    Args:
        neighbourhood: of the boxes, see `Boxes`.
        inside: the first 6 rows of the largest `differences` in their halves.
        spread: see `BoundGrid`.
    """
    g, r = _slopes(neighbourhood, spread)
    beyond = torch.maximum(inside[0:6:2] - g, inside[1:6:2] + g).amax(0)
    return (beyond / r).nan_to_num(1.0).clamp(1.0, MAX_EXCESS)


def corners(value: Float[Tensor, "m x y z"]) -> Float[Tensor, "8 m x-1 y-1 z-1"]:
    """Return the values at the corners of each box in the order of `HALVES`."""
    x, y, z = (n - 1 for n in value.shape[1:])
    return torch.stack([value[:, i : i + x, j : j + y, k : k + z] for i, j, k in HALVES.tolist()])


def differences(value: Float[Tensor, "m x y z"], side: Float[Tensor, "3"]) -> Float[Tensor, "9 m x-1 y-1 z-1"]:
    """Return the largest differences in each box.

    Along each axis +d and -d of its edges, over their length; then |second differences| that involve its corners.
    """
    largest = []
    for axis in range(3):
        d = value.diff(dim=axis + 1) / side[axis]
        for sided in (d, -d):
            largest.append(_pairs(sided, [a for a in range(3) if a != axis]))
    for axis in range(3):
        second = value.diff(n=2, dim=axis + 1).abs()
        ends = [0, 0, 0, 0, 0, 0]
        ends[4 - 2 * axis] = ends[5 - 2 * axis] = 1
        largest.append(_pairs(torch.nn.functional.pad(second, ends), [0, 1, 2]))
    return torch.stack(largest)


def bends(value: Float[Tensor, "m x y z"]) -> Float[Tensor, "3 m x-1 y-1 z-1"]:
    """Return the mean second differences of each box along each axis: those of its corners, signed.

    A corner at the end of an axis takes those of the corner before it.
    """
    means = []
    for axis in range(3):
        bend, n = value.diff(n=2, dim=axis + 1), value.shape[axis + 1] - 2
        bend = torch.cat([bend.narrow(axis + 1, 0, 1), bend, bend.narrow(axis + 1, n - 1, 1)], axis + 1)
        for other in range(3):
            m = bend.shape[other + 1] - 1
            bend = (bend.narrow(other + 1, 0, m) + bend.narrow(other + 1, 1, m)) / 2
        means.append(bend)
    return torch.stack(means)


def dilate(value: Float[Tensor, "c m x y z"]) -> Float[Tensor, "c m x y z"]:
    """Return the largest value of each box and its 26 neighbours."""
    for axis in (2, 3, 4):
        n = value.shape[axis]
        lower = torch.cat([value.narrow(axis, 0, 1), value.narrow(axis, 0, n - 1)], axis)
        upper = torch.cat([value.narrow(axis, 1, n - 1), value.narrow(axis, n - 1, 1)], axis)
        value = torch.maximum(value, torch.maximum(lower, upper))
    return value


def dilate_blocks(
    value: Float[Tensor, "c m 2 2 2"], cell: Int[Tensor, "m 3"], n: int, outside: Float[Tensor, "c m"]
) -> Float[Tensor, "c m 2 2 2"]:
    """Return the largest value of each box and its neighbours, in its own and in other 2 x 2 x 2 blocks.

    Args:
        value: of the boxes.
        cell: where the blocks lie, from 0 to n - 1.
        n: upper bound of `cell`.
        outside: the value that stands in for the missing neighbours of a block.
    """
    stride = torch.tensor([(n + 1) ** 2, n + 1, 1], device=cell.device)
    key, order = ((cell + 1) * stride).sum(1).sort()
    value, outside = value[:, order], outside[:, order, None, None]
    for axis in range(3):
        inner = value.amax(axis + 2)
        sides = []
        for step, half in ((-1, 1), (1, 0)):
            neighbour_key = key + step * stride[axis]
            at = torch.searchsorted(key, neighbour_key).clamp_max(len(key) - 1)
            neighbour = torch.where(
                (key[at] == neighbour_key).view(-1, 1, 1), value.select(axis + 2, half)[:, at], outside
            )
            sides.append(torch.maximum(inner, neighbour))
        value = torch.stack(sides, axis + 2)
    return value[:, order.argsort()]


def _slopes(neighbourhood: Float[Tensor, "rows n"], spread: float) -> tuple[Float[Tensor, "3 n"], Float[Tensor, " n"]]:
    """Return the middle g of the gradients around n boxes, and the radius r in which others are expected."""
    largest, smallest = neighbourhood[0:6:2], -neighbourhood[1:6:2]
    g = (largest + smallest) / 2
    return g, (spread / 2 * _length(largest - smallest) + 0.05 * _length(g)).clamp_min(1e-20)


def _length(x: Float[Tensor, "3 n"]) -> Float[Tensor, " n"]:
    """Return the lengths of vectors."""
    return (x[0] * x[0] + x[1] * x[1] + x[2] * x[2]).sqrt()


def _pairs(value: Tensor, axes: list[int]) -> Tensor:
    """Return the larger of each two neighbours along the axes of a block."""
    for axis in axes:
        n = value.shape[axis + 1] - 1
        value = torch.maximum(value.narrow(axis + 1, 0, n), value.narrow(axis + 1, 1, n))
    return value
