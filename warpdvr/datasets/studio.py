"""Photograph triangle meshes by ray casting: colours and masks averaged over the samples of a pixel, and depth."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.rays import Rays
from warpdvr.geometry.search import first_hit, triangle_mesh
from warpdvr.shading.lights import AmbientLight, DirectionalLight, Light
from warpdvr.shading.srgb import encode

CPU = torch.device("cpu")

TOWARDS_LAMP = (0.35, 0.8, 0.5)
"""Direction towards the lamp as (right, up, front) of the object."""

AMBIENT = 0.3
"""Share of the light that is ambient."""


def studio_lights(frame: Float[Tensor, "3 3"] | None = None) -> tuple[Light, ...]:
    """Return soft light and a lamp in front of the object, above it and to its right.

    Args:
        frame: directions right, up and front of the object, one per row, float64; x, y and z by default.
    """
    towards = torch.tensor(TOWARDS_LAMP)
    towards = towards if frame is None else towards.double() @ frame
    return AmbientLight(AMBIENT), DirectionalLight(towards, 1 - AMBIENT)


@dataclass(frozen=True)
class MeshHits:
    """The points where k rays first hit a mesh."""

    face: Int[Tensor, " k"]
    """Index of the face, int64."""
    weight: Float[Tensor, "k 3"]
    """Barycentric weights of the corners of the face."""
    t: Float[Tensor, " k"]
    """Ray length [scene unit]."""
    rays: Rays
    """The k rays."""


class Studio:
    """A mesh in the scene, ready to be photographed."""

    def __init__(
        self,
        vertices: Float[Tensor, "n 3"],
        faces: Int[Tensor, "m 3"],
        light: Callable[[MeshHits], Tensor],
        device: torch.device = CPU,
    ):
        """Set up a mesh.

        Args:
            vertices: positions, float32 [scene unit].
            faces: indices of vertices.
            light: returns the linear light (k, 3) that points of the mesh send to the camera, on the CPU.
            device: where rays are cast at it; pictures are on the CPU.
        """
        self.tree = triangle_mesh(vertices.to(device), faces.to(device))
        self.light, self.device = light, device

    def photograph(
        self, camera: Camera, places: Float[Tensor, "s 2"]
    ) -> tuple[UInt8[Tensor, "h w 3"], Bool[Tensor, "h w"]]:
        """Return the image, straight sRGB colours, and the mask: the pixels of which more than half is covered.

        Args:
            camera: the view.
            places: sample positions within each pixel, from 0 to 1 [pixel].
        """
        v, u = torch.meshgrid(torch.arange(camera.height), torch.arange(camera.width), indexing="ij")
        corner = torch.stack([u, v], -1).reshape(-1, 1, 2)
        rays = camera.rays((corner + places).reshape(-1, 2))
        face, t, weight = self._first_hit(rays)
        hit = face >= 0
        light = torch.zeros(len(face), 3)
        light[hit] = self.light(MeshHits(face[hit].long(), weight[hit], t[hit], rays[hit]))
        covered = hit.reshape(-1, len(places)).sum(1)
        mean = light.reshape(-1, len(places), 3).sum(1) / covered.clamp_min(1)[:, None]
        image = (encode(mean) * 255).round().to(torch.uint8)
        return image.reshape(camera.height, camera.width, 3), (2 * covered > len(places)).reshape(camera.height, -1)

    def depth(self, camera: Camera) -> Float[Tensor, "h w"]:
        """Return the depth at the centres of the pixels, NaN where the mesh is not seen [scene unit]."""
        rays = camera.rays()
        face, t, _ = self._first_hit(rays)
        z = t * (rays.direction @ camera.pose[:3, 2].float())
        return torch.where(face >= 0, z, torch.nan).view(camera.height, camera.width)

    def _first_hit(self, rays: Rays) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, "n 3"]]:
        there = rays.to(self.device)
        face, t, weight = first_hit(self.tree, there.origin, there.direction)
        return face.cpu(), t.cpu(), weight.cpu()
