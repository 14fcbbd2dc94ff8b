"""Check the arguments of a picture before anything is rendered: each mistake is one sentence."""

import warnings
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.fields.base import Field
from warpdvr.rendering.aggregate import Aggregation, HitPoint
from warpdvr.runtime.arguments import positive, whole
from warpdvr.runtime.validate import refuse_class
from warpdvr.shading.lights import Light
from warpdvr.shading.materials import Material
from warpdvr.shading.shade import Shader, shade

COLORS = {
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
    "gray": (0.5, 0.5, 0.5),
    "grey": (0.5, 0.5, 0.5),
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 0.5, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "yellow": (1.0, 1.0, 0.0),
}
"""What to write for the name of a colour."""

OVER = 1e-3
"""How far a colour may lie outside of [0, 1], for rounding."""


def check_camera(where: str, camera: Camera | object) -> Camera:
    """Return a camera.

    Raises:
        ValueError: if it is none.
    """
    refuse_class(f"{where}: camera", camera)
    if isinstance(camera, Camera):
        return camera
    hint = f"; {where} one after the other" if isinstance(camera, Sequence) and not isinstance(camera, str) else ""
    raise ValueError(
        f"{where}: camera must be a Camera, such as Camera.look_at((0, -2, 0)), got {type(camera).__name__}{hint}"
    )


def background_pixels(background: Sequence[float] | Tensor | object, camera: Camera) -> Float[Tensor, "n 3"]:
    """Return a background as the colour behind each of n pixels, row by row.

    Raises:
        ValueError: if it is neither one colour nor one for each pixel, or is not in [0, 1]; a background that is learnt
            may leave this range.
    """
    shapes = (3,), (camera.height, camera.width, 3)
    example, name = (1.0, 1.0, 1.0), ""
    try:
        pixels = background if isinstance(background, Tensor) else torch.as_tensor(background, dtype=torch.float64)
        found: object = tuple(pixels.shape)
    except (RuntimeError, TypeError, ValueError):  # text, or rows of different lengths
        found = repr(background)
        if isinstance(background, str) and background.lower() in COLORS:
            example, name = COLORS[background.lower()], f" for {background.lower()}"
    if found not in shapes:
        raise ValueError(
            f"render: background must be one sRGB colour, such as {example}{name}, or a tensor of shape {shapes[1]}, "
            f"one for each pixel, got {found if isinstance(found, str) else f'shape {found}'}"
        )
    low, high = (float(end) for end in pixels.detach().double().aminmax())
    if not (-OVER <= low <= high <= 1 + OVER) and not (pixels.requires_grad and low == low and high == high):
        hint = "; divide by 255" if 0 <= low and 2 < high <= 255 else ""
        raise ValueError(f"render: background must hold sRGB colours in [0, 1], got {low:g} to {high:g}{hint}")
    return (pixels if pixels.is_floating_point() else pixels.float()).expand(shapes[1]).reshape(-1, 3)


def check_silhouette(silhouette: float | object | None) -> float | None:
    """Return the sharpness of a soft mask, or None.

    Raises:
        ValueError: if it is not positive.
    """
    sharpness = "render: silhouette, the sharpness of the soft mask [1 / field value],"
    return None if silhouette is None else positive(sharpness, silhouette)


def check_memory(memory: int | object | None) -> int | None:
    """Return the memory for a chunk of rays [byte], or None.

    Raises:
        ValueError: if it is no whole number, or not positive.
    """
    return None if memory is None else whole("render: memory [byte]", memory)


def check_aggregate(aggregate: Aggregation | object | None, **of_hits: bool) -> Aggregation:
    """Return an aggregation, by default that of hits.

    Args:
        aggregate: an aggregation, or None.
        of_hits: which arguments are given that are made of hits, by their names.

    Raises:
        ValueError: if it is none, or is not of hits and such an argument is given.
    """
    refuse_class("render: aggregate", aggregate)
    if aggregate is None:
        return HitPoint()
    if not isinstance(aggregate, Aggregation):
        raise ValueError(f"render: aggregate must be an Aggregation such as Transparency(), got {aggregate!r}")
    given = [name for name, is_given in of_hits.items() if is_given]
    if given and not isinstance(aggregate, HitPoint):
        raise ValueError(
            f"render: {given[0]} is made of hits, which {type(aggregate).__name__} has none of; leave it out, because "
            "Image.opacity is a soft mask, and outlines have a gradient already"
        )
    return aggregate


def shader_of(material: Material | object | None, lights: Sequence[Light] | object) -> Shader:
    """Return the shader; the field's own colours need no lights, a material needs some.

    Raises:
        ValueError: if they are no material and no list of lights, or one is given without the other.
    """
    refuse_class("render: material", material)
    if not isinstance(material, Material | None):
        raise ValueError(f"render: material must be a Material such as Lambert(), got {material!r}")
    if not isinstance(lights, Sequence) or not all(isinstance(light, Light) for light in lights):
        raise ValueError(f"render: lights must be a list of lights such as [AmbientLight()], got {lights!r}")
    if (material is None) != (len(lights) == 0):
        provided, missing = ("lights", "material=Lambert()") if material is None else ("a material", "lights=[...]")
        raise ValueError(f"render: {provided} without the other half shows nothing; give {missing} too")
    return shade if material is None else partial(shade, material=material, lights=tuple(lights))


def warn_of_colors(field: Field, color: Float[Tensor, "n 3"]) -> None:
    """Warn of colours outside of [0, 1], which a picture in a file cannot hold."""
    if not color.numel():
        return
    low, high = (float(end) for end in color.detach().aminmax())
    if not (-OVER <= low <= high <= 1 + OVER):
        hint = "divide by 255" if 0 <= low and 2 < high <= 255 else "end with torch.sigmoid, or clamp them"
        warnings.warn(
            f"render: {field.name}.color returned {low:g} to {high:g}, expected sRGB in [0, 1]; {hint}",
            stacklevel=5,  # `outside_inference` and `out_of_memory` stand in between
        )
