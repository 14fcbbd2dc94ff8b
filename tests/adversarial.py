"""Surfaces that are easy to miss: thin, fractal, rough, steep or not continuous. Not shipped."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from networks import trained
from reference import Asked
from torch import Tensor, nn

from warpdvr.fields.base import Field
from warpdvr.fields.voxel import VoxelSDF
from warpdvr.intersection.hit import Hit


@dataclass(frozen=True)
class Adversary:
    """A surface and what is known about its field."""

    make: Callable[[Path], Field]
    """Makes the field; takes the folder of the data sets."""
    continuous: bool = True
    needs_data: bool = False


def mandelbulb(x: Tensor) -> Tensor:
    """Distance estimate of the Mandelbulb of power 8 (White and Nylander 2009), 6 iterations, scaled by 2.2."""
    c = 1.2 * x
    z, dr, r = c, torch.ones_like(x[:, 0]), c.norm(dim=-1)
    for _ in range(6):
        r = z.norm(dim=-1).clamp_min(1e-9)
        going = r < 2
        theta, phi = 8 * (z[:, 2] / r).clamp(-1, 1).acos(), 8 * torch.atan2(z[:, 1], z[:, 0])
        dr = torch.where(going, 8 * r**7 * dr + 1, dr)
        turned = torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], 1)
        z = torch.where(going[:, None], r[:, None] ** 8 * turned + c, z)
    r = z.norm(dim=-1).clamp_min(1e-9)
    return 0.5 * r.log() * r / dr / 1.2 - 1e-3


def menger(x: Tensor, levels: int = 4) -> Tensor:
    """A bound of the distance to a Menger sponge with half a side of 0.7 (Quilez, "Menger fractal", 2011)."""
    x = x / 0.7
    q = x.abs() - 1
    value = q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0)
    scale = 1.0
    for _ in range(levels):
        a = (x * scale) % 2.0 - 1.0
        scale *= 3.0
        r = (1 - 3 * a.abs()).abs()
        pairs = torch.stack([torch.maximum(r[:, i], r[:, j]) for i, j in ((0, 1), (1, 2), (2, 0))])
        value = torch.maximum(value, (pairs.amin(0) - 1) / scale)
    return 0.7 * value


def sheet(thickness: float) -> Callable[[Tensor], Tensor]:
    """Return the distance to a square plate that leans in all directions."""
    normal = torch.tensor([0.3, 0.2, 1.0]).double()
    normal = normal / normal.norm()
    u = torch.linalg.cross(normal, torch.tensor([0.0, 1.0, 0.0]).double())
    u = u / u.norm()
    frame = torch.stack([u, torch.linalg.cross(normal, u), normal], 1)

    def distance(x: Tensor) -> Tensor:
        q = (x @ frame.to(x)).abs() - torch.tensor([0.6, 0.6, thickness / 2]).to(x)
        return q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0)

    return distance


def shells(x: Tensor) -> Tensor:
    """Four hollow balls in each other, each 4e-3 thick, with a bite taken out so that rays see them all."""
    r = x.norm(dim=-1)
    value = torch.stack([(r - radius).abs() - 2e-3 for radius in (0.2, 0.35, 0.5, 0.65)]).amin(0)
    bite = 0.55 - (x - torch.tensor([0.5, 0.3, 0.4]).to(x)).norm(dim=-1)
    return torch.maximum(value, bite)


def step(x: Tensor) -> Tensor:
    """Only the sign of a distance."""
    return torch.where(x.norm(dim=-1) < 0.5, -1.0, 1.0).to(x) + 0.0 * x.sum(-1)


def rod(x: Tensor) -> Tensor:
    """A box with a ball taken out, and a rod of radius 3e-3 through it."""
    q = x.abs() - 0.5
    box = q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0)
    carved = torch.maximum(box, 0.62 - x.norm(dim=-1))
    axis = torch.tensor([1.0, 0.6, 0.35]).to(x)
    axis = axis / axis.norm()
    along = x @ axis
    thin = (x - along[:, None] * axis).norm(dim=-1) - 3e-3
    return torch.minimum(carved, torch.maximum(thin, along.abs() - 0.9))


def needles(x: Tensor) -> Tensor:
    """Needles of radius 4e-3 on a plate; the value is cut off at 0.02, so that it tells nothing from afar."""
    place = x[:, :2] - (x[:, :2] / 0.2).round().clamp(-3, 3) * 0.2
    needle = torch.maximum(place.norm(dim=-1) - 4e-3, (x[:, 2] - 0.1).abs() - 0.5)
    q = x.abs() - torch.tensor([0.7, 0.7, 0.02]).to(x)
    plate = q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0)
    return torch.minimum(needle, plate).clamp_max(0.02)


def bumps(x: Tensor) -> Tensor:
    """A ball with bumps of wave number 60."""
    return x.norm(dim=-1) - 0.5 + 0.02 * (60 * x).sin().prod(-1)


def pinned(x: Tensor) -> Tensor:
    """The logits of a steep sigmoid: 0 to 1 within 1e-2, cut off at +-8, of a ball with a pin of radius 4e-3."""
    ball = x.norm(dim=-1) - 0.4
    pin = torch.maximum(x[:, :2].norm(dim=-1) - 4e-3, (x[:, 2] - 0.5).abs() - 0.35)
    occupancy = torch.sigmoid(-torch.minimum(ball, pin) / 2e-3)
    return 0.5 - occupancy


class Siren(Field):
    """A ball plus random sines of sines (Sitzmann et al. 2020)."""

    def __init__(self) -> None:
        super().__init__(1.0)
        generator = torch.Generator().manual_seed(3)
        sizes = [3, 48, 48, 1]
        for i, (a, b) in enumerate(pairwise(sizes)):
            bound = 1 / a if i == 0 else (6 / a) ** 0.5 / 30
            for name, shape in ((f"w{i}", (b, a)), (f"b{i}", (b,))):
                weight = (2 * torch.rand(*shape, generator=generator) - 1) * bound
                self.register_parameter(name, nn.Parameter(weight))

    def value(self, x: Tensor) -> Tensor:
        h = x
        for i in range(2):
            h = torch.sin(30 * (h @ self.get_parameter(f"w{i}").T + self.get_parameter(f"b{i}")))
        return x.norm(dim=-1) - 0.5 + 0.5 * (h @ self.get_parameter("w2").T + self.get_parameter("b2"))[:, 0]


def voxels(resolution: int = 128) -> Field:
    """A knotted torus on a grid of voxels."""
    field = VoxelSDF(resolution=resolution)
    line = torch.linspace(-1, 1, resolution + 1)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    angle = torch.atan2(y, x)
    ring = torch.hypot(x, y) - 0.5 - 0.05 * (3 * angle).cos()
    value = torch.hypot(ring, z - 0.1 * (3 * angle).sin()) - 0.2
    field.distance.table.data[:, 0] = value.reshape(-1)
    field.bound_slope()
    return field


def lengths(hit: Hit) -> Tensor:
    """Return the ray lengths of hits in float64, NaN for rays that do not hit."""
    return torch.full(hit.status.shape, torch.nan, dtype=torch.float64).index_copy(0, hit.ray, hit.t.double())


def changes_sign(field: Any, o: Tensor, d: Tensor, t: Tensor, reach: float = 2e-4) -> Tensor:
    """Return whether the value is positive and not positive, in this order, within a short way of each hit."""
    at = t[:, None] + torch.linspace(-reach, reach, 41, dtype=t.dtype)
    value = field.value((o[:, None] + at[..., None] * d[:, None]).view(-1, 3)).view(at.shape)
    seen: Tensor = ((value[:, :-1] > 0) & (value[:, 1:] <= 0)).any(1)
    return seen


ADVERSARIES = {
    "Mandelbulb": Adversary(lambda _: Asked(mandelbulb)),
    "Menger sponge, 4": Adversary(lambda _: Asked(menger, lipschitz=1.0)),
    "sheet of 2e-3": Adversary(lambda _: Asked(sheet(2e-3), lipschitz=1.0)),
    "sheet of 2e-4": Adversary(lambda _: Asked(sheet(2e-4), lipschitz=1.0)),
    "shells": Adversary(lambda _: Asked(shells, lipschitz=1.0)),
    "step": Adversary(lambda _: Asked(step), continuous=False),
    "box, ball and rod": Adversary(lambda _: Asked(rod, lipschitz=1.0)),
    "truncated needles": Adversary(lambda _: Asked(needles, lipschitz=1.0)),
    "bumps, k = 60": Adversary(lambda _: Asked(bumps, lipschitz=2.0)),
    "steep sigmoid, pin": Adversary(lambda _: Asked(pinned)),
    "SIREN": Adversary(lambda _: Siren()),
    "voxels": Adversary(lambda _: voxels()),
    "fox": Adversary(lambda data: trained(data, "fox"), needs_data=True),
    "birdcage_occ": Adversary(lambda data: trained(data, "birdcage_occ"), needs_data=True),
}
"""By name; where no bound of the slope is given, none is known or it is far too large."""
