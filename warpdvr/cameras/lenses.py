"""Lenses with distortion, by OpenCV's and COLMAP's formulas: the rays of pixels come from an inverse.

A pixel of which the distortion has no inverse has no ray: its direction is 0. A point outside of the range in which the
distortion is one to one has no pixel: its position is infinite, so that no image contains it.
"""

import math
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.cameras.distortion import Distortion
from warpdvr.cameras.projection import Projection, register_projection, to_pixel, to_plane
from warpdvr.runtime.arguments import floating


@dataclass(frozen=True, eq=False)
class Lens(Projection):
    """A camera whose rays start at its centre, with coefficients of its lens: `direction` and `bend` define it.

    Raises:
        ValueError: if the number of coefficients is not one of `counts`, or one is not finite.
    """

    counts: ClassVar[tuple[int, ...]]
    """Numbers of coefficients that it may have."""

    coefficients: Float[Tensor, " k"] | Sequence[float]
    """Of the lens, shape (k,); kept as float64, differentiable."""

    def __post_init__(self) -> None:
        shapes = tuple((count,) for count in self.counts)
        given = floating(f"{type(self).__name__}: coefficients", self.coefficients, shapes)
        object.__setattr__(self, "coefficients", given.double())

    @abstractmethod
    def direction(self, plane: Float[Tensor, "n 2"]) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, " n"]]:
        """Return the directions, of any length, that points of the image plane show, and which exist; differentiable.

        Args:
            plane: the points, (x, y) with (u, v, 1) = K (x, y, 1), float64.
        """

    @abstractmethod
    def bend(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
        """Return where points appear on the image plane, and which do; finite for all, differentiable.

        Args:
            x: the points in camera axes, float64.
        """

    def local_rays(
        self, K: Float[Tensor, "n 3 3"], pixel: Float[Tensor, "n 2"]
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        direction, exists = self.direction(to_plane(K.double(), pixel.double()))
        if not bool(exists.all()):
            warnings.warn(
                f"{self.name}: the distortion has no inverse in a part of the image; those pixels have no ray "
                "(mask them, or check the coefficients)",
                stacklevel=2,
            )
        direction = torch.where(exists[:, None], direction, 0.0).to(K)
        return torch.zeros_like(direction), direction

    def local_project(self, K: Float[Tensor, "3 3"], x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 2"]:
        plane, appears = self.bend(x.double())
        return torch.where(appears[:, None], to_pixel(K.double(), plane), torch.inf).to(
            torch.promote_types(K.dtype, x.dtype)
        )

    def image_radius(self, K: Float[Tensor, "3 3"], x: Float[Tensor, "n 3"], radius: float) -> Float[Tensor, " n"]:
        return super().image_radius(K, x, radius).nan_to_num(nan=math.inf, posinf=math.inf)


@dataclass(frozen=True, eq=False)
class PolynomialLens(Lens):
    """A lens whose `distortion` is one of polynomials."""

    wide: ClassVar[bool]
    """Whether the distortion is that of a fisheye's plane (theta x / r, theta y / r) or of the plane z = 1."""

    @abstractmethod
    def distortion(self) -> Distortion:
        """Return the terms that the coefficients stand for."""

    def direction(self, plane: Float[Tensor, "n 2"]) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, " n"]]:
        p, exists = self.distortion().invert(plane)
        return (fisheye_direction(p) if self.wide else torch.cat([p, torch.ones_like(p[:, :1])], 1)), exists

    def bend(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
        front = (x[:, :2] != 0).any(1) | (x[:, 2] > 0) if self.wide else x[:, 2] > 0
        x = torch.where(front[:, None], x, torch.tensor([0.0, 0.0, 1.0]).to(x))
        p = fisheye_plane(x) if self.wide else x[:, :2] / x[:, 2:]
        distortion = self.distortion()
        plane, jacobian = distortion.apply(p)
        appears = front & distortion.contains(p, jacobian)
        return torch.where(appears[:, None], plane, 0.0), appears

    def _terms(
        self,
        radial: Sequence[int],
        bottom: Sequence[int] = (),
        tangential: Sequence[int] = (),
        prism: Sequence[int] = (),
    ) -> Distortion:
        """Return the distortion with the coefficients of these indices; those past the end, or -1, are 0."""
        given = self.tensors()["coefficients"]
        padded = torch.cat([given, given.new_zeros(max(self.counts) - len(given) + 1)])
        one = given.new_ones(1)
        return Distortion(
            torch.cat([one, padded[list(radial)]]),
            torch.cat([one, padded[list(bottom)]]) if bottom else one,
            padded[list(tangential)] if tangential else given.new_zeros(2),
            padded[list(prism)] if prism else given.new_zeros(4),
            widest=math.pi if self.wide else math.inf,
        )


@register_projection
@dataclass(frozen=True, eq=False)
class OpenCVLens(PolynomialLens):
    """OpenCV's pinhole with distortion: k1, k2, p1, p2[, k3[, k4, k5, k6[, s1, s2, s3, s4]]], in OpenCV's order.

    With x' = x / z, y' = y / z and r^2 = x'^2 + y'^2 (documentation of OpenCV's `calib3d`, "Detailed Description"):
    x'' = x' (1 + k1 r^2 + k2 r^4 + k3 r^6) / (1 + k4 r^2 + k5 r^4 + k6 r^6) + 2 p1 x' y' + p2 (r^2 + 2 x'^2)
    + s1 r^2 + s2 r^4; y'' likewise, with p1 (r^2 + 2 y'^2) + 2 p2 x' y' + s3 r^2 + s4 r^4.
    """

    name = "opencv"
    counts = (4, 5, 8, 12)
    wide = False

    def distortion(self) -> Distortion:
        return self._terms((0, 1, 4), (5, 6, 7), (2, 3), (8, 9, 10, 11))


@register_projection
@dataclass(frozen=True, eq=False)
class FisheyeLens(PolynomialLens):
    """OpenCV's fisheye, of Kannala and Brandt: k1, k2, k3, k4.

    A point at the angle theta off the axis appears at the radius theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 +
    k4 theta^8) (documentation of OpenCV's `fisheye` namespace). Angles beyond 90 degrees have rays and pixels; but
    depths along the axis are negative there, so that masks and depth maps say nothing about such points.
    """

    name = "opencv_fisheye"
    counts = (4,)
    wide = True

    def distortion(self) -> Distortion:
        return self._terms((0, 1, 2, 3))


@register_projection
@dataclass(frozen=True, eq=False)
class ThinPrismFisheyeLens(PolynomialLens):
    """COLMAP's THIN_PRISM_FISHEYE: k1, k2, p1, p2, k3, k4, sx1, sy1, all on the plane of a fisheye.

    Radial as `FisheyeLens`, tangential as `OpenCVLens`, plus sx1 theta^2 along x and sy1 theta^2 along y.
    """

    name = "thin_prism_fisheye"
    counts = (8,)
    wide = True

    def distortion(self) -> Distortion:
        return self._terms((0, 1, 4, 5), (), (2, 3), (6, -1, 7, -1))


@register_projection
@dataclass(frozen=True, eq=False)
class RadialTangentialFisheyeLens(PolynomialLens):
    """COLMAP's RAD_TAN_THIN_PRISM_FISHEYE, that of Project Aria: k0 to k5, p0, p1, s0 to s3.

    Six radial coefficients on the plane of a fisheye; the tangential and prism terms are those of the point that the
    radial ones have moved.
    """

    name = "rad_tan_thin_prism_fisheye"
    counts = (12,)
    wide = True

    def distortion(self) -> Distortion:
        return replace(self._terms(range(6), (), (7, 6), (8, 9, 10, 11)), chained=True)


def fisheye_direction(p: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
    """Return the unit directions (sin(theta) p / theta, cos(theta)), theta = |p|; smooth at 0, differentiable."""
    q = p.square().sum(1, keepdim=True)
    small = q < 1e-4
    theta = torch.where(small, 1.0, q).sqrt()
    sine = torch.where(small, 1 - q / 6 + q.square() / 120, theta.sin() / theta)
    return torch.cat([sine * p, torch.where(small, 1 - q / 2 + q.square() / 24 - q**3 / 720, theta.cos())], 1)


def fisheye_plane(x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 2"]:
    """Return (theta x / r, theta y / r), r = |(x, y)| and theta the angle off the axis; smooth at 0, differentiable.

    Not defined for points behind the camera on its axis.
    """
    z, q = x[:, 2:], x[:, :2].square().sum(1, keepdim=True)
    small = (q < 1e-5 * z.square()) & (z > 0)
    r, ahead = torch.where(small, 1.0, q).sqrt(), torch.where(small, z, 1.0)
    t = torch.where(small, q, 0.0) / ahead.square()
    scale = torch.where(small, (1 - t / 3 + t.square() / 5) / ahead, torch.atan2(r, z) / r)
    return scale * x[:, :2]
