"""Focal lengths, principal points and coefficients of lenses that are refined together with the shape."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.projection import Projection
from warpdvr.cameras.rays import pixel_centres

SAME = 1e-4
"""Intrinsic matrices that differ by less than this are of one camera [focal length]."""

LARGEST = 1e3
"""The largest unit of a coefficient; one whose unit would be larger hardly changes the picture."""


class Intrinsics(nn.Module):
    """Intrinsics and projections of cameras, each moved by a learnable correction that is 0 at first.

    Views whose K and projection are equal were taken by one camera and share its correction: the logarithm of a factor
    of both focal lengths, a shift of the principal point [focal length], and a shift of each tensor of the projection,
    such as the coefficients of a lens. The last ones are in units in which all corrections move the picture equally
    far, since an optimiser such as Adam moves each number by the same. Coefficients that are 0 are taken for those that
    the calibration left out and stay 0, and a pinhole stays one: pictures of one object hardly tell k1 from k2.
    """

    K: Float[Tensor, "v 3 3"]
    group: Int[Tensor, " v"]
    unit: Float[Tensor, "g k"]

    def __init__(self, cameras: Sequence[Camera], *, principal_point: bool = False, device: torch.device | str = "cpu"):
        """Begin with the intrinsics of cameras as they are.

        Args:
            cameras: those of all views.
            principal_point: learn the principal points, too. They hardly differ from turns of the cameras.
            device: where the corrections are.
        """
        super().__init__()
        first, group = _distinct(cameras)
        units = [_units(cameras[i]) for i in first]
        width = max(map(len, units))
        fixed = torch.tensor([1.0, principal_point, principal_point], dtype=torch.float64)
        rows = [torch.cat([fixed, unit, unit.new_zeros(width - len(unit))]) for unit in units]
        self.register_buffer("K", torch.stack([c.K.detach().double() for c in cameras]).to(device))
        self.register_buffer("group", torch.tensor(group).to(device))
        self.register_buffer("unit", torch.stack(rows).to(device))
        self.projections = [cameras[i].projection.to(device) for i in first]
        self.correction = nn.Parameter(torch.zeros(len(first), 3 + width, device=device))

    def forward(self) -> tuple[Float[Tensor, "v 3 3"], list[Projection]]:
        """Return K, float64, and the projection of each view; differentiable. Views of one camera share the object."""
        shift = self.unit * self.correction.double()
        factor, zero = shift[:, 0].exp(), torch.zeros_like(shift[:, 0])
        plane = torch.stack([factor, zero, shift[:, 1], zero, factor, shift[:, 2], zero, zero, zero + 1], 1)
        moved = [_with_numbers(p, row[3:]) for p, row in zip(self.projections, shift, strict=True)]
        return self.K @ plane.view(-1, 3, 3)[self.group], [moved[i] for i in self.group.tolist()]

    @torch.no_grad()
    def refined(self, cameras: Sequence[Camera]) -> list[Camera]:
        """Return the cameras that it was made of, with their poses as given and their intrinsics as refined."""
        K, projections = self()
        return [
            replace(camera, K=k.to(camera.K), projection=projection.to(camera.K.device))
            for camera, k, projection in zip(cameras, K, projections, strict=True)
        ]

    @torch.no_grad()
    def resume(self, correction: Float[Tensor, "_ _"]) -> None:
        """Take the corrections of an earlier session.

        Raises:
            ValueError: if that session had other cameras.
        """
        if correction.shape != self.correction.shape:
            raise ValueError(
                f"fit: the saved state has intrinsics {tuple(correction.shape)} (cameras, numbers of each), but those "
                f"of the views are {tuple(self.correction.shape)}"
            )
        self.correction.copy_(correction)


def _distinct(cameras: Sequence[Camera]) -> tuple[list[int], list[int]]:
    """Return the first view of each distinct camera, and the number of the camera of each view."""
    first: list[int] = []
    group = []
    for i, camera in enumerate(cameras):
        found = next((g for g, j in enumerate(first) if _same(cameras[j], camera)), len(first))
        if found == len(first):
            first.append(i)
        group.append(found)
    return first, group


def _same(a: Camera, b: Camera) -> bool:
    near = float((a.K - b.K).detach().abs().max()) <= SAME * float(a.K[0, 0].abs())
    return near and (a.projection is b.projection or a.projection == b.projection)


def _units(camera: Camera) -> Float[Tensor, " k"]:
    """Return the change of each number of a projection that moves the picture as far as a factor of e would.

    Both are root mean squares over an image; the second is taken to be the distance from the principal point. A number
    that is 0 has the unit 0.
    """
    projection = camera.projection.to("cpu")
    numbers = torch.cat([torch.zeros(0), *(t.detach().reshape(-1) for t in projection.tensors().values())]).double()
    if not len(numbers):
        return numbers
    K = camera.K.detach().cpu().double()
    size = torch.tensor([camera.width, camera.height])
    pixel = pixel_centres(4, 4).double() * size / 4
    _, direction = projection.local_rays(K.expand(16, 3, 3), pixel)
    seen = direction.isfinite().all(1) & (direction != 0).any(1)

    def pixels(moved: Tensor) -> Tensor:
        return _with_numbers(projection, moved - numbers).local_project(K, direction[seen])

    slope = torch.autograd.functional.jacobian(pixels, numbers)
    radius = (pixel - K[:2, 2])[seen].square().sum(1).mean().sqrt()
    effect = slope.nan_to_num().square().sum(1).mean(0).sqrt() if len(slope) else torch.zeros_like(numbers)
    return torch.where(numbers == 0, 0.0, radius / effect.clamp_min(float(radius) / LARGEST))


def _with_numbers(projection: Projection, shift: Float[Tensor, " _"]) -> Projection:
    """Return a projection whose tensors are moved by the first of these numbers; differentiable."""
    changes: dict[str, Tensor] = {}
    for name, tensor in projection.tensors().items():
        part, shift = shift[: tensor.numel()], shift[tensor.numel() :]
        changes[name] = tensor.detach() + part.to(tensor).view(tensor.shape)
    return projection.with_parameters(**changes)
