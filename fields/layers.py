"""Describe a field that is a plain network as a list of layers.

A field whose `as_layers()` returns such a list can be proven to have no surface in a region
(`warpdvr.intersection.range_march`). The layers must compute `value`, from points (n, 3) to (n, 1). The list refers to
the weights of the moment at which it is made.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Dense:
    """x -> x weight^T + bias, as `nn.Linear`."""

    weight: Float[Tensor, "outputs inputs"]
    bias: Float[Tensor, " outputs"]


@dataclass(frozen=True)
class Activation:
    """An elementwise function."""

    kind: str
    """One of `warpdvr.intersection.affine.ACTIVATIONS`: relu, elu, softplus, squareplus, tanh, sine, cosine."""
    parameter: float = 1.0
    """softplus: beta, as `nn.Softplus`; squareplus: b, as `warpdvr.fields.mlp.Squareplus`; otherwise unused."""


@dataclass(frozen=True)
class Skip:
    """h -> scale (h, x): the network's input, encoded if there is an `Encode`, appended to the activations."""

    scale: float = 1.0


@dataclass(frozen=True)
class Encode:
    """x -> (x, sin(scale x), cos(scale x)), as `warpdvr.fields.mlp.PositionalEncoding`; only as the first layer."""

    scales: Float[Tensor, " frequencies"]


Layer = Dense | Activation | Skip | Encode
