"""Camera models: how pixels become rays and points become pixels, and the derivatives of both.

A `Projection` is the one place where a camera model is written out. Lengths and points are in camera axes (OpenCV: x
right, y down, z forward) unless said otherwise; the centre of the top-left pixel is at (0.5, 0.5).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib import import_module
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.cameras.kernel_rays import KernelRays
from warpdvr.cameras.rays import Rays
from warpdvr.kernels import rays as _rays

Window = tuple[float, float, float, float]
"""Left, right, top and bottom of what an image shows, on the plane z = 1."""


class Projection(ABC):
    """A camera model, defined by `local_rays` and `local_project` in Torch; the rest follows from them.

    A subclass is a frozen dataclass, written `@dataclass(frozen=True, eq=False)`. Its fields are the parameters beyond
    K, if any: numbers, tuples of numbers, or tensors, which are differentiable. Visible points have z > 0.
    """

    name: ClassVar[str]
    """Its name in files, see `register_projection`."""
    kernel: ClassVar[Any] = None
    """The Warp kernel that makes the rays, such as `kernels.rays.perspective`; it takes K, pose, view, pixel, then the
    tensors among the fields. None: the rays come from `local_rays`."""
    frustum: ClassVar[Literal["perspective", "orthographic"] | None] = None
    """Its name in USD and OpenGL; None if they have no such camera."""

    @abstractmethod
    def local_rays(
        self, K: Float[Tensor, "n 3 3"], pixel: Float[Tensor, "n 2"]
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """Return origins and directions of any length in camera axes; differentiable.

        The gradient of the kernel is the derivative of this function, so both must agree.

        Args:
            K: intrinsic matrix of each ray [pixel].
            pixel: position of each ray in its image [pixel].
        """

    @abstractmethod
    def local_project(self, K: Float[Tensor, "3 3"], x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 2"]:
        """Return the pixels of points in camera axes; differentiable.

        Points with z <= 0 are not visible; their pixels are meaningless.
        """

    def pixel_size(self, K: Float[Tensor, "3 3"], z: Float[Tensor, "..."] | float) -> Float[Tensor, "... 2"]:
        """Return width and height of a pixel in the middle of the image at depths `z` [scene unit]."""
        size: Tensor = torch.as_tensor(z).to(K)[..., None] / K.detach().diagonal()[:2].abs()
        return size

    def image_radius(self, K: Float[Tensor, "3 3"], x: Float[Tensor, "n 3"], radius: float) -> Float[Tensor, " n"]:
        """Return the radius in the image of balls around points `x` with z > radius [pixel].

        By default sqrt(3) times the distance of the farthest of six points of the ball, which bounds the linear part.
        """
        offset = radius * torch.cat([torch.eye(3), -torch.eye(3)]).to(x)
        corners = self.local_project(K, (x[:, None] + offset).reshape(-1, 3)).view(-1, 6, 2)
        farthest: Tensor = (corners - self.local_project(K, x)[:, None]).norm(dim=-1).amax(1)
        return 3**0.5 * farthest

    def rescaled(self, K: Float[Tensor, "3 3"], factor: float) -> Float[Tensor, "3 3"]:
        """Return the intrinsics of the same picture after all lengths of the scene have grown by `factor`."""
        return K

    def rays(
        self,
        K: Float[Tensor, "v 3 3"],
        pose: Float[Tensor, "v 4 4"],
        view: Int[Tensor, " n"],
        pixel: Float[Tensor, "n 2"],
        *,
        dtype: torch.dtype = torch.float32,
    ) -> Rays:
        """Return rays through any pixels of many cameras.

        Differentiable with respect to K, pose and the tensors of the projection, any number of times.

        Args:
            K, pose: one matrix per camera.
            view: camera of each ray.
            pixel: position of each ray in its image [pixel].
            dtype: of the rays, float32 or float64. Those in float64 come from `local_rays`, without a kernel.
        """
        if self.kernel is None or dtype == torch.float64:
            origin, direction = self.world_rays(K.to(torch.promote_types(K.dtype, dtype)), pose, view, pixel)
            return Rays(origin.to(dtype), direction.to(dtype))
        return Rays(*KernelRays.apply(self, K, pose, view, pixel, *self.tensors().values()))  # type: ignore[no-untyped-call]

    def world_rays(
        self,
        K: Float[Tensor, "v 3 3"],
        pose: Float[Tensor, "v 4 4"],
        view: Int[Tensor, " n"],
        pixel: Float[Tensor, "n 2"],
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """Return origins and unit directions of `rays` from `local_rays`, in the precision of K; differentiable."""
        origin, direction = self.local_rays(K[view], pixel.to(K))
        R, centre = pose[view][:, :3, :3].to(origin), pose[view][:, :3, 3].to(origin)
        direction = torch.nn.functional.normalize((R @ direction[..., None])[..., 0], dim=-1)
        return (R @ origin[..., None])[..., 0] + centre, direction

    def project(
        self, K: Float[Tensor, "3 3"], pose: Float[Tensor, "4 4"], x: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
        """Return pixels and z-depths [scene unit] of points in the world.

        Differentiable with respect to K, pose, x and the tensors of the projection.

        Args:
            K, pose: the matrices of one camera.
            x: the points [scene unit].
        """
        inverse = torch.linalg.inv(pose)
        local = x.to(pose) @ inverse[:3, :3].T + inverse[:3, 3]
        return self.local_project(K, local), local[:, 2]

    def window(self, K: Float[Tensor, "3 3"], width: int, height: int) -> Window:
        """Return the part of the plane z = 1 that the image of a camera without skew shows."""
        corner = torch.tensor([[0, 0], [width, height]]).to(K)
        origin, direction = self.local_rays(K.detach().expand(2, 3, 3), corner)
        (left, top), (right, bottom) = (origin + (1 - origin[:, 2:]) * direction / direction[:, 2:])[:, :2].tolist()
        return left, right, top, bottom

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors among the parameters, by name."""
        return {name: value for name, value in self.parameters().items() if isinstance(value, Tensor)}

    def parameters(self) -> dict[str, object]:
        """Return the parameters beyond K, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def with_parameters(self, **changes: Tensor | float | tuple[float, ...]) -> "Projection":
        """Return the projection with other parameters."""
        return replace(self, **changes) if changes else self  # type: ignore[type-var]

    def to(self, device: torch.device | str) -> "Projection":
        """Return the projection with its tensors on `device`."""
        return self.with_parameters(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def describe(self) -> dict[str, object]:
        """Return the name and the parameters as plain values for files, which `projection_of` reads."""
        plain = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in self.parameters().items()}
        return {"name": self.name, **plain}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Projection) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True, eq=False)
class Pinhole(Projection):
    """The pinhole camera: all rays start at the camera centre, and (u, v, 1) = K (x, y, z) / z."""

    name = "perspective"
    kernel = _rays.perspective
    frustum = "perspective"

    def local_rays(
        self, K: Float[Tensor, "n 3 3"], pixel: Float[Tensor, "n 2"]
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        direction = torch.cat([to_plane(K, pixel), torch.ones_like(pixel[:, :1])], 1)
        return torch.zeros_like(direction), direction

    def local_project(self, K: Float[Tensor, "3 3"], x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 2"]:
        return to_pixel(K, x[:, :2] / x[:, 2:])

    def image_radius(self, K: Float[Tensor, "3 3"], x: Float[Tensor, "n 3"], radius: float) -> Float[Tensor, " n"]:
        # |d(u, v) / dx| <= f |x / z| / z; z - radius for the near side of the ball
        z = x[:, 2]
        slope: Tensor = (x / z[:, None]).norm(dim=1)
        return K.diagonal()[:2].max() * radius * slope / (z - radius).clamp_min(1e-12)


@dataclass(frozen=True, eq=False)
class Orthographic(Projection):
    """Parallel rays, along the camera's forward axis: (u, v, 1) = K (x, y, 1), K in pixels per scene unit.

    Rays start on the plane through the camera centre; points behind it are not visible. Ray length is z-depth.
    """

    name = "orthographic"
    kernel = _rays.orthographic
    frustum = "orthographic"

    def local_rays(
        self, K: Float[Tensor, "n 3 3"], pixel: Float[Tensor, "n 2"]
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        origin = torch.cat([to_plane(K, pixel), torch.zeros_like(pixel[:, :1])], 1)
        return origin, torch.tensor([0.0, 0.0, 1.0]).to(origin).expand_as(origin)

    def local_project(self, K: Float[Tensor, "3 3"], x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 2"]:
        return to_pixel(K, x[:, :2])

    def pixel_size(self, K: Float[Tensor, "3 3"], z: Float[Tensor, "..."] | float) -> Float[Tensor, "... 2"]:
        return super().pixel_size(K, torch.ones_like(torch.as_tensor(z)))

    def rescaled(self, K: Float[Tensor, "3 3"], factor: float) -> Float[Tensor, "3 3"]:
        return torch.cat([K[:, :2] / torch.tensor([factor, factor, 1.0]).to(K)[:, None], K[:, 2:]], 1)

    def image_radius(self, K: Float[Tensor, "3 3"], x: Float[Tensor, "n 3"], radius: float) -> Float[Tensor, " n"]:
        return torch.full_like(x[:, 2], radius * float(torch.linalg.matrix_norm(K[:2, :2].detach(), 2)))


def to_plane(K: Float[Tensor, "n 3 3"], pixel: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """Return (x, y) with (u, v, 1) = K (x, y, 1) for pixels (u, v) and the intrinsics of each; differentiable."""
    u, v = pixel.unbind(1)
    y = (v - K[:, 1, 2]) / K[:, 1, 1]
    return torch.stack([(u - K[:, 0, 2] - K[:, 0, 1] * y) / K[:, 0, 0], y], 1)


def to_pixel(K: Float[Tensor, "3 3"], plane: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """Return (u, v) with (u, v, 1) = K (x, y, 1) for points (x, y) and one matrix; differentiable."""
    return (torch.cat([plane, torch.ones_like(plane[:, :1])], 1) @ K.T)[:, :2]


PINHOLE = Pinhole()
"""The default projection of a camera."""

ORTHOGRAPHIC = Orthographic()

_LENSES = "warpdvr.cameras.lenses", "warpdvr.cameras.closed_form_lenses"
"""Modules that register more projections; they import this one."""

_REGISTRY: dict[str, type[Projection]] = {cls.name: cls for cls in (Pinhole, Orthographic)}


def register_projection(cls: type[Projection]) -> type[Projection]:
    """Register a projection class by its name, so that files can refer to it; a class decorator.

    Raises:
        ValueError: if it has no name, or another one has that name.
    """
    if not isinstance(getattr(cls, "name", None), str):
        raise ValueError(f"register_projection: {cls.__name__} has no name; give it one, such as name = 'fisheye'")
    if _REGISTRY.setdefault(cls.name, cls) is not cls:
        raise ValueError(f"register_projection: there is another projection named {cls.name!r}; choose another name")
    return cls


def projection_of(description: Mapping[str, object]) -> Projection:
    """Return the projection of a description by `Projection.describe`; lists become float64 tensors.

    Raises:
        ValueError: if no projection of that name is registered.
    """
    options = dict(description)
    name = str(options.pop("name"))
    for module in _LENSES:
        import_module(module)
    if name not in _REGISTRY:
        names = ", ".join(_REGISTRY)
        raise ValueError(
            f"camera: unknown projection {name!r}; known are {names}; register a new one with register_projection first"
        )
    tensors = {k: torch.tensor(v, dtype=torch.float64) if isinstance(v, list) else v for k, v in options.items()}
    return _REGISTRY[name](**tensors)
