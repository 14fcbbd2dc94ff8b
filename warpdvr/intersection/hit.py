"""What became of rays."""

from dataclasses import dataclass
from enum import IntEnum

from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.kernels import status as _status


class Status(IntEnum):
    """What became of a ray."""

    HIT = int(_status.HIT)
    """It entered the surface from outside."""
    MISS = int(_status.MISS)
    """It left the bounds without meeting the surface, or never met the bounds."""
    INSIDE = int(_status.INSIDE)
    """Its first sample was already inside, which is not a hit."""
    GAVE_UP = int(_status.GAVE_UP)
    """It stayed undecided: too many steps, a value of NaN, or no ray at all, see `Rays.direction`."""


@dataclass(frozen=True)
class Hit:
    """Where n rays met the surface; `t` and `ray` are packed and hold the k rays that hit."""

    t: Float[Tensor, " k"]
    """Ray length to the surface, float32, or float64 for a field in float64; not differentiable [scene unit, or lengths
    of `Rays.direction`]."""
    ray: Int[Tensor, " k"]
    """Index of the ray of each hit, ascending, int64."""
    status: Int[Tensor, " n"]
    """A `Status` for every ray, int32."""
    nearest: Float[Tensor, " n"]
    """Ray length at the smallest sample of a ray that misses, and `t` of one that hits. With a grid, places that were
    not evaluated count too, by the middle of their bounds; NaN for a ray that does not meet the bounds."""
    evaluations: int
    """Points at which the field was evaluated."""

    def reordered(self, order: Int[Tensor, " n"]) -> "Hit":
        """Return the hits of rays of which these were taken in an order: ray i here is ray order[i] there."""
        back, ray = order.argsort(), order[self.ray]
        place = ray.argsort()
        return Hit(self.t[place], ray[place], self.status[back], self.nearest[back], self.evaluations)

    def __repr__(self) -> str:
        return f"Hit({len(self.status)} rays: {outcomes(self.status, self.evaluations)})"


def outcomes(status: Int[Tensor, "*shape"], evaluations: int) -> str:
    """Say what became of rays in a few words: how many hit, miss, start inside and gave up, and queries per ray."""
    count = {s: int((status == s).sum()) for s in Status}
    return (
        f"{count[Status.HIT]} hit, {count[Status.MISS]} miss, {count[Status.INSIDE]} start inside, "
        f"{count[Status.GAVE_UP]} gave up; {evaluations / max(status.numel(), 1):.2f} queries per ray"
    )
