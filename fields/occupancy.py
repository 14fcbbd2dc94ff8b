"""An occupancy field in a residual network."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from warpdvr.fields.base import Field, Kind
from warpdvr.fields.bounds import Bounds
from warpdvr.fields.logit import ball, logit
from warpdvr.fields.mlp import PositionalEncoding
from warpdvr.runtime.arguments import check_counts, check_positive


class Occupancy(Field):
    """Occupancy and colour in one residual network, as DVR (Niemeyer et al. 2020, section 3.2 and supplement).

    The value is logit(level) - logit(occupancy): root finding works on logits. The network adds to the logit of a
    sphere, from which it starts. The colour depends on the position alone.

    Args:
        width: of the residual blocks.
        blocks: how many there are.
        frequencies: octaves of a positional encoding, which makes detail faster to learn; DVR has 0.
        radius: of the sphere that it starts from [scene unit].
        steepness: slope of that sphere's logit, and factor of what the network adds [1 / scene unit].
        level: the occupancy probability on the surface, tau in the paper.
        bounds: see `Field`.
    """

    kind: Kind = "occupancy"

    def __init__(
        self,
        width: int = 64,
        blocks: int = 5,
        frequencies: int = 4,
        radius: float = 0.5,
        steepness: float = 10.0,
        level: float = 0.5,
        bounds: Bounds = 1.0,
    ):
        super().__init__(bounds)
        if width < 1 or blocks < 0:
            raise ValueError(f"occupancy: needs width >= 1 and blocks >= 0, got {width} and {blocks}")
        check_counts("occupancy", least=0, frequencies=frequencies)
        check_positive("occupancy", radius=radius, steepness=steepness)
        self.radius, self.steepness, self.offset = radius, steepness, logit("occupancy", level)
        self.encode = PositionalEncoding(frequencies)
        self.first = nn.Linear(self.encode.width, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.last = nn.Linear(width, 4)
        with torch.no_grad():
            self.last.weight[0] = 0.0
            self.last.bias[0] = 0.0

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        return self.geometry(x)[0]

    def geometry(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"]]:
        h = self.first(self.encode(x))
        for block in self.blocks:
            h = block(h)
        out = self.last(torch.relu(h))
        return self.offset + ball(x, self.radius, self.steepness) - self.steepness * out[:, 0], out[:, 1:]

    def color(
        self,
        x: Float[Tensor, "n 3"],
        normal: Float[Tensor, "n 3"],
        direction: Float[Tensor, "n 3"],
        feature: Float[Tensor, "n k"] | None,
    ) -> Float[Tensor, "n 3"]:
        if feature is None:
            raise ValueError("occupancy: color needs the features that geometry returns")
        return torch.sigmoid(feature)


class _Block(nn.Module):
    """h + W1 relu(W0 relu(h)), W1 starting at 0."""

    def __init__(self, width: int):
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)

    def forward(self, h: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
        return h + self.outer(torch.relu(self.inner(torch.relu(h))))
