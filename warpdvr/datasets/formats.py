"""The contract of a data set format: how a folder is recognised, read into views, and given new cameras.

A format subclasses `Format`. Its `read` collects the contents of the folder in a `Capture`, whose `views` does the work
that all formats share: names, split, summary, scene frame and depth.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.depth import attach_depth
from warpdvr.datasets.depthfile import DepthMap, read_depth_folder
from warpdvr.datasets.files import require_camera_count, unique_names
from warpdvr.datasets.find import is_clutter
from warpdvr.datasets.images import ALPHA, MaskSet, Photographs
from warpdvr.datasets.normalise import normalise_views
from warpdvr.datasets.turntable import describe_turning, place_cameras
from warpdvr.datasets.views import Views, describe_masks, describe_sizes, describe_split, split_views
from warpdvr.runtime.files import path_inside


@dataclass(frozen=True)
class Detection:
    """A folder whose format has been recognised."""

    format: "Format"
    folder: Path
    camera_files: tuple[Path, ...]
    """Files in the folder that match the format's pattern, sorted by name; a format may read only some of them."""
    listed: tuple[int, ...] | None = None
    """The entries of the camera files that the views have, if some were left out; None if none was."""

    def __str__(self) -> str:
        return f"{self.format.title} ({', '.join(path.name for path in self.camera_files)})"

    def choose(self, *preferred: str) -> Path:
        """Return the camera file to read: the first of the preferred names that exists, else the only file.

        Raises:
            ValueError: if there are several files and none has a preferred name, or if it is a link out of the folder.
        """
        path = next((f for name in preferred for f in self.camera_files if f.name == name), self.camera_files[0])
        if path.name not in preferred and len(self.camera_files) > 1:
            names = ", ".join(f.name for f in self.camera_files)
            raise ValueError(
                f"{self.folder}: expected one camera file, found {names}; choose one with the argument `cameras`"
            )
        return path_inside(self.folder, path.relative_to(self.folder))

    def spread(self, cameras: Sequence[Camera], n: int) -> list[Camera | None]:
        """Return the camera of each of the n entries of the camera files, None for those that were left out.

        Raises:
            ValueError: if there are not as many cameras as entries.
        """
        listed = tuple(range(len(cameras))) if self.listed is None else self.listed
        if len(cameras) != len(listed) or (self.listed is None and n != len(cameras)) or max(listed, default=0) >= n:
            require_camera_count(self.camera_files[0], n, len(cameras))
        spread: list[Camera | None] = [None] * n
        for i, camera in zip(listed, cameras, strict=True):
            spread[i] = camera
        return spread


@dataclass(frozen=True)
class ReadOptions:
    """The user's options for reading, the same for all formats.

    Raises:
        ValueError: if an option is out of range.
    """

    hold_out: int = 8
    """Views 0, hold_out, 2 hold_out, ... are held out from training; 0 holds out none."""
    depth_scale: float = 1.0
    """Factor from the unit of the depth maps to the data's own."""
    min_views: int = 2
    """Data sets with fewer views are rejected."""
    max_pixels: int | None = None
    """Pictures of more pixels are scaled down to at most so many, with their masks and cameras; None: none is."""
    progress: Callable[[float, str], None] | None = None
    """Called with the share of the pictures that are read, and a text."""
    notice: Callable[[str], None] | None = None
    """Called with a sentence, before any picture is decoded, if there are no masks."""
    turntable: float | None = None
    """Angle by which the object turned from each picture to the next [degree], see `turntable.place_cameras`."""
    locate: bool = True
    """Whether an object that the data do not locate is moved into the unit sphere; else their frame is kept."""

    def __post_init__(self) -> None:
        if self.max_pixels is not None and self.max_pixels < 1:
            raise ValueError(f"max_pixels must be at least 1, got {self.max_pixels}")
        if not 0 < self.depth_scale < math.inf:
            raise ValueError(f"depth_scale must be positive and finite, got {self.depth_scale}")
        if self.hold_out < 0 or self.hold_out == 1:
            raise ValueError(
                f"hold_out must be 0 (hold out no view) or at least 2 (every second view), got {self.hold_out}"
            )


class Format(ABC):
    """One way in which photographs, masks and cameras are stored in a folder; it has no state."""

    title: str
    """Its name for the user."""
    pattern: str
    """Glob pattern, relative to the folder, of the camera files that it is recognised by."""

    depth_of_pictures: ClassVar[bool] = True
    """Whether maps in `depth/` are those of the pictures, of their size; False: they are not read."""

    def detect(self, folder: Path, cameras: str | None = None) -> Detection | None:
        """Return the folder with its camera files, or None if it is not of this format.

        Args:
            folder: the data set.
            cameras: consider only camera files of this name.
        """
        paths = tuple(f for f in self.files(folder) if cameras is None or f.name == cameras)
        return Detection(self, folder, paths) if any(map(self.recognises, inside(folder, paths))) else None

    def files(self, folder: Path) -> list[Path]:
        """Return what may be a camera file, sorted by name; it may be that of another format, or lead elsewhere."""
        found = (f for pattern in self.globs for f in sorted(folder.glob(pattern)) if not is_clutter(f.name))
        return [f for f in found if f.is_file() or f.is_dir()]  # opening a named pipe would wait

    @property
    def globs(self) -> Sequence[str]:
        """Where camera files are looked for, in this order; `pattern` alone unless overridden."""
        return (self.pattern,)

    def recognises(self, path: Path) -> bool:
        """Return whether a file that matches `pattern` is of this format; override it if formats share file names."""
        return True

    @abstractmethod
    def read(self, data: Detection, options: ReadOptions) -> Views:
        """Return the data set in the scene frame.

        Raises:
            ValueError: if a file is missing, damaged or in an unexpected form, or if files contradict each other; the
                message names the file, what was found and what to do.
        """

    @abstractmethod
    def write_cameras(self, data: Detection, cameras: Sequence[Camera]) -> dict[str, bytes]:
        """Return the content of the camera files, by name, with new cameras in place of those stored.

        Args:
            data: the data set; it is not changed.
            cameras: of all views, in the order of `read`, in the data's own frame; `data.spread` finds their entries.

        Raises:
            ValueError: if there are not as many cameras as in the files.
        """


def inside(folder: Path, paths: Iterable[Path]) -> list[Path]:
    """Return the paths that lead to something in the folder: others are not opened, not even to see what they are."""

    def leads_inside(path: Path) -> bool:
        try:
            path_inside(folder, path.relative_to(folder))
        except ValueError:
            return False
        return True

    return [path for path in paths if leads_inside(path)]


@dataclass(frozen=True)
class Capture:
    """The photographs, masks and cameras that a format has read."""

    photographs: Photographs
    masks: MaskSet
    cameras: tuple[Camera, ...]
    """Per view, in the scene frame of `transform`."""
    camera_file: str
    """Name of the file of the cameras."""
    conventions: str
    """What the matrices mean, in words."""
    transform: SceneTransform = field(default_factory=SceneTransform.identity)
    """Leads from the frame of the cameras to the data's own."""
    transform_source: str | None = None
    """What in the data defines `transform`; None if the object has yet to be located and moved into the unit sphere."""
    test: tuple[int, ...] | None = None
    """The views that are held out, if the data define a split."""
    depth_maps: Sequence[DepthMap | None] | None = None
    """Per view; None reads those in the subfolder `depth`, if there is one."""
    depth_factors: Sequence[float] | None = None
    """Per entry of the camera files, a further factor of the depth; None means 1."""
    listed: tuple[int, ...] = ()
    """Per view, the number of its entry in the camera files, if some were left out; () if none was."""
    stored_sizes: tuple[tuple[int, int], ...] = ()
    """Per view, width and height before it was scaled [pixel]; () if none was."""
    others: tuple[str, ...] = ()
    """Names of pictures that were left out, whose depth maps may be there."""
    notes: str = ""
    """Further sentences for the summary, each after a space."""

    def views(self, data: Detection, options: ReadOptions) -> Views:
        """Return everything in the scene frame, with depth.

        Raises:
            ValueError: if the object cannot be located, or the depth is unreadable or in another unit.
        """
        n = len(self.photographs)
        images, masks = self.photographs.images, self.masks.masks
        train, test = split_views(n, options.hold_out)
        if self.test is not None:
            train, test = tuple(i for i in range(n) if i not in self.test), self.test
        if not train:
            raise ValueError(f"{data.folder}: the split holds out every view that can be read, expected one to fit")
        split = describe_split(train, test, options.hold_out if self.test is None else 0)
        summary = (
            f"{data.format.title}, {self.camera_file}: {n} views of {describe_sizes(images)} pixels, "
            f"{self.conventions}. {describe_masks(masks, self.masks.source)}. {split}"
            f"{'' if self.test is None else ' (the split of the data)'}."
            f"{describe_turning(options.turntable)}{self.notes}"
        )
        names = unique_names(self.photographs.paths)
        views = Views(
            images,
            masks,
            self._around_object(data, options.turntable),
            names,
            train,
            test,
            self.transform,
            summary,
            listed=self.listed,
            straight=self.masks.source == ALPHA,
            stored_sizes=self.stored_sizes,
        )
        if self.transform_source is None:
            views = normalise_views(views, data.folder) if options.locate else views
        else:
            scale = f"1 scene unit = {self.transform.scale:.4g} units of the data"
            views = replace(views, summary=f"{summary} Scale from {self.transform_source}: {scale}.")
        maps = self.depth_maps
        if maps is None:
            maps = [None] * n
            if data.format.depth_of_pictures:
                maps = read_depth_folder(data.folder, self.photographs.paths, self.others)
        factors = self.depth_factors
        if factors is not None and self.listed:
            factors = [factors[i] for i in self.listed]
        return attach_depth(views, maps, options.depth_scale, factors=factors)

    def _around_object(self, data: Detection, turntable: float | None) -> tuple[Camera, ...]:
        """Return the cameras in the scene frame; those of a turntable are placed around the object."""
        in_data = [self.transform.to_data(camera) for camera in self.cameras]
        placed = place_cameras(data.folder, in_data, turntable, self.listed or range(len(in_data)))
        return self.cameras if turntable is None else tuple(map(self.transform.to_scene, placed))
