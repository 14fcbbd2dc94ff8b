"""Pictures of shapes that nobody photographed: those that were learnt, seen from other places, and mixtures of them."""

from typing import Any

import torch
from torch import Tensor

from warpdvr.bridge import triangle_mesh
from warpdvr.camera import pixel_centres, rays_of
from warpdvr.category.known import CELLS, Known
from warpdvr.category.look import SIZE
from warpdvr.fields.conditional import Shapes
from warpdvr.isosurface import extract
from warpdvr.views.mesh import first_hit

MIXTURES = 300
"""Shapes between two that are alike."""

VIEWS = 32
"""Pictures of each shape."""

ALIKE = 15
"""So many other codes are near enough to a code to be mixed with it."""


class Imagination:
    """What a decoder can show beyond the pictures that it learnt from, one shape after the other.

    First the known shapes, then mixtures of the codes of two that are alike; each from cameras that pictures of other
    objects were taken with. An encoder that learns from them, too, has seen more shapes, and each from more sides.
    """

    def __init__(self, decoder: Any, known: Known, generator: torch.Generator):
        """Begin with nothing.

        Args:
            decoder: makes shapes of codes, see `warpdvr.fields.conditional.Shapes`; it must stay as it is.
            known: the codes of its shapes, and the cameras.
            generator: of all that is left to chance.
        """
        self.decoder, self.known, self.generator = decoder, known, generator
        order = torch.randperm(len(known.codes), generator=generator)
        self.waiting = list(torch.cat([known.codes[order], self._mixed()]))
        self.codes: list[Tensor] = []
        self.pictures: list[Tensor] = []

    @torch.no_grad()
    def more(self) -> None:
        """Imagine one more shape, if there are any left; one that the decoder sees nothing of has no pictures."""
        if not self.waiting:
            return
        code = self.waiting.pop(0)
        field = Shapes(self.decoder, code[None])
        try:
            mesh = extract(field, resolution=CELLS, cavities=False)
        except ValueError:
            return
        vertices = mesh.vertices.float()
        color = self.decoder.color(field.geometry(vertices)[1])
        chosen = torch.randperm(len(self.known.pose), generator=self.generator)[:VIEWS]
        n, side = len(chosen), 2 * SIZE
        K = torch.tensor([[side], [side], [1.0]]) * self.known.K[chosen]
        view = torch.arange(n).repeat_interleave(side**2)
        rays = rays_of(K, self.known.pose[chosen], view, pixel_centres(side, side).repeat(n, 1))
        face, _, weight = first_hit(triangle_mesh(vertices, mesh.faces), rays.origin, rays.direction)
        on = face >= 0
        image = torch.ones(len(face), 3)
        image[on] = (weight[on][..., None] * color[mesh.faces[face[on].long()]]).sum(1)
        small = torch.nn.functional.avg_pool2d(image.view(n, side, side, 3).permute(0, 3, 1, 2), 2)
        self.codes.append(code)
        self.pictures.append((255 * small).round().to(torch.uint8))

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Return n random pictures (n, 3, SIZE, SIZE), uint8, over white, and the codes of their shapes (n, code)."""
        shape = torch.randint(len(self.codes), (n,), generator=self.generator).tolist()
        view = [int(torch.randint(len(self.pictures[k]), (1,), generator=self.generator)) for k in shape]
        pictures = torch.stack([self.pictures[k][i] for k, i in zip(shape, view, strict=True)])
        return pictures, torch.stack([self.codes[k] for k in shape])

    def _mixed(self) -> Tensor:
        """Return codes between a known one and one of those `ALIKE` it, nearer to the first, (MIXTURES, code)."""
        codes, near = self.known.codes, min(ALIKE, len(self.known.codes) - 1)
        if near < 1:
            return codes[:0]
        alike = torch.cdist(codes, codes).argsort(1)[:, 1 : near + 1]
        first = torch.randint(len(codes), (MIXTURES,), generator=self.generator)
        second = alike[first, torch.randint(near, (MIXTURES,), generator=self.generator)]
        part = 0.5 * torch.rand(MIXTURES, 1, generator=self.generator)
        return torch.lerp(codes[first], codes[second], part)
