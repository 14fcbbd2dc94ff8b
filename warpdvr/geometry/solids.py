"""Solids with deep concavities, built here, for scenes whose true surface is known: y points upwards."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.fields.analytic import Box, Rotate, Sphere, Translate, Union
from warpdvr.fields.base import Field
from warpdvr.geometry.isosurface import extract
from warpdvr.geometry.mesh import Mesh

YARD_X = (-1.0, -0.7, -0.2, 0.2, 0.6, 0.7, 1.0)
YARD_Y = (0.0, 0.12, 0.3, 0.64, 0.9)
YARD_Z = (-0.8, -0.5, 0.0, 0.5, 0.65, 0.8)
"""The planes between the cells of the courtyard: its block spans all of them."""

BOWL_RESOLUTION = 160
"""Cells along the longest side of the bounds in which the bowl is triangulated."""


def courtyard() -> Mesh:
    """Return a block of 2 x 0.9 x 1.6 with an L-shaped yard and a recessed door.

    The yard is open at the top, 0.6 deep, and its arms are 0.5 wide: from (-0.7, -0.5) to (-0.2, 0.5) and from there to
    (0.7, 0.5) in (x, z), 0 < z. The door is a niche in the wall z = 0.8, 0.15 deep, from (0.2, 0.12) to (0.6, 0.64) in
    (x, y). Lines of sight that pass the block touch neither, so no silhouette shows them.
    """
    x, y, z = (torch.tensor(planes, dtype=torch.float64) for planes in (YARD_X, YARD_Y, YARD_Z))
    solid = torch.ones(len(x) - 1, len(y) - 1, len(z) - 1, dtype=torch.bool)
    solid[1, 2:, 1:3] = False
    solid[1:5, 2:, 2] = False
    solid[3, 1:3, 4] = False
    return from_cells(solid, x, y, z)


def bowl() -> Mesh:
    """Return a bowl of radius 1 with two balls and a tilted box in it, as one closed surface.

    The bowl is 0.12 thick and 0.6 deep; what lies in it is sunk 0.01 into it, so that nothing is hidden at a contact.
    """
    parts: list[Field] = [_Shell()]
    for radius, (x, z) in ((0.24, (0.3, 0.12)), (0.16, (-0.05, -0.38))):
        reach = _INNER - radius + 0.01
        parts.append(Sphere(radius, (x, -((reach**2 - x**2 - z**2) ** 0.5), z)))
    box = Translate(Box((0.28, 0.28, 0.28)), (0.0, 0.13 - _INNER, 0.0))
    parts.append(Rotate(box, (0.1, 0.6, -0.45)))
    mesh = extract(Union(parts, bounds=1.1), resolution=BOWL_RESOLUTION, colors=False, cavities=False, largest=True)
    return Mesh(mesh.vertices, mesh.faces, mesh.normals)


SOLIDS: dict[str, Callable[[], Mesh]] = {"courtyard": courtyard, "bowl": bowl}
"""The solids by name."""

_INNER, _RIM, _BASE = 0.88, -0.2, -0.95


class _Shell(Field):
    """A part of a hollow ball of radius 1, cut level at the rim and at the base."""

    lipschitz = 1.0

    def __init__(self) -> None:
        super().__init__(1.1)

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        r, y = x.norm(dim=-1), x[:, 1]
        return torch.stack([r - 1, _INNER - r, y - _RIM, _BASE - y]).amax(0)


def from_cells(
    solid: Bool[Tensor, "nx ny nz"], x: Float[Tensor, " a"], y: Float[Tensor, " b"], z: Float[Tensor, " c"]
) -> Mesh:
    """Return the surface of cells between planes, wound counter-clockwise as seen from outside.

    Every side between a solid and an empty cell is two triangles. The surface is closed, with two faces at each edge
    unless two solid cells touch along an edge only.

    Args:
        solid: which cells are solid; everything around them is empty.
        x, y, z: positions of the planes, one more than there are cells along an axis.
    """
    padded = torch.nn.functional.pad(solid, (1, 1, 1, 1, 1, 1))
    quads, unit = [], torch.eye(3, dtype=torch.int64)
    for axis in range(3):
        moved = padded.movedim(axis, 0)
        u, v = unit[(axis + 1) % 3], unit[(axis + 2) % 3]  # u x v points along the axis
        for side, outwards in ((moved[:-1] & ~moved[1:], True), (moved[1:] & ~moved[:-1], False)):
            corner = side.movedim(0, axis).nonzero() - 1 + unit[axis]
            ring = torch.stack([corner, corner + u, corner + u + v, corner + v], 1)
            quads.append(ring if outwards else ring.flip(1))
    place, quad = torch.unique(torch.cat(quads).reshape(-1, 3), dim=0, return_inverse=True)
    quad = quad.reshape(-1, 4)
    faces = torch.cat([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])
    vertices = torch.stack([x[place[:, 0]], y[place[:, 1]], z[place[:, 2]]], 1)
    return Mesh(vertices.float(), faces)
