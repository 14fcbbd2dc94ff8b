"""Augmentation: rendered pictures of learnt shapes from other viewpoints, and of mixtures of them."""

from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
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
"""Cells along the bounds of the meshes that are rendered."""

VIEWS = 32
"""Pictures of each shape."""

OUTLINES = 200
"""Outlines of each learnt shape."""

MIXTURES = 300
"""Shapes between two similar ones."""

MAX_SHAPES = 1000
"""Largest number of shapes; each takes 400 kB, or 600 kB with its outlines."""

NEIGHBOURS = 15
"""Number of nearest codes that a code can be mixed with."""


class Augmentation:
    """Pictures that a decoder renders of learnt shapes and of mixtures of two similar codes, shape by shape.

    Each shape is rendered from the cameras of pictures of other objects. An encoder that learns from these pictures as
    well sees more shapes, each from more sides. For the learnt shapes, outlines from nearly all sides are kept.
    """

    def __init__(
        self, decoder: Decoder, shape_bank: ShapeBank, generator: torch.Generator, outlined: Collection[int] = ()
    ):
        """Queue the shapes, without rendering any.

        Args:
            decoder: turns codes into shapes, see `warpdvr.fields.conditional.Shapes`; it must not change.
            shape_bank: the codes of its shapes, and the cameras.
            generator: source of all random numbers.
            outlined: indices of learnt shapes that need no more outlines.
        """
        self.decoder, self.generator, self.outlined = decoder, generator, outlined
        self.pose, self.K = shape_bank.pose, shape_bank.K
        order = torch.randperm(len(shape_bank.codes), generator=generator).tolist()
        mixtures = [(None, code) for code in self._mixed(shape_bank.codes)]
        self.waiting: list[tuple[int | None, Tensor]] = [*((k, shape_bank.codes[k]) for k in order), *mixtures][
            :MAX_SHAPES
        ]
        self.codes: list[Tensor] = []
        self.pictures: list[Tensor] = []
        self.outlines: list[tuple[Tensor, ...]] = []

    @torch.no_grad()
    def render_next(self) -> None:
        """Render the next shape, if any are left; a shape that the decoder leaves empty has no pictures."""
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
        image = torch.ones(*face.shape, 3, device=face.device)
        image[hit] = (weight[hit][..., None] * color[mesh.faces[face[hit].long()]]).sum(1)
        self.codes.append(code)
        self.pictures.append((255 * _halved(image.permute(0, 3, 1, 2))).round().to(torch.uint8))
        if shape_index is not None and shape_index not in self.outlined:
            pose, K = self._cameras(OUTLINES)
            covered = (255 * _halved((_first_faces(tree, pose, K, SIDE)[0] >= 0).float())).round().to(torch.uint8)
            self.outlines.append((torch.full((len(pose),), shape_index, device=K.device), covered, pose, K))

    def draw(self, n: int) -> tuple[UInt8[Tensor, "n 3 size size"], Float[Tensor, "n code"]]:
        """Return n random pictures over white, of `SIZE` x `SIZE` pixels, and the codes of their shapes."""
        shape = torch.randint(len(self.codes), (n,), generator=self.generator).tolist()
        view = [int(torch.randint(len(self.pictures[k]), (1,), generator=self.generator)) for k in shape]
        pictures = torch.stack([self.pictures[k][i] for k, i in zip(shape, view, strict=True)])
        return pictures, torch.stack([self.codes[k] for k in shape])

    def _cameras(self, n: int) -> tuple[Float[Tensor, "m 4 4"], Float[Tensor, "m 3 3"]]:
        """Return poses and intrinsics of n random cameras of the shape bank, or of all if there are fewer."""
        index = torch.randperm(len(self.pose), generator=self.generator)[:n]
        return self.pose[index], self.K[index]

    def _mixed(self, codes: Float[Tensor, "s code"]) -> Float[Tensor, "m code"]:
        """Return `MIXTURES` codes between one of `codes` and one of its `NEIGHBOURS`, nearer to the first."""
        near = min(NEIGHBOURS, len(codes) - 1)
        if near < 1:
            return codes[:0]
        neighbours = torch.cdist(codes, codes).argsort(1)[:, 1 : near + 1]
        first = torch.randint(len(codes), (MIXTURES,), generator=self.generator)
        second = neighbours[first, torch.randint(near, (MIXTURES,), generator=self.generator)]
        part = 0.5 * torch.rand(MIXTURES, 1, generator=self.generator).to(codes)
        return torch.lerp(codes[first], codes[second], part)


def _first_faces(
    tree: Any, pose: Float[Tensor, "m 4 4"], K: Float[Tensor, "m 3 3"], side: int
) -> tuple[Int[Tensor, "m h w"], Float[Tensor, "m h w 3"]]:
    """Return the triangles that m cameras see and the barycentric coordinates there; -1: none.

    The images have twice `side` pixels in each direction.
    """
    m, n = len(pose), 2 * side
    view, pixel = torch.arange(m, device=K.device).repeat_interleave(n**2), pixel_centres(n, n, K.device)
    rays = PINHOLE.rays(K.new_tensor([[n], [n], [1.0]]) * K, pose, view, pixel.repeat(m, 1))
    face, _, weight = first_hit(tree, rays.origin, rays.direction)
    return face.view(m, n, n), weight.view(m, n, n, 3)


def _halved(pictures: Float[Tensor, "... h w"]) -> Float[Tensor, "... h2 w2"]:
    """Return the means of 2 x 2 pixels."""
    return torch.nn.functional.avg_pool2d(pictures, 2)
