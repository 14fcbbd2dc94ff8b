"""How a field says that it is a plain network: the list of what it does to a point, one after the other.

A field that has a method `as_layers()` which returns such a list can be proven to hold no surface somewhere
(`warpdvr.intersection.range_march`). The list must do what `value` does: from points (n, 3) to (n, 1), the value.
Weights are taken as they are when it is asked for.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Dense:
    """x -> x weight^T + bias, as `nn.Linear`."""

    weight: Tensor
    """Shape (outputs, inputs)."""
    bias: Tensor
    """Shape (outputs,)."""


@dataclass(frozen=True)
class Activation:
    """A function of every number on its own."""

    kind: str
    """One of `warpdvr.intersection.affine.KINDS`: relu, elu, softplus, squareplus, tanh, sine, cosine."""
    parameter: float = 1.0
    """softplus: beta, as `nn.Softplus`; squareplus: b, as `warpdvr.fields.mlp.Squareplus`; else it says nothing."""


@dataclass(frozen=True)
class Skip:
    """h -> scale (h, x): the network's input once more, behind what came of it; after `Encode` the encoded one."""

    scale: float = 1.0


@dataclass(frozen=True)
class Encode:
    """x -> (x, sin(scale x), cos(scale x)), as `warpdvr.fields.mlp.PositionalEncoding`; stands first or not at all."""

    scales: Tensor
    """Shape (frequencies,)."""


Layer = Dense | Activation | Skip | Encode
