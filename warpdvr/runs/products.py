"""The products of a run: pictures, mesh, USD, scores."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from warpdvr.cameras import paths
from warpdvr.datasets.views import Views
from warpdvr.evaluation.concave import concave_distance
from warpdvr.evaluation.images import evaluate
from warpdvr.evaluation.surfaces import chamfer
from warpdvr.fields.base import Field
from warpdvr.fields.bounds import longest_side
from warpdvr.fitting.mask_trust import distrusted_in, trust_picture
from warpdvr.geometry.isosurface import DEBRIS, extract
from warpdvr.geometry.mesh import Mesh, read_mesh
from warpdvr.rendering import turntable
from warpdvr.rendering.background import ROOM, Background
from warpdvr.rendering.image import Image
from warpdvr.runs.run import Run
from warpdvr.runtime.files import make_folder, replacing
from warpdvr.usd.scene import Metadata, write_usd


def write_pictures(run: Run, field: Field, *, size: int = 512) -> Path:
    """Write a picture of the colours and one of the normals, from the side of the photographs; return the first."""
    checkpoint = run.load()
    (camera,) = paths.turntable_around(checkpoint.cameras, 1, up=checkpoint.up, size=size, radius=_radius(field))
    (image,) = turntable.turn(field, [camera])
    make_folder(run.images)
    for channel in ("rgb", "normal"):
        _picture(run.images / f"view_{channel}.png", image.picture(channel))
    return run.images / "view_rgb.png"


def write_turntable(run: Run, field: Field, *, frames: int, size: int) -> Path:
    """Write the pictures of a turntable and an animated GIF; return the path of the GIF."""
    checkpoint = run.load()
    path = paths.turntable_around(checkpoint.cameras, frames, up=checkpoint.up, size=size, radius=_radius(field))
    make_folder(run.images)
    for old in run.images.glob("turntable_*.png"):
        old.unlink()
    pictures = []
    for i, image in enumerate(turntable.turn(field, path)):
        pictures.append(image.picture())
        _picture(run.images / f"turntable_{i:03d}.png", pictures[-1])
    turntable.animate(pictures, run.images / "turntable.gif")
    return run.images / "turntable.gif"


def write_mesh(run: Run, field: Field, path: Path | None = None, **options: Any) -> Mesh:
    """Extract the surface in the data's own units and write it, by default to mesh.ply; options are those below."""
    mesh = extract_mesh(run, field, **options)
    mesh.save(path or run.mesh)
    return mesh


def extract_mesh(run: Run, field: Field, **options: Any) -> Mesh:
    """Extract the surface in the data's own frame and units.

    Photographs do not show closed cavities, and few of them what lies beside the object: so the walls of cavities, and
    pieces smaller than `DEBRIS`, are left out unless the options ask for them.
    """
    seen: dict[str, Any] = {"cavities": False, "smallest": DEBRIS}
    return extract(field, **(seen | options)).transformed(run.load().transform.matrix)


def write_scene(run: Run, mesh: Mesh, path: Path | None = None) -> Path:
    """Write mesh and cameras as USD, by default to scene.usdc; Z is up where the up direction is known.

    Cameras that USD does not have are written without skew and lens distortion, or left out, with a warning.
    """
    checkpoint = run.load()
    path = path or run.usd
    data = checkpoint.transform.matrix
    cameras = [checkpoint.transform.to_data(camera) for camera in checkpoint.cameras]
    up = (data[:3, :3] @ torch.tensor(checkpoint.up, dtype=data.dtype)).tolist()
    matrix = [float(a) for row in data.tolist() for a in row]
    metadata: Metadata = {"scene_transform": matrix, "field": str(checkpoint.kind)}
    write_usd(path, mesh, cameras, up=up, metadata=metadata, approximate_cameras=True)
    return path


def write_distrusted(run: Run, views: Views) -> Path | None:
    """Write the photograph with the most pixels whose mask the fit did not trust; return its path, None without any."""
    pixels = distrusted_in(run.load().fit, views)
    if not bool(pixels.any()):
        return None
    make_folder(run.images)
    path = run.images / "distrusted.png"
    _picture(path, trust_picture(views, pixels).numpy())
    return path


def write_scores(run: Run, field: Field, views: Views, mesh: Mesh | None, truth: Mesh | None) -> dict[str, Any]:
    """Evaluate on the held-out views, and against the true mesh if there is one; write eval.json and return it."""

    def show(i: int, image: Image, photograph: Tensor) -> None:
        pair = np.concatenate([(photograph * 255).round().byte().numpy(), image.picture()], 1)
        _picture(run.images / f"held_out_{views.names[i]}.png", pair)

    make_folder(run.images)
    state = run.load().fit
    scores = evaluate(field, views, background=Background.saved(state), shown=show)
    result: dict[str, Any] = {
        "psnr": scores.psnr,
        "iou": scores.iou,
        "views": scores.views,
        "field_evaluations": int(state["counts"][1]),
        "seconds": round(float(state["counts"][2]), 2),
        "iterations": int(state["counts"][0]),
        "evaluation": {"field_evaluations": scores.field_evaluations},
        "distrusted_pixels": int(distrusted_in(state, views).sum()),
    }
    if truth is not None and mesh is not None:
        size = {"mesh_vertices": len(mesh.vertices), "mesh_triangles": len(mesh.faces)}  # how fine it is
        result |= size | asdict(chamfer(mesh, truth)) | asdict(concave_distance(mesh, truth, views))
    row = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in result.items()}
    with replacing(run.scores) as unfinished:
        unfinished.write_text(json.dumps(row, indent=2) + "\n")
    return result


def true_mesh(path: Path | None, views: Views) -> Mesh | None:
    """Return the mesh at `path`, or the one that came with the views, if any."""
    return views.truth if path is None else read_mesh(path)


def _radius(field: Field) -> float:
    """Return the radius of the ball that the bounds leave some room around: 1 for the bounds of a fit by default."""
    return longest_side(field.bounds) / ROOM


def _picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    with replacing(path) as unfinished:
        PIL.Image.fromarray(pixels).save(unfinished)
