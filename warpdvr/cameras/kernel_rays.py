"""The rays of a projection's kernel as a Torch operation."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.runtime.launch import launch


class KernelRays(torch.autograd.Function):
    """Forward by the projection's kernel; backward by the derivative of its `world_rays`."""

    @staticmethod
    def forward(
        ctx: Any,  # Torch's context has no type, and keeps the projection
        projection: Any,  # a Projection, which imports this module
        K: Float[Tensor, "v 3 3"],
        pose: Float[Tensor, "v 4 4"],
        view: Int[Tensor, " n"],
        pixel: Float[Tensor, "n 2"],
        *parameters: Tensor,
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        kernel_view, kernel_pixel = view.int().contiguous(), pixel.detach().float().contiguous()
        origin, direction = kernel_pixel.new_empty(2, len(view), 3)
        k, camera_pose, *tensors = (a.detach().float().contiguous() for a in (K, pose, *parameters))
        inputs = [k, camera_pose, kernel_view, kernel_pixel, *tensors]
        per_row = [kernel_view, kernel_pixel]
        launch(projection.kernel, len(view), inputs, [origin, direction], per_row=per_row)
        ctx.projection = projection
        ctx.save_for_backward(K, pose, kernel_view, kernel_pixel, *parameters)
        return origin, direction

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        K, pose, view, pixel, *parameters = ctx.saved_tensors
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            # copies, so that the derivative by one does not contain that by another that it was computed from
            inputs = [a.view_as(a) if again else a.detach() for a in (K, pose, *parameters)]
            if not again:
                inputs = [a.requires_grad_() for a in inputs]
            names = ctx.projection.tensors()
            projection = ctx.projection.with_parameters(**dict(zip(names, inputs[2:], strict=True)))
            rays = projection.world_rays(inputs[0], inputs[1], view, pixel)
            by = iter(_derivatives(rays, [a for a in inputs if a.requires_grad], grads, again))
        first, second, *others = [next(by) if a.requires_grad else None for a in inputs]
        return None, first, second, None, None, *others


def _derivatives(
    rays: tuple[Tensor, Tensor], inputs: list[Tensor], grads: tuple[Tensor, ...], again: bool
) -> tuple[Tensor | None, ...]:
    """Return the gradients by the inputs, differentiable if asked for."""
    pairs = [(ray, grad.to(ray)) for ray, grad in zip(rays, grads, strict=True) if ray.requires_grad]
    outputs, weights = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, inputs, weights, create_graph=again, allow_unused=True)
