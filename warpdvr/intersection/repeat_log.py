"""Where rays evaluated a field more than once, so that `BoundGrid.sharpen` knows which boxes to halve."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

MAX_SEGMENTS = 1 << 19
"""Largest number of stored segments, 24 bytes each."""

POINTS = 5
"""Points of a segment, ends included, whose boxes approximate those that it passes through."""


class RepeatLog:
    """Segments of rays between consecutive samples: all, or every second, fourth ... if there are too many."""

    def __init__(self) -> None:
        self._ends: list[Tensor] = []
        self._length, self._every = 0, 1

    def add(self, start: Float[Tensor, "n 3"], end: Float[Tensor, "n 3"]) -> None:
        """Store the segments between points [scene unit]."""
        self._ends.append(torch.stack([start[:: self._every], end[:: self._every]]))
        self._length += self._ends[-1].shape[1]
        while self._length > MAX_SEGMENTS:
            self._ends, self._every = [torch.cat(self._ends, 1)[:, ::2].clone()], 2 * self._every
            self._length = self._ends[0].shape[1]

    def boxes(self, low: Float[Tensor, "3"], side: Float[Tensor, "3"]) -> Int[Tensor, "m 3"]:
        """Return the boxes of a lattice that segments pass through, unique, int64.

        Args:
            low: corner of the first box [scene unit].
            side: of every box [scene unit].
        """
        if not self._ends:
            return torch.empty(0, 3, dtype=torch.int64, device=low.device)
        start, end = torch.cat(self._ends, 1).to(low)
        place = [start + part * (end - start) for part in torch.linspace(0, 1, POINTS).tolist()]
        box: Tensor = ((torch.cat(place) - low) / side).floor().long().unique(dim=0)
        return box
