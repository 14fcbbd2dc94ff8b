"""Keep the digits of vertices far from the origin, such as map coordinates, where float32 has none to spare."""

import torch
from jaxtyping import Float
from torch import Tensor

FAR = 8.0
"""Distance from the origin, in sides of the mesh's box, from which on float32 is not enough. Up to there rounding moves
a coordinate by less than half a millionth of that side: by 2**-24 of itself (IEEE 754)."""


def as_precise_as_needed(vertices: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Return float64 vertices in float32, or unchanged if they lie so far from the origin that digits would be lost."""
    return vertices if is_far(vertices) else vertices.float()


def local_origin(vertices: Float[Tensor, "n 3"]) -> Float[Tensor, "3"]:
    """Return the point to subtract before vertices become float32: their centre, 0 if they are near; float64."""
    x = vertices.detach().double()
    return (x.amin(0) + x.amax(0)) / 2 if is_far(x) else x.new_zeros(3)


def is_far(vertices: Float[Tensor, "n 3"]) -> bool:
    """Return whether vertices lie more than `FAR` sides of their box from the origin; True if one is not finite."""
    if not len(vertices):
        return False
    low, high = vertices.detach().amin(0), vertices.detach().amax(0)
    return not float(torch.maximum(-low, high).max()) <= FAR * float((high - low).max())
