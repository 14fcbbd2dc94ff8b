"""A category: many objects in one frame, each photographed from several sides."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.datasets.load import load
from warpdvr.datasets.morphology import dilate
from warpdvr.datasets.pixels import OBJECT, Pixels
from warpdvr.datasets.views import Views

EVERY = 6
"""One object in so many is held out."""

MARGIN = 0.02
"""Room that a category's bounds leave around the objects [scene unit]."""

PLACES = 100_000
"""Points that are looked up in the masks of an object."""

OFFSET = 0.04
"""Standard deviation of the offset from a point of a visual hull to one near it [scene unit]."""


@dataclass(frozen=True)
class Category:
    """Objects that share their axes, their scale and what they are."""

    names: tuple[str, ...]
    """Per object, the name of its folder."""
    views: tuple[Views, ...]
    """Per object, its pictures, masks and cameras, in the category's frame."""
    train: tuple[int, ...]
    """Indices of the objects to learn from."""
    test: tuple[int, ...]
    """Indices of the objects that are held out."""

    def __len__(self) -> int:
        return len(self.views)


def read(folder: Path, *, every: int = EVERY) -> Category:
    """Read the objects of a category, one folder each, in any form that `warpdvr.datasets.load.load` knows.

    Args:
        folder: with a folder for each object; other files in it are not looked at.
        every: one object in so many is held out, from the middle of the first so many on.

    Raises:
        ValueError: if there are fewer than three objects, one cannot be read or has a view without a mask, or all would
            be held out.
    """
    if every < 2:
        raise ValueError(f"{folder}: every must be at least 2, so that there are objects to learn from, got {every}")
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder with a folder for each object, found none")
    homes = sorted(home for home in folder.iterdir() if home.is_dir() and not home.name.startswith("."))
    if len(homes) < 3:
        raise ValueError(
            f"{folder}: expected at least three objects, to learn from and to hold out, found {len(homes)}; to fit one "
            "object, use `warpdvr fit`"
        )
    views = tuple(load(home, hold_out=0) for home in homes)
    for home, own in zip(homes, views, strict=True):
        if any(mask is None for mask in own.masks):
            raise ValueError(f"{home}: expected a mask for every view, found views without one")
    test = tuple(range(min(every // 2, len(homes) - 1), len(homes), every))
    train = tuple(i for i in range(len(homes)) if i not in test)
    return Category(tuple(home.name for home in homes), views, train, test)


class Pool:
    """The pixels of several objects, from which a batch of some of them draws its rays."""

    def __init__(self, objects: Sequence[Views], bounds: Tensor | None = None):
        """Flatten the objects' pictures; with bounds (2, 3), find points in and beside their visual hulls too."""
        self.pixels = [Pixels(views) for views in objects]
        self.hulls = [] if bounds is None else [_hull(pixels, bounds) for pixels in self.pixels]

    def points(self, objects: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return n points of each of b objects: half of them in or near its visual hull, the rest anywhere.

        Args:
            objects: indices (b,).
            n: for each object.
            generator: of the random numbers.

        Returns:
            points (b * n, 3) [scene unit], which of the b objects they belong to (b * n,), and whether they are inside.
        """
        x, inside = [], []
        for i in objects.tolist():
            for places, label in self.hulls[i]:
                pick = torch.randint(len(places), (n // 2,), generator=generator)
                x.append(places[pick])
                inside.append(label[pick])
        return torch.cat(x), torch.arange(len(objects)).repeat_interleave(2 * (n // 2)), torch.cat(inside)

    def draw(self, objects: Tensor, rays: int, generator: torch.Generator) -> tuple[Rays, Tensor, Tensor, Tensor]:
        """Return rays through pixels of each of b objects, those of one after the other.

        Args:
            objects: indices (b,).
            rays: for each object; one with sparse points of known depth adds an eighth as many through those.
            generator: of the random numbers.

        Returns:
            n rays, b * rays without sparse points, with `Rays.shape_index` counting the objects of the batch; their
            colours (n, 3), whether they see the object (n,), and their depths along the ray, NaN where unknown (n,)
            [scene unit].
        """
        batches = [self.pixels[i].draw(rays, generator) for i in objects.tolist()]
        shape_index = torch.arange(len(batches)).repeat_interleave(torch.tensor([len(a.rays) for a in batches]))
        o, d = (torch.cat([getattr(a.rays, name) for a in batches]) for name in ("origin", "direction"))
        t = torch.cat([a.depth / a.forward for a in batches])
        return (
            Rays(o, d, shape_index),
            torch.cat([a.color for a in batches]),
            torch.cat([a.label for a in batches]) == OBJECT,
            t,
        )


def _hull(pixels: Pixels, bounds: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return points and whether they are inside of the visual hull, first in and near it, then anywhere.

    Nothing is said where a single view sees background, since a thin part that is seen from its edge may be missed
    there, and where more than a quarter of the views do not look.
    """
    low, high = bounds
    generator = torch.Generator().manual_seed(0)
    x, label = _decided(pixels, low + (high - low) * torch.rand(PLACES, 3, generator=generator))
    inside = x[label] if label.any() else torch.zeros(1, 3)
    near = inside[torch.randint(len(inside), (PLACES // 4,), generator=generator)]
    subset = slice(PLACES // 4)
    return _decided(pixels, near + OFFSET * torch.randn(near.shape, generator=generator)), (x[subset], label[subset])


def _decided(pixels: Pixels, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return those points (n, 3) of which the masks say something, and whether they are inside."""
    against, within = pixels.votes(x)
    decided = (against >= 2) | ((against == 0) & (4 * within >= 3 * len(pixels.pose)))
    return x[decided], against[decided] == 0


def bounds(objects: Sequence[Views], *, cells: int = 48) -> Tensor:
    """Return a box (2, 3) around the objects' visual hulls [scene unit]: what any view sees as background is outside.

    A cell counts if the hull may come into it, since parts thinner than a cell need not contain a cell's centre.
    """
    steps = (torch.arange(cells) + 0.5) / cells * 2 - 1
    x = torch.cartesian_prod(steps, steps, steps)
    occupied = torch.zeros(len(x), dtype=torch.bool)
    for views in objects:
        rest = ~occupied
        occupied[rest] = Pixels(_dilated(views, 3**0.5 / cells)).inside(x[rest])
    kept = x[occupied]
    if len(kept) == 0:
        raise ValueError("category: the masks have no place in common, check that the cameras belong to the pictures")
    room = MARGIN + 1 / cells
    return torch.stack([kept.amin(0) - room, kept.amax(0) + room])


def _dilated(objects: Views, by: float) -> Views:
    """Return views with dilated masks: by a length in the unit sphere [scene unit], and by a pixel."""
    masks = []
    for camera, mask in zip(objects.cameras, objects.masks, strict=True):
        near = max(float(camera.centre.norm()) - 1, 0.5)
        radius = 1 + math.ceil(float(camera.K.diagonal()[:2].max()) * by / near)  # 1: half covered ones are left out
        masks.append(None if mask is None else dilate(mask, radius))
    return replace(objects, masks=tuple(masks))
