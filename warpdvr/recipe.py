"""How a field is fitted: weights, rates and what changes on the way."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Recipe:
    """How a field is fitted. What changes over time follows the fit's progress from 0 to 1."""

    rays: int = 2048
    """Rays in a step."""
    rate: float | None = None
    """Highest learning rate of Adam, see `schedule`; None: what the field says (`Field.rates`)."""
    color: float = 3.0
    """Weight of the photometric loss."""
    mask: float = 1.0
    """Weight of the silhouette loss, which is divided by the growth of its sharpness."""
    eikonal: float = 0.1
    """Weight of the eikonal loss; for fields with a Lipschitz bound, which are meant to be distances."""
    smooth: float = 0.005
    """Weight of the smoothness of normals."""
    sharpness: tuple[float, float] = (60.0, 600.0)
    """Of the soft mask, first and last [1 / scene unit]; occupancy logits are sharp by themselves and take 1."""

    def __post_init__(self) -> None:
        positive = (*self.sharpness, 1.0 if self.rate is None else self.rate)
        if self.rays < 1 or not all(0 < a < math.inf for a in positive):
            raise ValueError(f"fit: rays, rate and sharpness must be positive, got {self}")
        if min(self.color, self.mask, self.eikonal, self.smooth) < 0:
            raise ValueError(f"fit: no weight may be negative, got {self}")

    def sharp(self, progress: float) -> float:
        """Return the sharpness of the soft mask; it grows by equal factors."""
        first, last = self.sharpness
        return first * math.pow(last / first, progress)

    def groups(self, field: nn.Module, rates: Mapping[str, float]) -> list[dict[str, object]]:
        """Return the field's parameters for an optimiser, those of one learning rate together, as `rate` and `params`.

        Args:
            field: its named parameters are taken.
            rates: learning rates by how a name ends; the longest ending counts, "" is for all others.

        Raises:
            ValueError: if there is no rate for all others.
        """
        if "" not in rates:
            raise ValueError(f'fit: rates need an entry "" for all other parameters, got {dict(rates)}')
        endings = sorted(rates, key=len, reverse=True)
        groups: dict[str, list[Tensor]] = {}
        for name, parameter in field.named_parameters():
            groups.setdefault(next(e for e in endings if name.endswith(e)), []).append(parameter)
        factor = 1.0 if self.rate is None else self.rate / rates[""]
        return [{"params": some, "rate": factor * rates[ending]} for ending, some in groups.items()]


def schedule(progress: float) -> float:
    """Return the learning rate's factor: rises over the first 2 %, then falls to a twentieth by half a cosine."""
    return min(1.0, 0.05 + progress / 0.02) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))
