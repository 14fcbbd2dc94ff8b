"""Voxels of density and colour, composited along rays: what a fit begins with, where points compete for a ray."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import interpolate

from warpdvr.cameras.rays import Rays
from warpdvr.kernels import density_voxels as _kernels
from warpdvr.runtime.autograd import zero_without_derivative
from warpdvr.runtime.launch import Packed, launch, load_kernel
from warpdvr.runtime.threads import run_ranges, workers

SPAN = 512
"""Rays for each thread; fewer are not worth a second one."""

ONCE = "density voxels: second derivatives are not provided"

FAINT = -5.0 / _kernels.STEEPNESS
"""A cell is empty if the density is below this at all of its corners: 0.7 % of the light is lost in it [table]."""

START = -4.0 / _kernels.STEEPNESS
"""Density of all corners at the beginning: 1.8 % of the light is lost in a cell [table]."""

NO_DENSITY = -8.0 / _kernels.STEEPNESS
"""Density where there are no voxels [table]."""


class Composited(NamedTuple):
    """What n rays see of the voxels."""

    color: Float[Tensor, "n 3"]
    """Sum of colours by their weights; with `left` times the colour of the background it is that of the pixel."""
    left: Float[Tensor, " n"]
    """The part of the light that passes all voxels, from 0 to 1."""
    t: Float[Tensor, " n"]
    """Ray length at which half of the light is left, infinity where more passes [scene unit]; not differentiable."""


class DensityVoxels:
    """A density and a colour at the corners of the cells of a box that may hold something.

    Args:
        bounds: the box, shape (2, 3) [scene unit].
        occupied: the cells that may hold something, as many along each axis.
    """

    def __init__(self, bounds: Float[Tensor, "2 3"], occupied: Bool[Tensor, "r r r"]):
        self.bounds, self.allowed = bounds.float(), occupied
        self.resolution = len(occupied)
        self.side = (self.bounds[1] - self.bounds[0]) / self.resolution
        self.step = float(self.side.min())
        """Distance of samples on a ray [scene unit]."""
        corner = torch.nonzero(_corners_of(occupied))
        self.corner: Int[Tensor, "k 3"] = corner
        """The place of each row of the table on the lattice."""
        self.row = torch.full((self.resolution + 1,) * 3, -1, dtype=torch.int32, device=bounds.device)
        self.row[corner[:, 0], corner[:, 1], corner[:, 2]] = torch.arange(len(corner), device=bounds.device).int()
        table = torch.full((len(corner), 4), 0.5, device=bounds.device)
        table[:, 0] = START
        self.table = nn.Parameter(table)
        """Density [logit / `kernels.density_voxels.STEEPNESS`] and sRGB colour of each corner, shape (k, 4)."""
        self.occupied = occupied.clone()
        self._describe()

    def prune(self) -> None:
        """Leave out cells that have become empty, and give colours that left [0, 1] the nearest in it."""
        with torch.no_grad():
            self.table[:, 1:].clamp_(0, 1)
            density = torch.full(self.row.shape, NO_DENSITY, device=self.row.device)
            density[tuple(self.corner.unbind(1))] = self.table[:, 0]
            largest = torch.nn.functional.max_pool3d(density[None, None], 2, stride=1)[0, 0]
            self.occupied = self.allowed & (largest > FAINT)
        self._describe()

    def refined(self, resolution: int) -> "DensityVoxels":
        """Return voxels with other cells, of the same densities and colours; what is far from any stays empty.

        Args:
            resolution: cells along each axis.
        """
        values = self.table.new_tensor([NO_DENSITY, 0.5, 0.5, 0.5])
        dense = values.repeat(*self.row.shape, 1)
        dense[tuple(self.corner.unbind(1))] = self.table.detach()
        sizes: dict[str, Any] = {"size": (resolution + 1,) * 3, "mode": "trilinear", "align_corners": True}
        dense = interpolate(dense.permute(3, 0, 1, 2)[None], **sizes)[0]
        near = _grown(interpolate(_grown(self.occupied), size=(resolution,) * 3))
        allowed = interpolate(self.allowed[None, None].float(), size=(resolution,) * 3)
        voxels = DensityVoxels(self.bounds, ((near > 0) & (allowed > 0))[0, 0])
        with torch.no_grad():
            x, y, z = voxels.corner.unbind(1)
            voxels.table.copy_(dense[:, x, y, z].T)
        return voxels

    def render(self, rays: Rays, jitter: Float[Tensor, " n"] | None = None) -> Composited:
        """Return what rays see; differentiable with respect to the table, once.

        Args:
            rays: n rays with directions of length 1; one of which a number is not finite, or the direction 0, sees
                nothing.
            jitter: where each ray's first sample lies, in [0, 1] of a step; by default in the middle.
        """
        near, far = rays.clip(self.bounds)
        nowhere = rays.normalised()[1].isnan()
        near, far = torch.where(nowhere, 0.0, near), torch.where(nowhere, -1.0, far)
        offset = 0.5 if jitter is None else jitter.to(near)
        places = rays.origin.detach(), rays.direction.detach(), near + offset * self.step, far
        color, left, t = _Composite.apply(self.table, self, tuple(a.float().contiguous() for a in places))  # type: ignore[no-untyped-call]
        return Composited(color, left, t)

    def state(self) -> dict[str, Tensor]:
        """Return what `from_state` needs."""
        return {"allowed": self.allowed.byte(), "occupied": self.occupied.byte(), "table": self.table.detach().clone()}

    @classmethod
    def from_state(cls, bounds: Float[Tensor, "2 3"], state: dict[str, Tensor]) -> "DensityVoxels":
        """Return the voxels whose `state` it was.

        Raises:
            ValueError: if it is no such state.
        """
        try:
            allowed, occupied = (state[name].to(bounds.device).bool() for name in ("allowed", "occupied"))
            shape = allowed.shape
            if len(shape) != 3 or len({*shape}) > 1 or occupied.shape != shape or bool((occupied & ~allowed).any()):
                raise RuntimeError
            voxels = cls(bounds, allowed)
            with torch.no_grad():
                voxels.table.copy_(state["table"])
        except (KeyError, RuntimeError):
            raise ValueError("fit: the saved voxels of its beginning do not belong together") from None
        voxels.occupied = occupied
        voxels._describe()
        return voxels

    def inputs(self, places: tuple[Tensor, ...]) -> list[object]:
        """Return what both kernels are given: the rays, and the voxels as they are now."""
        return [*places, self.step, self._packed]

    def _describe(self) -> None:
        """Bring what the kernels are given up to date."""
        padded = torch.nn.functional.max_pool3d(self.occupied[None, None].float(), _kernels.BLOCK, ceil_mode=True)
        self._packed = Packed(
            _kernels.Voxels,
            low=tuple(self.bounds[0].tolist()),
            per_side=tuple((1 / self.side).tolist()),
            row=self.row,
            occupied=self.occupied,
            block=padded[0, 0] > 0,
            table=self.table.detach(),
        )


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, table: Tensor, voxels: DensityVoxels, places: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        n = len(places[0])
        color, left, t = table.new_empty(n, 3), table.new_empty(n), table.new_empty(n)
        load_kernel(_kernels.composite, table.device)

        def part(first: int, end: int) -> None:
            own, outputs = _rows(places, first, end), _rows((color, left, t), first, end)
            launch(_kernels.composite, end - first, voxels.inputs(own), outputs, per_row=own)

        run_ranges(part, *_parts(n, table.device))
        ctx.voxels = voxels
        ctx.save_for_backward(*places, color, left)
        ctx.mark_non_differentiable(t)
        return color, left, t

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        *places, color, left = ctx.saved_tensors
        per_row = [color, left, grad[0].contiguous(), grad[1].contiguous()]
        bounds, threads = _parts(len(color), color.device)
        by_table = color.new_zeros(threads, *ctx.voxels.table.shape)  # no two write to the same place
        load_kernel(_kernels.composite_backward, color.device)

        def part(first: int, end: int) -> None:
            own = _rows(per_row, first, end)
            inputs = [*ctx.voxels.inputs(_rows(places, first, end)), *own]
            state = [by_table[bounds.index(first)]]
            launch(_kernels.composite_backward, end - first, inputs, [], per_row=own, state=state)

        run_ranges(part, bounds, threads)
        by_table = by_table[0] if threads == 1 else by_table.sum(0)
        if torch.is_grad_enabled():
            by_table = by_table + zero_without_derivative(color, 1, ONCE)
        return by_table, None, None


def _parts(n: int, device: torch.device) -> tuple[list[int], int]:
    """Return the bounds of parts of n rays, and how many parts there are: one for each thread that may work on them."""
    threads = 1 if device.type == "cuda" else max(1, min(workers(), n // SPAN))
    return [n * i // threads for i in range(threads + 1)], threads


def _rows(tensors: Sequence[Tensor], first: int, end: int) -> tuple[Tensor, ...]:
    return tuple(tensor[first:end] for tensor in tensors)


def _grown(cell: Bool[Tensor, "r r r"] | Float[Tensor, "1 1 r r r"]) -> Float[Tensor, "1 1 r r r"]:
    """Return 1 for cells that are True, or touch one."""
    cell = cell.float() if cell.ndim == 5 else cell[None, None].float()
    return torch.nn.functional.max_pool3d(cell, 3, stride=1, padding=1)


def _corners_of(cell: Bool[Tensor, "r r r"]) -> Bool[Tensor, "s s s"]:
    """Return which corners of a lattice belong to any of the cells."""
    grown = torch.nn.functional.pad(cell[None, None].float(), (1,) * 6)
    return torch.nn.functional.max_pool3d(grown, 2, stride=1)[0, 0] > 0
