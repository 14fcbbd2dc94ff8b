"""Collect all pixels of the training views in one pool, from which a fit draws its rays."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from warpdvr.cameras.camera import mixed_rays
from warpdvr.cameras.projection import Projection
from warpdvr.cameras.rays import Rays
from warpdvr.datasets.morphology import dilate, outline_band
from warpdvr.datasets.views import Views

UNKNOWN, BACKGROUND, OBJECT = -1, 0, 1
SHARES = 0.7, 0.2
"""Shares of a batch on objects or near them, and on both sides of outlines; the rest is spread over all pixels."""

RIM = 4
"""The largest distance from the outline of a pixel in the second share [pixel]."""


@dataclass(frozen=True)
class PixelBatch:
    """Rays, with the colours, labels and depths that the photographs give them."""

    rays: Rays
    """n rays in the scene frame; differentiable with respect to the cameras."""
    color: Float[Tensor, "n 3"]
    """sRGB in [0, 1]."""
    label: Int[Tensor, " n"]
    """OBJECT, BACKGROUND or UNKNOWN."""
    depth: Float[Tensor, " n"]
    """Depth along the camera's forward axis, NaN where it is unknown [scene unit]."""
    forward: Float[Tensor, " n"]
    """Depth per unit of ray length: the cosine of the angle to the forward axis."""
    pose: Float[Tensor, "v 4 4"]
    """Camera-to-world matrices of the training views [scene unit]; differentiable where cameras are refined."""
    view: Int[Tensor, " n"]
    """Training view of each ray."""
    pixel: Float[Tensor, "n 2"]
    """Position of each ray in its image [pixel]."""


class Pixels:
    """The pixels of the training views. Points outside an image are unknown to its view."""

    def __init__(self, views: Views, device: torch.device | str = "cpu"):
        """Flatten the training views.

        Without any mask only pixels of known depth are drawn: the others, such as holes in a depth map, hold no
        information.

        Raises:
            ValueError: if no training view has a mask or depth, so that nothing shows where the object is.
        """
        train = views.train
        self.color, self.base = _colors([views.images[i] for i in train], device)
        self.label = torch.cat([_label(views.images[i], views.masks[i]) for i in train]).to(device)
        self.depth = _depths(views, device)
        self.sparse = _sparse(views, device)
        self.masked = any(views.masks[i] is not None for i in train)
        if not self.masked and not self.has_depth:
            raise ValueError("fit: none of the training views has a mask, at least one is needed to find the outline")
        self.K = torch.stack([views.cameras[i].K for i in train]).float().to(device)
        self.pose = torch.stack([views.cameras[i].pose for i in train]).float().to(device)
        self.projections = [views.cameras[i].projection.to(device) for i in train]
        size = [views.images[i].shape[:2] for i in train]
        self.width, self.height = (torch.tensor(a, device=device) for a in ([w for _, w in size], [h for h, _ in size]))
        self.start = torch.tensor([0, *[h * w for h, w in size]], device=device).cumsum(0)
        self.block = torch.arange(4, device=device)
        known = self.depth is not None and not self.masked
        near = [~self.depth.isnan()] if known and self.depth is not None else (_near(views.masks[i]) for i in train)
        self.near = _Chosen.of(near, self.start if not known else self.start[:1], device)
        self.rim = _Chosen.of((_rim(views.masks[i]) for i in train), self.start, device)

    @property
    def has_depth(self) -> bool:
        """Whether the depth of any pixel or point is known."""
        return self.sparse is not None or (self.depth is not None and not bool(self.depth.isnan().all()))

    def set_intrinsics(self, K: Float[Tensor, "v 3 3"], projections: Sequence[Projection]) -> None:
        """Draw from now on with other intrinsics [pixel] of the training views; rays are differentiable by them."""
        self.K, self.projections = K.to(self.K), list(projections)

    def draw(
        self,
        n: int,
        generator: torch.Generator,
        *,
        patches: bool = False,
        outlines: bool = True,
        pose: Float[Tensor, "v 4 4"] | None = None,
    ) -> PixelBatch:
        """Draw n random pixels as rays: `SHARES` of them around the object and its outline, the rest from all pixels.

        Pixels on both sides of an outline are drawn equally often, or else the surface would shrink or grow. If there
        are single points of known depth, n // 8 more rays go through some of them; these come last.

        Args:
            n: number of pixels.
            generator: the source of random numbers.
            patches: draw n // 4 blocks of 2 x 2 pixels instead, block after block.
            outlines: draw pixels at outlines more often than others; False: as often as those around the object.
            pose: camera-to-world matrices of the training views; those of the views by default.
        """
        index = self._draw(n // 4 if patches else n, generator, SHARES if outlines else (sum(SHARES), 0.0))
        view = torch.searchsorted(self.start, index, right=True) - 1
        offset = index - self.start[view]
        width = self.width[view]
        u, v = offset % width, offset // width
        if patches:
            u, v = (
                (torch.minimum(a, size[view] - 2).clamp_min(0)[:, None] + side).reshape(-1)
                for a, size, side in ((u, self.width, self.block % 2), (v, self.height, self.block // 2))
            )
            view = view.repeat_interleave(4)
            index = self.start[view] + v * self.width[view] + u
        pixel = torch.stack([u, v], -1) + 0.5
        depth = None if self.depth is None else self.depth[index]
        if self.sparse is not None:
            pick = torch.randint(len(self.sparse[0]), (max(1, n // 8),), generator=generator).to(index.device)
            point_view, point, z = (a[pick] for a in self.sparse)
            if depth is None:
                depth = index.new_full((len(index),), torch.nan, dtype=torch.float32)
            depth = torch.cat([depth, z])
            column, row = point.floor().long().unbind(1)
            index = torch.cat([index, self.start[point_view] + row * self.width[point_view] + column])
            view, pixel = torch.cat([view, point_view]), torch.cat([pixel, point])
        pose = self.pose if pose is None else pose
        rays = mixed_rays(self.projections, self.K, pose, view, pixel)
        depth = rays.direction.new_full((len(index),), torch.nan) if depth is None else depth
        forward = (rays.direction.detach() * pose.detach()[view, :3, 2]).sum(-1)
        color = self.color[index - self.start[view] + self.base[view]].float() / 255
        return PixelBatch(rays, color, self.label[index], depth, forward, pose, view, pixel)

    def inside(self, x: Float[Tensor, "n 3"], pose: Float[Tensor, "v 4 4"] | None = None) -> Bool[Tensor, " n"]:
        """Return whether points lie in the hull of the masks: on the object, or unknown, in every view.

        Args:
            x: the points [scene unit].
            pose: camera-to-world matrices of the training views; those of the views by default.
        """
        return self.votes(x, pose)[0] == 0

    @torch.no_grad()
    def votes(
        self, x: Float[Tensor, "n 3"], pose: Float[Tensor, "v 4 4"] | None = None
    ) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Return, for each point, how many views see background there, and how many have it in their image.

        The arguments are those of `inside`.
        """
        pose = self.pose if pose is None else pose
        n_background, n_visible = torch.zeros(2, len(x), dtype=torch.int64, device=x.device)
        for view in range(len(self.pose)):
            R, centre = pose[view, :3, :3], pose[view, :3, 3]
            local = (x - centre) @ R
            z = local[:, 2]
            u, v = self.projections[view].local_project(self.K[view], local).floor().long().unbind(1)
            visible = (z > 0) & (u >= 0) & (v >= 0) & (u < self.width[view]) & (v < self.height[view])
            index = self.start[view] + v * self.width[view] + u
            n_visible += visible
            n_background += visible & (self.label[torch.where(visible, index, 0)] == BACKGROUND)
        return n_background, n_visible

    def _draw(self, n: int, generator: torch.Generator, shares: tuple[float, float]) -> Int[Tensor, " n"]:
        """Return the indices of random pixels in shares like `SHARES`."""
        if not self.masked:
            return self._choose(self.near, n, generator) if len(self.near) else self.near.pixel(self.start[:0])
        counts = int(shares[0] * n), int(shares[1] * n)
        parts = (self.near, counts[0]), (self.rim, counts[1]), (None, n - sum(counts))
        return torch.cat([self._choose(candidates, count, generator) for candidates, count in parts])

    def _choose(self, candidates: "_Chosen | None", n: int, generator: torch.Generator) -> Int[Tensor, " n"]:
        """Return n random ones of the candidates, or of all pixels if there are none."""
        candidates = None if candidates is None or len(candidates) == 0 else candidates
        size = len(self.label) if candidates is None else len(candidates)
        pick = torch.randint(size, (n,), generator=generator).to(self.color.device)
        return pick if candidates is None else candidates.pixel(pick)


@dataclass(frozen=True)
class _Chosen:
    """Some of the pixels of a pool, as runs of neighbours: an index for each pixel would take 8 bytes."""

    first: Int[Tensor, " r"]
    """The first pixel of each run."""
    end: Int[Tensor, " r"]
    """How many pixels there are up to the end of each run."""

    def __len__(self) -> int:
        return int(self.end[-1]) if len(self.end) else 0

    def pixel(self, k: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Return the k-th of the pixels."""
        if len(self.end) == 0:
            return k
        run = torch.searchsorted(self.end, k, right=True)
        return self.first[run] + k - torch.nn.functional.pad(self.end, (1, 0))[run]

    @classmethod
    def of(
        cls, parts: Iterable[Bool[Tensor, " _"] | None], start: Int[Tensor, " v"], device: torch.device | str
    ) -> "_Chosen":
        """Return the pixels that are True in the parts of a pool, which begin at `start`; None: none of a part is."""
        firsts, counts = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, dtype=torch.int64)]
        for part, offset in zip(parts, start.tolist(), strict=False):
            if part is None or len(part) == 0:
                continue
            edges = torch.nonzero(part[1:] != part[:-1])[:, 0].cpu() + 1
            bounds = torch.cat([edges.new_zeros(1), edges, edges.new_full((1,), len(part))])
            inside = slice(0 if bool(part[0]) else 1, None, 2)
            low, high = bounds[:-1][inside], bounds[1:][inside]
            firsts.append(low + offset)
            counts.append(high - low)
        return cls(torch.cat(firsts).to(device), torch.cat(counts).cumsum(0).to(device))


def _colors(
    images: Sequence[UInt8[Tensor, "_ _ 3"]], device: torch.device | str
) -> tuple[UInt8[Tensor, "n 3"], Int[Tensor, " v"]]:
    """Return the colours of all pixels, and where those of each image begin.

    Nothing is copied if the images are parts of one array on that device, as `gather` reads them; that array may hold
    more.
    """
    storage = images[0].untyped_storage()
    aligned = all(image.is_contiguous() and image.storage_offset() % 3 == 0 for image in images)
    one = all(image.untyped_storage().data_ptr() == storage.data_ptr() for image in images)
    if aligned and one and images[0].device == torch.device(device):
        flat = images[0].new_empty(0).set_(storage, 0, (storage.nbytes() // 3, 3), (3, 1))
        return flat, torch.tensor([image.storage_offset() // 3 for image in images], device=device)
    size = torch.tensor([0, *[image.shape[0] * image.shape[1] for image in images]], device=device)
    return torch.cat([image.reshape(-1, 3) for image in images]).to(device), size.cumsum(0)[:-1]


def _depths(views: Views, device: torch.device | str) -> Float[Tensor, " n"] | None:
    """Return the depths of all pixels of the training views, or None if there are none."""
    if not any(views.depths[i] is not None for i in views.train if views.depths):
        return None
    pairs = ((views.depths[i], views.images[i]) for i in views.train)
    flat = [z.reshape(-1) if z is not None else torch.full(i.shape[:2], torch.nan).view(-1) for z, i in pairs]
    return torch.cat(flat).to(device)


def _sparse(
    views: Views, device: torch.device | str
) -> tuple[Int[Tensor, " m"], Float[Tensor, "m 2"], Float[Tensor, " m"]] | None:
    """Return view, pixel and depth of the points of known depth in the training images, or None if there are none."""
    parts = []
    for view, i in enumerate(views.train if views.points else ()):
        if (points := views.points[i]) is not None:
            pixel, size = points.pixel.float(), torch.tensor([views.cameras[i].width, views.cameras[i].height])
            inside = ((pixel >= 0) & (pixel < size)).all(1)
            parts.append((torch.full_like(points.depth, view).long()[inside], pixel[inside], points.depth[inside]))
    if not sum(len(view) for view, _, _ in parts):
        return None
    view_of, pixel, depth = (torch.cat(part).to(device) for part in zip(*parts, strict=True))
    return view_of, pixel, depth.float()


def _label(image: UInt8[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None) -> Int[Tensor, " n"]:
    """Return OBJECT, BACKGROUND or UNKNOWN for each pixel, int8."""
    if mask is None:
        return torch.full((image.shape[0] * image.shape[1],), UNKNOWN, dtype=torch.int8)
    return mask.reshape(-1).to(torch.int8)


def _near(mask: Bool[Tensor, "h w"] | None) -> Bool[Tensor, " n"] | None:
    """Return which pixels lie on the object or within about a twentieth of the image's width of it, in blocks."""
    if mask is None:
        return None
    height, width = mask.shape
    block = max(1, width // 60)
    bands = (rows[None].float() for rows in mask.split(max(1, 256 // block) * block))
    coarse = torch.cat([torch.nn.functional.max_pool2d(rows, block, ceil_mode=True)[0] > 0 for rows in bands])
    grown = dilate(coarse, 3)
    return grown.repeat_interleave(block, 0).repeat_interleave(block, 1)[:height, :width].reshape(-1)


def _rim(mask: Bool[Tensor, "h w"] | None) -> Bool[Tensor, " n"] | None:
    """Return which pixels lie within `RIM` of the object's outline, on either side."""
    return None if mask is None else outline_band(mask, RIM).reshape(-1)
