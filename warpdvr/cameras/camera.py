"""Cameras and the rays through their pixels.

One convention everywhere: `pose` is camera to world with OpenCV axes (x right, y down, z forward), K is in pixels, and
the centre of the top-left pixel is at (0.5, 0.5).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from warpdvr.cameras.rays import PROJECTIONS, Rays, pixel_centres, rays_of

Vector = Sequence[float] | np.ndarray[Any, Any] | Tensor

OPENGL = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
"""Turns OpenCV camera axes into OpenGL ones (x right, y up, z backward) and back: `pose @ OPENGL`."""


@dataclass(frozen=True)
class Camera:
    """A camera: where it stands, what it sees, how many pixels it has.

    Float64 by default, so that a calibration goes through unharmed; rays are float32.

    Raises:
        ValueError: if a matrix has the wrong shape, is not finite, or K or the rotation is singular.
    """

    K: Tensor
    """Intrinsic matrix, shape (3, 3) [pixel]."""
    pose: Tensor
    """Camera to world, shape (4, 4), OpenCV axes; the translation is the camera centre [scene unit]."""
    width: int
    """Columns of the image."""
    height: int
    """Rows of the image."""
    projection: str = "perspective"
    """The kind of camera, a key of `PROJECTIONS`."""

    def __post_init__(self) -> None:
        for name, matrix, shape in (("K", self.K, (3, 3)), ("pose", self.pose, (4, 4))):
            if tuple(matrix.shape) != shape:
                raise ValueError(f"camera: {name} must have shape {shape}, got {tuple(matrix.shape)}")
            if not matrix.isfinite().all():
                raise ValueError(f"camera: {name} holds a number that is not finite")
        if self.K[0, 0] == 0 or self.K[1, 1] == 0:
            raise ValueError("camera: K has a focal length of 0")
        if self.K.detach().tril(-1).abs().max() > 1e-6 or abs(self.K[2, 2].item() - 1) > 1e-6:
            raise ValueError(f"camera: K must be upper triangular and end in 1, got {self.K.tolist()}")
        R = self.pose[:3, :3].detach()
        if (R @ R.T - torch.eye(3).to(R)).abs().max() > 1e-3 or R.det() < 0:
            raise ValueError(f"camera: the left 3x3 part of pose must be a rotation, got {R.tolist()}")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"camera: the image must have pixels, got {self.width} x {self.height}")
        if self.projection not in PROJECTIONS:
            raise ValueError(f"camera: unknown projection {self.projection!r}; known are {', '.join(PROJECTIONS)}")

    @classmethod
    def look_at(
        cls,
        eye: Vector,
        at: Vector = (0.0, 0.0, 0.0),
        *,
        up: Vector = (0.0, 0.0, 1.0),
        fov: float = 40.0,
        width: int = 512,
        height: int = 512,
    ) -> "Camera":
        """Place a camera at `eye` that looks at `at`.

        Args:
            eye: camera centre, shape (3,) [scene unit].
            at: the point in the middle of the image, shape (3,) [scene unit].
            up: direction that appears upwards in the image, shape (3,).
            fov: vertical field of view [degree].
            width, height: size of the image [pixel].
        """
        centre, target, upward = (_vector(a) for a in (eye, at, up))
        z = target - centre
        x = torch.linalg.cross(z, upward)
        if x.norm() < 1e-9 * max(float(z.norm() * upward.norm()), 1e-30):
            raise ValueError("look_at: eye and at must differ, and up must not point along the view")
        z, x = z / z.norm(), x / x.norm()
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3] = torch.stack([x, torch.linalg.cross(z, x), z, centre], 1)
        return cls(_intrinsics(fov, width, height), pose, width, height)

    @classmethod
    def from_krt(cls, K: Vector, R: Vector, t: Vector, width: int, height: int) -> "Camera":
        """Build a camera from K [R | t], the world-to-camera form of OpenCV: x_camera = R x_world + t."""
        k, r, shift = _matrix(K), _matrix(R), _vector(t)
        if not r.isfinite().all() or r.det().abs() < 1e-9:
            raise ValueError("camera: R is singular or holds a number that is not finite")
        pose = torch.eye(4, dtype=torch.float64)
        inverse = torch.linalg.inv(r)
        pose[:3, :3], pose[:3, 3] = inverse, -inverse @ shift
        return cls(k, pose, width, height)

    @classmethod
    def from_projection(cls, P: Vector, width: int, height: int) -> "Camera":
        """Build a camera from a 3x4 projection matrix P = s K [R | t], s any number but 0, pixel centres at +0.5.

        RQ decomposition (Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 6.2.4), with the signs chosen
        so that both focal lengths are positive and R is a rotation: points in front of the camera have positive depth.
        P may also map from a frame of another scale (IDR's `world_mat @ scale_mat`): t is then in that frame's unit.
        """
        p = _matrix(P)
        if tuple(p.shape) != (3, 4):
            raise ValueError(f"camera: P must have shape (3, 4), got {tuple(p.shape)}")
        if not p.isfinite().all():
            raise ValueError("camera: P holds a number that is not finite")
        left = p[:, :3]
        if left.det().abs() <= 1e-12 * left.norm() ** 3:
            raise ValueError("camera: P is singular, its left 3x3 part has no inverse")
        p = p * left.det().sign()
        q, r = torch.linalg.qr(p[:, :3].flip(0).T)
        k, rotation = r.T.flip(0, 1), q.T.flip(0)
        sign = k.diagonal().sign().diag()
        k, rotation = k @ sign, sign @ rotation
        return cls.from_krt(k / k[2, 2], rotation, torch.linalg.solve(k, p[:, 3]), width, height)

    @property
    def centre(self) -> Tensor:
        """Camera centre in the world, shape (3,) [scene unit]."""
        return self.pose[:3, 3]

    @property
    def pixel(self) -> float:
        """Width of a pixel on a plane in front of the camera at distance 1, the smaller one of width and height."""
        return 1 / max(abs(float(self.K[0, 0])), abs(float(self.K[1, 1])))

    def krt(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return K, R and t with x_camera = R x_world + t."""
        inverse = torch.linalg.inv(self.pose)
        return self.K, inverse[:3, :3], inverse[:3, 3]

    def matrix(self) -> Tensor:
        """Return the 3x4 projection matrix P = K [R | t]."""
        K, R, t = self.krt()
        return K @ torch.cat([R, t[:, None]], 1)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Project points (n, 3) to pixels (n, 2) and z-depths (n,) [scene unit]."""
        _, R, t = self.krt()
        local = x.to(R) @ R.T + t
        uvw = local @ self.K.T
        return uvw[:, :2] / uvw[:, 2:], local[:, 2]

    def resized(self, width: int, height: int) -> "Camera":
        """Return the same view with another number of pixels."""
        factor = torch.tensor([width / self.width, height / self.height, 1.0]).to(self.K)
        return replace(self, K=factor[:, None] * self.K, width=width, height=height)

    def to(self, device: torch.device | str) -> "Camera":
        """Return the camera with its matrices on `device`."""
        return replace(self, K=self.K.to(device), pose=self.pose.to(device))

    def rays(self, pixel: Tensor | None = None) -> "Rays":
        """Return the rays through the centres of all pixels in row-major order, or through positions `pixel` (n, 2).

        Differentiable with respect to K and pose.
        """
        if pixel is None:
            pixel = pixel_centres(self.width, self.height, self.K.device)
        view = torch.zeros(len(pixel), dtype=torch.int32, device=pixel.device)
        return rays_of(self.K[None], self.pose[None], view, pixel, self.projection)


def _intrinsics(fov: float, width: int, height: int) -> Tensor:
    if not 0 < fov < 180:
        raise ValueError(f"camera: fov must lie between 0 and 180 degrees, got {fov}")
    f = 0.5 * height / np.tan(np.deg2rad(fov) / 2)
    return torch.tensor([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]], dtype=torch.float64)


def _vector(a: Any) -> Tensor:
    return torch.as_tensor(a, dtype=torch.float64).reshape(3)


def _matrix(a: Any) -> Tensor:
    return torch.as_tensor(a, dtype=torch.float64)
