"""Affine arithmetic through a plain network: proven bounds of its value in a whole segment or box.

Sharp and Jacobson, "Spelunking the Deep" (2022), section 3: a number is base + sum of slope_j eps_j + error, where
|eps_j| <= 1: one eps for each direction of the input, and one error for everything else ("affine fixed"). The errors
that activations add are then weighted by the slopes of the layers after them, from the last layer back to the first:
this gives the error of a form with one symbol per neuron ("affine all") over the same bands, at the cost of one symbol.

Everything runs in float64 and each rounding is counted into the error (Higham, "Accuracy and Stability of Numerical
Algorithms", 2nd ed., section 3.1), so the bounds hold for the network in exact arithmetic with its current weights.
Values that the field computes can lie outside the bounds by their own rounding, and by 2e-9 / beta for each softplus,
which Torch replaces by a straight line above 20 / beta.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn import functional

from warpdvr.fields.base import Field
from warpdvr.fields.layers import Activation, Dense, Encode, Skip

COST = 4
"""Cost of one bound along a segment, counted in points: base, slope, error, and the backward pass."""

ULP = 2.0**-53
"""Half the distance from 1 to the next float64: the relative rounding of one operation."""
SLACK = 2.0**-44
"""Covers the rounding of an activation and its enclosure, relative to 1 + the size of its arguments."""

_Elements = Float64[Tensor, "*shape"]
"""Values of any shape, the same for all arguments and results of one call."""


@dataclass(frozen=True)
class _Product:
    """A dense layer in float64, with bounds of its rounding."""

    weight: Float64[Tensor, "outputs inputs"]
    size: Float64[Tensor, "outputs inputs"]
    """|weight|."""
    bias: Float64[Tensor, " outputs"]
    rows: Float64[Tensor, " outputs"]
    """Euclidean length of each row of `weight`."""
    norm: float
    """An upper bound of its spectral norm."""
    rounding: float
    """gamma_n: relative rounding of a sum of as many products as there are inputs, doubled for safety."""


_Trail = list[tuple[Tensor | None, _Product | Skip | Tensor]]
"""For the backward pass: the error that each step adds, and what it multiplies by (for an activation, its slopes)."""


class Affine:
    """A plain network whose value can be bounded in segments and boxes."""

    def __init__(self, field: Field):
        """Copy the current weights of a field.

        Args:
            field: a field with `as_layers` (warpdvr/fields/layers.py).

        Raises:
            ValueError: if it has none, or if it lists a layer that is not supported.
        """
        name = field.name
        layers = field.as_layers()
        if layers is None:
            raise ValueError(
                f"{name}: has no as_layers() and so no proven bounds, which need a plain network that lists its layers "
                "(warpdvr/fields/layers.py); use DenseMarch for this field"
            )
        device = field.bounds.device  # constants in a list of somebody else's may lie on the CPU
        self.encode: Tensor | None = None
        self.steps: list[_Product | Activation | Skip] = []
        for i, layer in enumerate(layers):
            if isinstance(layer, Encode) and i == 0:
                self.encode = layer.scales.detach().to(device).double()
            elif isinstance(layer, Dense):
                self.steps.append(_product(layer, device))
            elif isinstance(layer, Skip) or (isinstance(layer, Activation) and layer.kind in ACTIVATIONS):
                self.steps.append(layer)
            else:
                raise ValueError(f"{name}.as_layers: {layer} at place {i} is not known; see warpdvr/fields/layers.py")
        if not self.steps or not isinstance(self.steps[-1], _Product) or len(self.steps[-1].bias) != 1:
            raise ValueError(f"{name}.as_layers: must end in a Dense with one output, the value")

    @torch.no_grad()
    def bound(
        self, x: Float64[Tensor, "n 3"], spread: Float64[Tensor, "n k 3"]
    ) -> tuple[Float64[Tensor, " n"], Float64[Tensor, "n k"], Float64[Tensor, " n"]]:
        """Return base, slopes and error of the value at x + sum eps_j spread_j, |eps_j| <= 1.

        It differs from base + sum slope_j eps_j by at most the error.

        Args:
            x: centres [scene unit]; may be rounded, by less than `SLACK` (1 + |x|).
            spread: half extents along each of k directions [scene unit].
        """
        h = torch.cat([x[:, None], spread], 1)
        error = SLACK * (1 + h.abs().sum(1))
        if self.encode is not None:
            h, error = _encoded(h, error, self.encode)
        first, first_error = h, error
        trail: _Trail = []
        for step in self.steps:
            if isinstance(step, _Product):
                added = step.rounding * (h.norm(dim=-1).sum(1, keepdim=True) * step.rows + step.bias.abs())
                error = (1 + step.rounding) * (error @ step.size.T) + added
                h = h @ step.weight.T
                h[:, 0] += step.bias
                trail.append((added, step))
            elif isinstance(step, Skip):
                h = step.scale * torch.cat([h, first], -1)
                error = step.scale * torch.cat([error, first_error], -1)
                trail.append((None, step))
            else:
                h, error, added, slope = _activated(h, error, step)
                trail.append((added, slope))
        error = torch.minimum(error[:, 0], _backward_error(trail, first_error))
        return h[:, 0, 0], h[:, 1:, 0], error + SLACK * (error + h[..., 0].abs().sum(1))


def enclose(activation: Activation, low: _Elements, high: _Elements) -> tuple[_Elements, _Elements, _Elements]:
    """Return slope, offset and error such that the activation of each x in [low, high] is slope x + offset +- error.

    The slope is that of the chord. The remainder phi(x) - slope x is largest and smallest at the ends or where
    phi' = slope.
    """
    phi, tangents = ACTIVATIONS[activation.kind]
    p = activation.parameter
    slope = ((phi(high, p) - phi(low, p)) / (high - low)).nan_to_num(0.0).clamp(-1, 1)
    if activation.kind in PERIODIC:
        slope = torch.where(high - low > math.pi, 0.0, slope)  # one tangent of each kind at most, or slope 0
    candidates = [low, high, *(torch.maximum(torch.minimum(at, high), low) for at in tangents(slope, low, p))]
    remainder = torch.stack([phi(at, p) - slope * at for at in candidates])
    lowest, highest = remainder.amin(0), remainder.amax(0)
    return slope, 0.5 * (lowest + highest), 0.5 * (highest - lowest) + SLACK * (1 + low.abs() + high.abs())


def _activated(
    h: Float64[Tensor, "n terms w"], error: Float64[Tensor, "n w"], activation: Activation
) -> tuple[Float64[Tensor, "n terms w"], Float64[Tensor, "n w"], Float64[Tensor, "n w"], Float64[Tensor, "n w"]]:
    """Return forms and errors after an activation, the error that it added, and its slopes."""
    radius = (1 + SLACK) * (h[:, 1:].abs().sum(1) + error)
    slope, offset, added = enclose(activation, h[:, 0] - radius, h[:, 0] + radius)
    h = h * slope[:, None]
    h[:, 0] += offset
    return h, error * slope.abs() + added, added, slope


def _encoded(
    h: Float64[Tensor, "n terms inputs"], error: Float64[Tensor, "n inputs"], scales: Float64[Tensor, " frequencies"]
) -> tuple[Float64[Tensor, "n terms w"], Float64[Tensor, "n w"]]:
    """Return the forms and errors of (x, sin, cos); the error that a sine adds depends on no other layer."""
    angle, angle_error = ((a[..., None, :] * scales[:, None]).flatten(-2) for a in (h, error))
    waves = [_activated(angle, angle_error, Activation(kind))[:2] for kind in ("sine", "cosine")]
    return torch.cat([h, *(w[0] for w in waves)], -1), torch.cat([error, *(w[1] for w in waves)], -1)


def _backward_error(trail: _Trail, first_error: Float64[Tensor, "n inputs"]) -> Float64[Tensor, " n"]:
    """Return the error of the last layer: the error that each step added, times the slope of the steps after it.

    `blur` bounds the rounding of `g`, in Euclidean length.
    """
    n, inputs = first_error.shape
    g, blur = first_error.new_ones(n, 1), first_error.new_zeros(n, 1)
    total, skipped = first_error.new_zeros(n), first_error.new_zeros(n, inputs)
    for added, step in reversed(trail):
        if added is not None:
            total = total + ((g.abs() + blur) * added).sum(1)
        if isinstance(step, _Product):
            blur = step.norm * (blur + step.rounding * g.norm(dim=1, keepdim=True))
            g = g @ step.weight
        elif isinstance(step, Skip):
            g, blur = step.scale * g, abs(step.scale) * blur
            skipped = skipped + g[:, -inputs:].abs() + blur
            g = g[:, :-inputs]
        else:
            g = g * step
            blur = blur + ULP * g.norm(dim=1, keepdim=True)
    return total + ((g.abs() + blur + skipped) * first_error).sum(1)


def _product(layer: Dense, device: torch.device) -> _Product:
    weight, bias = (a.detach().to(device).double() for a in (layer.weight, layer.bias))
    power = weight / weight.abs().max().clamp_min(1e-300)
    power = power.T @ power if len(weight) > weight.shape[1] else power @ power.T
    power = power @ power
    norm = 1.01 * (power @ power).norm() ** 0.125 * weight.abs().max()  # |A|_2 <= |(A A^T)^4|_F^(1/8)
    rounding = 2 * (max(weight.shape) + 4) * ULP
    return _Product(weight, weight.abs(), bias, weight.norm(dim=1) * (1 + rounding), float(norm), rounding)


def _softplus_tangents(slope: _Elements, low: _Elements, beta: float) -> list[_Elements]:
    return [torch.logit(slope.clamp(0, 1)) / beta]


def _squareplus_tangents(slope: _Elements, low: _Elements, b: float) -> list[_Elements]:
    s = 2 * slope - 1
    return [s * (b / (1 - s * s).clamp_min(0)).sqrt().nan_to_num(0.0)]


def _tanh_tangents(slope: _Elements, low: _Elements, _: float) -> list[_Elements]:
    at = (1 - slope.clamp(0, 1)).sqrt().atanh()
    return [at, -at]


def _sine_tangents(slope: _Elements, low: _Elements, _: float) -> list[_Elements]:
    at, period = slope.acos(), 2 * math.pi
    return [side + period * ((low - side) / period).ceil() for side in (at, -at)]


def _cosine_tangents(slope: _Elements, low: _Elements, _: float) -> list[_Elements]:
    return [at - math.pi / 2 for at in _sine_tangents(slope, low + math.pi / 2, _)]


_Values = Callable[[_Elements, float], _Elements]
_Tangents = Callable[[_Elements, _Elements, float], Sequence[_Elements]]

ACTIVATIONS: dict[str, tuple[_Values, _Tangents]] = {
    "relu": (lambda x, _: x.relu(), lambda slope, low, _: [torch.zeros_like(low)]),
    "elu": (lambda x, _: functional.elu(x), lambda slope, low, _: [slope.clamp_min(0).log()]),
    "softplus": (lambda x, beta: functional.softplus(x, beta, 40), _softplus_tangents),
    "squareplus": (lambda x, b: 0.5 * (x + (x * x + b).sqrt()), _squareplus_tangents),
    "tanh": (lambda x, _: x.tanh(), _tanh_tangents),
    "sine": (lambda x, _: x.sin(), _sine_tangents),
    "cosine": (lambda x, _: x.cos(), _cosine_tangents),
}
"""For each kind, its values and the places where its derivative is a given slope (the first ones from `low` on)."""

PERIODIC = {"sine", "cosine"}
