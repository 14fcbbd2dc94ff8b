"""A category: many objects in one common frame, each photographed from several sides."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.datasets.load import load
from warpdvr.datasets.morphology import dilate
from warpdvr.datasets.pixels import OBJECT, Pixels
from warpdvr.datasets.views import Views

EVERY = 6
"""One in this many objects is held out."""

MARGIN = 0.02
"""Room that a category's bounds leave around the objects [scene unit]."""

PLACES = 100_000
"""Number of points that are looked up in the masks of an object."""

OFFSET = 0.04
"""Standard deviation of the offset from a point of a visual hull to a point near it [scene unit]."""


@dataclass(frozen=True)
class Category:
    """Objects of one kind, with the same axes and at the same scale."""

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
    """Read the objects of a category, one folder each, in any format that `warpdvr.datasets.load.load` knows.

    Args:
        folder: a folder with a sub-folder for each object; other files in it are ignored.
        every: one in this many objects is held out, starting in the middle of the first group.

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
    for home, object_views in zip(homes, views, strict=True):
        if any(mask is None for mask in object_views.masks):
            raise ValueError(f"{home}: expected a mask for every view, found views without one")
    test = tuple(range(min(every // 2, len(homes) - 1), len(homes), every))
    train = tuple(i for i in range(len(homes)) if i not in test)
    return Category(tuple(home.name for home in homes), views, train, test)


class Pool:
    """The pixels of several objects, from which the rays of a batch are drawn."""

    def __init__(
        self, objects: Sequence[Views], bounds: Float[Tensor, "2 3"] | None = None, device: torch.device | str = "cpu"
    ):
        """Flatten the objects' pictures on a device; with bounds, find points in and beside their visual hulls too."""
        self.pixels = [Pixels(views, device) for views in objects]
        self.hulls = [] if bounds is None else [_hull(pixels, bounds) for pixels in self.pixels]

    def points(
        self, objects: Int[Tensor, " b"], n: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "m 3"], Int[Tensor, " m"], Bool[Tensor, " m"]]:
        """Return n points of each of b objects: half of them in or near its visual hull, the rest anywhere.

        Args:
            objects: indices of the objects.
            n: number of points of each object.
            generator: source of the random numbers.

        Returns:
            m = b * n points [scene unit], which of the b objects they belong to, and whether they are inside.
        """
        x, inside = [], []
        for i in objects.tolist():
            for places, label in self.hulls[i]:
                pick = torch.randint(len(places), (n // 2,), generator=generator)
                x.append(places[pick])
                inside.append(label[pick])
        points = torch.cat(x)
        shape_index = torch.arange(len(objects), device=points.device).repeat_interleave(2 * (n // 2))
        return points, shape_index, torch.cat(inside)

    def draw(
        self, objects: Int[Tensor, " b"], rays: int, generator: torch.Generator
    ) -> tuple[Rays, Float[Tensor, "n 3"], Bool[Tensor, " n"], Float[Tensor, " n"]]:
        """Return rays through pixels of each of b objects, object by object.

        Args:
            objects: indices of the objects.
            rays: number of rays of each object; sparse points of known depth add an eighth as many through them.
            generator: source of the random numbers.

        Returns:
            n rays (b * rays without sparse points), whose `Rays.shape_index` counts the objects of the batch; their
            colours; whether they see the object; and their depths along the ray, NaN where unknown [scene unit].
        """
        batches = [self.pixels[i].draw(rays, generator) for i in objects.tolist()]
        shape_index = torch.arange(len(batches)).repeat_interleave(torch.tensor([len(a.rays) for a in batches]))
        o, d = (torch.cat([getattr(a.rays, name) for a in batches]) for name in ("origin", "direction"))
        t = torch.cat([a.depth / a.forward for a in batches])
        return (
            Rays(o, d, shape_index.to(o.device)),
            torch.cat([a.color for a in batches]),
            torch.cat([a.label for a in batches]) == OBJECT,
            t,
        )


def _hull(
    pixels: Pixels, bounds: Float[Tensor, "2 3"]
) -> tuple[tuple[Float[Tensor, "n 3"], Bool[Tensor, " n"]], tuple[Float[Tensor, "m 3"], Bool[Tensor, " m"]]]:
    """Return points in and near the visual hull, then points anywhere in the bounds, and whether they are inside.

    Points are left out where a single view sees background, since it may miss a thin part that it sees edge-on, and
    where more than a quarter of the views do not have them in their image.
    """
    low, high = bounds.to(pixels.pose)
    generator = torch.Generator().manual_seed(0)
    x, label = _decided(pixels, low + (high - low) * torch.rand(PLACES, 3, generator=generator).to(low))
    inside = x[label] if label.any() else low.new_zeros(1, 3)
    near = inside[torch.randint(len(inside), (PLACES // 4,), generator=generator)]
    subset, offset = slice(PLACES // 4), OFFSET * torch.randn(near.shape, generator=generator).to(low)
    return _decided(pixels, near + offset), (x[subset], label[subset])


def _decided(pixels: Pixels, x: Float[Tensor, "m 3"]) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, " n"]]:
    """Return the points that the masks decide on, and whether they are inside."""
    background_views, views = pixels.votes(x)
    decided = (background_views >= 2) | ((background_views == 0) & (4 * views >= 3 * len(pixels.pose)))
    return x[decided], background_views[decided] == 0


def bounds(objects: Sequence[Views], *, cells: int = 48, device: torch.device | str = "cpu") -> Float[Tensor, "2 3"]:
    """Return a box around the objects' visual hulls [scene unit]: what any view sees as background is outside.

    A cell counts if the hull may reach into it, since parts thinner than a cell need not contain a cell's centre.
    """
    steps = (torch.arange(cells, device=device) + 0.5) / cells * 2 - 1
    x = torch.cartesian_prod(steps, steps, steps)
    occupied = torch.zeros(len(x), dtype=torch.bool, device=device)
    for views in objects:
        empty = ~occupied
        occupied[empty] = Pixels(_dilated(views, 3**0.5 / cells), device).inside(x[empty])
    centres = x[occupied]
    if len(centres) == 0:
        raise ValueError("category: the masks have no place in common, check that the cameras belong to the pictures")
    room = MARGIN + 1 / cells
    return torch.stack([centres.amin(0) - room, centres.amax(0) + room])


def _dilated(objects: Views, by: float) -> Views:
    """Return views whose masks are dilated by a length in the unit sphere [scene unit] and by one pixel more."""
    masks = []
    for camera, mask in zip(objects.cameras, objects.masks, strict=True):
        near = max(float(camera.centre.norm()) - 1, 0.5)
        radius = 1 + math.ceil(by / float(camera.pixel_size(near).min()))  # 1: masks leave out half covered pixels
        masks.append(None if mask is None else dilate(mask, radius))
    return replace(objects, masks=tuple(masks))
