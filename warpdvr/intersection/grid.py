"""Where a field can be 0: a tree of boxes with bounds of its value, so that rays evaluate it only there."""

import copy
import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import Field, FieldLike, query_all
from warpdvr.fields.slope import current_bound
from warpdvr.fields.version import Change, Memory, Version
from warpdvr.intersection.octree import MAX_RESOLUTION, Layout, Octree
from warpdvr.intersection.repeat_log import RepeatLog
from warpdvr.intersection.surface_box import surface_box
from warpdvr.kernels import grid as _grid
from warpdvr.runtime.arguments import positive, whole
from warpdvr.runtime.inference_mode import outside_inference
from warpdvr.runtime.launch import launch

MARGIN = 1.5
"""Expected change of values until the next refresh, as a multiple of the change since the last one."""


class BoundGrid(Memory):
    """Bounds of a field's value and gradient in each box of a tree; an argument of solvers.

    Built from values at the corners of the boxes alone, so it serves every field. The value in a box is bounded by the
    values at its corners and, between the corners, by the second differences around it; the gradient
    by the first differences around it. Boxes that may hold the surface are halved down to `finest`, until the values at
    their corners predict those between them; they are kept as a model of the field there, whose error is taken to be
    what it was in the box of twice the size (kernels/box_model.py).

    Where a Lipschitz bound proves that the surface is tiny in the bounds, the boxes cover a `box` around it alone.

    These are estimates, not proofs. A march that meets a contradiction takes smaller steps; but a part much smaller
    than `cells` that shows in none of their corners (a needle on a plateau) is missed. `DenseMarch()` is the check.

    It belongs to one field and notices when its weights change: the next march, mesh or `sharpen` then evaluates the
    whole grid again, and counts that. In a loop of one's own, `refresh` before each step costs less.

    Where rays evaluate the field more than once is logged: `sharpen` halves the boxes there, and the next picture of a
    field that does not change takes little more than one evaluation for a ray that hits.

    Takes 28 bytes per box, largest or halved, 48 per model, 130 per box that `sharpen` could halve, and 4 per corner of
    the largest: 2 to 35 MB, and up to 200 once thin and steep fields are sharpened. `to` moves it.
    """

    repeats: RepeatLog
    """Where rays evaluated the field more than once since the grid was built or sharpened; a march adds to it."""
    tree: Octree
    """The boxes."""

    @outside_inference
    def __init__(
        self,
        field: FieldLike | object,
        *,
        cells: int | object | None = None,
        finest: int | object | None = None,
        spread: float | object = 1.25,
        bend: float | object = 4.0,
        fixed: bool = False,
    ):
        """Evaluate the field at the corners of the largest boxes, and near the surface at those of their halves.

        Args:
            field: a `Field`, or what `as_field` makes one of.
            cells: number of the largest boxes along the longest side of the bounds; by default 32 for fields with a
                Lipschitz bound, whose values show a surface from afar, and 64 for all others.
            finest: halving ends at this many boxes along that side, at the latest; by default 256 for fields with a
                Lipschitz bound and 128 for all others.
            spread: factor on the spread of first differences, for the bounds of the gradient.
            bend: factor on the error that second differences predict for smooth fields, for the bounds of the value; 4
                covers kinks.
            fixed: only `refresh` evaluates the field again; a march with other weights raises a ValueError instead.

        Raises:
            ValueError: if one of these is out of range.
        """
        field = as_field(field)
        if cells is None:
            cells = 64 if field.lipschitz is None else 32
        if finest is None:
            finest = 128 if field.lipschitz is None else 256
        cells, finest = whole("BoundGrid: cells", cells), whole("BoundGrid: finest", finest)
        spread, bend = (positive(f"BoundGrid: {n}", v) for n, v in (("spread", spread), ("bend", bend)))
        if cells < 2 or not spread >= 1 or not bend >= 1:
            raise ValueError(
                f"BoundGrid: needs cells >= 2, spread >= 1 and bend >= 1, got {cells}, {spread} and {bend}"
            )
        self.bounds = field.bounds.detach().float().clone()
        """Those of the field, shape (2, 3) [scene unit]."""
        self.box: Tensor | None = None
        """The part of them that the grid covers, if the surface is proven to lie in a small one; None for all."""
        levels = max(0, int(torch.tensor(finest / cells).log2().round())) + 1
        self._place = partial(_layout, cells=cells, levels=levels, spread=spread, bend=bend)
        self.layout = self._place(self.bounds)
        self.evaluations = 0
        """Points at which the field was evaluated for this grid."""
        self.fixed = fixed
        """Whether the field is evaluated again by `refresh` alone."""
        self._cost = self._saved = 0
        self._value = self.bounds.new_empty(0)
        self._known: Version | None = None
        self.refresh(field, full=True)

    @outside_inference
    @torch.no_grad()
    def refresh(self, field: Field, points: int = 1024, *, full: bool = False) -> int:
        """Update the bounds after the field's weights changed, and return the number of evaluations.

        Meant to be called before every step of a fit. The grid is rebuilt all at once (differences between values of
        different age mean nothing), as soon as the `points` of all calls since the last time pay for it; until then
        nothing is done. Its bounds are widened by `MARGIN` times the change of the nearby values since the last time,
        because by the next time they will have changed about as much again. Where they change more, hits come late.
        Marches with the weights of the last call take the grid as it is.

        Args:
            field: the field that the grid was made for.
            points: how many evaluations a call may cost, on average.
            full: rebuild it now, as if for the first time; any field with these bounds will do.

        Raises:
            ValueError: if the field has other bounds, or is another one and the refresh is not full.
        """
        if full:
            self._check_bounds(field)
        else:
            known = self._known
            self._check_field(known is None or known.is_of(field) or known.change(field) is Change.NONE)
        self._saved += points
        ignored = frozenset() if self._known is None or full else self._known.ignored
        if not full and self._saved < self._cost:
            self._known = Version(field, ignored, exact=False)  # a step of a fit changes more than a few weights
            return 0
        version, before = Version(field, ignored, exact=full), self.evaluations
        evaluate = self._evaluate(field)
        bound, for_bound = current_bound(field) if full else (field.lipschitz, 0)
        self.evaluations += for_bound
        value = self._narrow(field, bound, evaluate)
        full |= len(value) != len(self._value)
        drift = torch.zeros_like(value) if full else MARGIN * (value - self._value).abs()
        self._value = value
        proven = not field.lipschitz_is_measured
        self.tree = Octree(self.layout, value, drift, bound, evaluate, proven=proven)
        self.repeats, self._known = RepeatLog(), version.settled(field)
        self._cost = self.evaluations - before
        self._saved = 0 if full else self._saved - self._cost
        return self._cost

    def follow(self, field: Field) -> int:
        """Bring the bounds up to date if the field's weights have changed, and return the number of evaluations.

        Every use of the grid calls this first.

        Raises:
            ValueError: if it is another field, or has other weights and the grid is `fixed`.
        """
        self._check_bounds(field)
        known, change = self._known, Change.WEIGHTS if self._known is None else self._known.change(field)
        self._check_field(change is not Change.FIELD)
        if known is None or change is Change.WEIGHTS:
            if self.fixed:
                raise ValueError(
                    f"BoundGrid: is fixed, but the weights of {field.name} have changed since it was built; call "
                    "grid.refresh(field, full=True) first, or build it without fixed=True"
                )
            return self.refresh(field, full=True)
        if not known.is_of(field):  # but of an equal one, and this one may change from now on
            self._known = Version(field, known.ignored, exact=known.exact)
        return 0

    @outside_inference
    @torch.no_grad()
    def sharpen(self, field: Field) -> int:
        """Halve the boxes in which rays had to evaluate the field more than once; return the number of evaluations.

        For a field that does not change, between two pictures from the same place or from nearby. Boxes are halved
        until their models are good, or until there are about `MAX_RESOLUTION` along the longest side: the first time
        this may take several times as many evaluations as the grid itself, once for many pictures. A `refresh` that
        evaluates the field discards it.

        Args:
            field: the field that the grid was made for, with the weights that it was built with, then or by a
                `refresh` that evaluated it. With others it is built again, and nothing is known yet to be halved.
        """
        before, layout = self.evaluations, self.layout
        self.follow(field)
        repeats, self.repeats = self.repeats, RepeatLog()
        for level in range(layout.levels - 1, int(math.log2(MAX_RESOLUTION / max(layout.cells)))):
            self.tree.halve(self._evaluate(field), level, repeats.boxes(layout.low, layout.side / 2**level))
        return self.evaluations - before

    def to(self, device: torch.device | str) -> "BoundGrid":
        """Return a copy on another device."""
        moved = copy.copy(self)
        moved.bounds, moved.box = self.bounds.to(device), None if self.box is None else self.box.to(device)
        moved.layout, moved.tree, moved._value = self.layout.to(device), self.tree.to(device), self._value.to(device)
        moved.repeats = copy.deepcopy(self.repeats)
        return moved

    def check(self, field: Field) -> None:
        """Raise a ValueError if the grid does not belong to the field, whatever its weights."""
        self._check_bounds(field)
        self._check_field(self._known is None or self._known.change(field) is not Change.FIELD)

    def _check_field(self, is_own: bool) -> None:
        if not is_own:
            raise ValueError(
                "BoundGrid: was made for another field; make one for this field, or call grid.refresh(field, full=True)"
            )

    def _check_bounds(self, field: Field) -> None:
        low, high = field.bounds.detach().float()
        own_low, own_high = self.bounds
        if low.device != own_low.device:
            raise ValueError(f"BoundGrid: lies on {own_low.device}, the field on {low.device}; move it with `to`")
        tolerance = 1e-5 * (high - low) + 1e-5 * high.abs()
        if not (torch.equal(low, own_low) and bool(((own_high - high).abs() <= tolerance).all())):
            raise ValueError(
                f"BoundGrid: was made for bounds {own_low.tolist()} to {own_high.tolist()}, but the field's are "
                f"{low.tolist()} to {high.tolist()}"
            )

    def signs(self, x: Float[Tensor, "n 3"]) -> Int[Tensor, " n"]:
        """Return which side of the surface the bounds put points on, int8: 1 outside, -1 inside, 0 unknown.

        They are those of the last refresh: call `follow` first.
        """
        sign: Tensor = (self.tree.lower > 0).to(torch.int8) - (self.tree.upper < 0).to(torch.int8)
        sign = sign[self._leaf(x)]
        return sign if self.box is None else torch.where(((x < self.box[0]) | (x > self.box[1])).any(1), 1, sign)

    def lower(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Return a lower bound of the value in the smallest box around each point, that of the last refresh."""
        bound: Tensor = self.tree.lower[self._leaf(x)]
        return bound

    def _leaf(self, x: Float[Tensor, "n 3"]) -> Int[Tensor, " n"]:
        node = torch.empty(len(x), dtype=torch.int32, device=x.device)
        launch(_grid.leaf, len(x), [x.float().contiguous(), self.tree.packed()], [node], per_row=[x])
        return node.long()

    def _narrow(self, field: Field, bound: float | None, evaluate: Callable[[Tensor], Tensor]) -> Float[Tensor, " k"]:
        """Return the values at the corners; where the surface is tiny in the bounds, the corners are laid around it."""
        corner = self.layout.corners()
        value = evaluate(corner) if self.box is None else corner.new_empty(0)
        box = surface_box(field, bound, evaluate, None if self.box is not None else (corner, value))
        if box is None and self.box is None:
            return value
        inner = (
            self.box is not None
            and box is not None
            and bool((box[0] >= self.box[0]).all() & (box[1] <= self.box[1]).all())
        )
        if not inner:
            self.box, self._value = box, value.new_empty(0)
            self.layout = self._place(self.bounds if box is None else box)
        return evaluate(self.layout.corners())

    def _evaluate(self, field: Field) -> Callable[[Tensor], Tensor]:
        """Return the field as a function of points, whose evaluations are counted."""

        def evaluate(x: Tensor) -> Tensor:
            self.evaluations += len(x)
            return query_all(field, x)

        return evaluate


def _layout(box: Float[Tensor, "2 3"], cells: int, levels: int, spread: float, bend: float) -> Layout:
    """Return the largest boxes over a box, `cells` of them along its longest side."""
    low, high = box
    n = ((high - low) / (high - low).max() * cells - 1e-4).ceil().clamp_min(2)
    i, j, k = n.int().tolist()
    return Layout(low, (high - low) / n, (i, j, k), levels, spread, bend)
