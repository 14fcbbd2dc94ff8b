"""Where a field can be 0: a coarse tree of boxes with bounds of its value, so that rays ask it only there."""

import copy
import math
from typing import Any

import torch
from torch import Tensor

from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import Field, FieldLike, query_all
from warpdvr.intersection import lipschitz
from warpdvr.intersection.octree import (
    HALVES,
    Boxes,
    RepeatLog,
    bends,
    bounds,
    corners,
    differences,
    dilate,
    dilate_blocks,
    surprise,
)
from warpdvr.kernels import grid as _grid
from warpdvr.runtime.launch import launch

AHEAD = 1.5
"""How much further than since the last refresh values are expected to move until the next."""

GOOD = 0.18
"""A box is not halved any more where a model's slope is wrong by no more than this part of it."""
ROUNDING = 1e-6
"""Of values, by which a model is taken for wrong at least."""
SHARPEST = 4096
"""Boxes along the longest side at which `BoundGrid.sharpen` ends: in smaller ones rounding shows."""


class BoundGrid:
    """Bounds of a field's value and gradient in each box of a tree; argument of an intersector.

    Built from values at the corners of the boxes alone, so it serves every field. The value in a box is bounded by the
    values at its corners and, for what the field does between them, by the second differences around it; the gradient
    by the first differences around it. Boxes that may hold the surface are halved down to `finest`,
    until the values at their corners foretell those between them; they are kept as a model of the field there, whose
    error is what it was found to be in the box of twice the size (kernels/box_model.py).

    These are estimates, not proofs. A march that meets a contradiction takes smaller steps; but a part much smaller
    than `cells` that shows in none of their corners (a needle on a plateau) is not seen. `DenseMarch()` is the check.

    Where rays ask more than once is noted: `sharpen` halves the boxes there, and the next picture of a field that stays
    as it is takes little more than one query for a ray that hits.

    Takes 28 bytes per box, largest or halved, 48 per model, 130 per box that `sharpen` could halve, and 4 per corner of
    the largest: 2 to 35 MB, and up to 200 once thin and steep fields are sharpened. `to` moves it.
    """

    repeats: RepeatLog
    """Where rays asked more than once since the grid was built or sharpened; a march notes it."""

    def __init__(
        self,
        field: FieldLike,
        *,
        cells: int | None = None,
        finest: int | None = None,
        spread: float = 1.25,
        bend: float = 4.0,
    ):
        """Ask the field at the corners of the largest boxes, and near the surface at those of their halves.

        Args:
            field: a `Field`, or what `as_field` makes one of.
            cells: number of the largest boxes along the longest side of the bounds; by default 32 for fields with a
                Lipschitz bound, whose values tell of a surface from afar, and 64 for all others.
            finest: halving ends at this many boxes along that side, at the latest; by default 256 for fields with a
                Lipschitz bound and 128 for all others.
            spread: factor on the spread of first differences, for the bounds of the gradient.
            bend: factor on what second differences say of smooth fields, for the bounds of the value; 4 covers kinks.

        Raises:
            ValueError: if one of these makes no sense.
        """
        field = as_field(field)
        if cells is None:
            cells = 64 if field.lipschitz is None else 32
        if finest is None:
            finest = 128 if field.lipschitz is None else 256
        if cells < 2 or not spread >= 1 or not bend >= 1:
            raise ValueError(
                f"BoundGrid: needs cells >= 2, spread >= 1 and bend >= 1, got {cells}, {spread} and {bend}"
            )
        low, high = field.bounds.detach().float()
        n = ((high - low) / (high - low).max() * cells - 1e-4).ceil().clamp_min(2)
        self.low, self.side = low, (high - low) / n
        self.cells: tuple[int, int, int] = tuple(n.int().tolist())
        self.levels = max(0, int(torch.tensor(finest / cells).log2().round())) + 1
        self.spread, self.bend = spread, bend
        self.evaluations = 0
        """How often the field was asked for this grid, counted in points."""
        self._cost = self._saved = 0
        self._value = low.new_empty(0)
        self.refresh(field, full=True)

    @torch.no_grad()
    def refresh(self, field: Field, points: int = 1024, *, full: bool = False) -> int:
        """Bring the bounds up to date after the field's weights moved, and return how many points were asked.

        Meant to be called before every step of a fit. The grid is built anew, all at once (differences between values
        of unlike age say nothing), as soon as the `points` of all calls since pay for it; until then nothing is done.
        Its bounds are widened by `AHEAD` times what the values around have changed since the last time, because by the
        next time they will have moved about as far again. Where they move further, hits come late.

        Args:
            field: the field that the grid was made for.
            points: how many points a call may ask, on average.
            full: build it anew now, as if it were the first time.
        """
        self._saved += points
        if not full and self._saved < self._cost:
            return 0
        before = self.evaluations
        value = self._ask(field, self._corners())
        moved = torch.zeros_like(value) if full else AHEAD * (value - self._value).abs()
        self._value = value
        lattice = value.view(1, *(n + 1 for n in self.cells))
        self.limit = _limit(field, corners(lattice).reshape(8, -1), self.side)
        self._grow(field, value, moved)
        self._cost = self.evaluations - before
        self._saved = 0 if full else self._saved - self._cost
        return self._cost

    @torch.no_grad()
    def sharpen(self, field: Field) -> int:
        """Halve the boxes in which rays had to ask more than once, and return how many points were asked.

        For a field that stays as it is, between two pictures from the same place or from nearby. Boxes are halved until
        their models are good, or until there are about `SHARPEST` along the longest side: the first time this may ask
        several times as often as all before, once for many pictures. `refresh` with new values begins anew.

        Args:
            field: the field that the grid was made for, with the weights that it was built with, then or by a
                `refresh` that asked.
        """
        self.check(field)
        before, repeats, self.repeats = self.evaluations, self.repeats, RepeatLog()
        for level in range(self.levels - 1, int(math.log2(SHARPEST / max(self.cells)))):
            self._halve(field, level, repeats.where(self.low, self.side / 2**level))
        return self.evaluations - before

    def to(self, device: torch.device | str) -> "BoundGrid":
        """Return a copy on another device."""
        moved = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(moved, name, value.to(device))
        moved._poor = {level: boxes.to(device) for level, boxes in self._poor.items()}
        moved.repeats = copy.deepcopy(self.repeats)
        return moved

    def check(self, field: Field) -> None:
        """Raise a ValueError if the grid cannot belong to the field."""
        low, high = field.bounds.detach().float()
        far = self.low + self.side * torch.tensor(self.cells).to(self.side)
        if low.device != self.low.device:
            raise ValueError(f"BoundGrid: lies on {self.low.device}, the field on {low.device}; move it with `to`")
        if not (
            torch.equal(low, self.low) and bool(((far - high).abs() <= 1e-5 * (high - low) + 1e-5 * high.abs()).all())
        ):
            raise ValueError(
                f"BoundGrid: was made for bounds {self.low.tolist()} to {far.tolist()}, but the field's are "
                f"{low.tolist()} to {high.tolist()}"
            )

    def frame(self) -> list[Any]:
        """Return what kernels need to find a box: corner, sides and number of the largest, and the tree."""
        return [tuple(self.low.tolist()), tuple(self.side.tolist()), self.cells, self.child]

    def signs(self, x: Tensor) -> Tensor:
        """Return what the bounds say of points (n, 3) inside of them: 1 outside, -1 inside, 0 unknown; (n,), int8."""
        node = torch.empty(len(x), dtype=torch.int32, device=x.device)
        launch(_grid.leaf, len(x), [x.float().contiguous(), *self.frame()], [node], per_row=[x])
        sign: Tensor = (self.lower > 0).to(torch.int8) - (self.upper < 0).to(torch.int8)
        return sign[node.long()]

    def _corners(self) -> Tensor:
        place: Tensor = torch.cartesian_prod(*(torch.arange(n + 1) for n in self.cells))
        corner: Tensor = self.low + self.side * place.to(self.side)
        return corner

    def _ask(self, field: Field, x: Tensor) -> Tensor:
        self.evaluations += len(x)
        return query_all(field, x)

    def _grow(self, field: Field, value: Tensor, moved: Tensor) -> None:
        """Bound the largest boxes by the values at their corners, and halve those that may hold the surface.

        Bounds of values are widened by the largest of `moved` at the corners around.
        """
        shape = [1, *(n + 1 for n in self.cells)]
        block, wider = value.view(shape), dilate(corners(moved.view(shape)).amax(0)[None]).view(-1)
        cell = torch.cartesian_prod(*(torch.arange(n, device=value.device) for n in self.cells))
        around = dilate(differences(block, self.side)).view(9, -1)
        around = torch.cat([around, torch.full_like(around[:2], torch.inf)])
        node = torch.arange(len(cell), device=value.device)
        self.child = value.new_empty(0, dtype=torch.int32)
        self.lower = self.upper = value.new_empty(0)
        self.slope, self.models = value.new_empty(0, 4), value.new_empty(0, 12)
        self.repeats = RepeatLog()
        self._poor: dict[int, Boxes] = {}
        self._add(Boxes(node, cell, corners(block).reshape(8, -1), bends(block).view(3, -1), around, wider), 0)
        for level in range(self.levels - 1):
            self._halve(field, level)

    def _add(self, boxes: Boxes, level: int) -> None:
        """Add boxes to the tree, and those to `_poor` that may hold the surface and whose model could be better."""
        side = self.side / 2**level
        lower, upper, slope = bounds(boxes.corner, boxes.around, side, self.spread, self.bend, self.limit)
        lower, upper = lower - boxes.wider, upper + boxes.wider
        model, good = self._model(boxes, lower, slope, side)
        lower, upper = _tighter(model, lower, upper)
        hold, last = _may_hold(lower, upper), level + 1 >= self.levels
        ends = torch.nonzero(hold & (good | last) & model.isfinite().all(0))[:, 0]
        child = torch.full_like(lower, -1, dtype=torch.int32)
        child[ends] = -2 - len(self.models) - torch.arange(len(ends), device=child.device).int()
        poor = boxes[torch.nonzero(hold & ~good)[:, 0]]
        self._poor[level] = self._poor[level].and_also(poor) if level in self._poor else poor
        self.models = torch.cat([self.models, model[:, ends].T])
        self.child, self.lower = torch.cat([self.child, child]), torch.cat([self.lower, lower])
        self.upper, self.slope = torch.cat([self.upper, upper]), torch.cat([self.slope, slope])

    def _model(self, boxes: Boxes, lower: Tensor, slope: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Return models of boxes (kernels/box_model.py), shape (12, n), and which are good enough not to be halved.

        A model is taken for as wrong as that of the box's whole was where the field was asked; less if that was much
        less than one generation before: 8 times there where the field is smooth, twice at a kink.
        """
        corner, wrong = boxes.corner, boxes.around[9:]
        ratio = torch.where(wrong[1] < torch.inf, wrong[0] / wrong[1], 1)
        factor = torch.where(wrong[1] < torch.inf, (4 * ratio).clamp(0.25, 1), 2)
        error = wrong[0] * factor + boxes.wider + ROUNDING * corner.abs().amax(0)
        error = torch.minimum(corner.amin(0) - lower, error)
        good = 4 * error < GOOD * float(side.min()) * slope[:, :3].norm(dim=1)
        return torch.cat([corner, boxes.bend, error[None]]), good & (wrong[0] < torch.inf)

    def _halve(self, field: Field, level: int, only: Tensor | None = None) -> None:
        """Halve the boxes of a level that are poor and, if `only` is given, among those at places (m, 3)."""
        poor = self._poor.pop(level, None)
        if poor is not None and only is not None:
            chosen = torch.isin(_key(poor.cell, SHARPEST), _key(only, SHARPEST))
            self._poor[level], poor = poor[~chosen], poor[chosen]
        if poor is None or len(poor) == 0:
            return
        block, side = self._ask_halves(field, poor, level + 1), self.side / 2 ** (level + 1)
        beyond = poor.around.index_fill(0, torch.arange(6, 11, device=block.device), 0)
        if only is not None:  # what is not halved beside them may hold the surface: taken to be smooth
            beyond[9] = torch.where(poor.around[9] < torch.inf, poor.around[9] / 4, 0)
        wrong = torch.stack([surprise(poor.corner, poor.bend, block), poor.around[9]])
        found = torch.cat([differences(block, side), wrong.view(2, -1, 1, 1, 1).expand(2, -1, 2, 2, 2)])
        around = dilate_blocks(found, poor.cell, max(self.cells) << level, beyond).reshape(11, -1)
        cell = (2 * poor.cell[:, None] + HALVES.to(poor.cell)).view(-1, 3)
        node = len(self.child) + torch.arange(len(cell), device=cell.device)
        self.child = self.child.index_copy(0, poor.node, node[::8].int())  # a grid may have been moved from this one
        values = corners(block).reshape(8, -1), bends(block).view(3, -1)
        self._add(Boxes(node, cell, *values, around, poor.wider.repeat_interleave(8)), level + 1)

    def _ask_halves(self, field: Field, boxes: Boxes, level: int) -> Tensor:
        """Return the values at the corners of the halves of m boxes, which are of `level`, as blocks (m, 3, 3, 3)."""
        place = torch.cartesian_prod(*[torch.arange(3, device=boxes.cell.device)] * 3)
        old = (place % 2 == 0).all(1)
        n = (max(self.cells) << level) + 1
        key, where = torch.unique(_key(2 * boxes.cell[:, None] + place[~old], n), return_inverse=True)
        x = torch.stack([key // n**2, key // n % n, key % n], 1) * (self.side / 2**level) + self.low
        value = boxes.corner.new_empty(len(boxes), 27)
        value[:, old], value[:, ~old] = boxes.corner.T, self._ask(field, x)[where]
        return value.view(-1, 3, 3, 3)


def _key(place: Tensor, n: int) -> Tensor:
    """Return one number for each place (..., 3), whose coordinates are below n."""
    i, j, k = place.unbind(-1)
    key: Tensor = (i * n + j) * n + k
    return key


def _limit(field: Field, corner: Tensor, side: Tensor) -> float:
    """Return the field's Lipschitz bound; infinity for one without, or if the corners of a box differ by more."""
    bound = field.lipschitz
    if bound is None or not bound > 0:
        return math.inf
    place = HALVES.to(side) * side
    i, j = torch.triu_indices(8, 8, 1, device=side.device)
    change = (corner[i] - corner[j]).abs().amax(1) / (place[i] - place[j]).norm(dim=1)
    return float(bound) if float(change.nan_to_num().max()) <= lipschitz.ROUNDING * bound else math.inf


def _tighter(model: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Return bounds that are no wider than those of the models."""
    corner, bend, error = model[:8], model[8:11] / 8, model[11]
    least = corner.amin(0) - bend.clamp_min(0).sum(0) - error
    most = corner.amax(0) - bend.clamp_max(0).sum(0) + error
    return torch.where(least > lower, least, lower), torch.where(most < upper, most, upper)


def _may_hold(lower: Tensor, upper: Tensor) -> Tensor:
    """Return True where 0 lies within the bounds; what is not a number excludes nothing."""
    excluded: Tensor = (lower > 0) | (upper < 0)
    return ~excluded
