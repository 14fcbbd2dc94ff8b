"""Views as a camera file lists them, before any picture is read."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.cameras.camera import Camera


@dataclass(frozen=True)
class Entry:
    """A view as a camera file lists it."""

    picture: str
    """Name of the picture as the file writes it: relative to the data set or to a folder of pictures in it."""
    camera: Callable[[int, int], Camera]
    """Return the camera of a picture of that stored size (w, h) [pixel], in the data's own frame; ValueError if it is
    damaged or for another size."""
    label: str
    """File and number of the view, for messages."""
    mask: str | None = None
    """Name of its mask, if the file names one."""
    depth: str | None = None
    """Name of its depth map, if the file names one."""
    held_out: bool | None = None
    """Whether the data hold it out; None if they do not say."""
    broken: str | None = None
    """What is wrong with it, if it cannot be read: a sentence that names the file and the view."""


@dataclass(frozen=True)
class Listing:
    """The views of a data set in the order of its files."""

    entries: tuple[Entry, ...]
    camera_file: str
    """Name of the files of the cameras, for the summary."""
    conventions: str
    """What the numbers mean, in words, for the summary."""
    pictures: tuple[str, ...] = ("", "images", "image")
    """Folders in which pictures are looked for, in this order; "" is the data set itself."""
    masks: tuple[str, ...] = ("masks", "mask")
    """Folders in which masks are looked for where no file names them."""
    mask_source: str = "the camera file (white = object)"
    """Where the masks come from that the entries name, in words."""
    points: Float[Tensor, "m 3"] | None = None
    """Sparse points in the data's own frame, float64."""
    visible: Bool[Tensor, "v m"] | None = None
    """Which view sees which point; None if the data do not say."""


@dataclass(frozen=True)
class NamedCamera:
    """A camera to be written."""

    name: str
    """Name of the picture, relative to the folder of the pictures."""
    camera: Camera
    """In the data's own frame, for the stored size of the picture."""
