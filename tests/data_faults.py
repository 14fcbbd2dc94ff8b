"""Faults that people's data have, made from views that are right; the cameras are changed in the data's own frame."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from warpdvr.cameras.camera import OPENGL, Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.views import Views

MIRROR = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64))


def few(views: Views, count: int) -> Views:
    """Return every n-th view, so that about `count` are left."""
    chosen = range(0, len(views), max(1, len(views) // count))
    kept: dict[str, Any] = {
        name: tuple(getattr(views, name)[i] for i in chosen) for name in ("images", "masks", "cameras", "names")
    }
    return replace(views, **kept, train=tuple(range(len(chosen))), test=(), depths=(), points=())


def with_cameras(views: Views, change: Callable[[int, Camera], Camera]) -> Views:
    data = views.in_data_frame()
    data = replace(data, cameras=tuple(change(i, camera) for i, camera in enumerate(data.cameras)))
    return replace(data.in_scene_frame(views.transform), summary=views.summary)


def with_poses(views: Views, change: Callable[[torch.Tensor], torch.Tensor]) -> Views:
    return with_cameras(views, lambda i, camera: replace(camera, pose=change(camera.pose.double())))


def swapped(items, a: int, b: int):
    items = list(items)
    items[a], items[b] = items[b], items[a]
    return tuple(items)


def other_axes(views: Views) -> Views:
    return with_poses(views, lambda pose: pose @ OPENGL)


def inverted_poses(views: Views) -> Views:
    return with_poses(views, torch.linalg.inv)


def mirrored(views: Views) -> Views:
    return with_poses(views, lambda pose: MIRROR @ pose @ MIRROR)


def other_size(views: Views, factor: float = 2.0) -> Views:
    scale = torch.tensor([factor, factor, 1.0], dtype=torch.float64)[:, None]
    return with_cameras(views, lambda i, camera: replace(camera, K=scale * camera.K))


def half_pixel(views: Views, shift: float = 0.5) -> Views:
    move = torch.tensor([[0.0, 0.0, shift], [0.0, 0.0, shift], [0.0, 0.0, 0.0]], dtype=torch.float64)
    return with_cameras(views, lambda i, camera: replace(camera, K=camera.K + move))


def other_focal(views: Views, factor: float) -> Views:
    """fx and fy are wrong; the principal point is right."""
    scale = torch.tensor([[factor, factor, 1.0], [1.0, factor, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    return with_cameras(views, lambda i, camera: replace(camera, K=scale * camera.K))


def inverted_masks(views: Views) -> Views:
    return replace(views, masks=tuple(None if mask is None else ~mask for mask in views.masks))


def mask_of_another_view(views: Views, a: int = 2, b: int = 7) -> Views:
    masks = list(views.masks)
    masks[a] = masks[b]
    return replace(views, masks=tuple(masks))


def swapped_pictures(views: Views, a: int = 2, b: int = 7) -> Views:
    """The pictures, and the masks that were made from them."""
    return replace(views, images=swapped(views.images, a, b), masks=swapped(views.masks, a, b))


def swapped_colours(views: Views, a: int = 2, b: int = 7) -> Views:
    """The pictures alone; the masks are right."""
    return replace(views, images=swapped(views.images, a, b))


def wrong_scale(views: Views, factor: float = 3.0) -> Views:
    matrix = views.transform.matrix.clone()
    matrix[:3, :3] /= factor
    return replace(views.in_data_frame().in_scene_frame(SceneTransform(matrix)), summary=views.summary)


def wrong_pose(views: Views, a: int = 3, degrees: float = 30.0) -> Views:
    """One camera is turned around the object, about the first diagonal of the scene."""
    turn = torch.eye(4, dtype=torch.float64)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=torch.float64) / 3**0.5
    turn[:3, :3] = torch.linalg.matrix_exp(cross * torch.deg2rad(torch.tensor(degrees, dtype=torch.float64)))
    cameras = list(views.cameras)
    cameras[a] = replace(cameras[a], pose=turn @ cameras[a].pose.double())
    return replace(views, cameras=tuple(cameras))


def darker(views: Views, a: int = 3, factor: float = 0.5) -> Views:
    images = list(views.images)
    images[a] = (images[a].float() * factor).to(torch.uint8)
    return replace(views, images=tuple(images))


def said_to_be_opengl(views: Views) -> Views:
    return replace(views, summary="OpenGL axes")


def said_to_be_opencv(views: Views) -> Views:
    return replace(views, summary="K [R | t]")


FAULTS: dict[str, tuple[str, Callable[[Views], Views]]] = {
    "OpenGL axes given as OpenCV": ("opengl-axes", lambda views: said_to_be_opencv(other_axes(views))),
    "OpenCV axes given as OpenGL": ("opencv-axes", lambda views: said_to_be_opengl(other_axes(views))),
    "inverted poses": ("inverted-poses", inverted_poses),
    "mirrored frame": ("mirrored-frame", mirrored),
    "pictures half as large as K's": ("picture-size", other_size),
    "focal length x 0.6": ("focal-length", lambda views: other_focal(views, 0.6)),
    "focal length x 1.5": ("focal-length", lambda views: other_focal(views, 1.5)),
    "focal length x 3": ("focal-length", lambda views: other_focal(views, 3.0)),
    "half-pixel shift": ("half-pixel", half_pixel),
    "masks inverted": ("inverted-masks", inverted_masks),
    "mask of another view": ("mask-of-another-view", mask_of_another_view),
    "two pictures swapped, with their masks": ("swapped-pictures", swapped_pictures),
    "two pictures swapped, without their masks": ("swapped-pictures", swapped_colours),
    "wrong scale_mat": ("scene-frame", wrong_scale),
    "one wrong pose": ("wrong-pose", wrong_pose),
    "one picture darker": ("exposure", darker),
}
"""The kind of finding that each fault must be named by, and how it is made."""
