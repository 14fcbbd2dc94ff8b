"""The polynomials by which a lens moves points on its image plane, and their inverse.

The radial, tangential and thin-prism terms are those of Brown (1971), "Close-range camera calibration", in the form of
the OpenCV documentation of `calib3d`; on the plane of a fisheye they are those of Kannala and Brandt (2006).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.polynomial import polynomial
from torch import Tensor

STEPS = 60
"""Steps at most of each search; 5 are usual, halvings of the bracket need 52."""

NEAR = 1e-14
"""Residual at which a search ends, in units of the plane; a wide image has 1e-4 to 1e-3 of them for a pixel."""

FOUND = 1e-11
"""Residual up to which a point counts as the inverse."""


@dataclass(frozen=True)
class Distortion:
    """Takes points p of the plane to R p + tangential + prism terms; with q = |p|^2, R = numerator(q) / denominator(q).

    All members are float64 and differentiable.
    """

    numerator: Float[Tensor, " a"]
    """Of the radial factor: coefficients of q^0 = 1, q, q^2, ..."""
    denominator: Float[Tensor, " b"]
    """As the numerator; (1,) for a polynomial."""
    tangential: Float[Tensor, "2"]
    """p1, p2 in OpenCV's order."""
    prism: Float[Tensor, "4"]
    """s1, s2, s3, s4 in OpenCV's order: s1 q + s2 q^2 along x, s3 q + s4 q^2 along y."""
    chained: bool = False
    """Whether the tangential and prism terms are those of R p instead of p."""
    widest: float = math.inf
    """Radius of the plane beyond which there are no points, whatever the polynomials."""

    def apply(self, p: Float[Tensor, "n 2"]) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2 2"]]:
        """Return the moved points and the Jacobians; both differentiable with respect to `p` and the coefficients."""
        scale, slope = self._radial(p.square().sum(1))
        eye = torch.eye(2).to(p)
        moved = scale[:, None] * p
        jacobian = scale[:, None, None] * eye + 2 * slope[:, None, None] * p[:, :, None] * p[:, None]
        if self.chained:
            shift, bend = self._decentred(moved)
            return moved + shift, (eye + bend) @ jacobian
        shift, bend = self._decentred(p)
        return moved + shift, jacobian + bend

    def contains(self, p: Float[Tensor, "n 2"], jacobian: Float[Tensor, "n 2 2"]) -> Bool[Tensor, " n"]:
        """Return which points lie where the map has not folded back; not differentiable.

        Beyond the first maximum of its radial part, or where its determinant is negative, the image would be seen
        again, folded back: polynomials that were fitted up to the border of the image do so outside of it.
        """
        p, jacobian = p.detach(), jacobian.detach()
        return (p.norm(dim=1) < self.limit()) & (_determinant(jacobian) > 0)

    def invert(self, moved: Float[Tensor, "n 2"]) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
        """Return the points that are taken to `moved`, and which exist; (0, 0) for those that do not.

        Newton's method, from the inverse of the radial part on. Differentiable with respect to `moved` and the
        coefficients up to third derivatives: two further steps from the fixed solution, the error of the second being
        of the fourth order in any change.
        """
        with torch.no_grad():
            p = self._refined(moved, self._radial_inverse(moved))
            value, jacobian = self.apply(p)
            near = (value - moved).norm(dim=1) < FOUND * (1 + moved.norm(dim=1))
            exists = near & self.contains(p, jacobian)
            p = torch.where(exists[:, None], p, 0.0)
        moved = torch.where(exists[:, None], moved, 0.0)
        if torch.is_grad_enabled():
            for _ in range(2):
                value, jacobian = self.apply(p)
                p = p + _solved(jacobian, moved - value)
        return p, exists

    def limit(self) -> float:
        """Return the radius up to which the radial part grows."""
        top, bottom = (a.detach().cpu().double().numpy() for a in (self.numerator, self.denominator))
        grows = polynomial.polysub(
            polynomial.polymul(polynomial.polyder(top), bottom), polynomial.polymul(top, polynomial.polyder(bottom))
        )
        slope = polynomial.polyadd(polynomial.polymul(top, bottom), 2 * polynomial.polymul([0.0, 1.0], grows))
        roots = np.concatenate([polynomial.polyroots(polynomial.polytrim(a)) for a in (slope, bottom)])
        real = roots.real[(roots.real > 0) & (np.abs(roots.imag) <= 1e-9 * np.abs(roots))]
        return min(math.sqrt(real.min()) if len(real) else math.inf, self.widest)

    def _radial(self, q: Float[Tensor, " n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Return R and its derivative by q."""
        (top, rise), (bottom, fall) = _horner(self.numerator, q), _horner(self.denominator, q)
        scale = top / bottom
        return scale, (rise - scale * fall) / bottom

    def _decentred(self, p: Float[Tensor, "n 2"]) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2 2"]]:
        """Return the tangential and prism terms of points, and their Jacobians."""
        (p1, p2), (s1, s2, s3, s4) = self.tangential.unbind(), self.prism.unbind()
        x, y = p.unbind(1)
        q = x * x + y * y
        shift = torch.stack(
            [
                2 * p1 * x * y + p2 * (q + 2 * x * x) + s1 * q + s2 * q * q,
                2 * p2 * x * y + p1 * (q + 2 * y * y) + s3 * q + s4 * q * q,
            ],
            1,
        )
        along_x, along_y = 2 * (s1 + 2 * s2 * q), 2 * (s3 + 2 * s4 * q)
        mixed = 2 * (p1 * x + p2 * y)
        bend = torch.stack(
            [
                2 * p1 * y + 6 * p2 * x + along_x * x,
                mixed + along_x * y,
                mixed + along_y * x,
                2 * p2 * x + 6 * p1 * y + along_y * y,
            ],
            1,
        )
        return shift, bend.view(-1, 2, 2)

    def _radial_inverse(self, moved: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
        """Return the inverse of the radial part: Newton's method in a bracket."""
        target = moved.norm(dim=1)
        farthest = self.limit()
        if math.isinf(farthest):
            farthest = 1.0
            while len(target) and float(self._radius(target.new_tensor([farthest]))[0]) <= float(target.max()):
                farthest *= 2
        high = torch.full_like(target, farthest)
        low = torch.zeros_like(target)
        target = torch.minimum(target, 0.999 * self._radius(high)[0])
        r = torch.minimum(target, 0.5 * high)
        for _ in range(STEPS):
            value, slope = self._radius(r)
            miss = value - target
            if not bool((miss.abs() > NEAR * (1 + target)).any()):
                break
            low, high = torch.where(miss < 0, r, low), torch.where(miss < 0, high, r)
            r = r - miss / slope
            r = torch.where((r > low) & (r < high), r, 0.5 * (low + high))
        return moved * (r / moved.norm(dim=1).clamp_min(1e-300))[:, None]

    def _radius(self, r: Float[Tensor, " n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Return the moved radius and its derivative by the radius."""
        scale, slope = self._radial(r * r)
        return scale * r, scale + 2 * r * r * slope

    def _refined(self, moved: Float[Tensor, "n 2"], p: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
        """Return `p` after Newton's steps, each halved until it comes nearer and stays in the range."""
        limit, tolerance = self.limit(), NEAR * (1 + moved.norm(dim=1))
        value, jacobian = self.apply(p)
        part = torch.ones_like(tolerance)
        for _ in range(STEPS):
            miss = (moved - value).norm(dim=1)
            if not bool(((miss > tolerance) & (part > 1e-4)).any()):
                break
            trial = p + part[:, None] * _solved(jacobian, moved - value)
            there, bent = self.apply(trial)
            nearer = ((moved - there).norm(dim=1) < miss) & (trial.norm(dim=1) < limit)
            p, value = (torch.where(nearer[:, None], a, b) for a, b in ((trial, p), (there, value)))
            jacobian = torch.where(nearer[:, None, None], bent, jacobian)
            part = torch.where(nearer, 1.0, 0.5 * part)
        return p


def _horner(
    coefficients: Float[Tensor, " a"], q: Float[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return a polynomial and its derivative at `q`."""
    value, slope = torch.zeros_like(q), torch.zeros_like(q)
    for coefficient in coefficients.flip(0).unbind():
        value, slope = value * q + coefficient, slope * q + value
    return value, slope


def _determinant(jacobian: Float[Tensor, "n 2 2"]) -> Float[Tensor, " n"]:
    return jacobian[:, 0, 0] * jacobian[:, 1, 1] - jacobian[:, 0, 1] * jacobian[:, 1, 0]


def _solved(jacobian: Float[Tensor, "n 2 2"], right: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """Return the solutions of 2 x 2 systems; differentiable."""
    (a, b), (c, d) = (row.unbind(1) for row in jacobian.unbind(1))
    u, v = right.unbind(1)
    return torch.stack([d * u - b * v, a * v - c * u], 1) / _determinant(jacobian)[:, None]
