"""Say what is in a folder that is of no known format: what was found, what is missing, and what to do."""

import os
from collections.abc import Sequence
from pathlib import Path

from warpdvr.datasets.files import PICTURE_SUFFIXES
from warpdvr.datasets.find import is_clutter
from warpdvr.datasets.formats import Detection, Format
from warpdvr.runtime.files import links_allowed

NEARBY: tuple[tuple[str, str, str], ...] = (
    ("IDR / NeuS", "image/*", "cameras_sphere.npz"),
    ("Middlebury", "*_ang.txt", "*_par.txt"),
    ("Blender", "train/r_*.png", "transforms_train.json"),
    ("COLMAP", "sparse", "sparse/0/cameras.bin"),
    ("COLMAP", "images.bin", "cameras.bin"),
    ("COLMAP", "images.txt", "cameras.txt"),
    ("NSVF", "pose/*.txt", "intrinsics.txt"),
    ("NSVF", "bbox.txt", "pose/*.txt"),
    ("BlendedMVS / MVSNet", "pair.txt", "cams/*_cam.txt"),
    ("BlendedMVS / MVSNet", "blended_images", "cams/*_cam.txt"),
    ("ScanNet", "intrinsic/*.txt", "pose/*.txt"),
    ("ScanNet", "*.sens", "pose/*.txt"),
    ("OpenMVG", "sfm_data.bin", "sfm_data.json"),
    ("Bundler", "list*.txt", "bundle.out"),
    ("Metashape", "*.psx", "cameras.xml"),
    ("RealityCapture", "*.r[cs]proj", "cameras.csv"),
    ("Polycam", "keyframes/images", "keyframes/cameras/*.json"),
    ("Record3D", "*.r3d", "metadata"),
    ("Record3D", "rgbd", "metadata"),
    ("ARKit / 3D Scanner App", "*.arkit", "frame_*.json"),
)
"""Formats, a pattern of files by which each is known, and what it lacks if nothing matches the other pattern."""

PARTS = ("images", "image", "rgb", "rgbd", "color", "input", "train", "mask", "masks", "sparse")
"""Names of folders that are parts of data sets."""

SHOWN = 3
"""The most files that are named."""

MOST = 20_000
"""The most files of a folder that are looked at."""

ADVICE = (
    "find the cameras with COLMAP or nerfstudio's ns-process-data, and give the folder of the result; one calibrated "
    "camera for all pictures is enough if the object was turned in front of it (--turntable DEGREES)"
)


def describe_formats(formats: Sequence[Format]) -> str:
    """Return the titles of formats, each with the files that it is known by."""
    return "; ".join(f"{format.title} ({format.pattern})" for format in formats)


def describe_unrecognised(folder: Path, formats: Sequence[Format], cameras: str | None = None) -> str:
    """Return a sentence on a folder whose format is not known.

    Args:
        folder: the data set.
        formats: those that are known; none of them recognises the folder.
        cameras: name of a camera file that was asked for.
    """
    if cameras is not None and (found := _detected(folder, formats)):
        return f"{folder}: expected a camera file called {cameras!r}, found {_named(found)}"
    wanted = "a camera file of a known format" if cameras is None else f"a camera file called {cameras!r}"
    pictures = _pictures(folder)
    content = "neither pictures nor cameras"
    if pictures:
        content = f"{len(pictures)} picture{'s' * (len(pictures) > 1)} such as {pictures[0]}, but no cameras"
    advice = _elsewhere(folder, formats) or "; ".join(filter(None, (_lacking(folder), ADVICE)))
    return (
        f"{folder}: expected {wanted}, found {content}; {advice}; "
        "`warpdvr check-data --help` lists all formats that are read"
    )


def _detected(folder: Path, formats: Sequence[Format]) -> Detection | None:
    return next((found for format in formats if (found := format.detect(folder))), None)


def _named(found: Detection) -> str:
    """Return the format with a few of its camera files, of which there may be one per picture."""
    names = [path.name for path in found.camera_files]
    more = f", ... {len(names)} files" if len(names) > SHOWN else ""
    return f"{found.format.title} ({', '.join(names[:SHOWN])}{more})"


def _elsewhere(folder: Path, formats: Sequence[Format]) -> str:
    """Return which folder holds cameras: one of those inside, or the one around; empty if none does."""
    inside = sorted(f for f in folder.iterdir() if f.is_dir() and (links_allowed() or not f.is_symlink()))[:50]
    around = [folder.resolve().parent] if folder.name.lower() in PARTS else []
    for place in (*inside, *around):
        try:
            found = _detected(place, formats)
        except (OSError, ValueError):  # nothing of ours
            continue
        if found:
            return f"{place} holds {_named(found)}: give that folder"
    return ""


def _lacking(folder: Path) -> str:
    """Return which formats the files seem to belong to, and what is missing; empty if there are none."""
    rows = [(title, missing) for title, sign, missing in NEARBY if any(folder.glob(sign))]
    lacking = {title: missing for title, missing in rows if not any(folder.glob(missing))}
    return ", ".join(f"for {title} there is no {missing}" for title, missing in lacking.items())


def _pictures(folder: Path) -> list[str]:
    """Return the names of the pictures in a folder and in those inside, but for masks and depth maps."""
    found, count = [], 0
    for home, folders, names in os.walk(folder, followlinks=links_allowed()):
        folders[:] = sorted(f for f in folders if not f.lower().startswith(("mask", "depth", ".")))
        place = Path(home).relative_to(folder)
        shown = (n for n in sorted(names) if Path(n).suffix.lower() in PICTURE_SUFFIXES and not is_clutter(n))
        found += [(place / name).as_posix() for name in shown]
        count += len(names)
        if count > MOST:
            break
    return found
