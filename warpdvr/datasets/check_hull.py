"""The visual hull of reduced masks, carved and projected back into every view.

A cell belongs to the hull unless a view sees background there (Laurentini 1994); what lies outside of an image is
unknown. Projected back, the hull of a right calibration covers every mask but for the size of its cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, max_pool2d

from warpdvr.cameras.projection import Projection
from warpdvr.datasets.views import Views
from warpdvr.datasets.visual_hull import axes_equations, project_balls, summed_area
from warpdvr.runtime.threads import one_thread

LONGEST = 200
"""The longer side of the reduced masks and pictures [pixel]."""

SHARE = 2 / 3
"""The share of the views that must have a cell in their image: what few views see is not carved."""

COARSE, FINE = 24, 64
"""Cells along each side of the box: while it closes in on the hull, and in the last pass."""


@dataclass(frozen=True)
class Outline:
    """One view, reduced: how it projects, and what it shows."""

    projection: Projection
    """The camera model."""
    K: Float[Tensor, "3 3"]
    """Intrinsic matrix [pixel of the reduced picture]."""
    turn: Float[Tensor, "3 3"]
    """World to camera axes; of determinant -1 if the frame is mirrored."""
    centre: Float[Tensor, "3"]
    """Camera centre [unit of the frame]."""
    mask: Bool[Tensor, "h w"]
    """True on the object; True everywhere if the outline is unknown."""
    image: UInt8[Tensor, "h w 3"]
    """sRGB colours."""
    masked: bool
    """Whether the outline is known."""

    def project(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
        """Return pixels and depths of points; pixels of points with z <= 0 are meaningless."""
        local = self._local(x)
        safe = torch.where(local[:, 2:] > 0, local, torch.tensor([0.0, 0.0, 1.0]).to(local))
        return self.projection.local_project(self.K.to(local), safe), local[:, 2]

    def _local(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        return (x - self.centre.to(x)) @ self.turn.to(x).T

    def seen(self, x: Float[Tensor, "n 3"], radius: float = 0.0) -> tuple[Bool[Tensor, " n"], Bool[Tensor, " n"]]:
        """Return which balls are in the image, at least in part, and which lie entirely in its background."""
        return project_balls(self._local(x), radius, self.projection, self.K.to(x), summed_area(self.mask))


@dataclass(frozen=True)
class Hull:
    """The cells that no view, or hardly any, sees in its background."""

    x: Float[Tensor, "n 3"]
    """Centres of the cells, float32 [unit of the frame]."""
    side: float
    """Side of a cell [unit of the frame]."""

    @classmethod
    def empty(cls) -> "Hull":
        """Return a hull without cells."""
        return cls(torch.zeros(0, 3), 1.0)

    def silhouette(self, outline: Outline) -> tuple[Bool[Tensor, "_ _"], Bool[Tensor, "_ _"]]:
        """Return the hull's outline and the mask in a view, both in pixels that are as large as a cell."""
        h, w = outline.mask.shape
        if len(self.x) == 0:
            return torch.zeros_like(outline.mask), outline.mask
        uv, z = outline.project(self.x)
        pixel = outline.projection.pixel_size(outline.K, float(z.median().abs()) or 1.0).min()
        factor = min(1.0, float(pixel) / self.side)
        size = max(1, round(h * factor)), max(1, round(w * factor))
        mask = adaptive_avg_pool2d(outline.mask.float()[None], size)[0] > 0.5
        uv = uv * torch.tensor([size[1] / w, size[0] / h]).to(uv)
        inside = (z > 0) & ((uv >= 0) & (uv < torch.tensor([size[1], size[0]]).to(uv))).all(1)
        u, v = uv[inside].long().unbind(1)
        drawn = torch.zeros(size)
        drawn[v, u] = 1
        closed = -max_pool2d(-max_pool2d(drawn[None], 3, 1, 1), 3, 1, 1)[0]  # no pinholes between the cells' centres
        return closed > 0.5, mask

    def overlap(self, outline: Outline) -> float:
        """Return the intersection over union of the hull's outline and the mask in a view."""
        drawn, mask = self.silhouette(outline)
        return float((drawn & mask).sum()) / max(1, int((drawn | mask).sum()))


def outlines(views: Views, shift: Float[Tensor, "3"], chosen: Sequence[int]) -> tuple[Outline, ...]:
    """Return views, reduced to `LONGEST`, in a frame with its origin at `shift`, where float32 is enough."""
    return tuple(_outline(views, i, shift) for i in chosen)


def _outline(views: Views, i: int, shift: Float[Tensor, "3"]) -> Outline:
    camera, mask = views.cameras[i], views.masks[i]
    factor = min(1.0, LONGEST / max(camera.width, camera.height))
    size = max(1, round(camera.height * factor)), max(1, round(camera.width * factor))
    small = camera.resized(size[1], size[0])
    step = max(1, max(camera.width, camera.height) // (4 * LONGEST))  # of a large picture, not every pixel is needed
    few = slice(step // 2, None, step)
    image = adaptive_avg_pool2d(views.images[i][few, few].permute(2, 0, 1).float(), size).permute(1, 2, 0)
    full = torch.ones(size, dtype=torch.bool)
    if mask is not None:
        full = adaptive_avg_pool2d(mask[few, few].float()[None], size)[0] > 0.5
    return Outline(
        small.projection,
        small.K.detach().float(),
        small.pose[:3, :3].detach().T.float(),
        (small.pose[:3, 3].detach() - shift).float(),
        full,
        image.round().to(torch.uint8),
        mask is not None,
    )


def carve(group: Sequence[Outline], dissent: int = 0, per_side: int = FINE) -> Hull:
    """Return the cells that at most `dissent` views see in their background; an empty hull if there are none."""
    with one_thread():
        box = _locate(group, dissent)
        if box is None:
            return Hull.empty()
        x, side = _cells(*box, per_side)
        return Hull(x[_kept(group, x, dissent)], side)


def nearest_to_axes(group: Sequence[Outline]) -> tuple[Float[Tensor, "3"], float]:
    """Return the point nearest to all optical axes, and its median distance from the cameras."""
    o, d = torch.stack([a.centre for a in group]).double(), torch.stack([a.turn[2] for a in group]).double()
    total, right = axes_equations(o, d)
    point = torch.linalg.solve(total + 1e-9 * torch.eye(3).to(d), right)  # parallel axes meet far away
    return point.float(), float((point - o).norm(dim=1).median())


def _locate(group: Sequence[Outline], dissent: int) -> tuple[Float[Tensor, "3"], float] | None:
    """Return the middle and half the side of a box around the hull; whole cells, so that nothing thin is lost."""
    middle, half = nearest_to_axes(group)
    if not half > 0:
        return None
    for _ in range(4):
        x, side = _cells(middle, half, COARSE)
        x = x[_kept(group, x, dissent, 0.87 * side)]
        if len(x) == 0:
            return None
        low, high = x.amin(0) - side / 2, x.amax(0) + side / 2
        middle, half = (low + high) / 2, float((high - low).max() / 2)
    return middle, half


def _kept(group: Sequence[Outline], x: Float[Tensor, "n 3"], dissent: int, radius: float = 0.0) -> Bool[Tensor, " n"]:
    """Return which balls are seen by enough views, and in the background of at most `dissent` of them."""
    votes, views = torch.zeros(2, len(x), dtype=torch.int16)
    for outline in group:
        visible, empty = outline.seen(x, radius)
        views += visible
        votes += empty
    kept: Tensor = (votes <= dissent) & (views >= max(2, len(group) * SHARE))
    return kept


def _cells(middle: Float[Tensor, "3"], half: float, per_side: int) -> tuple[Float[Tensor, "n 3"], float]:
    """Return the centres and the side of the cells of a cube."""
    step = (torch.arange(per_side) + 0.5) / per_side * 2 - 1
    return middle + half * torch.cartesian_prod(step, step, step), 2 * half / per_side
