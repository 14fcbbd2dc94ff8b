"""The soft mask of a field: how close a ray comes to its surface, or how deep it goes inside."""

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field, select_shape
from warpdvr.fields.empty import answered
from warpdvr.intersection.hit import Hit
from warpdvr.intersection.lowest import lowest_on
from warpdvr.runtime.autograd import once_differentiable

ONCE = (
    "soft_mask: second derivatives of a soft silhouette are not provided; leave its terms out of what is differentiated"
)


def soft_mask(field: Field, rays: Rays, hit: Hit, sharpness: float) -> tuple[Float[Tensor, " n"], int]:
    """Return sigmoid(-sharpness * value) at the smallest value on each ray, and the number of evaluations.

    It is 0 for rays that miss the bounds. Differentiable with respect to the field and the rays (Yariv et al. 2020,
    eq. 7), once: that the place of the smallest value moves counts from the second derivative on, which raises a
    RuntimeError.
    """
    deepest, evaluations = lowest_on(field, rays, hit)
    in_bounds = ~deepest.isnan()
    x = rays.at(deepest.nan_to_num())[in_bounds].to(field.bounds.dtype)
    field = select_shape(field, rays.shape_index, in_bounds)
    soft = torch.sigmoid(-sharpness * once_differentiable(answered(field.value, x), ONCE))
    return soft.new_zeros(len(rays)).masked_scatter(in_bounds, soft), evaluations + len(x)
