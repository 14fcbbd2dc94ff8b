"""Sphere tracing in a few launches, for fields whose value is a Warp function as well (`Field.warp_value`)."""

import torch
from torch import Tensor

from warpdvr.fields.bounds import corner_numbers, longest_side
from warpdvr.fields.warp_value import WarpValue
from warpdvr.intersection.cones import MIN_RAYS, MIN_SPACING, SIZES, STEPS
from warpdvr.intersection.wavefront import RayBatch
from warpdvr.kernels import cones as _cones
from warpdvr.kernels import fused as _fused
from warpdvr.kernels import sphere_trace as _trace
from warpdvr.runtime.launch import Packed, launch_parts


def trace(
    value: WarpValue, batch: RayBatch, settings: Packed, tolerance: float, max_steps: int, *, cones: bool
) -> float:
    """Trace a batch to its roots, as `SphereTrace` does; return the steepest difference in units of the bound.

    Cones lie around rays in a row, so that they are narrow where neighbours in an image are neighbours there.

    Args:
        value: that of the batch's field.
        batch: its rays are decided, and `high` is the root of those that hit.
        settings: `kernels.sphere_trace.Settings`.
        tolerance: largest error of a root [scene unit].
        max_steps: samples on one ray.
        cones: whether rays from one eye share their free space.
    """
    n, counts, steepest = len(batch.o), [], []
    if n == 0:
        return 0.0
    wider, size = _Cones(batch, n), 0
    if cones and n >= MIN_RAYS:
        for narrower in SIZES:
            level = _Cones(batch, narrower)
            counts.append(level.march(value, batch, settings, wider, size))
            steepest.append(level.steepest.max())
            wider, size = level, narrower
    memory, steps = batch.near.new_empty(n, _trace.memory._length_), torch.empty_like(batch.status)
    inputs = [value.parameters, batch.lines, settings, tolerance, max_steps, wider.packed, size, batch.rays, memory]
    launch_parts(value.kernels.sphere_trace, (n,), inputs, [steps], 0)
    counts.append(steps)
    steepest.append(memory[:, int(_trace.STEEPEST)].max())
    batch.evaluations += int(torch.stack([count.sum() for count in counts]).sum())
    return float(torch.stack(steepest).max())


class _Cones:
    """Cones around `size` rays in a row each, the arrays of kernels/cones.py."""

    def __init__(self, batch: RayBatch, size: int):
        self.size, self.count = size, -(-len(batch.o) // size)
        names = "sine cosine far enter leave free_until t last radius fall nearest f_nearest steepest".split()
        arrays = dict(zip(names, batch.near.new_empty(len(names), self.count), strict=True))
        self.steepest: Tensor = arrays["steepest"]
        status = torch.empty(self.count, dtype=torch.int32, device=batch.o.device)
        self.packed = Packed(_cones.Cones, status=status, **arrays)

    def march(self, value: WarpValue, batch: RayBatch, settings: Packed, wider: "_Cones", wider_size: int) -> Tensor:
        """Sample the axes until all cones have ended; return the evaluations of each."""
        low, high = corner_numbers(batch.bounds)
        own = Packed(
            _fused.ConeSettings,
            low=low,
            high=high,
            min_spacing=MIN_SPACING * longest_side(batch.bounds),
            max_steps=STEPS,
            size=self.size,
            wider_size=wider_size,
        )
        evaluations = torch.empty(self.count, dtype=torch.int32, device=batch.o.device)
        inputs = [value.parameters, batch.lines, settings, own, wider.packed, self.packed]
        launch_parts(value.kernels.cones, (self.count,), inputs, [evaluations], 0)
        return evaluations
