"""What is wrong with K, judged by the tangents of the outlines: the focal length, or half a pixel."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.datasets.check_tangents import Change, Rim, median_distance, pairwise

FACTORS = tuple(2 ** (step / 4) for step in range(-8, 9))
"""Focal lengths that are tried, relative to those of K."""

BETTER, CLEARLY, LEAST = 0.6, 0.3, 1.05
"""A focal length is named if tangents then lie apart by less than BETTER of what they do, by CLEARLY pixels less, and
if it differs by the factor LEAST. On right data the gain is at most 0.2 pixels, by 4 % (the photographs of a figure
whose masks are 3 pixels too wide)."""

QUARTER = 1.25
"""If a focal length wrong by this factor moves tangents by less than CLEARLY, it cannot be told."""

SYSTEMATIC, KNOWN = 0.1, 0.4
"""What masks add to the standard deviation of the principal point, which is also the least of a tangent; and the
largest deviation with which half a pixel can be told from none [pixel]. Right data show 0.01 to 0.3 pixels."""

FITS, CONTRADICTS = 3.0, 4.0
"""Half a pixel is named if it is less than FITS standard deviations away, and none more than CONTRADICTS."""


@dataclass(frozen=True)
class PrincipalPoint:
    """What has to be added to the principal point of all views, so that tangents agree."""

    shift: Float[Tensor, "2"]
    """In x and y, float64 [pixel]."""
    covariance: Float[Tensor, "2 2"]
    """Of the shift, with the systematic part [pixel^2]."""

    @property
    def deviation(self) -> float:
        """The standard deviation in the direction in which it is largest [pixel]."""
        return float(torch.linalg.eigvalsh(self.covariance)[-1].sqrt())

    def away(self, shift: float) -> float:
        """Return how many standard deviations a shift by the same number in x and y is away."""
        apart = self.shift - shift
        return float((apart @ torch.linalg.solve(self.covariance, apart)).sqrt())

    @property
    def half_pixel(self) -> float:
        """The shift by half a pixel that the data ask for, -0.5 or 0.5; 0 if they do not, or cannot tell."""
        if self.deviation > KNOWN or self.away(0.0) < CONTRADICTS:
            return 0.0
        return next((shift for shift in (-0.5, 0.5) if self.away(shift) < FITS), 0.0)

    def table(self) -> dict[str, list[float]]:
        """Return the shift and its standard deviation in x and y [pixel]."""
        return {"shift": self.shift.tolist(), "deviation": self.covariance.diagonal().sqrt().tolist()}

    def __str__(self) -> str:
        (x, y), (dx, dy) = self.table().values()
        return f"({x:+.2f} +- {dx:.2f}, {y:+.2f} +- {dy:.2f})"


def best_focal(group: Sequence[Rim]) -> tuple[float, float]:
    """Return by what K's focal lengths must be multiplied, and the median distance of tangents then [pixel].

    The factor is 1 unless another one is clearly better; the distance is NaN where too few tangents are known.
    """
    least = median_distance(group)
    if not least > CLEARLY:
        return 1.0, least
    factor = min(FACTORS, key=lambda f: _scaled(group, f))
    for step in (2 ** (1 / 8), 2 ** (1 / 16), 2 ** (1 / 32), 2 ** (1 / 64)):
        factor = min((factor / step, factor, factor * step), key=lambda f: _scaled(group, f))
    found = _scaled(group, factor)
    clear = found < min(BETTER * least, least - CLEARLY) and not 1 / LEAST < factor < LEAST
    return (factor, found) if clear else (1.0, least)


def principal_point(group: Sequence[Rim]) -> PrincipalPoint | None:
    """Return the common shift of the principal points with which the tangents agree best; None if too few are known.

    Least squares with Cauchy weights; the tangents' distances are nearly linear in the shift. A shift is much like a
    turn of the camera, but as all poses are given, it is seen where cameras are rolled, or look from opposite sides.
    """
    if median_distance(group) != median_distance(group):
        return None
    shift, covariance = torch.zeros(2).double(), torch.eye(2).double()
    for _ in range(4):
        x, y = shift.tolist()
        apart = pairwise(group, shifted(x, y))
        plus = [pairwise(group, shifted(x + 0.25, y)), pairwise(group, shifted(x, y + 0.25))]
        minus = [pairwise(group, shifted(x - 0.25, y)), pairwise(group, shifted(x, y - 0.25))]
        slope = 2 * torch.stack([a - b for a, b in zip(plus, minus, strict=True)], 1)
        known = apart.isfinite() & slope.isfinite().all(1)
        apart, slope = apart[known], slope[known]
        spread = (1.4826 * apart.abs().median()).clamp_min(SYSTEMATIC)
        weighted = slope / (1 + (apart / (2 * spread)) ** 2)[:, None]
        covariance = torch.linalg.inv(weighted.T @ slope + 1e-9 * torch.eye(2).double())
        shift = shift - covariance @ (weighted.T @ apart)
    return PrincipalPoint(shift, covariance * spread**2 + SYSTEMATIC**2 * torch.eye(2).double())


def unseen(group: Sequence[Rim], point: PrincipalPoint | None) -> tuple[str, ...]:
    """Return which faults of K these views would not show."""
    least = median_distance(group)
    if point is None:
        return ("a wrong focal length, and a shift by half a pixel: too few tangents of outlines can be compared",)
    texts = []
    if min(_scaled(group, QUARTER), _scaled(group, 1 / QUARTER)) < least + CLEARLY:
        texts.append(f"a wrong focal length: a quarter more moves outlines by less than {CLEARLY} pixels")
    if point.deviation > KNOWN:
        texts.append(f"a shift of all pictures by half a pixel: outlines tell it to +-{point.deviation:.1f} pixels")
    return tuple(texts)


def scaled_focal(factor: float) -> Change:
    """Return the change that multiplies both focal lengths."""
    scale = torch.tensor([[factor, factor, 1.0], [1.0, factor, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    return lambda camera: replace(camera, K=camera.K.double() * scale)


def shifted(x: float, y: float) -> Change:
    """Return the change that moves the principal point [pixel]."""
    move = torch.tensor([[0.0, 0.0, x], [0.0, 0.0, y], [0.0, 0.0, 0.0]], dtype=torch.float64)
    return lambda camera: replace(camera, K=camera.K.double() + move)


def _scaled(group: Sequence[Rim], factor: float) -> float:
    found = median_distance(group, scaled_focal(factor))
    return found if found == found else torch.inf
