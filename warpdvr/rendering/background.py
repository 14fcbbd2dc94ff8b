"""The background of the object: a small network for the colours of rays that hit nothing."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from warpdvr.cameras.rays import Rays
from warpdvr.fields.bounds import longest_side
from warpdvr.fields.mlp import MLP, PositionalEncoding
from warpdvr.runtime.arguments import check_device

RATE = 3e-3
"""Highest learning rate of Adam, see `warpdvr.fitting.recipe.schedule`."""

ROOM = 2.2
"""Longest side of the bounds of an object in the unit ball: they are a little larger, as in a fit by default."""

PREFIX = "background."
"""Prefix of the names of its weights in the state of a fit."""


class Background(nn.Module):
    """The surroundings of the object in its photographs, evaluated once for each ray that hits nothing.

    Masks extend over outlines, and fill holes that light shines through: there, a held-out photograph shows the
    background, and a picture of the field alone shows nothing. A small perceptron takes the point where a ray leaves
    the ball around the object, or comes nearest to it, and its direction, like the outer network of NeRF++ (Zhang et
    al. 2020) but without depth.

    Args:
        frequencies: octaves of the encoding of position and direction.
        width, depth: of the hidden layers.
    """

    ball: Tensor
    """Centre and radius of the ball, shape (4,) [scene unit]."""

    def __init__(self, frequencies: int = 2, width: int = 64, depth: int = 2):
        super().__init__()
        self.register_buffer("ball", torch.tensor([0.0, 0.0, 0.0, 1.0]))
        self.encode = PositionalEncoding(frequencies, 6)
        self.network = MLP(self.encode.width, width, depth, 3, torch.relu)

    @classmethod
    def new(cls, seed: int, device: torch.device, bounds: Float[Tensor, "2 3"] | None = None) -> "Background":
        """Return a background with random weights, and leave the global random state unchanged.

        Its ball is the unit ball or, with the `bounds` of a field, the one that they leave some room around.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            background = cls()
        if bounds is not None:
            background.ball = torch.tensor([*bounds.detach().mean(0).tolist(), longest_side(bounds) / ROOM])
        return background.to(device)

    @classmethod
    def saved(cls, state: Mapping[str, Tensor]) -> "Background | None":
        """Return the background whose weights are in a state (`Fit.state`), or None if it holds none.

        Raises:
            ValueError: if they belong to another network.
        """
        weights = {name.removeprefix(PREFIX): weight for name, weight in state.items() if name.startswith(PREFIX)}
        if not weights:
            return None
        background = cls()
        try:
            background.load_state_dict({"ball": background.ball} | weights)
        except RuntimeError as error:
            raise ValueError(
                f"background: the weights are of another network: {' '.join(str(error).split())}"
            ) from None
        return background

    def state(self) -> dict[str, Tensor]:
        """Return the weights in the form that `saved` takes."""
        return {PREFIX + name: weight.detach().clone() for name, weight in self.state_dict().items()}

    def forward(self, rays: Rays) -> Float[Tensor, "n 3"]:
        """Return sRGB colours in [0, 1]; differentiable with respect to weights and rays.

        Raises:
            ValueError: if the rays are on another device.
        """
        check_device("background", self.ball.device, "the network", rays=rays.origin)
        rays, _ = rays.normalised()
        o, d = (rays.origin - self.ball[:3]) / self.ball[3], rays.direction.nan_to_num()  # some colour for no ray
        nearest = -(o * d).sum(-1, keepdim=True)
        deep = (1 - (o + nearest * d).square().sum(-1, keepdim=True)).clamp_min(0)
        x = o + (nearest + (deep + 1e-6).sqrt()) * d
        return torch.sigmoid(self.network(self.encode(torch.cat([x, d], -1))))
