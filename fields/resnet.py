"""An encoder from a picture to the latent code of the shape that it shows."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

WIDTHS = 64, 128, 256, 512
"""Channels of the four stages of ResNet-18."""

GROUPS = 8
"""Number of groups in which channels are normalised."""


class ImageEncoder(nn.Module):
    """Pictures (b, 3, h, w) in [0, 1] to latent codes (b, code): the layout of ResNet-18, trained from scratch.

    He et al., "Deep Residual Learning for Image Recognition" (2016), table 1; the classifier is replaced by a linear
    map to the code, as in DVR (Niemeyer et al. 2020). Normalised in groups of channels (Wu and He, "Group
    Normalization", 2018), not over the batch: batches are small, and a code must not depend on other pictures.

    Args:
        code: length of a latent code.
        width: channels of the first stage; 64 is ResNet-18, the others grow with it.
    """

    def __init__(self, code: int = 256, width: int = 64):
        super().__init__()
        if code < 1 or width < 1:
            raise ValueError(f"encoder: needs code >= 1 and width >= 1, got {code} and {width}")
        widths = [w * width // WIDTHS[0] for w in WIDTHS]
        stem = [nn.Conv2d(3, width, 7, 2, 3, bias=False), _norm(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        blocks: list[nn.Module] = []
        for i, (before, after) in enumerate(zip([width, *widths], widths, strict=False)):
            blocks += [_Block(before, after, 1 if i == 0 else 2), _Block(after, after, 1)]
        self.layers = nn.Sequential(*stem, *blocks)
        self.last = nn.Linear(widths[-1], code)

    def forward(self, image: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b code"]:
        h = self.layers(2 * image - 1)
        code: Tensor = self.last(h.mean((2, 3)))
        return code


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)


class _Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            _norm(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            _norm(after),
        )
        same = before == after and stride == 1
        self.shortcut: nn.Module = (
            nn.Identity() if same else nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), _norm(after))
        )

    def forward(self, h: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
        return torch.relu(self.body(h) + self.shortcut(h))
