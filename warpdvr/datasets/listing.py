"""Formats whose camera files list views one by one: a picture, a camera, perhaps a mask.

Such a format subclasses `ListedFormat` and says what its files hold; finding the pictures, masks and depth, leaving out
what is damaged, and the scene frame are the same for all of them (`read_listing`).
"""

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.depth import attach_cloud, attach_points
from warpdvr.datasets.depthfile import DepthMap, read_depth_map
from warpdvr.datasets.entries import Entry, Listing, NamedCamera
from warpdvr.datasets.files import error_prefix
from warpdvr.datasets.find import Finder
from warpdvr.datasets.formats import Detection, Format, ReadOptions
from warpdvr.datasets.gather import gather
from warpdvr.datasets.views import Views

__all__ = ["Entry", "ListedFormat", "Listing", "NamedCamera", "read_listing"]


class ListedFormat(Format):
    """A format whose files list views one by one."""

    besides: ClassVar[str] = ""
    """What its files hold besides cameras and `write_cameras` leaves out, in words; empty if nothing is lost."""

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
        """Return files that are written anew, with cameras alone; override it to keep what else the old ones hold.

        Views that were left out are left out of the new files, too. A warning says what else is lost (`besides`).
        """
        if self.besides:
            warnings.warn(
                f"{data.camera_files[0]}: the cameras of {self.title} are written to new files, without {self.besides} "
                "of the old ones",
                stacklevel=2,
            )
        entries = self.listing(data, ReadOptions()).entries
        named = zip(entries, data.spread(cameras, len(entries)), strict=True)
        return self.export([NamedCamera(entry.picture, camera) for entry, camera in named if camera is not None])


def read_listing(data: Detection, listing: Listing, options: ReadOptions) -> Views:
    """Read the pictures, masks and depth of listed views, and move the object into the unit sphere.

    Damaged views are left out, see `gather`.
    """
    capture = gather(data, listing, options)
    kept = capture.listed or range(len(listing.entries))
    entries = [listing.entries[i] for i in kept]
    if any(entry.depth for entry in entries):
        finder = Finder(data.folder, ("", *listing.pictures))
        capture = replace(capture, depth_maps=[_depth_map(finder, entry) for entry in entries])
    views = capture.views(data, options)
    if listing.points is None:
        return views
    if listing.visible is None:
        return attach_cloud(views, listing.points, data.camera_files[0].name)
    return attach_points(views, listing.points.numpy(), listing.visible.numpy()[list(kept)], data.camera_files[0])


def _depth_map(finder: Finder, entry: Entry) -> DepthMap | None:
    """Return the depth map that an entry names; ValueError if it is missing or damaged."""
    if entry.depth is None:
        return None
    with error_prefix(entry.label):
        return read_depth_map(finder.find(entry.depth) or finder.folder / entry.depth)
