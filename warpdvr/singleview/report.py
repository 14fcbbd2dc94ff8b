"""A page of pictures: each input, its reconstruction, and the true shape."""

from pathlib import Path

import numpy as np
import PIL.Image
import torch
from jaxtyping import UInt8
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.files import error_prefix
from warpdvr.fields.base import Field
from warpdvr.geometry.visible import visible_surface
from warpdvr.intersection.default import default_intersect_for_pictures
from warpdvr.rendering.render import render
from warpdvr.runtime.files import replacing
from warpdvr.singleview import metrics
from warpdvr.singleview.category import Category
from warpdvr.singleview.metrics import ShapeScores
from warpdvr.singleview.preprocess import InputPicture, first_picture
from warpdvr.singleview.reconstructor import CategoryCheckpoint
from warpdvr.singleview.render_category import CategoryMesh, category_meshes
from warpdvr.singleview.test_time import Refinement

SIDES = (-2.0, 1.2, 1.9), (1.6, -0.9, 2.4)
"""Positions of the cameras: in front and above, behind and below."""

ROWS = "reconstruction", "without refinement", "mean shape", "nearest shape"
"""The shapes that are compared with the truth."""

SIZE = 128
"""Width and height of a picture on the page [pixel]."""


def compare(
    checkpoint: CategoryCheckpoint, category: Category, meshes: Path, out: Path, *, refinement: Refinement | None = None
) -> dict[str, list[ShapeScores]]:
    """Reconstruct each held-out object from its first picture, score it beside two baselines, and write a page.

    The baselines are the decoder's shape for the mean code, and the training mesh that is nearest to the true shape.

    Args:
        checkpoint: the network that reconstructs.
        category: the category that it learnt from.
        meshes: folder or archive of the true meshes, as `photograph` takes it.
        out: the picture file; a row for each object: the input, its reconstruction and the truth from two sides each.
        refinement: how the reconstructions are fitted to the pictures.

    Returns:
        "reconstruction", "without refinement", "mean shape" and "nearest shape", each with the scores of each
        held-out object.
    """
    true = category_meshes(meshes, category.names)
    visible = {name: visible_surface(model.mesh) for name, model in true.items()}
    train_names = [category.names[i] for i in category.train]
    average = metrics.mean_shape(checkpoint)
    scores: dict[str, list[ShapeScores]] = {name: [] for name in ROWS}
    rows = []
    for i in category.test:
        name = category.names[i]
        picture = first_picture(category.views[i])
        with error_prefix(name):
            _, guess = metrics.reconstruct(checkpoint, picture, refinement=Refinement(steps=0))
            field, mesh = metrics.reconstruct(checkpoint, picture, refinement=refinement)
        nearest = train_names[metrics.nearest_shape(visible[name], [visible[candidate] for candidate in train_names])]
        for what, shape in zip(scores, (mesh, guess, average, true[nearest].mesh), strict=True):
            scores[what].append(metrics.shape_scores(shape, true[name].mesh, visible=visible[name]))
        rows.append([_enlarged(picture), *sides(field), *_photographs(true[name])])
    _write(out, rows)
    return scores


def two_sides(field: Field, out: Path) -> None:
    """Write a picture of a field from two sides."""
    _write(out, [sides(field)])


@torch.no_grad()
def sides(field: Field) -> list[UInt8[Tensor, "h w 3"]]:
    """Return pictures of a field from `SIDES`."""
    intersect, _ = default_intersect_for_pictures(field)
    return [torch.from_numpy(render(field, camera, intersect=intersect).picture()) for camera in cameras()]


def _photographs(model: CategoryMesh) -> list[UInt8[Tensor, "h w 3"]]:
    parts = [model.picture(camera, 3) for camera in cameras()]
    return [torch.where(mask[..., None], image, 255) for image, mask, _ in parts]


def cameras() -> list[Camera]:
    """Return the cameras of `SIDES`."""
    return [Camera.look_at(eye, up=(0, 1, 0), fov=38, width=SIZE, height=SIZE) for eye in SIDES]


def _enlarged(picture: InputPicture) -> UInt8[Tensor, "h w 3"]:
    large = torch.nn.functional.interpolate(picture.image[None], size=(SIZE, SIZE), mode="nearest")[0]
    return (large.permute(1, 2, 0) * 255).round().to(torch.uint8)


def _write(out: Path, rows: list[list[Tensor]]) -> None:
    whole = torch.cat([torch.cat(row, 1) for row in rows]).numpy()
    with replacing(out) as unfinished:
        PIL.Image.fromarray(np.ascontiguousarray(whole)).save(unfinished)
