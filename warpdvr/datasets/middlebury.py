"""Read Middlebury multi-view stereo data, and write its cameras: `*_par.txt` beside the photographs.

File format: README.txt of the data sets at vision.middlebury.edu/mview (Seitz et al., CVPR 2006): the number of images,
then per line `name k11 .. k33 r11 .. r33 t1 t2 t3`, P = K [R | t], world to camera, OpenCV axes, origin top left.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets import files
from warpdvr.datasets.depth import attached
from warpdvr.datasets.depthfile import in_folder
from warpdvr.datasets.normalise import normalised
from warpdvr.datasets.views import Views, cover, held_out, sizes, split
from warpdvr.runtime.files import within

PATTERN = "*_par.txt"
TITLE = "Middlebury"


def read(folder: Path, found: list[Path], *, hold_out: int, depth_scale: float = 1.0, least: int = 2) -> Views:
    """Read the data set in `folder`, whose camera files are `found`.

    Depth maps in `depth/` are z-depth in units of the data, as `depthfile.single` reads them.
    """
    path = _path(folder, found)
    lines = _lines(path, least)
    paths = [within(folder, name) for name, _ in lines]
    images = tuple(files.picture(f)[0] for f in paths)
    cameras = tuple(
        _camera(f"{path}: {name}", numbers, image) for (name, numbers), image in zip(lines, images, strict=True)
    )
    masks, source = _masks(folder, path, paths, images)
    train, test = split(len(images), hold_out)
    said = (
        f"{TITLE}, {path.name}: {len(images)} views of {sizes(images)} pixels, K [R | t], pixel centres taken to be at "
        f"integers (the format does not say; half a pixel added). {cover(masks, source)}. {held_out(train, test)}."
    )
    names = files.unique_names(paths)
    views = normalised(Views(images, masks, cameras, names, train, test, SceneTransform.identity(), said), folder)
    return attached(views, in_folder(folder, paths), depth_scale)


def rewritten(folder: Path, found: list[Path], cameras: Sequence[Camera]) -> dict[str, bytes]:
    """Return the camera file with other cameras, given in the data's own frame: R and t change."""
    path = _path(folder, found)
    lines = _lines(path, 1)
    files.matching(path, len(lines), len(cameras))
    text = [str(len(lines))]
    for (name, numbers), camera in zip(lines, cameras, strict=True):
        _, R, t = camera.krt()
        text.append(" ".join([name, *map(repr, [*numbers[:9], *R.double().flatten().tolist(), *t.double().tolist()])]))
    return {path.name: "".join(f"{line}\n" for line in text).encode()}


def _path(folder: Path, found: list[Path]) -> Path:
    """Return the camera file that is read."""
    if len(found) > 1:
        several = ", ".join(f.name for f in found)
        raise ValueError(f"{folder}: expected one camera file, found {several}; choose one with the argument `cameras`")
    return within(folder, found[0].name)


def _lines(path: Path, least: int) -> list[tuple[str, list[float]]]:
    """Return name and 21 numbers per view."""
    try:
        first, *rest = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()] or [[]]
        n = int(first[0])
    except (UnicodeDecodeError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: expected the number of images in the first line, found something else") from error
    if n != len(rest):
        raise ValueError(f"{path}: expected {n} lines of cameras, as its first line says, found {len(rest)}")
    files.enough(path, n, least)
    return [(line[0], _numbers(path, line)) for line in rest]


def _numbers(path: Path, line: list[str]) -> list[float]:
    if len(line) != 22:
        raise ValueError(
            f"{path}: {line[0]}: expected a name and 21 numbers, found {len(line) - 1} entries after the name"
        )
    with files.naming(f"{path}: {line[0]}"):
        return [float(a) for a in line[1:]]


def _camera(where: str, numbers: list[float], image: Tensor) -> Camera:
    K, R = torch.tensor(numbers[:18], dtype=torch.float64).reshape(2, 3, 3)
    if not ((R @ R.T - torch.eye(3)).abs().max() < 1e-3 and R.det() > 0):
        raise ValueError(f"{where}: R is not a rotation, found {R.tolist()}")
    K[:2, 2] += 0.5
    with files.naming(where):
        return Camera.from_krt(K, R, numbers[18:], image.shape[1], image.shape[0])


def _masks(
    folder: Path, path: Path, paths: list[Path], images: tuple[Tensor, ...]
) -> tuple[tuple[Tensor | None, ...], str]:
    """Return the mask of each view that has one of its own name and, where a list of good ones is given, is in it."""
    home = files.subfolder(folder, "derived_masks", "mask", "masks")
    if home is None:
        return (None,) * len(images), "nowhere"
    trusted = _trusted(folder, path, {f.name for f in paths})
    own = files.masks_of(paths, home, folder)
    masks = tuple(
        files.mask(mask, image) if mask is not None and f.name in trusted else None
        for f, mask, image in zip(paths, own, images, strict=True)
    )
    listed = "" if len(trusted) == len(paths) else ", those in the list of good silhouettes"
    return masks, f"{home.name}/ (white = object{listed})"


def _trusted(folder: Path, path: Path, names: set[str]) -> set[str]:
    good = within(folder, path.name.replace("_par.txt", "_good_silhouette_images.txt"))
    if not good.is_file():
        return names
    with files.naming(good):
        listed = set(good.read_text(encoding="utf-8").split())
    if not listed <= names:
        raise ValueError(f"{good}: expected names of images in {path.name}, found {sorted(listed - names)[0]!r}")
    return listed
