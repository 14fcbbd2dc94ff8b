"""Models of a field in boxes: a trilinear interpolant with second differences, and an error (kernels/box_model.py)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.intersection.boxes import HALVES, Boxes

GOOD_SLOPE = 0.18
"""Largest relative error of a model's slope at which its box is no longer halved."""

ROUNDING = 1e-6
"""The least error of a model, as a fraction of the values."""


def models_of(
    boxes: Boxes,
    lower: Float[Tensor, " n"],
    slope: Float[Tensor, "n 4"],
    side: Float[Tensor, "3"],
    cut_off: Bool[Tensor, " n"],
) -> tuple[Float[Tensor, "12 n"], Bool[Tensor, " n"]]:
    """Return models of boxes (kernels/box_model.py), and which are good enough not to be halved.

    A model is assumed to be as wrong as the model of the box of twice the size was where the field was evaluated, and
    less wrong if the error there had dropped a lot since one generation before: to 1/8 where the field is smooth, to
    1/2 at a kink.
    """
    corner, errors = boxes.corner, boxes.neighbourhood[9:11]
    ratio = torch.where(errors[1] < torch.inf, errors[0] / errors[1], 1)
    factor = torch.where(errors[1] < torch.inf, (4 * ratio).clamp(0.25, 1), 2)
    error = errors[0] * factor * boxes.neighbourhood[11] + boxes.margin + ROUNDING * corner.abs().amax(0)
    error = torch.where(cut_off, torch.inf, error)  # what was evaluated tells nothing about what may hide
    error = torch.minimum(corner.amin(0) - lower, error)
    good = 4 * error < GOOD_SLOPE * float(side.min()) * slope[:, :3].norm(dim=1)
    return torch.cat([corner, boxes.bend, error[None]]), good & (errors[0] < torch.inf)


def tighter(
    model: Float[Tensor, "12 n"], lower: Float[Tensor, " n"], upper: Float[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return bounds that are no wider than those of the models."""
    corner, bend, error = model[:8], model[8:11] / 8, model[11]
    lowest = corner.amin(0) - bend.clamp_min(0).sum(0) - error
    highest = corner.amax(0) - bend.clamp_max(0).sum(0) + error
    return torch.where(lowest > lower, lowest, lower), torch.where(highest < upper, highest, upper)


def value_at(model: Float[Tensor, "11 n"], place: Float[Tensor, "3"]) -> Float[Tensor, " n"]:
    """Return the values of models of boxes (kernels/box_model.py) at the same place in each, in sides of the box."""
    weight = torch.where(HALVES.to(place.device) == 1, place, 1 - place).prod(-1)
    value: Tensor = weight @ model[:8] - (place * (1 - place) / 2) @ model[8:]
    return value


def model_error(
    corner: Float[Tensor, "8 m"], bend: Float[Tensor, "3 m"], value: Float[Tensor, "m 3 3 3"]
) -> Float[Tensor, " m"]:
    """Return the largest difference of values in boxes from the model of kernels/box_model.py.

    Args:
        corner: values at the corners.
        bend: `bends` of the boxes.
        value: at the corners of the halves.
    """
    place = torch.cartesian_prod(*[torch.linspace(0, 1, 3)] * 3).to(corner)
    weight = torch.where(HALVES.to(place.device)[:, None] == 1, place, 1 - place).prod(-1)
    expected = weight.T @ corner - (place * (1 - place) / 2) @ bend
    return (value.reshape(-1, 27).T - expected).abs().amax(0)
