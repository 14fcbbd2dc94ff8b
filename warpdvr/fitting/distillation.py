"""Give a field the surface of a mesh: its values become the distances to it."""

import math
import time

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.fields.base import Field
from warpdvr.fields.bounds import longest_side
from warpdvr.fitting.optimizer import new_optimizer, only
from warpdvr.fitting.recipe import Recipe, decay
from warpdvr.geometry.distance import signed_distance
from warpdvr.geometry.mesh import Mesh

POINTS = 1 << 18
"""Points whose distances are known."""

BATCH = 8192
"""Points in a step."""

SPREADS = 0.0, 0.005, 0.02, 0.05
"""Standard deviations of the offset from the surface, of equal parts of the points [longest side]; the last part of all
is anywhere in the bounds."""

PROBES = 64
"""Points at which it is tried which parameters change the value."""

STEEPNESS = 20.0
"""Logit of occupancy at a distance of the unit, half the longest side of the bounds."""


def distil_surface(field: Field, mesh: Mesh, *, steps: int, seed: int, seconds: float = math.inf) -> int:
    """Change a field in place so that its surface becomes that of a mesh; return the number of evaluations [point].

    Adam minimises |value - distance| at random points on the mesh, near it and anywhere, at the rates of the field. The
    value of an occupancy becomes `STEEPNESS` times the distance in half sides. Parameters that do not change the
    value, such as those of colours, stay as they are.

    Args:
        field: the field; parameters that require no gradient stay fixed.
        mesh: a closed surface [scene unit].
        steps: number of steps.
        seed: of the points.
        seconds: after which they end [s].
    """
    generator = torch.Generator().manual_seed(seed)
    x = _points(field, mesh, generator)
    target = signed_distance(x, mesh).to(field.bounds)
    if field.kind == "occupancy":
        target = target * (2 * STEEPNESS / longest_side(field.bounds))
    scale = float(target.abs().max())
    optimizer = new_optimizer(only(Recipe().groups(field, field.rates), value_parameters(field)))
    start, step = time.perf_counter(), 0
    while (progress := max(step / steps, (time.perf_counter() - start) / seconds)) < 1:
        step += 1
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * decay(progress)
        pick = torch.randint(len(x), (BATCH,), generator=generator).to(x.device)
        loss = (field.value(x[pick]) - target[pick]).abs().mean() / scale
        optimizer.zero_grad()
        loss.backward()
        if not math.isfinite(float(loss.detach())):
            raise RuntimeError(f"fit: {field.name} returned a value that is not finite as it took on a surface")
        optimizer.step()
    return step * BATCH


def value_parameters(field: Field) -> set[Tensor]:
    """Return the parameters that require a gradient and change the value of a field."""
    low, high = field.bounds
    x = low + (high - low) * torch.rand(PROBES, 3, generator=torch.Generator().manual_seed(0)).to(low)
    parameters = [p for p in field.parameters() if p.requires_grad]
    if not parameters:
        return set()
    with torch.enable_grad():
        value = field.value(x).sum()
    if not value.requires_grad:
        return set()
    grads = torch.autograd.grad(value, parameters, allow_unused=True)
    return {parameter for parameter, grad in zip(parameters, grads, strict=True) if grad is not None}


def _points(field: Field, mesh: Mesh, generator: torch.Generator) -> Float[Tensor, "n 3"]:
    """Return points on the mesh, near it and anywhere in the bounds."""
    side, n = longest_side(field.bounds), POINTS // (len(SPREADS) + 1)
    low, high = field.bounds
    parts = [low + (high - low) * torch.rand(n, 3, generator=generator).to(low)]
    vertices = mesh.vertices.to(low)
    for spread in SPREADS:
        start = vertices[torch.randint(len(vertices), (n,), generator=generator).to(low.device)]
        parts.append(start + spread * side * torch.randn(n, 3, generator=generator).to(low))
    x = torch.cat(parts)
    return torch.minimum(torch.maximum(x, low), high)
