"""Colours of the hull's surface in different views: pictures that changed places, and exposures that differ.

The hull is only near to the surface, so colours are compared by their correlation over all of its cells, with those of
the views that look from nearly the same side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from warpdvr.datasets.check_hull import Hull, Outline

CELLS, NEIGHBOURS = 6000, 4
"""Cells that are compared, and how many of the nearest views a view is compared with."""

DOUBT, SWAP = 4, 0.3
"""So many views that fit their neighbours worst are tried; two pictures are swapped if that raises the sum of their
correlations by SWAP (of at most 4), and each of them rises."""

ODD, SPREADS = 0.25, 8
"""A view is odd if its correlation is lower than the median by ODD, and by SPREADS median deviations. On photographs of
a skull a camera turned by 15 degrees has 0.60, the others 0.96 +- 0.01; on those of a white figure, whose shading is
all that there is to compare, right cameras have 0.34 to 0.9, with a median deviation of 0.07."""

EXPOSURE = 1.5
"""Brightness relative to the neighbours, or its inverse, from which a view is named."""


@dataclass(frozen=True)
class Colours:
    """What the views say of each other's colours."""

    exposure: tuple[float, ...]
    """Per view, brightness relative to the nearest views; NaN if they have nothing in common."""
    swapped: tuple[int, int] | None
    """Two views whose pictures have changed places."""
    odd: tuple[int, ...]
    """Views whose colours fit those of their neighbours much worse than elsewhere."""


def compare_colours(hull: Hull, group: Sequence[Outline]) -> Colours:
    """Compare the colours of the hull's surface in all views."""
    x = surface_cells(hull)
    x = x[:: max(1, len(x) // CELLS)]
    pixels = [_pixels(hull, view, x) for view in group]
    own = torch.stack([_brightness(view, view, *at) for view, at in zip(group, pixels, strict=True)])
    exposure = tuple(_exposure(own, group, i) for i in range(len(group)))
    even = own / torch.tensor(exposure).nan_to_num(1.0)[:, None]  # else a dark picture spoils its neighbours
    expected = torch.stack([_neighbours(even, group, i) for i in range(len(group))])
    fit = [_correlation(own[i], expected[i]) for i in range(len(group))]
    suspects = sorted(range(len(group)), key=lambda i: fit[i])[:DOUBT]
    best = SWAP
    pair: tuple[int, int] | None = None
    for a in suspects:
        for b in range(len(group)):
            if a == b or group[a].mask.shape != group[b].mask.shape:
                continue
            there, back = _brightness(group[a], group[b], *pixels[a]), _brightness(group[b], group[a], *pixels[b])
            gains = _correlation(there, expected[a]) - fit[a], _correlation(back, expected[b]) - fit[b]
            if min(gains) > 0 and sum(gains) > best:
                best, pair = sum(gains), (min(a, b), max(a, b))
    return Colours(exposure, pair, _odd(fit))


def _odd(fit: Sequence[float]) -> tuple[int, ...]:
    values = torch.tensor(fit)
    low = values.median() - max(ODD, SPREADS * float((values - values.median()).abs().median()))
    return tuple(i for i in range(len(fit)) if fit[i] < low)


def surface_cells(hull: Hull) -> Float[Tensor, "m 3"]:
    """Return the centres of those cells of a hull that have a free side."""
    if len(hull.x) == 0:
        return hull.x
    cell = ((hull.x - hull.x.amin(0)) / hull.side).round().long() + 1
    full = torch.zeros([int(n) + 2 for n in cell.amax(0)], dtype=torch.bool)
    full[tuple(cell.T)] = True
    steps = torch.cat([torch.eye(3, dtype=torch.int64), -torch.eye(3, dtype=torch.int64)])
    inner = torch.stack([full[tuple((cell + step).T)] for step in steps]).all(0)
    return hull.x[~inner]


def _pixels(hull: Hull, view: Outline, x: Float[Tensor, "m 3"]) -> tuple[Float[Tensor, "m 2"], Bool[Tensor, " m"]]:
    """Return where a view sees points, and whether nothing of the hull lies in front of them."""
    h, w = view.mask.shape
    every = torch.cat([x, hull.x])
    uv, z = view.project(every)
    inside = (z > 0) & ((uv >= 0) & (uv < torch.tensor([w, h]).to(uv))).all(1)
    pixel = view.projection.pixel_size(view.K, float(z.median().abs()) or 1.0).min()
    block = max(1, round(2 * hull.side / float(pixel)))  # wider than a cell, so that no cell is seen through others
    u, v = torch.where(inside[:, None], uv / block, 0.0).long().unbind(1)
    across = w // block + 1
    nearest = torch.full(((h // block + 1) * across,), torch.inf).scatter_reduce(
        0, (v * across + u)[inside], z[inside], "amin"
    )
    clear = inside & (z <= nearest[v * across + u] + 3 * hull.side)
    return uv[: len(x)], clear[: len(x)]


def _brightness(
    view: Outline, picture: Outline, uv: Float[Tensor, "m 2"], clear: Bool[Tensor, " m"]
) -> Float[Tensor, " m"]:
    """Return the brightness of a picture, 1 to 256, where a view sees points; NaN where it does not, or no object."""
    u, v = torch.where(clear[:, None], uv, 0.0).long().unbind(1)
    seen = clear & view.mask[v, u]
    return torch.where(seen, picture.image[v, u].float().mean(1) + 1, torch.nan)


def _neighbours(own: Float[Tensor, "v m"], group: Sequence[Outline], i: int) -> Float[Tensor, " m"]:
    """Return the median brightness in the views that look in nearly the same direction as view i."""
    return own[_nearest(group, i)].nanmedian(0).values


def _exposure(own: Float[Tensor, "v m"], group: Sequence[Outline], i: int) -> float:
    """Return the brightness of view i relative to the nearest views: of each the median, of these the median."""
    each = (own[i].log() - own[_nearest(group, i)].log()).nanmedian(1).values
    return float(each.nanquantile(0.5).exp())


def _nearest(group: Sequence[Outline], i: int) -> Int[Tensor, " k"]:
    """Return the views that look in nearly the same direction as view i."""
    ahead = torch.stack([view.turn[2] for view in group])
    nearest = (ahead @ ahead[i]).argsort(descending=True)
    return nearest[nearest != i][:NEIGHBOURS]


def _correlation(a: Float[Tensor, " m"], b: Float[Tensor, " m"]) -> float:
    """Return the correlation of two brightnesses where both are known; 0 if hardly any are."""
    both = a.isfinite() & b.isfinite()
    if int(both.sum()) < 50:
        return 0.0
    a, b = a[both] - a[both].mean(), b[both] - b[both].mean()
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-9))
