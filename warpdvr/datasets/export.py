"""Write the cameras of views in another format than that of their data."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets import load as loading
from warpdvr.datasets.entries import NamedCamera
from warpdvr.datasets.formats import Format
from warpdvr.datasets.listing import ListedFormat
from warpdvr.datasets.matrices import MatrixFormat
from warpdvr.datasets.middlebury import Middlebury
from warpdvr.datasets.views import Views
from warpdvr.runtime.files import make_folder, replacing
from warpdvr.runtime.validate import suggest

Exporter = ListedFormat | MatrixFormat | Middlebury


def export_formats() -> dict[str, Exporter]:
    """Return the formats that cameras are written in, by name: the parts of their titles in lower case."""
    found: dict[str, Exporter] = {}
    for format in loading.FORMATS:
        if isinstance(format, Exporter):
            found |= {name: format for name in format_names(format) if name not in found}
    return found


def format_names(format: Format) -> list[str]:
    """Return the names that a format is chosen by: "IDR / NeuS" is called idr and neus."""
    return [part.strip().lower().replace(" ", "-") for part in format.title.split("/")]


def export_cameras(
    views: Views | Sequence[NamedCamera],
    out: Path | str,
    *,
    format: str,
    pictures: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write cameras in any format that is read, in the frame and the unit of the data.

    The files go where that format has them; the pictures themselves are not copied. Formats that pair pictures and
    cameras by order have them in the order of the pictures' names. What the format holds beside cameras, such as a
    range of depths, is a placeholder.

    Args:
        views: views, whose cameras are in the scene frame; or cameras in the data's own frame with the names of their
            pictures.
        out: the folder of the files, made if it does not exist; files that exist are replaced.
        format: its name, a key of `export_formats()`, such as "colmap", "nerfstudio" or "idr".
        pictures: file names of the pictures by the names of the views; by default these with .png.

    Returns:
        The files that were written.

    Raises:
        ValueError: if there is no such format, or it cannot hold one of the cameras; the message names those that can.
        OSError: if a file cannot be written.
    """
    known = export_formats()
    if format not in known:
        hint = suggest(format, known) or f"; known are {', '.join(known)}"
        raise ValueError(f"export_cameras: there is no format {format!r} to write cameras in{hint}")
    named, transform = _named_cameras(views, pictures or {})
    if not named:
        raise ValueError("export_cameras: expected at least one camera, found none")
    try:
        contents = _contents(known[format], named, transform)
    except ValueError as error:
        able = [name for name, other in known.items() if _holds(other, named, transform)]
        hint = f"; formats that can: {', '.join(able)}" if able else "; there is none that can"
        raise ValueError(f"{error}{hint}") from error
    paths = []
    for name, content in contents.items():
        path = Path(out) / name
        make_folder(path.parent)
        with replacing(path) as unfinished:
            unfinished.write_bytes(content)
        paths.append(path)
    return paths


def _named_cameras(
    views: Views | Sequence[NamedCamera], pictures: Mapping[str, str]
) -> tuple[list[NamedCamera], SceneTransform]:
    """Return the cameras in the data's own frame, and the transform to it."""
    if not isinstance(views, Views):
        return list(views), SceneTransform.identity()
    own = [views.transform.to_data(camera.to("cpu")) for camera in views.cameras]
    if views.stored_sizes:  # the pictures were scaled down when they were loaded
        own = [camera.resized(*size) for camera, size in zip(own, views.stored_sizes, strict=True)]
    named = [NamedCamera(pictures.get(n, f"{n}.png"), camera) for n, camera in zip(views.names, own, strict=True)]
    return named, views.transform


def _contents(format: Exporter, named: Sequence[NamedCamera], transform: SceneTransform) -> dict[str, bytes]:
    """Return the files of a format; two pictures must not have one name in it."""
    names = [PurePath(camera.name).name for camera in named]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"export_cameras: two pictures are called {twice}, give each a name of its own")
    return format.export(named, transform) if isinstance(format, MatrixFormat) else format.export(named)


def _holds(format: Exporter, named: Sequence[NamedCamera], transform: SceneTransform) -> bool:
    """Return whether a format can hold the cameras."""
    try:
        _contents(format, named, transform)
    except ValueError:
        return False
    return True
