"""Photographs, masks and cameras in; everything comes out in the scene frame, with the object in the unit sphere.

`load` reads a folder in one of three formats, `mesh_views` renders a mesh. Both return `Views`.
"""

from pathlib import Path

from warpdvr.views import idr, middlebury, transforms
from warpdvr.views.mesh import mesh_views
from warpdvr.views.views import SceneTransform, Views

__all__ = ["FORMATS", "SceneTransform", "Views", "load", "mesh_views"]

FORMATS = (idr, middlebury, transforms)
"""The readers, asked in this order; each has PATTERN (the files it is recognised by), TITLE and read(folder, ...)."""


def load(folder: Path | str, *, hold_out: int = 8, cameras: str | None = None) -> Views:
    """Read the photographs, masks and cameras in `folder`; its format is detected by the files in it.

    IDR / NeuS (`cameras*.npz`), Middlebury (`*_par.txt`), nerfstudio / instant-ngp / Blender (`transforms*.json`).
    `Views.found` says what was detected. No file outside of `folder` is read, nothing is unpickled.

    Args:
        folder: the data set.
        hold_out: views 0, hold_out, 2 hold_out, ... are held out from training; 0 holds out none.
            A test split that comes with the data (`transforms_test.json`) is used instead.
        cameras: name of the camera file in `folder`, where it holds several.

    Raises:
        ValueError: if a file is missing, damaged or of another form than expected, or if files do not fit together.
    """
    folder = Path(folder)
    if hold_out < 0 or hold_out == 1:
        raise ValueError(f"hold_out must be 0 (no view) or at least 2 (every second view), got {hold_out}")
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: expected a folder of photographs, found {'a file' if folder.exists() else 'nothing'}"
        )
    if not any(folder.iterdir()):
        raise ValueError(f"{folder}: expected photographs and cameras, found an empty folder")
    for reader in FORMATS:
        found = sorted(folder.glob(reader.PATTERN))
        if cameras is not None:
            found = [f for f in found if f.name == cameras]
        if found:
            views: Views = reader.read(folder, found, hold_out=hold_out)
            return views
    known = "; ".join(f"{reader.TITLE} with {reader.PATTERN}" for reader in FORMATS)
    wanted = "a camera file of a known format" if cameras is None else f"a camera file called {cameras!r}"
    raise ValueError(f"{folder}: expected {wanted}, found none; known are {known}")
