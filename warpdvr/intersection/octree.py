"""A tree of boxes around the surface of a field, built from values at their corners: what a `BoundGrid` knows."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from warpdvr.intersection import lipschitz
from warpdvr.intersection.box_models import model_error, models_of, tighter, value_at
from warpdvr.intersection.boxes import (
    HALVES,
    Boxes,
    bends,
    bounds,
    corners,
    differences,
    dilate,
    dilate_blocks,
    excess,
)
from warpdvr.kernels import grid as _grid
from warpdvr.runtime.launch import Packed

Evaluate = Callable[[Float[Tensor, "n 3"]], Float[Tensor, " n"]]
"""Returns the values of a field at points."""

ODD_PLACE = (0.36, 0.43, 0.29)
"""Where in a box its model is checked, in sides: off the lattices that a field may be built on."""

CHECK = 1.5
"""Factor on the error found there, which must not exceed the expected one."""

PLATEAU = 0.5
"""Slopes below this share of the Lipschitz bound raise the suspicion that a distance is cut off."""

MAX_RESOLUTION = 4096
"""Most boxes along the longest side that a tree can be halved into: in smaller ones rounding shows."""


@dataclass(frozen=True)
class Layout:
    """The largest boxes of a tree, and the parameters of its bounds."""

    low: Float[Tensor, "3"]
    """Corner of the first box [scene unit]."""
    side: Float[Tensor, "3"]
    """Sides of the largest boxes [scene unit]."""
    cells: tuple[int, int, int]
    """Number of the largest boxes along each axis."""
    levels: int
    """Number of sizes of boxes, each half as large as the one before."""
    spread: float
    """See `BoundGrid`."""
    bend: float
    """See `BoundGrid`."""

    @property
    def high(self) -> Float[Tensor, "3"]:
        """Corner of the last box [scene unit]."""
        return self.low + self.side * torch.tensor(self.cells).to(self.side)

    def corners(self) -> Float[Tensor, "k 3"]:
        """Return the corners of the largest boxes, row-major [scene unit]."""
        place: Tensor = torch.cartesian_prod(*(torch.arange(n + 1) for n in self.cells))
        corner: Tensor = self.low + self.side * place.to(self.side)
        return corner

    def to(self, device: torch.device | str) -> "Layout":
        """Return a copy on another device."""
        low, side = self.low.to(device), self.side.to(device)
        return Layout(low, side, self.cells, self.levels, self.spread, self.bend)


class Octree:
    """Boxes with bounds of a field's value and gradient, halved where they may hold the surface.

    The arrays `child`, `lower`, `upper`, `slope` and `models` are those of `Tree` in kernels/grid.py.
    """

    def __init__(
        self,
        layout: Layout,
        value: Float[Tensor, " k"],
        drift: Float[Tensor, " k"],
        lipschitz_bound: float | None,
        evaluate: Evaluate,
        *,
        proven: bool = False,
    ):
        """Bound the largest boxes by the values at their corners, and halve those that may hold the surface.

        Args:
            layout: of the largest boxes.
            value: the field's values at `layout.corners`.
            drift: how much these may change until the tree is rebuilt.
            lipschitz_bound: of the field, None if it has none; ignored if values differ by more.
            evaluate: the field.
            proven: whether that bound is more than a measurement.
        """
        self.layout = layout
        shape = [1, *(n + 1 for n in layout.cells)]
        block, margin = value.view(shape), dilate(corners(drift.view(shape)).amax(0)[None]).view(-1)
        corner = corners(block).reshape(8, -1)
        self.lipschitz = _checked_lipschitz(lipschitz_bound, corner, layout.side)
        """An upper bound of |grad value|; infinity where none is known."""
        self.proven_lipschitz = self.lipschitz if proven else math.inf
        """The same, if it was not measured."""
        self.child = value.new_empty(0, dtype=torch.int32)
        self.lower = self.upper = value.new_empty(0)
        self.slope, self.models = value.new_empty(0, 4), value.new_empty(0, 12)
        self._poor: dict[int, Boxes] = {}
        cell = torch.cartesian_prod(*(torch.arange(n, device=value.device) for n in layout.cells))
        neighbourhood = dilate(differences(block, layout.side)).view(9, -1)
        unknown = torch.full_like(neighbourhood[:2], torch.inf)
        neighbourhood = torch.cat([neighbourhood, unknown, torch.ones_like(neighbourhood[:1])])
        node = torch.arange(len(cell), device=value.device)
        self._add(evaluate, Boxes(node, cell, corner, bends(block).view(3, -1), neighbourhood, margin), 0)
        for level in range(layout.levels - 1):
            self.halve(evaluate, level)

    def halve(self, evaluate: Evaluate, level: int, only: Int[Tensor, "m 3"] | None = None) -> None:
        """Halve the boxes of a level whose models are poor and, if `only` is given, that lie at those places."""
        poor = self._poor.pop(level, None)
        if poor is not None and only is not None:
            selected = torch.isin(_key(poor.cell, MAX_RESOLUTION), _key(only, MAX_RESOLUTION))
            self._poor[level], poor = poor[~selected], poor[selected]
        if poor is None or len(poor) == 0:
            return
        layout = self.layout
        block, side = self._values_at_halves(evaluate, poor, level + 1), layout.side / 2 ** (level + 1)
        outside = poor.neighbourhood.index_fill(0, torch.arange(6, 11, device=block.device), 0)
        inside = differences(block, side)
        growth = torch.maximum(excess(poor.neighbourhood, inside[:6].amax((2, 3, 4)), layout.spread), outside[11])
        if only is not None:  # neighbours that are not halved may hold the surface too: taken to be smooth
            outside[9] = torch.where(poor.neighbourhood[9] < torch.inf, poor.neighbourhood[9] / 4, 0)
        errors = torch.stack([model_error(poor.corner, poor.bend, block), poor.neighbourhood[9], growth])
        inner = torch.cat([inside, errors.view(3, -1, 1, 1, 1).expand(3, -1, 2, 2, 2)])
        neighbourhood = dilate_blocks(inner, poor.cell, max(layout.cells) << level, outside).reshape(12, -1)
        cell = (2 * poor.cell[:, None] + HALVES.to(poor.cell)).view(-1, 3)
        node = len(self.child) + torch.arange(len(cell), device=cell.device)
        self.child = self.child.index_copy(0, poor.node, node[::8].int())  # copies of the tree share the old one
        values = corners(block).reshape(8, -1), bends(block).view(3, -1)
        self._add(evaluate, Boxes(node, cell, *values, neighbourhood, poor.margin.repeat_interleave(8)), level + 1)

    def packed(self) -> Packed:
        """Return the tree as a kernel argument, which is out of date once a box is halved."""
        layout = self.layout
        return Packed(
            _grid.Tree,
            low=tuple(layout.low.tolist()),
            side=tuple(layout.side.tolist()),
            cells=layout.cells,
            child=self.child,
            lower=self.lower,
            upper=self.upper,
            slope=self.slope,
            models=self.models,
            lipschitz=self.lipschitz,
        )

    def to(self, device: torch.device | str) -> "Octree":
        """Return a copy on another device."""
        moved = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(moved, name, value.to(device))
        moved.layout = self.layout.to(device)
        moved._poor = {level: boxes.to(device) for level, boxes in self._poor.items()}
        return moved

    def _add(self, evaluate: Evaluate, boxes: Boxes, level: int) -> None:
        """Add boxes to the tree, and also to `_poor` if they may hold the surface and their model should be better."""
        layout, side = self.layout, self.layout.side / 2**level
        limits = side, layout.spread, layout.bend, self.lipschitz
        lower, upper, slope = bounds(boxes.corner, boxes.neighbourhood, *limits, boxes.neighbourhood[11])
        cut_off = self._seem_cut_off(slope) & (lower > 0)
        proven = boxes.corner.amin(0) - self.proven_lipschitz * (float(side.norm()) / 2)
        lower = torch.where(cut_off, torch.minimum(lower, proven), lower) - boxes.margin
        upper = upper + boxes.margin
        model, good = models_of(boxes, lower, slope, side, cut_off)
        hold, last = _may_hold(*tighter(model, lower, upper)), level + 1 >= layout.levels
        if not last:
            model, good = self._checked_models(evaluate, boxes, model, hold, good, side)
        lower, upper = tighter(model, lower, upper)
        ends = torch.nonzero(hold & (good | last) & model.isfinite().all(0))[:, 0]
        child = torch.full_like(lower, -1, dtype=torch.int32)
        child[ends] = -2 - len(self.models) - torch.arange(len(ends), device=child.device).int()
        poor = boxes[torch.nonzero(hold & ~good)[:, 0]]
        self._poor[level] = self._poor[level].joined(poor) if level in self._poor else poor
        self.models = torch.cat([self.models, model[:, ends].T])
        self.child, self.lower = torch.cat([self.child, child]), torch.cat([self.lower, lower])
        self.upper, self.slope = torch.cat([self.upper, upper]), torch.cat([self.slope, slope])

    def _checked_models(
        self,
        evaluate: Evaluate,
        boxes: Boxes,
        model: Float[Tensor, "12 n"],
        hold: Bool[Tensor, " n"],
        good: Bool[Tensor, " n"],
        side: Float[Tensor, "3"],
    ) -> tuple[Float[Tensor, "12 n"], Bool[Tensor, " n"]]:
        """Return models and which are good, after one more look at the field in each box with a good one.

        The corners of boxes may be those of the field's own voxels, so that they never show what lies in between.
        """
        claimed = torch.nonzero(hold & good)[:, 0]
        if len(claimed) == 0:
            return model, good
        place = torch.tensor(ODD_PLACE).to(side)
        x = self.layout.low + (boxes.cell[claimed] + place) * side
        off = (evaluate(x) - value_at(model[:11, claimed], place)).abs()
        wrong = ~(CHECK * off <= model[11, claimed])
        error = model[11].index_copy(0, claimed, torch.where(wrong, 2 * CHECK * off, model[11, claimed]))
        return torch.cat([model[:11], error[None]]), good.index_fill(0, claimed[wrong], False)

    def _seem_cut_off(self, slope: Float[Tensor, "n 4"]) -> Bool[Tensor, " n"]:
        """Return True for boxes in which the value changes much less than the field says that it may.

        A distance that is cut off tells nothing about what lies within a box of its plateau: such a box is free only if
        the Lipschitz bound proves it. Fields without a bound of their own cannot be doubted in this way.
        """
        if self.proven_lipschitz == math.inf:
            return torch.zeros_like(slope[:, 0], dtype=torch.bool)
        flat: Tensor = slope[:, :3].norm(dim=1) + slope[:, 3] < PLATEAU * self.proven_lipschitz
        return flat

    def _values_at_halves(self, evaluate: Evaluate, boxes: Boxes, level: int) -> Float[Tensor, "m 3 3 3"]:
        """Return the values at the corners of the halves of m boxes, as blocks; the halves are of `level`."""
        place = torch.cartesian_prod(*[torch.arange(3, device=boxes.cell.device)] * 3)
        old = (place % 2 == 0).all(1)
        n = (max(self.layout.cells) << level) + 1
        key, row = torch.unique(_key(2 * boxes.cell[:, None] + place[~old], n), return_inverse=True)
        lattice = torch.stack([key // n**2, key // n % n, key % n], 1)
        x = lattice * (self.layout.side / 2**level) + self.layout.low
        value = boxes.corner.new_empty(len(boxes), 27)
        value[:, old], value[:, ~old] = boxes.corner.T, evaluate(x)[row]
        return value.view(-1, 3, 3, 3)


def _checked_lipschitz(bound: float | None, corner: Float[Tensor, "8 n"], side: Float[Tensor, "3"]) -> float:
    """Return a Lipschitz bound; infinity for none, or if the values at the corners of a box differ by more."""
    if bound is None or not bound > 0:
        return math.inf
    place = HALVES.to(side) * side
    i, j = torch.triu_indices(8, 8, 1, device=side.device)
    change = (corner[i] - corner[j]).abs().amax(1) / (place[i] - place[j]).norm(dim=1)
    return float(bound) if float(change.nan_to_num().max()) <= lipschitz.ROUNDING * bound else math.inf


def _key(place: Int[Tensor, "*shape 3"], n: int) -> Int[Tensor, "*shape"]:
    """Return a unique number for each place with coordinates below n."""
    i, j, k = place.unbind(-1)
    key: Tensor = (i * n + j) * n + k
    return key


def _may_hold(lower: Float[Tensor, " n"], upper: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Return True where 0 lies within the bounds; a bound of NaN excludes nothing."""
    excluded: Tensor = (lower > 0) | (upper < 0)
    return ~excluded
