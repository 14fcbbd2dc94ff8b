"""Features of positions, looked up in the table of a multiresolution hash encoding: the kernels as Torch operators.

`encode` is linear in the table and, between the grid's planes, trilinear in the position. Its gradients are operators
themselves, and differentiable once more: a loss on normals or an eikonal term needs that. Higher derivatives, which the
second derivatives of normals and colours need, are those of `features`, the same in Torch. Their annotations are plain
`Tensor`, because Torch reads the schemas of operators from them.
"""

from typing import Any

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.fields.scratch import zeros
from warpdvr.kernels.corners import CACHED_ROWS
from warpdvr.kernels.encode import kernels
from warpdvr.runtime.autograd import Context
from warpdvr.runtime.launch import launch_parts

SPAN = 1024
"""Points for each thread of a CPU launch; fewer are not worth a second thread."""


@torch.library.custom_op("warpdvr::encode", mutates_args=())
def encode(x: Tensor, table: Tensor, bounds: Tensor, weight: Tensor, layout: Tensor) -> Tensor:
    """Return the features (n, levels * features) of points (n, 3).

    Args:
        x: points, shape (n, 3).
        table: features of the corners, shape (rows, features); float16, or of the type of x.
        bounds: corners of the grids' box, shape (2, 3).
        weight: factor of each level, shape (levels,).
        layout: where each level lies in the table, shape (levels, 5), int32: see kernels/encode.py.
    """
    y = x.new_empty(len(x), len(layout), table.shape[1])
    _launch(_kernels(x, table, layout).encode, x, [x, table, bounds, weight, layout], [y])
    return y.flatten(1)


@torch.library.custom_op("warpdvr::encode_slope", mutates_args=())
def slope(grad: Tensor, x: Tensor, table: Tensor, bounds: Tensor, weight: Tensor, layout: Tensor) -> Tensor:
    """Return the gradient by position (n, 3), given that by features (n, levels * features)."""
    by_level = x.new_empty(len(layout), len(x), 3)
    inputs = [_split(grad, layout), x, table, bounds, weight, layout]
    _launch(_kernels(x, table, layout).slope, x, inputs, [by_level])
    return by_level.sum(0)


@torch.library.custom_op("warpdvr::encode_scatter", mutates_args=())
def scatter(grad: Tensor, x: Tensor, bounds: Tensor, weight: Tensor, layout: Tensor, rows: int) -> Tensor:
    """Return the gradient by table (rows, features), given that by features (n, levels * features)."""
    by_table = zeros((rows, grad.shape[1] // len(layout)), x.dtype, x.device)
    inputs = [x.new_empty(0, 3), _split(grad, layout), x, bounds, weight, layout]
    _launch(_kernels(x, by_table, layout).scatter, x, inputs, [by_table], by_level=True)
    return by_table


@torch.library.custom_op("warpdvr::encode_bend", mutates_args=())
def bend(
    along: Tensor, grad: Tensor, x: Tensor, table: Tensor, bounds: Tensor, weight: Tensor, layout: Tensor, to_x: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of (along . slope) by `grad` (n, levels * features) and, or empty, by position (n, 3)."""
    by_grad = x.new_empty(len(x), len(layout), table.shape[1])
    by_level = x.new_empty(len(layout) if to_x else 0, len(x), 3)
    inputs = [along, _split(grad, layout), x, table, bounds, weight, layout]
    _launch(_kernels(x, table, layout).bend, x, inputs, [by_grad, by_level])
    return by_grad.flatten(1), by_level.sum(0) if to_x else x.new_empty(0, 3)


@torch.library.custom_op("warpdvr::encode_scatter_bend", mutates_args=())
def scatter_bend(
    along: Tensor, grad: Tensor, x: Tensor, bounds: Tensor, weight: Tensor, layout: Tensor, rows: int
) -> Tensor:
    """Return the gradient of (along . slope) by table (rows, features)."""
    by_table = zeros((rows, grad.shape[1] // len(layout)), x.dtype, x.device)
    inputs = [along, _split(grad, layout), x, bounds, weight, layout]
    _launch(_kernels(x, by_table, layout).scatter, x, inputs, [by_table], by_level=True)
    return by_table


def _split(grad: Float[Tensor, "n width"], layout: Int[Tensor, "levels 5"]) -> Float[Tensor, "n levels features"]:
    return grad.reshape(len(grad), len(layout), grad.shape[1] // len(layout))


def _kernels(x: Tensor, table: Tensor, layout: Tensor) -> Any:
    scalar = wp.float64 if x.dtype == torch.float64 else wp.float32
    stored = wp.float16 if table.dtype == torch.float16 else scalar
    return kernels(table.shape[1], scalar, stored, x.device.type == "cpu" and len(table) > CACHED_ROWS * len(layout))


def _launch(kernel: Any, x: Tensor, inputs: list[Tensor], outputs: list[Tensor], by_level: bool = False) -> None:
    """Launch over levels (the layout is the last input) and points, cut by points or by level."""
    span = SPAN if x.device.type == "cpu" else 1
    blocks = -(-len(x) // span)
    axis = None if blocks == 1 else 0 if by_level else 1
    launch_parts(kernel, (len(inputs[-1]), blocks), [*(a.contiguous() for a in inputs), span], outputs, axis)


def _save(ctx: Context, inputs: tuple[Tensor | int, ...], output: object) -> None:
    ctx.save_for_backward(*(a for a in inputs if isinstance(a, Tensor)))


def _encode_backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, table, *frame = ctx.saved_tensors
    by_x = slope(grad, x, table, *frame) if ctx.needs_input_grad[0] else None
    by_table = scatter(grad, x, *frame, len(table)).to(table.dtype) if ctx.needs_input_grad[1] else None
    return by_x, by_table, None, None, None


def _slope_backward(ctx: Context, along: Tensor) -> tuple[Tensor | None, ...]:
    grad, x, table, *frame = ctx.saved_tensors
    to_grad, to_x, to_table = ctx.needs_input_grad[:3]
    by_grad, by_x = bend(along, grad, x, table, *frame, to_x) if to_grad or to_x else (None, None)
    by_table = scatter_bend(along, grad, x, *frame, len(table)).to(table.dtype) if to_table else None
    return by_grad if to_grad else None, by_x if to_x else None, by_table, None, None, None


def _scatter_backward(ctx: Context, along: Tensor) -> tuple[Tensor | None, ...]:
    """`along` is a gradient by table, and so a table."""
    grad, x, *frame = ctx.saved_tensors
    by_grad = encode(x, along, *frame) if ctx.needs_input_grad[0] else None
    by_x = slope(grad, x, along, *frame) if ctx.needs_input_grad[1] else None
    return by_grad, by_x, None, None, None, None


def _bend_backward(ctx: Context, by_grad: Tensor, by_x: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiate the definition in Torch: normals and colours that are differentiated twice are few."""
    along, grad, x, table, *frame = ctx.saved_tensors
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = [
            a.view_as(a) if again and a.requires_grad else a.detach().requires_grad_() for a in (along, grad, x, table)
        ]
        along, grad, x, table = inputs
        (first,) = torch.autograd.grad((features(x, table, *frame) * grad).sum(), x, create_graph=True)
        second = torch.autograd.grad((along * first).sum(), (grad, x), create_graph=True)
        total = (second[0] * by_grad).sum() + ((second[1] * by_x).sum() if len(by_x) else 0)
        by = torch.autograd.grad(total, inputs, create_graph=again, allow_unused=True)
    return *by, None, None, None, None


def _scatter_bend_backward(ctx: Context, by_table: Tensor) -> tuple[Tensor | None, ...]:
    """The result is linear in a table, and `by_table` takes its place."""
    along, grad, x, *frame = ctx.saved_tensors
    by_grad, by_x = bend(along, grad, x, by_table, *frame, True)
    return slope(grad, x, by_table, *frame), by_grad, by_x, None, None, None, None


def features(x: Tensor, table: Tensor, bounds: Tensor, weight: Tensor, layout: Tensor) -> Tensor:
    """Return what `encode` returns, in Torch: differentiable any number of times, and slow."""
    low, high = bounds
    place = (torch.minimum(torch.maximum(x, low), high) - low) / (high - low)
    corner = torch.tensor([[k & 1, k >> 1 & 1, k >> 2] for k in range(8)], device=x.device)
    parts = []
    for factor, (cells, first, stride_y, stride_z, mask) in zip(weight, layout.tolist(), strict=True):
        cell = (place.detach() * cells).long().clamp(0, cells - 1)
        at = (place * cells - cell)[:, None]
        share = torch.where(corner == 1, at, 1 - at).prod(-1)
        i, j, k = (cell[:, None] + corner).unbind(-1)
        row = (i ^ j * stride_y ^ k * stride_z) & mask if mask else i + j * stride_y + k * stride_z
        parts.append(factor * (share[..., None] * table[first + row].to(x.dtype)).sum(1))
    return torch.cat(parts, 1)


encode.register_autograd(_encode_backward, setup_context=_save)
slope.register_autograd(_slope_backward, setup_context=_save)
scatter.register_autograd(_scatter_backward, setup_context=_save)
bend.register_autograd(_bend_backward, setup_context=_save)
scatter_bend.register_autograd(_scatter_bend_backward, setup_context=_save)


@encode.register_fake
def _(x: Tensor, table: Tensor, bounds: Tensor, weight: Tensor, layout: Tensor) -> Tensor:
    return x.new_empty(len(x), len(layout) * table.shape[1])


@slope.register_fake
def _(grad: Tensor, x: Tensor, *rest: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@scatter.register_fake
def _(grad: Tensor, x: Tensor, bounds: Tensor, weight: Tensor, layout: Tensor, rows: int) -> Tensor:
    return x.new_empty(rows, grad.shape[1] // len(layout))


@bend.register_fake
def _(along: Tensor, grad: Tensor, x: Tensor, *rest: Tensor | bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(grad.shape), x.new_empty(x.shape if rest[-1] else (0, 3))


@scatter_bend.register_fake
def _(along: Tensor, grad: Tensor, x: Tensor, bounds: Tensor, weight: Tensor, layout: Tensor, rows: int) -> Tensor:
    return x.new_empty(rows, grad.shape[1] // len(layout))
