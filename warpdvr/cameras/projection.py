"""Camera models: how pixels become rays and points become pixels, and the derivatives of both.

A `Projection` is the one place where a camera model is written out. Lengths and points are in camera axes (OpenCV: x
right, y down, z forward) unless said otherwise; the centre of the top-left pixel is at (0.5, 0.5).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from warpdvr.cameras.rays import Rays
from warpdvr.kernels import rays as _rays
from warpdvr.runtime.launch import launch

Window = tuple[float, float, float, float]
"""Left, right, top and bottom of what an image shows, on the plane z = 1."""


class Projection(ABC):
    """A camera model: `local_rays` and `local_project` in Torch are all of it; the rest follows from them.

    A subclass is a frozen dataclass, written `@dataclass(frozen=True, eq=False)`. Its fields are the parameters beyond
    K, if any: numbers, tuples of numbers, or tensors, which are differentiable. All that it sees has z > 0.
    """

    name: ClassVar[str]
    """By this name files know it, see `register_projection`."""
    kernel: ClassVar[Any] = None
    """The kernel that makes the rays, such as `kernels.rays.perspective`; it takes K, pose, view and pixel, then the
    tensors among the fields. None: the rays come from `local_rays`."""
    frustum: ClassVar[Literal["perspective", "orthographic"] | None] = None
    """What USD and OpenGL call it; None if they have no such camera."""

    @abstractmethod
    def local_rays(self, K: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
        """Return origins and directions of any length, each (n, 3), in camera axes; differentiable.

        The kernel's gradient is the derivative of this, so that both must agree.

        Args:
            K: intrinsic matrix of each ray, shape (n, 3, 3) [pixel].
            pixel: position of each ray in its image, shape (n, 2) [pixel].
        """

    @abstractmethod
    def local_project(self, K: Tensor, x: Tensor) -> Tensor:
        """Return the pixels (n, 2) of points (n, 3) in camera axes, with intrinsics K (3, 3); differentiable.

        Points with z <= 0 are not seen; their pixels mean nothing.
        """

    def pixel_size(self, K: Tensor, z: Tensor | float) -> Tensor:
        """Return width and height of a pixel in the middle of the image at depths `z` (...), (..., 2) [scene unit]."""
        size: Tensor = torch.as_tensor(z).to(K)[..., None] / K.detach().diagonal()[:2].abs()
        return size

    def image_radius(self, K: Tensor, x: Tensor, radius: float) -> Tensor:
        """Return how far balls around `x` (n, 3) with z > radius reach from its pixel in the image, (n,) [pixel].

        By default sqrt(3) times as far as the farthest of six points of the ball, which bounds the linear part.
        """
        offset = radius * torch.cat([torch.eye(3), -torch.eye(3)]).to(x)
        around = self.local_project(K, (x[:, None] + offset).reshape(-1, 3)).view(-1, 6, 2)
        farthest: Tensor = (around - self.local_project(K, x)[:, None]).norm(dim=-1).amax(1)
        return 3**0.5 * farthest

    def rescaled(self, K: Tensor, factor: float) -> Tensor:
        """Return the intrinsics (3, 3) of the same picture after all lengths of the scene have grown by `factor`."""
        return K

    def rays(self, K: Tensor, pose: Tensor, view: Tensor, pixel: Tensor) -> Rays:
        """Return rays through any pixels of many cameras, float32; once differentiable in K, pose and own tensors.

        Args:
            K, pose: one matrix per camera, shapes (v, 3, 3) and (v, 4, 4).
            view: camera of each ray, shape (n,), integer.
            pixel: position of each ray in its image, shape (n, 2) [pixel].
        """
        if self.kernel is None:
            origin, direction = self.world_rays(K, pose.to(K), view, pixel)
            return Rays(origin.float(), direction.float())
        return Rays(*_ByKernel.apply(self, K, pose, view, pixel, *self.tensors().values()))  # type: ignore[no-untyped-call]

    def world_rays(self, K: Tensor, pose: Tensor, view: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
        """Return origins and unit directions of `rays`, each (n, 3), from `local_rays`; in K's precision."""
        origin, direction = self.local_rays(K[view], pixel.to(K))
        R, centre = pose[view][:, :3, :3], pose[view][:, :3, 3]
        direction = torch.nn.functional.normalize((R @ direction[..., None])[..., 0], dim=-1)
        return (R @ origin[..., None])[..., 0] + centre, direction

    def project(self, K: Tensor, pose: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return pixels (n, 2) and z-depths (n,) of points of the world (n, 3); differentiable in all and own tensors.

        Args:
            K, pose: of one camera, shapes (3, 3) and (4, 4).
            x: the points [scene unit].
        """
        inverse = torch.linalg.inv(pose)
        local = x.to(pose) @ inverse[:3, :3].T + inverse[:3, 3]
        return self.local_project(K, local), local[:, 2]

    def window(self, K: Tensor, width: int, height: int) -> Window:
        """Return what an image of a camera without skew shows on the plane z = 1."""
        corner = torch.tensor([[0, 0], [width, height]]).to(K)
        origin, direction = self.local_rays(K.detach().expand(2, 3, 3), corner)
        (left, top), (right, bottom) = (origin + (1 - origin[:, 2:]) * direction / direction[:, 2:])[:, :2].tolist()
        return left, right, top, bottom

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors among the parameters, by name."""
        return {name: value for name, value in self.parameters().items() if isinstance(value, Tensor)}

    def parameters(self) -> dict[str, Any]:
        """Return the parameters beyond K, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def with_parameters(self, **changes: Tensor | float | tuple[float, ...]) -> "Projection":
        """Return the projection with other parameters."""
        return replace(self, **changes) if changes else self  # type: ignore[type-var]

    def to(self, device: torch.device | str) -> "Projection":
        """Return the projection with its tensors on `device`."""
        return self.with_parameters(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def describe(self) -> dict[str, Any]:
        """Return the name and the parameters as plain values, for files; `projection_of` reads them."""
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

    def local_rays(self, K: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
        direction = torch.cat([to_plane(K, pixel), torch.ones_like(pixel[:, :1])], 1)
        return torch.zeros_like(direction), direction

    def local_project(self, K: Tensor, x: Tensor) -> Tensor:
        return to_pixel(K, x[:, :2] / x[:, 2:])

    def image_radius(self, K: Tensor, x: Tensor, radius: float) -> Tensor:
        # |d(u, v) / dx| <= f |x / z| / z; z - radius for the near side of the ball
        z = x[:, 2]
        slope: Tensor = (x / z[:, None]).norm(dim=1)
        return K.diagonal()[:2].max() * radius * slope / (z - radius).clamp_min(1e-12)


@dataclass(frozen=True, eq=False)
class Orthographic(Projection):
    """Parallel rays, along the camera's forward axis: (u, v, 1) = K (x, y, 1), K in pixels per scene unit.

    Rays start on the plane through the camera centre; what lies behind it is not seen. Ray length is z-depth.
    """

    name = "orthographic"
    kernel = _rays.orthographic
    frustum = "orthographic"

    def local_rays(self, K: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
        origin = torch.cat([to_plane(K, pixel), torch.zeros_like(pixel[:, :1])], 1)
        return origin, torch.tensor([0.0, 0.0, 1.0]).to(origin).expand_as(origin)

    def local_project(self, K: Tensor, x: Tensor) -> Tensor:
        return to_pixel(K, x[:, :2])

    def pixel_size(self, K: Tensor, z: Tensor | float) -> Tensor:
        return super().pixel_size(K, torch.ones_like(torch.as_tensor(z)))

    def rescaled(self, K: Tensor, factor: float) -> Tensor:
        return torch.cat([K[:, :2] / torch.tensor([factor, factor, 1.0]).to(K)[:, None], K[:, 2:]], 1)

    def image_radius(self, K: Tensor, x: Tensor, radius: float) -> Tensor:
        return torch.full_like(x[:, 2], radius * float(torch.linalg.matrix_norm(K[:2, :2].detach(), 2)))


def to_plane(K: Tensor, pixel: Tensor) -> Tensor:
    """Return (x, y) with (u, v, 1) = K (x, y, 1) for pixels (n, 2) and their intrinsics (n, 3, 3); differentiable."""
    u, v = pixel.unbind(1)
    y = (v - K[:, 1, 2]) / K[:, 1, 1]
    return torch.stack([(u - K[:, 0, 2] - K[:, 0, 1] * y) / K[:, 0, 0], y], 1)


def to_pixel(K: Tensor, plane: Tensor) -> Tensor:
    """Return (u, v) with (u, v, 1) = K (x, y, 1) for (x, y) (n, 2) and one matrix (3, 3); differentiable."""
    return (torch.cat([plane, torch.ones_like(plane[:, :1])], 1) @ K.T)[:, :2]


PINHOLE = Pinhole()
"""The projection of a camera that is given none."""

ORTHOGRAPHIC = Orthographic()

_REGISTRY: dict[str, type[Projection]] = {cls.name: cls for cls in (Pinhole, Orthographic)}


def register_projection(cls: type[Projection]) -> type[Projection]:
    """Make a projection known to files by its name; a class decorator.

    Raises:
        ValueError: if another one has that name.
    """
    if _REGISTRY.setdefault(cls.name, cls) is not cls:
        raise ValueError(f"register_projection: there is another projection named {cls.name!r}; choose another name")
    return cls


def projection_of(description: dict[str, Any]) -> Projection:
    """Return the projection that `Projection.describe` described; lists become float64 tensors.

    Raises:
        ValueError: if no projection of that name is registered.
    """
    options = dict(description)
    name = options.pop("name")
    if name not in _REGISTRY:
        known = ", ".join(_REGISTRY)
        raise ValueError(
            f"camera: unknown projection {name!r}; known are {known}; one of your own needs register_projection first"
        )
    tensors = {k: torch.tensor(v, dtype=torch.float64) if isinstance(v, list) else v for k, v in options.items()}
    return _REGISTRY[name](**tensors)


def mixed_rays(projections: Sequence[Projection], K: Tensor, pose: Tensor, view: Tensor, pixel: Tensor) -> Rays:
    """Return the rays of `Projection.rays` for cameras of several models, one projection for each camera."""
    distinct = {id(projection): projection for projection in projections}
    if len(distinct) == 1:
        return projections[0].rays(K, pose, view, pixel)
    model = torch.tensor([list(distinct).index(id(projection)) for projection in projections]).to(view.device)[view]
    index = [torch.nonzero(model == i)[:, 0] for i in range(len(distinct))]
    parts = [p.rays(K, pose, view[i], pixel[i]) for p, i in zip(distinct.values(), index, strict=True)]
    back = torch.cat(index).argsort()
    return Rays(torch.cat([part.origin for part in parts])[back], torch.cat([part.direction for part in parts])[back])


class _ByKernel(torch.autograd.Function):
    """Forward by the projection's kernel; backward by the derivative of its `local_rays`."""

    @staticmethod
    def forward(
        ctx: Any, projection: Projection, K: Tensor, pose: Tensor, view: Tensor, pixel: Tensor, *own: Tensor
    ) -> tuple[Tensor, Tensor]:
        view, pixel = view.int().contiguous(), pixel.detach().float().contiguous()
        origin, direction = pixel.new_empty(2, len(view), 3)
        inputs = [a.detach().float().contiguous() for a in (K, pose)], [a.detach().float().contiguous() for a in own]
        launch(
            projection.kernel,
            len(view),
            [*inputs[0], view, pixel, *inputs[1]],
            [origin, direction],
            per_row=[view, pixel],
        )
        ctx.projection = projection
        ctx.save_for_backward(K, pose, view, pixel, *own)
        return origin, direction

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        K, pose, view, pixel, *own = ctx.saved_tensors
        with torch.enable_grad():
            leaves = [a.detach().requires_grad_() for a in (K, pose, *own)]
            names = ctx.projection.tensors()
            projection = ctx.projection.with_parameters(**dict(zip(names, leaves[2:], strict=True)))
            rays = projection.world_rays(leaves[0], leaves[1], view, pixel)
            by = torch.autograd.grad(
                rays, leaves, [g.to(a) for g, a in zip(grads, rays, strict=True)], allow_unused=True
            )
        return None, by[0], by[1], None, None, *by[2:]
