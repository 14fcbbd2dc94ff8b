"""Gradients of fields with respect to points.

There are two functions for two purposes. `gradient` is for normals: its result is differentiable in turn (for an
eikonal loss, or a colour that depends on the normal) and honours the field's `step`. `value_and_gradient` is for
divisors, as in Newton's method and the implicit function theorem: exact, and a constant. `warpdvr.testing.check_field`
uses neither, because it checks what both rely on.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.fields.base import Field, check_geometry
from warpdvr.fields.empty import answered


def gradient(
    field: Field, x: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"], Float[Tensor, "n k"] | None]:
    """Return the value at points x, its gradient with respect to x, and the features.

    Differentiable with respect to x and the field's weights where autograd is recording. The gradient is exact, or by
    central differences over the field's `step` if it has one: from half a step on one side to half a step on the other.
    """
    recording = torch.is_grad_enabled()
    if (step := field.step) is not None:
        value, feature = check_geometry(field, x, answered(field.geometry, x))
        shift = 0.5 * step * torch.eye(3).to(x)
        sides = torch.stack([x[:, None] - shift, x[:, None] + shift]).view(-1, 3)
        low, high = answered(field.value, sides).view(2, -1, 3)
        return value, (high - low) / step, feature
    with torch.enable_grad():
        if not (recording and x.requires_grad):
            x = x.detach().requires_grad_()
        value, feature = check_geometry(field, x, answered(field.geometry, x))
        slope = _slope(value, x, create_graph=recording, retain_graph=recording)
    if recording:
        return value, slope, feature
    return value.detach(), slope, None if feature is None else feature.detach()


def evaluations_per_gradient(field: Field) -> int:
    """Return the number of evaluations that `gradient` takes at a point: 7 with central differences, otherwise 1."""
    return 1 if field.step is None else 7


def value_and_gradient(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
    """Return the values of a function at points x, and their exact gradients with respect to x.

    The values are differentiable with respect to x and whatever the function depends on where autograd is recording;
    the gradients are constants.
    """
    recording = torch.is_grad_enabled()
    with torch.enable_grad():
        if not (recording and x.requires_grad):
            x = x.detach().requires_grad_()
        value = answered(function, x)
        slope = _slope(value, x, create_graph=False, retain_graph=recording)
    return value if recording else value.detach(), slope


def _slope(
    value: Float[Tensor, " n"], x: Float[Tensor, "n 3"], *, create_graph: bool, retain_graph: bool
) -> Float[Tensor, "n 3"]:
    """Return the derivative of values with respect to the points of each.

    Raises:
        ValueError: if the values do not depend on the points in a way that autograd knows.
    """
    if not len(x):
        return torch.zeros_like(x)
    slope = None
    if value.requires_grad:
        (slope,) = torch.autograd.grad(
            value.sum(), x, create_graph=create_graph, retain_graph=retain_graph, allow_unused=True
        )
    if slope is None:
        raise ValueError(
            "a value has no gradient with respect to the points; write the field with Torch, or give it a `step` and "
            "render it under torch.no_grad()"
        )
    return slope


def unit(v: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Return vectors scaled to length 1; a zero vector stays zero."""
    return torch.nn.functional.normalize(v, dim=-1, eps=1e-12)
