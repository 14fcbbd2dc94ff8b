"""The root of a field on each of many ray segments, by bracketing methods that always converge."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field, query, select_shape
from warpdvr.kernels import root as _root
from warpdvr.runtime.launch import launch


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
    for _ in range(_root.MAX_STEPS):
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


WIDER = (1, 16, 256)
"""Factors on the distance to either side of a hit at which a change of sign in float64 is looked for."""

POLISH_STEPS = 100
"""More steps than regula falsi needs in a bracket as short as a tolerance."""


@torch.no_grad()
def polish(field: Field, rays: Rays, t: Float[Tensor, " k"], tolerance: float) -> tuple[Float[Tensor, " k"], int]:
    """Return hits to the last digits of a field in float64, and the number of field evaluations.

    Other fields are not evaluated. A hit stays where it is if there is no change of sign around it.

    Args:
        field: any field.
        rays: k rays, in the precision in which their hits are wanted.
        t: where they hit, float32 [scene unit].
        tolerance: largest error of t [scene unit].
    """
    if field.bounds.dtype != torch.float64 or len(t) == 0:
        return t, 0
    root, evaluations = t.double(), 0
    o, d = rays.origin.detach().double(), rays.direction.detach().double()
    size = torch.maximum(o.abs().amax(1), root)

    def value(at: Float[Tensor, "p m"], ray: Int[Tensor, " m"]) -> Float[Tensor, "p m"]:
        nonlocal evaluations
        evaluations += at.numel()
        x = o[ray] + at[..., None] * d[ray]
        answer: Tensor = select_shape(field, rays.shape_index, ray.expand_as(at).reshape(-1)).value(x.view(-1, 3))
        return answer.view_as(at)

    left = torch.arange(len(t), device=t.device)
    for factor in WIDER:
        reach = factor * (tolerance + 4 * torch.finfo(torch.float32).eps * size[left])
        at = root[left] + reach * reach.new_tensor([[-1.0], [0.0], [1.0]])
        f = value(at, left)
        enters = (f[:-1] > 0) & (f[1:] <= 0)
        found, first = enters.any(0), (~enters[0]).long()[None]
        ends = (a.gather(0, first + i)[0][found] for a in (at, f) for i in (0, 1))
        root[left[found]] = _illinois(value, left[found], *ends)
        left = left[~found]
        if len(left) == 0:
            break
    return root, evaluations


def _illinois(
    value: Callable[[Float[Tensor, "1 m"], Int[Tensor, " m"]], Float[Tensor, "1 m"]],
    ray: Int[Tensor, " k"],
    low: Float[Tensor, " k"],
    high: Float[Tensor, " k"],
    f_low: Float[Tensor, " k"],
    f_high: Float[Tensor, " k"],
) -> Float[Tensor, " k"]:
    """Return roots by regula falsi with the weights of Anderson and Bjoerck (1973), for f_low > 0 >= f_high."""
    root = high.clone()
    active = torch.arange(len(ray), device=ray.device)
    least = 4 * torch.finfo(high.dtype).eps * high.abs()
    for _ in range(POLISH_STEPS):
        open_ = (f_high != 0) & (high - low > least)
        root[active[~open_]] = high[~open_]
        active, low, high, f_low, f_high, least = (a[open_] for a in (active, low, high, f_low, f_high, least))
        if len(active) == 0:
            break
        middle = high - f_high * (high - low) / (f_high - f_low)
        middle = torch.minimum(torch.maximum(middle, low + 0.5 * least), high - 0.5 * least)
        f = value(middle[None], ray[active])[0]
        ahead = f > 0  # of the root; the other end keeps its place, and its value gets less weight
        weight = 1 - f / torch.where(ahead, f_low, f_high)
        weight = torch.where(weight > 0, weight, 0.5)
        f_low, f_high = torch.where(ahead, f, f_low * weight), torch.where(ahead, f_high * weight, f)
        low, high = torch.where(ahead, middle, low), torch.where(ahead, high, middle)
    root[active] = high
    return root
