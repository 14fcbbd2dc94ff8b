"""Cones around bundles of rays: free space is found once for all rays in a cone, from wide cones to narrow ones."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.bounds import longest_side
from warpdvr.intersection.hit import Status
from warpdvr.intersection.wavefront import RayBatch
from warpdvr.kernels import cones as _cones
from warpdvr.kernels.cones import MIN_COSINE, WHOLE_SPACE
from warpdvr.runtime.launch import Packed, launch

SIZES = 256, 64, 16, 4
"""Rays in a bundle, from wide cones to narrow ones."""

MIN_RAYS = 64
"""Number of rays below which cones do not pay."""

ROW, PROBES = 64, 17
"""Rays in a row that `compact_order` looks at, and how many rows."""

MIN_SPACING = 5e-6
"""Samples on an axis that are closer together give no reliable slope [longest side of the bounds]."""

STEPS = 64
"""Samples on the axis of a cone after which narrower cones take over."""


@dataclass(frozen=True)
class Start:
    """Where m rays continue after the cones."""

    ray: Int[Tensor, " m"]
    """Their indices, int64; the others are decided, or never meet the bounds."""
    free_until: Float[Tensor, " m"]
    """The ray length up to which each of them is known to be free [scene unit]."""
    t: Float[Tensor, " m"]
    """Ray length at which to look first [scene unit]."""
    fall: Float[Tensor, " m"]
    """How fast values fall there, in units of the bound, from 0 to 1."""
    steepest: float
    """The steepest difference of values, in units of the bound."""


def free_lengths(batch: RayBatch, lipschitz: float, thinnest: float) -> Start | None:
    """Find how far rays are free of the surface, and mark those as missing that are free all the way.

    Rays are sorted by direction, so that bundles are narrow whether the rays are the pixels of an image in order or
    picked at random. A cone whose axis is sampled is free where the ball of radius value / `lipschitz` reaches
    its edge; when the surface comes too near, the bundle is divided by four. After the pyramid of Liu et al., "DIST"
    (2020), section 3.2, which starts finer rays where coarser ones ended; here that place is proven.

    Args:
        batch: rays that are not decided yet.
        lipschitz: an upper bound of |grad value|.
        thinnest: gaps up to this length may stay open along a ray [scene unit].

    Returns:
        Where the rays continue; None if they do not come from one eye, look at several shapes, or are too few.
    """
    ray = batch.active().long()
    if len(ray) < MIN_RAYS or not bool((batch.o[ray] == batch.o[ray[0]]).all()):
        return None
    if batch.shape_index is not None and not bool((batch.shape_index[ray] == batch.shape_index[ray[0]]).all()):
        return None
    ray = ray[_curve(batch.d[ray]).argsort(stable=True)]
    level, steepest = _Level(batch, ray, SIZES[0]), 0.0
    for size in SIZES:
        level = _Level(batch, ray, size, level) if size < SIZES[0] else level
        steepest = max(steepest, level.march(batch, lipschitz, thinnest))
    return level.hand_over(batch, ray, thinnest, steepest)


class _Level:
    """Cones around bundles of `size` rays each, in the order of the curve, the arrays of kernels/cones.py."""

    def __init__(self, batch: RayBatch, ray: Tensor, size: int, wider: "_Level | None" = None):
        """Make the cones; each inherits what the cone of a `wider` level that contains it has found."""
        self.size, count = size, math.ceil(len(ray) / size)
        self.eye, self.any_ray = batch.o[ray[:1]], ray[:1]
        member = torch.arange(count * size, device=ray.device).clamp_max(len(ray) - 1).view(count, size)
        near, far, d = batch.near[ray], batch.far[ray], batch.d[ray][member]
        self.axis = torch.nn.functional.normalize(d.mean(1), dim=-1)
        chord = (d - self.axis[:, None]).norm(dim=-1).amax(1) * (1 + 1e-5) + 1e-6  # and a margin for rounding
        cosine = 1 - chord.square() / 2
        sine = torch.where(cosine > MIN_COSINE, chord * (1 - chord.square() / 4).clamp_min(0).sqrt(), WHOLE_SPACE)
        enter, leave = Rays(self.eye.expand(count, 3), self.axis).clip(batch.bounds)
        self.status = torch.full_like(enter, int(_cones.GOING), dtype=torch.int32)
        self.free_until, self.t = near[member].amin(1), torch.full_like(enter, torch.nan)
        self.last, self.radius, self.nearest = enter.new_full((3, count), torch.nan)
        self.fall, self.steepest = enter.new_zeros(2, count)
        self.f_nearest = torch.full_like(enter, torch.inf)
        if wider is not None:
            whole = torch.arange(count, device=ray.device) * size // wider.size
            self.status[wider.status[whole] == int(_cones.MISSED)] = int(_cones.MISSED)
            self.free_until = torch.maximum(self.free_until, wider.free_until[whole])
            self.last, self.radius, self.fall = wider.last[whole], wider.radius[whole], wider.fall[whole]
            self.nearest, self.f_nearest = wider.nearest[whole], wider.f_nearest[whole]
        self.cones = Packed(
            _cones.Cones,
            sine=sine,
            cosine=cosine,
            far=far[member].amax(1),
            enter=enter,
            leave=leave,
            status=self.status,
            free_until=self.free_until,
            t=self.t,
            last=self.last,
            radius=self.radius,
            fall=self.fall,
            nearest=self.nearest,
            f_nearest=self.f_nearest,
            steepest=self.steepest,
        )

    def march(self, batch: RayBatch, lipschitz: float, thinnest: float) -> float:
        """Sample the axes until all cones have ended; return the steepest difference in units of the bound."""
        launch(_cones.begin, len(self.status), [thinnest], [], state=[self.cones])
        settings = [tuple(self.eye[0].tolist()), lipschitz, thinnest, MIN_SPACING * longest_side(batch.bounds)]
        for _ in range(STEPS):
            cone = torch.nonzero(self.status == int(_cones.GOING))[:, 0]
            if len(cone) == 0:
                break
            x = self.eye + self.t[cone, None] * self.axis[cone]
            value = batch.evaluate(x, self.any_ray.expand(len(cone)))
            launch(_cones.widen, len(cone), [value, *settings, cone.int()], [], state=[self.cones], per_row=[value])
        return float(self.steepest.max())

    def hand_over(self, batch: RayBatch, ray: Int[Tensor, " n"], thinnest: float, steepest: float) -> Start:
        """Decide the rays of cones that missed, and return where the others continue."""
        part = torch.arange(len(ray), device=ray.device) // self.size
        nearest, f_nearest = torch.full_like(batch.near, torch.nan), torch.full_like(batch.near, torch.inf)
        nearest[ray], f_nearest[ray] = self.nearest[part], self.f_nearest[part]
        batch.note_lowest(nearest, f_nearest)
        free_until = torch.maximum(self.free_until[part], batch.near[ray])
        missed = (self.status[part] == int(_cones.MISSED)) | (free_until > batch.far[ray])
        batch.status[ray[missed]] = int(Status.MISS)
        ray, free_until, part = ray[~missed], free_until[~missed], part[~missed]
        fall = self.fall[part]
        hoped = free_until + 0.5 * thinnest
        # where a ball that begins at `hoped` has its middle, see kernels/cones.py
        t = (hoped + self.radius[part] + fall * self.last[part]) / (1 + fall)
        t = torch.where(t > free_until, torch.minimum(t, batch.far[ray]), free_until)
        return Start(ray, free_until, t, fall, steepest)


@torch.no_grad()
def compact_order(rays: Rays) -> Int[Tensor, " n"] | None:
    """Return an order of rays from one eye in which neighbours point alike, so that 64 in a row make a narrow bundle.

    None if they are in such an order, as the tiles of a picture are, come from several points, or are too few.
    """
    n = len(rays)
    if n < MIN_RAYS:
        return None
    first = torch.linspace(0, n - ROW, PROBES, device=rays.direction.device).long() // ROW * ROW
    d = rays.direction.detach().float().nan_to_num(0.0, 0.0, 0.0)
    apart = (d[first + torch.arange(ROW, device=d.device)[:, None]] - d[first]).norm(dim=-1)
    spread = (d[first] - d[first].mean(0)).norm(dim=-1).amax()
    is_compact = apart.amax(0) <= 3 * (ROW / n) ** 0.5 * spread
    if bool(is_compact.double().mean() > 0.5) or bool((rays.origin != rays.origin[0]).any()):
        return None
    return _curve(torch.nn.functional.normalize(d, dim=-1)).argsort(stable=True)


def _curve(d: Float[Tensor, "n 3"]) -> Int[Tensor, " n"]:
    """Return the places of unit directions on a curve that keeps neighbours together (Morton 1966).

    The curve runs through a square lattice on a plane in front of the eye, with the spacing of the pixels if these are
    the rays of an image. Its first axis points from the first ray to the second.
    """
    z = torch.nn.functional.normalize(d.mean(0), dim=0)
    x = d[1] - d[0]
    x = x - (x @ z) * z
    if float(x.norm()) < 1e-6:
        x = torch.linalg.cross(z, torch.eye(3).to(z)[int(z.abs().argmin())])
    x = torch.nn.functional.normalize(x, dim=0)
    uv = torch.stack([d @ x, d @ torch.linalg.cross(z, x)], 1) / (d @ z).clamp_min(0.01)[:, None]
    low = uv.amin(0)
    width = float((uv.amax(0) - low).max()) or 1.0
    count = max(1, round(math.sqrt(len(d))) - 1)
    place = ((uv - low) * (count / width) + 0.5).long().clamp(0, 0x7FFF)
    return _spread(place[:, 0]) | _spread(place[:, 1]) << 1


def _spread(bits: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Put a 0 before each of 15 bits."""
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        bits = (bits | bits << shift) & mask
    return bits
