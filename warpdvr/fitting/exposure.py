"""How much brighter or darker each photograph is than the others: a gain and an offset of its colours, learnt."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

SATURATED = 254.5 / 255
"""Photographs hold no colours above this; there, those of the field may be as bright as they like [sRGB]."""

EXPOSURE_RATE = 0.001
"""Highest learning rate of Adam [1 / step]. At 0.0002 a fit hardly corrects what the volume before it has learnt."""


class Exposure(nn.Module):
    """A gain and an offset for each channel of each training view.

    A camera that measures light by itself, or a lamp that moves with it, makes a photograph brighter than its
    neighbours. A field has one colour for all of them, so its shape would have to explain the rest. sRGB is nearly a
    power of the light, so that an exposure multiplies sRGB colours, too (a stop by about 1.37); the offset is for
    stray light. The medians over all views stay 1 and 0, since otherwise a field could be dark and all photographs
    bright: so views that were held out are compared with the colours of the field itself.

    Args:
        views: how many training views there are.
    """

    def __init__(self, views: int, device: torch.device | str = "cpu"):
        super().__init__()
        self.correction = nn.Parameter(torch.zeros(2, views, 3, device=device))
        """Logarithm of the gain, and offset [sRGB], of each view and channel, before the medians are taken off."""

    def values(self) -> tuple[Float[Tensor, "v 3"], Float[Tensor, "v 3"]]:
        """Return gain and offset [sRGB] of each view and channel."""
        log_gain, offset = self.correction - self.correction.median(1, keepdim=True).values
        return log_gain.exp(), offset

    def forward(
        self,
        color: Float[Tensor, "n 3"],
        target: Float[Tensor, "n 3"],
        view: Int[Tensor, " n"],
        *,
        learn: bool = True,
    ) -> Float[Tensor, "n 3"]:
        """Return the colours that the photographs would show; differentiable by colours, gains and offsets.

        Args:
            color: of the field, sRGB.
            target: of the photographs, sRGB in [0, 1]; where they are saturated, what is brighter counts as right.
            view: the training view of each.
            learn: whether these colours have a say in gains and offsets.
        """
        gain, offset = self.values() if learn else (a.detach() for a in self.values())
        shown = gain[view] * color + offset[view]
        return torch.where((target > SATURATED) & (shown > target), target, shown)

    def resume(self, correction: Float[Tensor, "2 v 3"]) -> None:
        """Continue from a `correction` that was saved.

        Raises:
            ValueError: if it is of another number of views.
        """
        if correction.shape != self.correction.shape:
            counts = correction.shape[1] if correction.ndim == 3 else 0, self.correction.shape[1]
            raise ValueError(f"fit: the saved state holds the exposures of {counts[0]} views, not of {counts[1]}")
        with torch.no_grad():
            self.correction.copy_(correction)
