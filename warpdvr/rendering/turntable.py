"""A camera that goes around the object once."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from warpdvr.cameras.camera import Camera
from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import FieldLike
from warpdvr.intersection.default import default_intersect_for_pictures
from warpdvr.rendering.antialias import SMOOTH
from warpdvr.rendering.image import Image
from warpdvr.rendering.pictures import each_picture
from warpdvr.rendering.render import render
from warpdvr.runtime.files import replacing


def turn(field: FieldLike | object, path: Sequence[Camera] | object) -> Iterator[Image]:
    """Render one camera after the other, antialiased and without gradients; the field must not change meanwhile."""
    if not isinstance(path, Sequence):
        raise ValueError(f"turn: path must be a list of cameras, got {type(path).__name__}")
    field = as_field(field)
    solver, _ = default_intersect_for_pictures(field)
    picture = partial(render, field, intersect=solver, antialias=SMOOTH)
    yield from each_picture(picture, path, field, solver)


def animate(pictures: Sequence[NDArray[np.uint8]], path: Path, *, seconds: float = 4.0) -> None:
    """Write 8-bit pictures (h, w, 3) as an animated file that repeats; .gif, .webp or .png by suffix."""
    if path.suffix not in (".gif", ".webp", ".png"):
        raise ValueError(f"{path}: an animation is written as .gif, .webp or .png")
    first, *rest = (PIL.Image.fromarray(picture) for picture in pictures)
    pause = int(1000 * seconds / len(pictures))
    with replacing(path) as unfinished:
        first.save(unfinished, save_all=True, append_images=rest, duration=pause, loop=0)
