"""Scores of shapes that are reconstructed from one picture, and of two baselines: the mean and the nearest shape."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.paths import fibonacci_sphere
from warpdvr.evaluation.overlap import iou
from warpdvr.evaluation.surfaces import chamfer
from warpdvr.fields.conditional import Shapes
from warpdvr.geometry.isosurface import extract
from warpdvr.geometry.mesh import Mesh
from warpdvr.geometry.search import first_hit, triangle_mesh
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.rendering.render import render
from warpdvr.singleview.category import Category
from warpdvr.singleview.preprocess import InputPicture, first_picture
from warpdvr.singleview.reconstructor import CategoryCheckpoint, Reconstructor
from warpdvr.singleview.test_time import Refinement, refine

UNSEEN = 8
"""Number of views from which silhouettes are compared; none of them is among the pictures."""

SIZE = 128
"""Width and height of the silhouettes [pixel]."""

SAMPLES = 20_000
"""Points on each surface."""


@dataclass(frozen=True)
class ShapeScores:
    """How far a mesh is from the true mesh, in the category's frame."""

    chamfer_l1: float
    """Half the sum of both mean distances from points to the other surface, as a share of the largest extent."""
    f_score: float
    """At a hundredth of the largest extent."""
    iou: float
    """Of silhouettes, mean over `UNSEEN` views."""


def shape_scores(predicted: Mesh, truth: Mesh, *, visible: Mesh | None = None) -> ShapeScores:
    """Compare a mesh with the true one.

    Args:
        predicted: the mesh to score.
        truth: the true mesh, for silhouettes.
        visible: the visible part of the true mesh, for distances; by default all of it.
    """
    distances = chamfer(predicted, truth if visible is None else visible, samples=SAMPLES)
    predicted_mask, true_mask = (silhouettes(mesh) for mesh in (predicted, truth))
    overlap = float(iou(predicted_mask, true_mask).mean())
    return ShapeScores(distances.chamfer_l1 / distances.extent, distances.f_score, overlap)


def mean_scores(scores: Sequence[ShapeScores]) -> ShapeScores:
    """Return the mean of each score."""
    names = "chamfer_l1", "f_score", "iou"
    return ShapeScores(*(sum(getattr(score, name) for score in scores) / max(len(scores), 1) for name in names))


def silhouettes(mesh: Mesh, cameras: Sequence[Camera] | None = None) -> Bool[Tensor, "v h w"]:
    """Return the masks of a mesh on the CPU from `UNSEEN` views around it, or from given cameras, by ray casting."""
    tree = triangle_mesh(mesh.vertices.float(), mesh.faces)
    masks = []
    for camera in cameras or score_cameras(UNSEEN, SIZE):
        rays = camera.to(mesh.vertices.device).rays()
        face, _, _ = first_hit(tree, rays.origin, rays.direction)
        masks.append((face >= 0).view(camera.height, camera.width).cpu())
    return torch.stack(masks)


def score_cameras(n: int, size: int) -> list[Camera]:
    """Return cameras on a spiral around the origin, rotated against those of `photograph`."""
    eyes = 3.0 * fibonacci_sphere(n, max_height=0.8, phase=0.7)
    return [Camera.look_at(eye, up=(0, 1, 0), fov=40, width=size, height=size) for eye in eyes]


def reconstruct(
    checkpoint: CategoryCheckpoint,
    picture: InputPicture,
    *,
    resolution: int = 128,
    refinement: Refinement | None = None,
) -> tuple[Shapes, Mesh]:
    """Return the shape that a picture shows, as a field and as a closed mesh in the category's frame.

    The work is done on the device of the checkpoint, where the field stays; the mesh is on the CPU.

    Raises:
        ValueError: if the network sees nothing in it, or the resolution is below 1.
    """
    picture = picture.to(checkpoint.device)
    field = refine(checkpoint.model.eval(), checkpoint.shape_bank, picture, refinement)
    with torch.no_grad():
        return field, _mesh(field, "what the network sees in this picture", resolution)


@torch.no_grad()
def mean_shape(checkpoint: CategoryCheckpoint, *, resolution: int = 128) -> Mesh:
    """Return the decoder's shape for the mean code of the training objects."""
    field = Shapes(checkpoint.model.decode, checkpoint.shape_bank.codes.mean(0, keepdim=True))
    return _mesh(field, "the network's mean shape", resolution)


def nearest_shape(truth: Mesh, candidates: Sequence[Mesh], *, samples: int = 2_000) -> int:
    """Return the index of the candidate with the smallest Chamfer-L1 to the true mesh; the choice needs the truth."""
    return min(range(len(candidates)), key=lambda i: chamfer(candidates[i], truth, samples=samples).chamfer_l1)


@torch.no_grad()
def held_out_iou(model: Reconstructor, category: Category, indices: Sequence[int] | None = None) -> float:
    """Return the mean IoU of silhouettes of objects, each reconstructed from its first picture.

    Args:
        model: the network.
        category: the category whose pictures are compared.
        indices: indices of the objects; by default the held-out ones.
    """
    scores = []
    for i in category.test if indices is None else indices:
        views = category.views[i]
        field = model.eval()(first_picture(views).to(model.device).small)
        for camera, mask in list(zip(views.cameras, views.masks, strict=True))[1::6]:
            if mask is not None and mask.any():
                rendered = render(field, camera, intersect=DenseMarch(48, splits=1)).mask
                scores.append(float(iou(rendered.cpu(), mask)))
    return sum(scores) / max(len(scores), 1)


def _mesh(field: Shapes, what: str, resolution: int) -> Mesh:
    try:
        return extract(field, resolution=resolution, cavities=False).to("cpu")
    except ValueError as error:
        raise ValueError(f"no mesh can be made of {what} ({error})") from error
