"""Slow and plain twins in float64 of what the package does fast. They share no code with it. Not shipped."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field

Array = np.ndarray[Any, Any]


class Asked(Field):
    """A function as a field; it counts the points that it is asked for."""

    def __init__(self, function: Callable[[Tensor], Tensor], bounds: Any = 1.0, lipschitz: float | None = None):
        super().__init__(bounds)
        self.function, self.lipschitz, self.asked = function, lipschitz, 0

    def value(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return self.function(x)


def double(field: Any) -> Any:
    """Return a copy of a field in float64."""
    return copy.deepcopy(field).double()


def beams(origin: Any, direction: Any, device: Any = "cpu") -> Rays:
    """Return rays from lists of origins and directions (of any length), in float32."""
    o, d = (torch.as_tensor(a, dtype=torch.float64).reshape(-1, 3) for a in (origin, direction))
    n = len(d) if len(o) == 1 else len(o)
    o, d = o.expand(n, 3), (d / d.norm(dim=-1, keepdim=True)).expand(n, 3)
    return Rays(o.float().contiguous().to(device), d.float().contiguous().to(device))


def aimed(n: int, seed: int = 0, distance: float = 2.5, spread: float = 0.8, device: Any = "cpu") -> Rays:
    """Return n rays from random places on a sphere of radius `distance` to random places near the origin."""
    generator = torch.Generator().manual_seed(seed)
    eye, target = torch.randn(2, n, 3, generator=generator, dtype=torch.float64)
    eye = distance * eye / eye.norm(dim=-1, keepdim=True)
    return beams(eye, spread * target.clamp(-1, 1) - eye, device)


def in_double(rays: Rays) -> tuple[Tensor, Tensor]:
    """Return origins and directions in float64 on the CPU."""
    return rays.origin.detach().double().cpu(), rays.direction.detach().double().cpu()


def pixel_rays(K: Array, pose: Array, pixel: Array) -> tuple[Array, Array]:
    """Return origins and unit directions (n, 3) of the rays through `pixel` (n, 2), in NumPy."""
    local = np.linalg.solve(K, np.concatenate([pixel, np.ones((len(pixel), 1))], 1).T).T
    d = local @ pose[:3, :3].T
    return np.broadcast_to(pose[:3, 3], d.shape), d / np.linalg.norm(d, axis=1, keepdims=True)


def clip(o: Tensor, d: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor]:
    """Return the part of each ray inside of a box; near > far where it misses."""
    low, high = bounds.to(o)
    parallel = d == 0
    a, b = (low - o) / d, (high - o) / d
    outside = parallel & ((o < low) | (o > high))
    near = torch.where(parallel, -torch.inf, torch.minimum(a, b)).amax(-1).clamp_min(0)
    far = torch.where(parallel, torch.inf, torch.maximum(a, b)).amin(-1)
    return near, torch.where(outside.any(-1), -1.0, far)


def sphere_t(o: Tensor, d: Tensor, radius: Any, center: Any = 0.0) -> Tensor:
    """Return where rays from outside enter a ball, NaN where they do not; differentiable."""
    to = o - center
    b = (to * d).sum(-1)
    t = -b - (b.square() - to.square().sum(-1) + radius**2).sqrt()
    return torch.where(t > 0, t, torch.nan)


def plane_t(o: Tensor, d: Tensor, normal: Tensor, offset: Any) -> Tensor:
    """Return where rays enter the half space below a plane, NaN where they do not; differentiable."""
    n = normal / normal.norm()
    t = (offset - o @ n) / (d @ n)
    return torch.where((d @ n < 0) & (t > 0), t, torch.nan)


def box_t(o: Tensor, d: Tensor, size: Tensor, center: Any = 0.0) -> Tensor:
    """Return where rays from outside enter a box, NaN where they do not."""
    half = size / 2
    near, far = clip(o - center, d, torch.stack([-half, half]))
    return torch.where((near <= far) & (near > 0), near, torch.nan)


def torus_t(o: Tensor, d: Tensor, major: float, minor: float) -> Tensor:
    """Return where rays from outside enter a torus around z: the smallest real root of the quartic, NaN without one."""
    first = []
    for p, v in zip(o.numpy(), d.numpy(), strict=True):
        line = [np.poly1d([v[i], p[i]]) for i in range(3)]
        square = sum((c * c for c in line[1:]), line[0] * line[0])
        flat = line[0] * line[0] + line[1] * line[1]
        quartic = (square + (major**2 - minor**2)) ** 2 - 4 * major**2 * flat
        roots = [r.real for r in quartic.roots if abs(r.imag) < 1e-7 and r.real > 0]
        first.append(min(roots, default=np.nan))
    return torch.tensor(first, dtype=torch.float64)


@torch.no_grad()
def first_crossing(
    field: Any, o: Tensor, d: Tensor, ends: tuple[Tensor, Tensor], n: int = 1024, slope: float | None = None
) -> Tensor:
    """Return where the first of n samples with a value <= 0 after positive ones is approached, (rays,), NaN for none.

    Then 50 bisections. With `slope`, a bound of |grad value|, samples that cannot be reached by 0 are left out: same
    result. The first sample inside counts as no crossing. Runs in the precision of the field.
    """
    near, far = ends
    spacing = (far - near) / (n - 1)
    at = torch.where(near <= far, 0, n)
    found = torch.full_like(at, -1)
    while len(active := torch.nonzero(at < n)[:, 0]):
        value = field.value(o[active] + (near + at * spacing)[active, None] * d[active])
        inside = value <= 0
        found[active[inside]] = at[active[inside]]
        step = torch.ones_like(value) if slope is None else (value / (slope * spacing[active])).floor().clamp_min(1)
        at[active] = torch.where(inside, n, at[active] + step.long())
    ray = torch.nonzero(found > 0)[:, 0]
    high = (near + found * spacing)[ray]
    low = high - spacing[ray]
    for _ in range(50):
        middle = 0.5 * (low + high)
        inside = field.value(o[ray] + middle[:, None] * d[ray]) <= 0
        low, high = torch.where(inside, low, middle), torch.where(inside, middle, high)
    return torch.full_like(near, torch.nan).index_copy(0, ray, high)


def weight_gradient(field: Any, o: Tensor, d: Tensor, t: Tensor, w: Tensor) -> Tensor:
    """Return d(sum w t)/d(parameters) of a field, flat, by the implicit function theorem.

    -w / (grad f . d) df/dtheta, all rays summed up in one backward pass.
    """
    x = (o + t[:, None] * d).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(field.value(x).sum(), x)
    factor = -w / (gradient * d).sum(-1)
    found = torch.autograd.grad((factor * field.value(x.detach())).sum(), list(field.parameters()))
    return torch.cat([g.flatten() for g in found])


def difference(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-5) -> Tensor:
    """Return the gradient of a scalar function at a tensor by central differences, in float64."""
    at, gradient = at.detach().double(), torch.zeros_like(at, dtype=torch.float64)
    for i in range(at.numel()):
        nudge = torch.zeros(at.numel(), dtype=torch.float64)
        nudge[i] = step
        nudge = nudge.view(at.shape)
        gradient.view(-1)[i] = (function(at + nudge) - function(at - nudge)) / (2 * step)
    return gradient


def hash_encoding(x: Tensor, tables: list[Tensor], cells: list[int], low: Tensor, high: Tensor) -> Tensor:
    """Return the features of Mueller et al. 2022, section 3, of points (n, 3): plain Torch, differentiable by autograd.

    Level l has cells[l] cells along an axis and the rows tables[l]: as many as corners, or a power of two for a hash.
    """
    place = (torch.minimum(torch.maximum(x, low), high) - low) / (high - low)
    corner = torch.tensor([[k & 1, k >> 1 & 1, k >> 2] for k in range(8)], device=x.device)
    features = []
    for table, r in zip(tables, cells, strict=True):
        cell = (place.detach() * r).long().clamp_max(r - 1)
        at = place * r - cell
        weight = torch.where(corner == 1, at[:, None], 1 - at[:, None]).prod(-1)
        i, j, k = (cell[:, None] + corner).unbind(-1)
        dense = len(table) == (r + 1) ** 3
        row = i + (r + 1) * (j + (r + 1) * k) if dense else (i ^ j * 2654435761 ^ k * 805459861) % len(table)
        features.append((weight[..., None] * table[row]).sum(1))
    return torch.cat(features, -1)
