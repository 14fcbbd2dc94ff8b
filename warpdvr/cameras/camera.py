"""Cameras and the rays through their pixels.

One convention everywhere: `pose` is camera to world with OpenCV axes (x right, y down, z forward), K is in pixels, and
the centre of the top-left pixel is at (0.5, 0.5).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from warpdvr.cameras.projection import ORTHOGRAPHIC, PINHOLE, Pinhole, Projection
from warpdvr.cameras.rays import Rays, pixel_centres
from warpdvr.cameras.rotation import check_rotation
from warpdvr.runtime.arguments import check_device, finite, floating, positive, rows, whole
from warpdvr.runtime.validate import refuse_class

Vector = Sequence[float] | NDArray[np.floating] | Tensor | object
Matrix = Sequence[Sequence[float]] | NDArray[np.floating] | Tensor | object

OPENGL = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
"""Turns OpenCV camera axes into OpenGL ones (x right, y up, z backward) and back: `pose @ OPENGL`."""


@dataclass(frozen=True, init=False)
class Camera:
    """A camera: its intrinsics, pose, image size and projection.

    Float64 by default, so that a calibration keeps its precision; rays are float32 unless float64 is asked for.

    Raises:
        ValueError: if a matrix has the wrong shape, is not finite, or K or the rotation is singular, or if the
            projection has no name or is no dataclass.
    """

    K: Float[Tensor, "3 3"]
    """Intrinsic matrix, shape (3, 3) [pixel]; of an orthographic camera [pixel / scene unit]."""
    pose: Float[Tensor, "4 4"]
    """Camera to world, shape (4, 4), OpenCV axes; the translation is the camera centre [scene unit]."""
    width: int
    """Columns of the image."""
    height: int
    """Rows of the image."""
    projection: Projection = PINHOLE
    """The camera model."""

    def __init__(
        self,
        K: Matrix,
        pose: Matrix,
        width: int | object,
        height: int | object,
        projection: Projection | object = PINHOLE,
    ):
        """Take tensors, NumPy arrays or lists; if one of the matrices is float64, both become it."""
        matrices = floating("camera: K", K, ((3, 3),)), floating("camera: pose", pose, ((4, 4),))
        dtype = torch.promote_types(*(matrix.dtype for matrix in matrices))
        members: dict[str, object] = dict(zip(("K", "pose"), (matrix.to(dtype) for matrix in matrices), strict=True))
        members |= {"width": _side("width", width), "height": _side("height", height), "projection": projection}
        for name, value in members.items():
            object.__setattr__(self, name, value)
        self.__post_init__()

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"camera: the image must have pixels, got {self.width} x {self.height}")
        check_device("camera", self.K.device, "K", pose=self.pose)
        if self.K[0, 0] == 0 or self.K[1, 1] == 0:
            raise ValueError("camera: K has a focal length of 0")
        if self.K.detach().tril(-1).abs().max() > 1e-6 or abs(self.K[2, 2].item() - 1) > 1e-6:
            raise ValueError(f"camera: K must be upper triangular and end in 1, got {self.K.tolist()}")
        check_rotation(self.pose[:3, :3], "camera: the left 3x3 part of pose must be a rotation")
        refuse_class("camera: projection", self.projection)
        if not isinstance(self.projection, Projection):
            raise ValueError(f"camera: projection must be a Projection such as Pinhole(), got {self.projection!r}")
        model = type(self.projection)
        if not is_dataclass(model):
            raise ValueError(
                f"camera: {model.__name__} is no dataclass; decorate it with @dataclass(frozen=True, eq=False)"
            )
        if not isinstance(getattr(model, "name", None), str):
            raise ValueError(f"camera: {model.__name__} has no name; give it one, such as name = 'fisheye'")

    @classmethod
    def look_at(
        cls,
        eye: Vector,
        at: Vector = (0.0, 0.0, 0.0),
        *,
        up: Vector = (0.0, 0.0, 1.0),
        fov: float | object = 40.0,
        width: int | object = 512,
        height: int | object = 512,
        projection: Projection = PINHOLE,
    ) -> "Camera":
        """Place a camera at `eye` that looks at `at`.

        Args:
            eye: camera centre, shape (3,) [scene unit].
            at: the point in the middle of the image, shape (3,) [scene unit].
            up: direction that appears upwards in the image, shape (3,).
            fov: vertical field of view [degree] of a pinhole with the same K, whatever the projection.
            width, height: size of the image [pixel].
            projection: the camera model.
        """
        width, height = _side("width", width), _side("height", height)
        fov = finite("camera: fov [degree]", fov)
        if not 0 < fov < 180:
            raise ValueError(f"camera: fov must lie between 0 and 180 degrees, got {fov}")
        K, pose = _intrinsics(0.5 * height / math.tan(math.radians(fov) / 2), width, height), _facing(eye, at, up)
        return cls(K.to(pose.device), pose, width, height, projection)

    @classmethod
    def orthographic(
        cls,
        eye: Vector,
        at: Vector = (0.0, 0.0, 0.0),
        *,
        up: Vector = (0.0, 0.0, 1.0),
        extent: float | object = 2.0,
        width: int | object = 512,
        height: int | object = 512,
    ) -> "Camera":
        """Place an orthographic camera at `eye` that looks towards `at`; only points in front of its plane are visible.

        Args:
            eye: camera centre, shape (3,) [scene unit].
            at: the point in the middle of the image, shape (3,) [scene unit].
            up: direction that appears upwards in the image, shape (3,).
            extent: height of the image in the scene [scene unit].
            width, height: size of the image [pixel].
        """
        width, height, extent = (
            _side("width", width),
            _side("height", height),
            positive("camera: extent", extent),
        )
        K, pose = _intrinsics(height / extent, width, height), _facing(eye, at, up)
        return cls(K.to(pose.device), pose, width, height, ORTHOGRAPHIC)

    @classmethod
    def from_krt(cls, K: Matrix, R: Matrix, t: Vector, width: int | object, height: int | object) -> "Camera":
        """Build a camera from K [R | t], the world-to-camera form of OpenCV: x_camera = R x_world + t."""
        k = floating("camera: K", K, ((3, 3),)).double()
        r, shift = floating("camera: R", R, ((3, 3),)).double().to(k.device), _vector("t", t).to(k.device)
        if r.det().abs() < 1e-9:
            raise ValueError("camera: R is singular")
        pose = torch.eye(4, dtype=torch.float64, device=k.device)
        inverse = torch.linalg.inv(r)
        pose[:3, :3], pose[:3, 3] = inverse, -inverse @ shift
        return cls(k, pose, _side("width", width), _side("height", height))

    @classmethod
    def from_projection(cls, P: Matrix, width: int | object, height: int | object) -> "Camera":
        """Build a camera from a 3x4 projection matrix P = s K [R | t], s any number except 0, pixel centres at +0.5.

        RQ decomposition (Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 6.2.4), with the signs chosen
        so that both focal lengths are positive and R is a rotation: points in front of the camera have positive depth.
        P may also map from a frame of another scale (IDR's `world_mat @ scale_mat`): t is then in that frame's unit.
        """
        p = floating("camera: P", P, ((3, 4),)).double()
        square = p[:, :3]
        if square.det().abs() <= 1e-12 * square.norm() ** 3:
            raise ValueError("camera: P is singular, its left 3x3 part has no inverse")
        p = p * square.det().sign()
        q, r = torch.linalg.qr(p[:, :3].flip(0).T)
        k, rotation = r.T.flip(0, 1), q.T.flip(0)
        if not k.diagonal().all():  # numbers so far apart that the determinant did not see it
            raise ValueError("camera: P is singular, its left 3x3 part has no inverse")
        sign = k.diagonal().sign().diag()
        k, rotation = k @ sign, sign @ rotation
        return cls.from_krt(k / k[2, 2], rotation, torch.linalg.solve(k, p[:, 3]), width, height)

    @property
    def centre(self) -> Float[Tensor, "3"]:
        """Return the camera centre in the world [scene unit]."""
        return self.pose[:3, 3]

    @property
    def pixel(self) -> float:
        """Return the smaller side of a pixel on the plane at depth 1 [scene unit]."""
        return float(self.pixel_size(1.0).min())

    def pixel_size(self, z: Float[Tensor, "..."] | float) -> Float[Tensor, "... 2"]:
        """Return width and height of a pixel on planes at depths `z` [scene unit]."""
        return self.projection.pixel_size(self.K, z)

    def krt(self) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3 3"], Float[Tensor, "3"]]:
        """Return K, R and t with x_camera = R x_world + t."""
        inverse = torch.linalg.inv(self.pose)
        return self.K, inverse[:3, :3], inverse[:3, 3]

    def matrix(self) -> Float[Tensor, "3 4"]:
        """Return the 3x4 projection matrix P = K [R | t].

        Raises:
            ValueError: if the camera is not a pinhole.
        """
        if not isinstance(self.projection, Pinhole):
            raise ValueError(f"camera: only a pinhole has a projection matrix K [R | t], not {self.projection.name}")
        K, R, t = self.krt()
        return K @ torch.cat([R, t[:, None]], 1)

    def project(self, x: Float[Tensor, "n 3"] | object) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
        """Project points to pixels and z-depths [scene unit]; differentiable.

        Pixels of points that do not lie in front of the camera (z <= 0) are meaningless.
        """
        return self.projection.project(self.K, self.pose, rows("camera: x", x, 3).to(self.K.device))

    @torch.no_grad()
    def pixel_index(self, x: Float[Tensor, "n 3"]) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"], Bool[Tensor, " n"]]:
        """Return the pixels in which points appear, counted row by row, their z-depths, and whether they do at all.

        Not differentiable. The pixel of a point that is behind the camera or outside of the image is 0.
        """
        local = (x - self.pose[:3, 3].to(x)) @ self.pose[:3, :3].to(x)
        u, v = self.projection.local_project(self.K.to(x), local).floor().long().unbind(1)
        visible = (local[:, 2] > 0) & (u >= 0) & (v >= 0) & (u < self.width) & (v < self.height)
        return torch.where(visible, v * self.width + u, 0), local[:, 2], visible

    def resized(self, width: int | object, height: int | object) -> "Camera":
        """Return the same view with another number of pixels."""
        width, height = _side("width", width), _side("height", height)
        factor = torch.tensor([width / self.width, height / self.height, 1.0]).to(self.K)
        return replace(self, K=factor[:, None] * self.K, width=width, height=height)

    def to(self, device: torch.device | str) -> "Camera":
        """Return the camera with its matrices and its projection on `device`."""
        return replace(self, K=self.K.to(device), pose=self.pose.to(device), projection=self.projection.to(device))

    def rays(self, pixel: Float[Tensor, "n 2"] | object | None = None, *, dtype: torch.dtype = torch.float32) -> Rays:
        """Return the rays through the centres of all pixels in row-major order, or through positions `pixel`.

        Differentiable with respect to K, pose and the tensors of the projection. `render` takes rays in float64 for a
        field in float64; `dtype` asks for them here.
        """
        if pixel is None:
            pixel = pixel_centres(self.width, self.height, self.K.device)
        pixel = rows("camera: pixel", pixel, 2).to(self.K.device)
        view = torch.zeros(len(pixel), dtype=torch.int32, device=pixel.device)
        return self.projection.rays(self.K[None], self.pose[None], view, pixel, dtype=dtype)


def _intrinsics(focal: float, width: int, height: int) -> Float[Tensor, "3 3"]:
    return torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)


def _facing(eye: Vector, at: Vector, up: Vector) -> Float[Tensor, "4 4"]:
    """Return the pose of a camera at `eye` that looks at `at`, on the device of `eye`."""
    centre = _vector("eye", eye)
    target, upward = (_vector(name, a).to(centre.device) for name, a in (("at", at), ("up", up)))
    z = target - centre
    x = torch.linalg.cross(z, upward)
    if x.norm() < 1e-9 * max(float(z.norm() * upward.norm()), 1e-30):
        raise ValueError("look_at: eye and at must differ, and up must not point along the view")
    z, x = z / z.norm(), x / x.norm()
    pose = torch.eye(4, dtype=torch.float64, device=centre.device)
    pose[:3] = torch.stack([x, torch.linalg.cross(z, x), z, centre], 1)
    return pose


def _vector(name: str, a: Vector) -> Float[Tensor, "3"]:
    return floating(f"camera: {name}", a, ((3,), (3, 1))).double().reshape(3)


def _side(name: str, pixels: object) -> int:
    """Return the width or height of an image."""
    return whole(f"camera: {name} [pixel]", pixels, least=None)


def mixed_rays(
    projections: Sequence[Projection],
    K: Float[Tensor, "v 3 3"],
    pose: Float[Tensor, "v 4 4"],
    view: Int[Tensor, " n"],
    pixel: Float[Tensor, "n 2"],
    *,
    dtype: torch.dtype = torch.float32,
) -> Rays:
    """Return the rays of `Projection.rays` for cameras of several models, with one projection for each camera."""
    distinct = {id(projection): projection for projection in projections}
    if len(distinct) == 1:
        return projections[0].rays(K, pose, view, pixel, dtype=dtype)
    model = torch.tensor([list(distinct).index(id(projection)) for projection in projections]).to(view.device)[view]
    index = [torch.nonzero(model == i)[:, 0] for i in range(len(distinct))]
    parts = [p.rays(K, pose, view[i], pixel[i], dtype=dtype) for p, i in zip(distinct.values(), index, strict=True)]
    order = torch.cat(index).argsort()
    return Rays(torch.cat([part.origin for part in parts])[order], torch.cat([part.direction for part in parts])[order])
