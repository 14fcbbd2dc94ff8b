"""What is behind the object: colours of rays that hit nothing, as they are beside it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from warpdvr.cameras.rays import Rays
from warpdvr.fields.mlp import MLP, PositionalEncoding

RATE = 3e-3
"""Highest learning rate of Adam, see `warpdvr.fitting.recipe.schedule`."""

PREFIX = "background."
"""How its weights are called in the state of a fit."""


class Background(nn.Module):
    """The surroundings of the object in its photographs, one query for each ray that hits nothing.

    Masks reach over outlines, and close holes that light shines through: there, a photograph that was held out shows
    what lies behind, and a picture of the field alone nothing. A small perceptron sees where a ray leaves the unit
    ball, or comes nearest to it, and its direction; as NeRF++ has a network for what is outside of a sphere (Zhang et
    al. 2020), but without any depth.

    Args:
        frequencies: octaves of the encoding of place and direction.
        width, depth: hidden layers.
    """

    def __init__(self, frequencies: int = 2, width: int = 64, depth: int = 2):
        super().__init__()
        self.encode = PositionalEncoding(frequencies, 6)
        self.network = MLP(self.encode.width, width, depth, 3, torch.relu)

    @classmethod
    def new(cls, seed: int, device: torch.device) -> "Background":
        """Return one with random weights; the random numbers that others draw stay what they are without it."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return cls().to(device)

    @classmethod
    def saved(cls, state: Mapping[str, Tensor]) -> "Background | None":
        """Return the one whose weights are in a state (`Fit.state`), None if there are none.

        Raises:
            ValueError: if they are of another network.
        """
        weights = {name.removeprefix(PREFIX): weight for name, weight in state.items() if name.startswith(PREFIX)}
        if not weights:
            return None
        made = cls()
        try:
            made.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(
                f"background: the weights are of another network: {' '.join(str(error).split())}"
            ) from None
        return made

    def state(self) -> dict[str, Tensor]:
        """Return its weights, as `saved` takes them."""
        return {PREFIX + name: weight.detach().clone() for name, weight in self.state_dict().items()}

    def forward(self, rays: Rays) -> Tensor:
        """Return sRGB colours in [0, 1], (n, 3); differentiable with respect to weights and rays."""
        o, d = rays.origin, rays.direction
        nearest = -(o * d).sum(-1, keepdim=True)
        deep = (1 - (o + nearest * d).square().sum(-1, keepdim=True)).clamp_min(0)
        x = o + (nearest + (deep + 1e-6).sqrt()) * d
        return torch.sigmoid(self.network(self.encode(torch.cat([x, d], -1))))
