"""Building blocks of neural fields: positional encoding and small perceptrons."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

MAX_FREQUENCIES, MAX_DEPTH, MAX_NUMBERS = 64, 1024, 2**28
"""Sizes beyond which a perceptron cannot be meant: octaves, hidden layers, and weights (1 GiB in float32)."""


class PositionalEncoding(nn.Module):
    """x -> (x, sin(2^k x), cos(2^k x)) for k < frequencies; Mildenhall et al. 2020, eq. 4, without pi, as in IDR."""

    scales: Tensor

    def __init__(self, frequencies: int, inputs: int = 3):
        super().__init__()
        if frequencies > MAX_FREQUENCIES:
            raise ValueError(f"frequencies above {MAX_FREQUENCIES} are lost to rounding, got {frequencies}")
        self.width = inputs * (1 + 2 * frequencies)
        self.register_buffer("scales", 2.0 ** torch.arange(frequencies), persistent=False)

    def forward(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n width"]:
        angle = (x[:, None, :] * self.scales[:, None]).flatten(1)
        return torch.cat([x, angle.sin(), angle.cos()], -1)


class Squareplus(nn.Module):
    """A smooth ReLU, (x + sqrt(x^2 + b)) / 2 (Barron 2021), b such that it is `1 / sharpness` wide like a softplus.

    IDR uses softplus(100 x) / 100. On a CPU squareplus is three times cheaper; both have the same value at 0.
    """

    def __init__(self, sharpness: float):
        super().__init__()
        if not sharpness > 0:
            raise ValueError(f"sharpness must be positive, got {sharpness}")
        self.b = (2 * math.log(2) / sharpness) ** 2

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if torch.is_grad_enabled():
            return 0.5 * (x + (x * x + self.b).sqrt())
        return (x * x).add_(self.b).sqrt_().add_(x).mul_(0.5)


class MLP(nn.Module):
    """A perceptron with `depth` hidden layers of `width`; nothing after the last layer."""

    def __init__(self, inputs: int, width: int, depth: int, outputs: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        if width < 1 or depth < 1:
            raise ValueError(f"a perceptron needs width >= 1 and depth >= 1, got {width} and {depth}")
        numbers = (inputs + width * (depth - 1) + outputs) * width
        if depth > MAX_DEPTH or numbers > MAX_NUMBERS:
            raise ValueError(
                f"a perceptron of width {width} and depth {depth} has {numbers} numbers, which is too large"
            )
        sizes = [inputs, *[width] * depth, outputs]
        self.layers = cast("Sequence[nn.Linear]", nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes)))
        self.activation = activation

    def forward(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)

    @torch.no_grad()
    def for_kernels(self) -> dict[str, Tensor | float] | None:
        """Return the weights of the first output as kernels/perceptron.py takes them; None without squareplus."""
        first, *hidden, last = self.layers
        if not isinstance(self.activation, Squareplus):
            return None
        columns = [layer.weight.T for layer in hidden]
        return {
            "first": first.weight.T.contiguous(),
            "hidden": torch.cat(columns) if columns else first.weight.new_empty(0, first.out_features),
            "bias": torch.stack([layer.bias for layer in (first, *hidden)]),
            "last": last.weight[:1].contiguous(),
            "last_bias": last.bias[:1].contiguous(),
            "b": self.activation.b,
        }

    @torch.no_grad()
    def start_as_sphere(self, radius: float) -> None:
        """Set the weights so that output 0 is about |x| - radius of the first three inputs.

        Geometric initialisation: Atzmon and Lipman, "SAL" (2020), theorem 1; further inputs start with weight 0, as in
        Yariv et al. 2020. Made for activations close to ReLU.
        """
        for index, layer in enumerate(self.layers[:-1]):
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / layer.out_features))
            nn.init.zeros_(layer.bias)
            if index == 0:
                layer.weight[:, 3:] = 0.0
        last = self.layers[-1]
        nn.init.normal_(last.weight, 0.0, 1e-4)
        nn.init.zeros_(last.bias)
        nn.init.normal_(last.weight[:1], math.sqrt(math.pi / last.in_features), 1e-4)
        last.bias[0] = -radius
