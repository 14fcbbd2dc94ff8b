"""The input of a fit: images, masks and cameras in the scene frame, and the transform back to the data's own units."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.geometry.mesh import Mesh
from warpdvr.runtime.arguments import check_device

CPU = torch.device("cpu")


@dataclass(frozen=True)
class SparseDepth:
    """The depth of single points in one view, for instance from structure from motion; not all need lie on the object.

    Raises:
        ValueError: if the sizes differ, or a depth is not positive and finite.
    """

    pixel: Float[Tensor, "_ 2"]
    """Positions of the m points in the image, float32 [pixel], centres at +0.5."""
    depth: Float[Tensor, " m"]
    """z-depth along the camera's forward axis, float32 [scene unit]."""

    def __post_init__(self) -> None:
        if self.depth.ndim != 1 or tuple(self.pixel.shape) != (len(self.depth), 2):
            raise ValueError(
                f"sparse depth: expected pixel (m, 2) and depth (m,), found {tuple(self.pixel.shape)} and "
                f"{tuple(self.depth.shape)}"
            )
        if not bool(((self.depth > 0) & self.depth.isfinite()).all()):
            raise ValueError("sparse depth: expected all depths to be positive and finite")

    def __len__(self) -> int:
        return len(self.depth)


@dataclass(frozen=True)
class Views:
    """Photographs of one object, with their masks, cameras, depth and split.

    Raises:
        ValueError: if the numbers or sizes of images, masks, cameras and depth do not match, or a picture is not on the
            CPU: what a fit needs of it is moved to the device of the field.
    """

    images: tuple[UInt8[Tensor, "_ _ 3"], ...]
    """Per view, sRGB (h, w, 3); arbitrary where the object is not seen."""
    masks: tuple[Bool[Tensor, "_ _"] | None, ...]
    """Per view, shape (h, w), True on the object; None where the object's outline is unknown."""
    cameras: tuple[Camera, ...]
    """Per view, in the scene frame, float64."""
    names: tuple[str, ...]
    """Per view, a unique name that is valid as a file name."""
    train: tuple[int, ...]
    """Indices of the views to fit."""
    test: tuple[int, ...]
    """Indices of the views that are held out."""
    transform: SceneTransform
    """From the scene back to the data's own frame and unit."""
    summary: str
    """A description for the user: format, number and size of the views, conventions, masks, split, scale, depth."""
    truth: Mesh | None = None
    """The true mesh, if it is known [unit of the data]."""
    depths: tuple[Float[Tensor, "_ _"] | None, ...] = ()
    """Per view, z-depth along the camera's forward axis, shape (h, w), float32 [scene unit], NaN where it is missing;
    None for a view without depth, () if no view has any."""
    points: tuple[SparseDepth | None, ...] = ()
    """Per view, single points of known depth; None for a view without points, () if no view has any."""
    cloud: Float[Tensor, "_ 3"] | None = None
    """Points of the scene of which the data do not say who sees them, float64 [scene unit]; nothing is learnt from
    them."""
    listed: tuple[int, ...] = ()
    """Per view, the number of its entry in the data's camera files, if damaged ones were left out; () if none was."""
    straight: bool = False
    """Whether pixels that the object covers in part have its colours alone, as in pictures with alpha; in others they
    are mixed with those of the background."""
    stored_sizes: tuple[tuple[int, int], ...] = ()
    """Per view, width and height of its picture before it was scaled down [pixel]; () if none was."""
    unthinned: "Views | None" = None
    """All views, where some of those to fit were left out on purpose: their masks still say what silhouettes show."""

    def __post_init__(self) -> None:
        self._check_counts()
        for name, image, mask, camera in zip(self.names, self.images, self.masks, self.cameras, strict=True):
            size = (camera.height, camera.width)
            if tuple(image.shape) != (*size, 3) or (mask is not None and tuple(mask.shape) != size):
                raise ValueError(f"views: the image, the mask and the camera of {name} differ in size")
            check_device(f"views: {name}", CPU, "photographs have to be", image=image, mask=mask)
        for name, camera, depth in zip(self.names, self.cameras, self.depths or (None,) * len(self), strict=True):
            if depth is not None and tuple(depth.shape) != (camera.height, camera.width):
                raise ValueError(
                    f"views: the depth of {name} is {tuple(depth.shape)}, expected {(camera.height, camera.width)}"
                )

    def _check_counts(self) -> None:
        n = len(self)
        counts = {"masks": len(self.masks), "cameras": len(self.cameras), "names": len(self.names)}
        optional = {name: len(getattr(self, name)) for name in ("depths", "points", "listed", "stored_sizes")}
        for part, count in (counts | {part: count for part, count in optional.items() if count}).items():
            if count != n:
                raise ValueError(f"views: {n} images, but {count} {part}")
        if sorted((*self.train, *self.test)) != list(range(n)) or not self.train:
            raise ValueError(
                f"views: each of the {n} views must be either in train or in test, and train must not be empty, found "
                f"train {self.train} and test {self.test}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def in_data_frame(self) -> "Views":
        """Return the views with the data's own frame and unit as the scene's, so that `transform` is the identity."""
        views = self._with_cameras(tuple(map(self.transform.to_data, self.cameras)), self.transform.scale)
        views = replace(views, cloud=None if self.cloud is None else self.transform.apply(self.cloud))
        summary = f"{self.summary} The scene is left in the data's own frame and unit."
        return replace(views, transform=SceneTransform.identity(), summary=summary)

    def in_scene_frame(self, transform: SceneTransform) -> "Views":
        """Return views that are in the data's own frame (`in_data_frame`) in the scene frame of `transform`."""
        views = self._with_cameras(tuple(map(transform.to_scene, self.cameras)), 1 / transform.scale)
        cloud = None if self.cloud is None else transform.inverse().apply(self.cloud)
        return replace(views, transform=transform, cloud=cloud)

    def _with_cameras(self, cameras: tuple[Camera, ...], scale: float) -> "Views":
        """Return the views with new cameras, and all depth multiplied by `scale`."""
        return replace(
            self,
            cameras=cameras,
            depths=tuple(None if depth is None else depth * scale for depth in self.depths),
            points=tuple(None if p is None else replace(p, depth=p.depth * scale) for p in self.points),
        )


def split_views(n: int, hold_out: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the indices of the training and the held-out views: every `hold_out`-th view from the first, or none.

    None is held out of 2 or 3 views, which need each other, unless every second or third is asked for.
    """
    test = tuple(range(0, n, hold_out)) if hold_out and not _too_few(n, hold_out) else ()
    return tuple(i for i in range(n) if i not in test), test


def _too_few(n: int, hold_out: int) -> bool:
    return n < min(hold_out, 4)


def describe_split(train: tuple[int, ...], test: tuple[int, ...], hold_out: int = 0) -> str:
    """Describe how many views are fitted and held out, where every `hold_out`-th should be."""
    note = " (too few to hold one out)" if not test and hold_out and _too_few(len(train), hold_out) else ""
    return f"{len(train)} views to fit, {len(test)} held out{note}"


def describe_sizes(images: tuple[UInt8[Tensor, "_ _ 3"], ...]) -> str:
    """Describe the size of the images [pixel]."""
    sizes = sorted({(image.shape[1], image.shape[0]) for image in images})
    largest = f"{sizes[-1][0]} x {sizes[-1][1]}"
    return largest if len(sizes) == 1 else f"{len(sizes)} sizes up to {largest}"


def describe_masks(masks: tuple[Bool[Tensor, "_ _"] | None, ...], source: str) -> str:
    """Describe where the masks come from, and how much of the images the object fills."""
    shares = [int(mask.count_nonzero()) / mask.numel() for mask in masks if mask is not None]
    if not shares:
        return "No masks"
    fill = 100 * sum(shares) / len(shares)
    return f"Masks from {source} for {len(shares)} of {len(masks)} views, the object fills {fill:.0f} % of them"


def check_views(command: str, views: Views | object) -> Views:
    """Return views; refuse everything else, such as the path of a folder.

    Raises:
        ValueError: if they are no views.
    """
    if isinstance(views, Views):
        return views
    hint = f"; write warpdvr.load({str(views)!r})" if isinstance(views, str | Path) else ""
    raise ValueError(f"{command}: views must be what warpdvr.load returns, got {type(views).__name__}{hint}")
