"""What a fit looks at: images, masks and cameras in the scene frame, and the way back to the data's own units."""

from dataclasses import dataclass, replace

from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.geometry.mesh import Mesh


@dataclass(frozen=True)
class SparseDepth:
    """What structure from motion knows about one view: the depth of single points; not all need lie on the object.

    Raises:
        ValueError: if the sizes differ, or a depth is not positive and finite.
    """

    pixel: Tensor
    """Where the points are seen, shape (m, 2), float32 [pixel], centres at +0.5."""
    depth: Tensor
    """z-depth along the camera's forward axis, shape (m,), float32 [scene unit]."""

    def __post_init__(self) -> None:
        if self.depth.ndim != 1 or tuple(self.pixel.shape) != (len(self.depth), 2):
            raise ValueError(
                f"sparse depth: expected pixel (m, 2) and depth (m,), found {tuple(self.pixel.shape)} and "
                f"{tuple(self.depth.shape)}"
            )
        if not bool(((self.depth > 0) & self.depth.isfinite()).all()):
            raise ValueError("sparse depth: expected depths that are positive and finite")

    def __len__(self) -> int:
        return len(self.depth)


@dataclass(frozen=True)
class Views:
    """Photographs of one object, with everything known about them.

    Raises:
        ValueError: if the parts do not pair up.
    """

    images: tuple[Tensor, ...]
    """Per view, shape (h, w, 3), uint8, sRGB; straight colours, arbitrary where nothing of the object is seen."""
    masks: tuple[Tensor | None, ...]
    """Per view, shape (h, w), bool, True on the object; None where the object's outline is unknown."""
    cameras: tuple[Camera, ...]
    """Per view, in the scene frame, float64."""
    names: tuple[str, ...]
    """Per view, a name that is unique and fit for a file."""
    train: tuple[int, ...]
    """Indices of the views to fit."""
    test: tuple[int, ...]
    """Indices of the views that are held out."""
    transform: SceneTransform
    """Leads from the scene back to the data's own units."""
    found: str
    """What was detected: format, views, size, conventions, scale, masks, split; for the user to read."""
    truth: Mesh | None = None
    """The true mesh, if it is known [unit of the data]."""
    depths: tuple[Tensor | None, ...] = ()
    """Per view, z-depth along the camera's forward axis, shape (h, w), float32 [scene unit], NaN where it is missing;
    None for a view without, () if there is none at all."""
    points: tuple[SparseDepth | None, ...] = ()
    """Per view, single points of known depth; None for a view without, () if there is none at all."""

    def __post_init__(self) -> None:
        n = len(self.images)
        for what in ("masks", "cameras", "names", "depths", "points"):
            if len(getattr(self, what)) != n and not (what in ("depths", "points") and getattr(self, what) == ()):
                raise ValueError(f"views: {n} images, but {len(getattr(self, what))} {what}")
        if sorted((*self.train, *self.test)) != list(range(n)) or not self.train:
            raise ValueError(
                f"views: train {self.train} and test {self.test} must share out the {n} views, train not empty"
            )
        for name, image, mask, camera in zip(self.names, self.images, self.masks, self.cameras, strict=True):
            size = (camera.height, camera.width)
            if tuple(image.shape) != (*size, 3) or (mask is not None and tuple(mask.shape) != size):
                raise ValueError(f"views: image, mask and camera of {name} differ in size")
        for name, camera, depth in zip(self.names, self.cameras, self.depths or (None,) * n, strict=True):
            if depth is not None and tuple(depth.shape) != (camera.height, camera.width):
                raise ValueError(
                    f"views: the depth of {name} is {tuple(depth.shape)}, expected {(camera.height, camera.width)}"
                )

    def __len__(self) -> int:
        return len(self.images)

    def as_given(self) -> "Views":
        """Return the views with the data's own frame and unit as the scene's, so that `transform` is the identity."""
        moved = self._scaled(tuple(map(self.transform.to_data, self.cameras)), self.transform.scale)
        found = f"{self.found} The scene is left in the data's own frame and unit."
        return replace(moved, transform=SceneTransform.identity(), found=found)

    def in_scene(self, transform: SceneTransform) -> "Views":
        """Return views that are given in the data's own frame (`as_given`) in that of another scene."""
        moved = self._scaled(tuple(map(transform.to_scene, self.cameras)), 1 / transform.scale)
        return replace(moved, transform=transform)

    def _scaled(self, cameras: tuple[Camera, ...], factor: float) -> "Views":
        return replace(
            self,
            cameras=cameras,
            depths=tuple(None if z is None else z * factor for z in self.depths),
            points=tuple(None if p is None else replace(p, depth=p.depth * factor) for p in self.points),
        )


def split(n: int, hold_out: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the indices of the training and of the held-out views: every `hold_out`-th, from the first on, or none."""
    test = tuple(range(0, n, hold_out)) if hold_out else ()
    return tuple(i for i in range(n) if i not in test), test


def sizes(images: tuple[Tensor, ...]) -> str:
    """Return the size of the images in words [pixel]."""
    known = sorted({(image.shape[1], image.shape[0]) for image in images})
    return (
        f"{known[0][0]} x {known[0][1]}"
        if len(known) == 1
        else f"{len(known)} sizes up to {known[-1][0]} x {known[-1][1]}"
    )


def held_out(train: tuple[int, ...], test: tuple[int, ...]) -> str:
    """Return the split in words."""
    return f"{len(train)} views to fit, {len(test)} held out"


def cover(masks: tuple[Tensor | None, ...], source: str) -> str:
    """Return in words where the masks are from, and how much of the images the object fills."""
    known = [mask for mask in masks if mask is not None]
    if not known:
        return "No masks"
    share = sum(float(mask.float().mean()) for mask in known) / len(known)
    return f"Masks from {source} for {len(known)} of {len(masks)} views, the object fills {100 * share:.0f} % of them"
