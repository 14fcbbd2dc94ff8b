"""Formats whose camera files list views one by one: a picture, a camera, perhaps a mask.

Such a format subclasses `ListedFormat` and says what its files hold; finding the pictures, masks and depth, leaving out
what is damaged, and the scene frame are the same for all of them (`read_listing`).
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.depth import attach_points
from warpdvr.datasets.depthfile import DepthMap, read_depth_map
from warpdvr.datasets.files import error_prefix, find_subfolder, require_camera_count, require_view_count
from warpdvr.datasets.formats import Capture, Detection, Format, ReadOptions
from warpdvr.datasets.images import MaskSet, Photographs, masks_from_alpha, match_masks, read_masks, read_photographs
from warpdvr.datasets.views import Views
from warpdvr.runtime.files import path_inside


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
    points: Float[Tensor, "m 3"] | None = None
    """Sparse points in the data's own frame, float64."""
    visible: Bool[Tensor, "v m"] | None = None
    """Which view sees which point."""


@dataclass(frozen=True)
class NamedCamera:
    """A camera to be written."""

    name: str
    """Name of the picture, relative to the folder of the pictures."""
    camera: Camera
    """In the data's own frame, for the stored size of the picture."""


class ListedFormat(Format):
    """A format whose files list views one by one."""

    @abstractmethod
    def listing(self, data: Detection, options: ReadOptions) -> Listing:
        """Return the views of a data set; no picture is opened.

        Raises:
            ValueError: if a file is damaged or in an unexpected form.
        """

    @abstractmethod
    def export(self, cameras: Sequence[NamedCamera]) -> dict[str, bytes]:
        """Return new camera files, by name relative to the data set.

        Raises:
            ValueError: if the format cannot hold one of the cameras.
        """

    def read(self, data: Detection, options: ReadOptions) -> Views:
        """Return the data set with its object, located by the masks or the cameras, in the unit sphere."""
        return read_listing(data, self.listing(data, options), options)

    def write_cameras(self, data: Detection, cameras: Sequence[Camera]) -> dict[str, bytes]:
        """Return new camera files with the names of the old ones; override it to keep what else those hold."""
        entries = self.listing(data, ReadOptions()).entries
        require_camera_count(data.camera_files[0], len(entries), len(cameras))
        return self.export([NamedCamera(e.picture, c) for e, c in zip(entries, cameras, strict=True)])


def read_listing(data: Detection, listing: Listing, options: ReadOptions) -> Views:
    """Read the pictures, masks and depth of listed views, and move the object into the unit sphere."""
    entries = listing.entries
    require_view_count(data.camera_files[0], len(entries), options.min_views)
    photographs = read_photographs([find_picture(data.folder, listing.pictures, entry) for entry in entries])
    cameras = tuple(entry.camera(*size) for entry, size in zip(entries, photographs.sizes, strict=True))
    test = tuple(i for i, entry in enumerate(entries) if entry.held_out)
    capture = Capture(
        photographs,
        _masks(data.folder, listing, photographs),
        cameras,
        camera_file=listing.camera_file,
        conventions=listing.conventions,
        test=test if any(entry.held_out is not None for entry in entries) else None,
        depth_maps=_depth_maps(data.folder, entries) if any(entry.depth for entry in entries) else None,
    )
    views = capture.views(data, options)
    if listing.points is None or listing.visible is None:
        return views
    return attach_points(views, listing.points.numpy(), listing.visible.numpy(), Path(listing.camera_file))


def find_picture(folder: Path, subfolders: Sequence[str], entry: Entry) -> Path:
    """Return the file of a picture.

    Raises:
        ValueError: if there is none.
    """
    candidates = [path_inside(folder, Path(subfolder) / entry.picture) for subfolder in subfolders]
    path = next((f for f in candidates if f.is_file()), None)
    if path is None:
        raise ValueError(f"{entry.label}: the picture {entry.picture!r} is missing, expected it at {candidates[0]}")
    return path


def _depth_maps(folder: Path, entries: Sequence[Entry]) -> list[DepthMap | None]:
    maps: list[DepthMap | None] = []
    for entry in entries:
        with error_prefix(entry.label):
            maps.append(None if entry.depth is None else read_depth_map(path_inside(folder, entry.depth)))
    return maps


def _masks(folder: Path, listing: Listing, photographs: Photographs) -> MaskSet:
    """Return the masks that the file names, else those in the alpha channels, else those in a folder."""
    if any(entry.mask for entry in listing.entries):
        paths = [None if entry.mask is None else path_inside(folder, entry.mask) for entry in listing.entries]
        return read_masks(paths, photographs, "the camera file (white = object)")
    if masks := masks_from_alpha(photographs):
        return masks
    subfolder = find_subfolder(folder, *listing.masks)
    if subfolder is None:
        return MaskSet.empty(len(photographs))
    return read_masks(
        match_masks(photographs.paths, subfolder, folder), photographs, f"{subfolder.name}/ (white = object)"
    )
