"""Read and write DVR's own data: `cameras.npz` with camera_mat beside `image/`, `mask/` and `depth/`.

Conventions as in autonomousvision/differentiable_volumetric_rendering (im2mesh/common.py, im2mesh/data/fields.py),
Niemeyer et al., "Differentiable Volumetric Rendering", CVPR 2020: with x a point of the scene,

    z (u, v, 1) = camera_mat world_mat scale_mat x,    world_mat = [R | t], world to camera, x right, y down, z forward.

u and v lie in [-1, 1]. DVR's rays take -1 and 1 for the centres of the first and the last pixel (arange_pixels:
u = 2 i / (w - 1) - 1), and so do we: column = (u + 1) (w - 1) / 2 + 0.5 with pixel centres at +0.5. Data that were
rendered with -1 and 1 at the edges of the image are thereby up to half a pixel off at its border, in DVR as here.
Depth is the z of this formula: z-depth in units of the data, as `depthfile.single` reads it. `pcl.npz` holds points of
structure from motion: `points` (m, 3) [unit of the data], `visibility_0000`, ... and `is_in_visual_hull` (m,).
`visual_hull_depth/` is not read. DTU data in DVR's own packaging have K in world_mat: those are IDR's form.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets import files
from warpdvr.datasets.depth import attached, with_points
from warpdvr.datasets.depthfile import in_folder
from warpdvr.datasets.idr import photographs, turns
from warpdvr.datasets.normalise import extent_from_axes, normalised
from warpdvr.datasets.views import Views, cover, held_out, sizes, split
from warpdvr.runtime.files import within

PATTERN = "cameras.npz"
TITLE = "DVR"


def claims(path: Path) -> bool:
    """Say whether a `cameras.npz` is DVR's: world_mat is [R | t], and camera_mat leads into [-1, 1].

    IDR's files have K [R | t] in pixels in world_mat, and may have a camera_mat too.
    """
    try:
        arrays = files.arrays(path, "(world|camera)_mat_0")
        world, camera = (files.matrix(path, arrays, f"{kind}_mat_0") for kind in ("world", "camera"))
    except ValueError:  # the reader that it is left to says what is wrong
        return False
    return turns(world[:3, :3]) and bool((camera[:2, 2].abs() < 2).all())


def read(folder: Path, found: list[Path], *, hold_out: int, depth_scale: float = 1.0, least: int = 2) -> Views:
    """Read the data set in `folder`, whose camera file is `found`; pictures and cameras pair up by order.

    The scene is the frame that scale_mat leads from. Where that is the identity and the cameras do not look at the unit
    sphere, the object is put there.
    """
    path = within(folder, found[0].name)
    scene, projections, factors = _matrices(path, least)
    paths = photographs(folder, path, len(projections))
    pictures = [files.picture(f) for f in paths]
    images = tuple(image for image, _ in pictures)
    masks, source = _masks(folder, paths, pictures)
    cameras = tuple(_camera(path, i, P, image) for i, (P, image) in enumerate(zip(projections, images, strict=True)))
    train, test = split(len(images), hold_out)
    said = (
        f"{TITLE}, {path.name}: {len(images)} views of {sizes(images)} pixels, camera_mat [R | t], -1 and 1 at the "
        f"centres of the first and the last pixel. {cover(masks, source)}. {held_out(train, test)}."
    )
    views = Views(images, masks, cameras, files.unique_names(paths), train, test, scene, said)
    if _is_scene(scene, cameras):
        unit = f"Scale from scale_mat: 1 scene unit = {scene.scale:.4g} units of the data."
        views = replace(views, found=f"{said} {unit}")
    else:
        views = normalised(views, folder)
    return _with_cloud(folder, attached(views, in_folder(folder, paths), depth_scale, factors=factors))


def rewritten(folder: Path, found: list[Path], cameras: Sequence[Camera]) -> dict[str, bytes]:
    """Return the camera file with other cameras, given in the data's own frame: world_mat and its inverse change.

    world_mat becomes [R | t] without a factor, should it have had one.
    """
    path = within(folder, found[0].name)
    arrays = files.arrays(path)
    n = sum(re.fullmatch(r"world_mat_\d+", key) is not None for key in arrays)
    files.matching(path, n, len(cameras))
    for i, camera in enumerate(cameras):
        _, R, t = camera.krt()
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[:3] = torch.cat([R, t[:, None]], 1)
        if f"world_mat_{i}" not in arrays:
            raise ValueError(f"{path}: world_mat_{i} is missing, expected one per view, numbered from 0")
        arrays[f"world_mat_{i}"] = matrix.numpy()
        if f"world_mat_inv_{i}" in arrays:
            arrays[f"world_mat_inv_{i}"] = torch.linalg.inv(matrix).numpy()
    return {path.name: files.packed(arrays)}


def write(folder: Path, views: Views) -> None:
    """Write `views` to a new folder, or one without such data: `read` gives the same cameras, images and masks.

    Pictures are called 0000.png, 0001.png, ... in the order of the views; their names, the split and sparse points are
    not kept. Depth is float32 [unit of the data], 0 where it is missing.

    Raises:
        ValueError: if there are pictures, depth maps or cameras already.
    """
    for name in ("image", "mask", "depth", "cameras.npz"):
        if (folder / name).exists():
            raise ValueError(f"{folder / name}: expected a folder without data to write to, found this")
    (folder / "image").mkdir(parents=True)
    for i, (image, mask) in enumerate(zip(views.images, views.masks, strict=True)):
        Image.fromarray(image.cpu().numpy()).save(folder / f"image/{i:04d}.png")
        if mask is not None:
            (folder / "mask").mkdir(exist_ok=True)
            Image.fromarray(mask.cpu().numpy().astype(np.uint8) * 255).save(folder / f"mask/{i:04d}.png")
    for i, depth in enumerate(views.depths):
        if depth is not None:
            (folder / "depth").mkdir(exist_ok=True)
            stored = (depth * views.transform.scale).nan_to_num(nan=0.0).cpu().numpy().astype(np.float32)
            np.save(folder / f"depth/{i:04d}.npy", stored, allow_pickle=False)
    arrays: dict[str, np.ndarray] = {}
    for i, camera in enumerate(views.cameras):
        own = zip(("camera", "world", "scale"), _matrices_of(camera, views.transform), strict=True)
        arrays |= {f"{kind}_mat_{i}": matrix.cpu().numpy() for kind, matrix in own}
    np.savez(folder / "cameras.npz", **arrays)  # type: ignore[arg-type]


def _matrices(path: Path, least: int) -> tuple[SceneTransform, list[Tensor], list[float]]:
    """Return scale_mat, camera_mat world_mat scale_mat (4, 4) of each view, and the length of its unit of depth."""
    arrays = files.arrays(path, r"(world|camera|scale)_mat_\d+")
    n = sum(key.startswith("world_mat_") for key in arrays)
    files.enough(path, n, least)
    eye = torch.eye(4, dtype=torch.float64)
    scale, projections, factors = eye, [], []
    for i in range(n):
        camera, world = (files.matrix(path, arrays, f"{kind}_mat_{i}") for kind in ("camera", "world"))
        own = files.matrix(path, arrays, f"scale_mat_{i}") if f"scale_mat_{i}" in arrays else eye
        scale = own if i == 0 else scale
        if not torch.allclose(own, scale, rtol=1e-5):
            raise ValueError(f"{path}: scale_mat_{i} differs from scale_mat_0, expected one scene for all views")
        if not turns(world[:3, :3]):
            raise ValueError(f"{path}: world_mat_{i} is not [R | t], expected a rotation as in world_mat_0")
        joint = (camera @ world)[:3, :3]
        if not torch.linalg.det(joint) > 0:
            raise ValueError(
                f"{path}: camera_mat_{i} and world_mat_{i} make a mirror image, expected x right, y down, z forward"
            )
        projections.append(camera @ world @ own)
        factors.append(1 / float(joint[2].norm()))
    with files.naming(f"{path}: scale_mat_0"):
        return SceneTransform(scale), projections, factors


def _camera(path: Path, i: int, projection: Tensor, image: Tensor) -> Camera:
    height, width = image.shape[:2]
    with files.naming(f"{path}: camera_mat_{i} world_mat_{i}"):
        return Camera.from_projection(_to_pixels(width, height) @ projection[:3], width, height)


def _masks(
    folder: Path, paths: list[Path], pictures: list[tuple[Tensor, Tensor | None]]
) -> tuple[tuple[Tensor | None, ...], str]:
    """Return the masks in the folder, by order or, if there are fewer than images, by name; else those in alpha."""
    home = files.subfolder(folder, "mask", "masks")
    if home is not None:
        held: list[Path | None] = [*files.pictures(home, folder)]
        if len(held) != len(paths):
            held = files.masks_of(paths, home, folder)
        pairs = zip(held, pictures, strict=True)
        return tuple(
            None if f is None else files.mask(f, image) for f, (image, _) in pairs
        ), f"{home.name}/ (white = object)"
    if any(alpha is not None and bool((alpha < 255).any()) for _, alpha in pictures):
        cut = zip(paths, pictures, strict=True)
        return tuple(None if a is None else files.filled(a > 127, f) for f, (_, a) in cut), "alpha (above 127 = object)"
    return (None,) * len(paths), "nowhere"


def _is_scene(scene: SceneTransform, cameras: tuple[Camera, ...]) -> bool:
    """Say whether the object is where it should be: scale_mat says so, or the cameras look at the unit sphere."""
    if not torch.allclose(scene.matrix, torch.eye(4).to(scene.matrix)):
        return True
    try:
        centre, radius = extent_from_axes(cameras)
    except ValueError:  # cameras in parallel: nothing speaks against it
        return True
    return float(centre.norm()) < 1 and 0.1 < radius < 10


def _with_cloud(folder: Path, views: Views) -> Views:
    """Return `views` with the sparse points in `pcl.npz`, those in the visual hull, if it is there."""
    path = within(folder, "pcl.npz")
    if not path.is_file():
        return views
    arrays = files.arrays(path, r"points|is_in_visual_hull|visibility_\d+")
    points = arrays.get("points", np.empty((0, 3)))
    visible = np.zeros((len(views), len(points)), dtype=bool)
    for i, row in enumerate(visible):
        seen = arrays.get(f"visibility_{i:04d}")
        if seen is None or seen.dtype.kind not in "biu":
            raise ValueError(f"{path}: expected visibility_{i:04d}, a mask or indices of points, found {seen}")
        try:
            row[seen] = True
            row &= arrays.get("is_in_visual_hull", np.bool_(True)).astype(bool)
        except (IndexError, ValueError) as error:
            raise ValueError(
                f"{path}: visibility_{i:04d} or is_in_visual_hull does not fit `points` ({error})"
            ) from error
    return with_points(views, points, visible, path)


def _matrices_of(camera: Camera, transform: SceneTransform) -> tuple[Tensor, Tensor, Tensor]:
    """Return camera_mat, world_mat and scale_mat, each (4, 4) float64, of a camera in the scene frame."""
    _, R, t = transform.to_data(camera).krt()
    K, world = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    K[:3, :3] = torch.linalg.inv(_to_pixels(camera.width, camera.height)) @ camera.K.double()
    world[:3] = torch.cat([R, t[:, None]], 1)
    return K, world, transform.matrix


def _to_pixels(width: int, height: int) -> Tensor:
    """Return the matrix (3, 3) from DVR's [-1, 1] to pixels with centres at +0.5."""
    if min(width, height) < 2:
        raise ValueError(f"expected images of at least 2 x 2 pixels, found {width} x {height}")
    x, y = (width - 1) / 2, (height - 1) / 2
    return torch.tensor([[x, 0, x + 0.5], [0, y, y + 0.5], [0, 0, 1]], dtype=torch.float64)
