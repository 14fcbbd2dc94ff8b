"""The root of a field on each of many ray segments, by a bracketing method that always converges."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.fields.base import Field, query, select_shape
from warpdvr.kernels import root as _root
from warpdvr.runtime.launch import launch

STEPS = 40
"""More steps than bisection needs from the longest ray down to neighbouring float32 numbers."""


def close_in(
    field: Field,
    o: Float[Tensor, "k 3"],
    d: Float[Tensor, "k 3"],
    ends: tuple[Float[Tensor, " k"], ...],
    tolerance: float,
    shape_index: Int[Tensor, " k"] | None = None,
) -> tuple[Float[Tensor, " k"], int]:
    """Return the ray lengths where the value changes its sign, and the number of field evaluations.

    NaN where the field returned NaN on the way.

    Args:
        field: evaluated without gradient.
        o, d: origin and direction of the ray of each bracket, float32.
        ends: low, high, f_low and f_high, with f_low > 0 >= f_high or a value of 0 at one end.
        tolerance: largest error of a root [scene unit]; for simple roots, near which values are about linear.
        shape_index: which of the field's shapes each bracket belongs to; None for a field of one shape.
    """
    low, high, f_low, f_high = ends
    brackets = torch.stack([low, high, low, f_low, f_high, f_low], 1)
    active = torch.nonzero((f_low != 0) & (f_high != 0) & (high - low > tolerance))[:, 0].int()
    evaluations = 0
    for _ in range(STEPS):
        n = len(active)
        if n == 0:
            break
        t, x, done = o.new_empty(n), o.new_empty(n, 3), torch.empty(n, dtype=torch.bool, device=o.device)
        launch(_root.propose, n, [brackets, o, d, tolerance, active], [t, x])
        value = query(select_shape(field, shape_index, active), x)
        launch(_root.narrow, n, [t, value, tolerance, active], [done], state=[brackets])
        evaluations += n
        active = active[~done]
    a, b, _, f, g, _ = brackets.unbind(1)
    nearer = torch.where(f.abs() <= g.abs(), a, b)
    closed = ((b - a).abs() <= tolerance) & (f * g != 0) & (f != g)
    t = torch.where(closed, a + (b - a) * (f / (f - g)), nearer)
    return torch.where(f.isnan(), torch.nan, t), evaluations
