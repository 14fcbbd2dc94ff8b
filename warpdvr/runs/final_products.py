"""Write all products of a finished fit; one that fails costs neither the others nor the success of the fit."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from warpdvr.datasets.views import Views
from warpdvr.fields.base import Field
from warpdvr.geometry.mesh import Mesh
from warpdvr.runs import products
from warpdvr.runs.run import Run

Product = TypeVar("Product")


def write_all(
    run: Run, field: Field, views: Views, mesh_options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Path]]:
    """Write pictures, mesh, USD and scores of a fit that is saved; warn about each that cannot be written.

    Returns:
        The scores, with 0 views if they are missing, and the paths of the files that were written, by what they are.
    """
    files: dict[str, Path] = {}
    picture = attempt(run.images, lambda: products.write_pictures(run, field))
    if picture is not None:
        files["picture"] = picture
    distrusted = attempt(run.images, lambda: products.write_distrusted(run, views))
    if distrusted is not None:
        files["distrusted"] = distrusted
    mesh = attempt(run.mesh, lambda: products.extract_mesh(run, field, **mesh_options))
    if mesh is not None:
        files |= _write_surface(run, mesh)
    scores = attempt(run.scores, lambda: products.write_scores(run, field, views, mesh, views.truth))
    if scores is not None:
        files["scores"] = run.scores
    return scores or {"views": 0}, files


def attempt(path: Path, write: Callable[[], Product]) -> Product | None:
    """Return what `write` returns; or None, with a warning that names the file or folder `path`, if it fails."""
    try:
        return write()
    except (ValueError, OSError, RuntimeError, MemoryError) as error:  # RuntimeError: of Torch, Warp and USD
        reason = str(error).removeprefix(f"{path}: ") or type(error).__name__
        warnings.warn(f"{path}: not written: {reason}; the fit itself is complete and saved", stacklevel=2)
        return None


def _write_surface(run: Run, mesh: Mesh) -> dict[str, Path]:
    """Write the files of the surface; return the paths of those that were written."""

    def save() -> Path:
        mesh.save(run.mesh)
        return run.mesh

    written = {"mesh": attempt(run.mesh, save), "usd": attempt(run.usd, lambda: products.write_scene(run, mesh))}
    return {name: path for name, path in written.items() if path is not None}
