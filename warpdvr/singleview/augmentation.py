"""Pictures of shapes that nobody photographed: learnt shapes from other viewpoints, and mixtures of them."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from warpdvr.cameras.projection import PINHOLE
from warpdvr.cameras.rays import pixel_centres
from warpdvr.fields.base import Decoder
from warpdvr.fields.conditional import Shapes
from warpdvr.geometry.isosurface import extract
from warpdvr.geometry.search import first_hit, triangle_mesh
from warpdvr.singleview.preprocess import SIZE
from warpdvr.singleview.shape_bank import SIDE, ShapeBank

CELLS = 64
"""Cells along the bounds, of the meshes that are rendered."""

VIEWS = 32
"""Pictures of each shape."""

OUTLINES = 200
"""Outlines of each known shape."""

MIXTURES = 300
"""Shapes between two similar ones."""

MOST = 1000
"""Shapes at most; one takes 400 kB, or 600 with its outlines."""

NEIGHBOURS = 15
"""How many other codes are near enough to a code to be mixed with it."""


class Augmentation:
    """What a decoder can show beyond the pictures that it learnt from, one shape after the other.

    First the known shapes, then mixtures of two similar codes; each from cameras that pictures of other objects were
    taken with. An encoder that learns from them as well sees more shapes, and each from more sides; and of a known
    shape there is then an outline from nearly everywhere.
    """

    def __init__(
        self, decoder: Decoder, shape_bank: ShapeBank, generator: torch.Generator, outlined: Collection[int] = ()
    ):
        """Begin with nothing.

        Args:
            decoder: makes shapes of codes, see `warpdvr.fields.conditional.Shapes`; it must stay as it is.
            shape_bank: the codes of its shapes, and the cameras.
            generator: of all that is left to chance.
            outlined: known shapes that need no more outlines.
        """
        self.decoder, self.generator, self.outlined = decoder, generator, outlined
        self.pose, self.K = shape_bank.pose, shape_bank.K
        order = torch.randperm(len(shape_bank.codes), generator=generator).tolist()
        mixtures = [(None, code) for code in self._mixed(shape_bank.codes)]
        self.waiting: list[tuple[int | None, Tensor]] = [*((k, shape_bank.codes[k]) for k in order), *mixtures][:MOST]
        self.codes: list[Tensor] = []
        self.pictures: list[Tensor] = []
        self.outlines: list[tuple[Tensor, ...]] = []

    @torch.no_grad()
    def render_next(self) -> None:
        """Render one more shape, if there are any left; one that the decoder leaves empty has no pictures."""
        if not self.waiting:
            return
        shape_index, code = self.waiting.pop(0)
        field = Shapes(self.decoder, code[None])
        try:
            mesh = extract(field, resolution=CELLS, project=0, colors=False, cavities=False)
        except ValueError:
            return
        vertices = mesh.vertices.float()
        tree, color = triangle_mesh(vertices, mesh.faces), self.decoder.color(field.geometry(vertices)[1])
        pose, K = self._cameras(VIEWS)
        face, weight = _first_faces(tree, pose, K, SIZE)
        hit = face >= 0
        image = torch.ones(*face.shape, 3)
        image[hit] = (weight[hit][..., None] * color[mesh.faces[face[hit].long()]]).sum(1)
        self.codes.append(code)
        self.pictures.append((255 * _halved(image.permute(0, 3, 1, 2))).round().to(torch.uint8))
        if shape_index is not None and shape_index not in self.outlined:
            pose, K = self._cameras(OUTLINES)
            covered = (255 * _halved((_first_faces(tree, pose, K, SIDE)[0] >= 0).float())).round().to(torch.uint8)
            self.outlines.append((torch.full((len(pose),), shape_index), covered, pose, K))

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Return n random pictures (n, 3, SIZE, SIZE), uint8, over white, and the codes of their shapes (n, code)."""
        shape = torch.randint(len(self.codes), (n,), generator=self.generator).tolist()
        view = [int(torch.randint(len(self.pictures[k]), (1,), generator=self.generator)) for k in shape]
        pictures = torch.stack([self.pictures[k][i] for k, i in zip(shape, view, strict=True)])
        return pictures, torch.stack([self.codes[k] for k in shape])

    def _cameras(self, n: int) -> tuple[Tensor, Tensor]:
        """Return poses and intrinsics of n of the known cameras, or of all."""
        chosen = torch.randperm(len(self.pose), generator=self.generator)[:n]
        return self.pose[chosen], self.K[chosen]

    def _mixed(self, codes: Tensor) -> Tensor:
        """Return codes between one of `codes` and one of its `NEIGHBOURS`, nearer to the first, (MIXTURES, code)."""
        near = min(NEIGHBOURS, len(codes) - 1)
        if near < 1:
            return codes[:0]
        neighbours = torch.cdist(codes, codes).argsort(1)[:, 1 : near + 1]
        first = torch.randint(len(codes), (MIXTURES,), generator=self.generator)
        second = neighbours[first, torch.randint(near, (MIXTURES,), generator=self.generator)]
        part = 0.5 * torch.rand(MIXTURES, 1, generator=self.generator)
        return torch.lerp(codes[first], codes[second], part)


def _first_faces(tree: Any, pose: Tensor, K: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return the triangle that is seen, (m, 2 side, 2 side), -1 for none, from m cameras, and where in it (..., 3)."""
    m, n = len(pose), 2 * side
    view = torch.arange(m).repeat_interleave(n**2)
    rays = PINHOLE.rays(torch.tensor([[n], [n], [1.0]]) * K, pose, view, pixel_centres(n, n).repeat(m, 1))
    face, _, weight = first_hit(tree, rays.origin, rays.direction)
    return face.view(m, n, n), weight.view(m, n, n, 3)


def _halved(pictures: Tensor) -> Tensor:
    """Return the means of 2 x 2 pixels."""
    return torch.nn.functional.avg_pool2d(pictures, 2)
