"""Errors of estimated cameras, after the alignment of a frame that photographs leave undetermined."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform


@dataclass(frozen=True)
class CameraErrors:
    """How far each of n cameras is from its reference."""

    rotation: Tensor
    """Angle between the rotations, shape (n,), float64 [degree]."""
    centre: Tensor
    """Distance between the centres, shape (n,), float64 [unit of the reference]."""

    def __str__(self) -> str:
        r, c = self.rotation, self.centre
        return (
            f"rotations {r.mean():.3g} degrees off on average, {r.max():.3g} at most; "
            f"centres {c.mean():.3g} on average, {c.max():.3g} at most"
        )


def camera_errors(cameras: Sequence[Camera], reference: Sequence[Camera], *, aligned: bool = True) -> CameraErrors:
    """Compare estimated cameras with reference cameras.

    Args:
        cameras, reference: of the same views, in the same order.
        aligned: first apply the similarity that fits the centres best, as is needed for cameras that were estimated
            together with a shape: photographs do not determine where the scene lies and how large it is. This takes at
            least 3 cameras.

    Raises:
        ValueError: if their numbers differ, or the centres determine no similarity.
    """
    if len(cameras) != len(reference) or not cameras:
        raise ValueError(f"camera_errors: expected as many cameras as references, got {len(cameras)}, {len(reference)}")
    pose, true = _poses(cameras), _poses(reference)
    if aligned:
        transform = similarity(pose[:, :3, 3], true[:, :3, 3])
        pose = _poses([transform.to_data(camera.to("cpu")) for camera in cameras])
    return CameraErrors(
        rotation_angles(pose[:, :3, :3], true[:, :3, :3]), (pose[:, :3, 3] - true[:, :3, 3]).norm(dim=1)
    )


def similarity(points: Tensor, reference: Tensor) -> SceneTransform:
    """Return the similarity that takes points (n, 3) to reference points (n, 3) with the least squared distance.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (1991), eq. 40 to 43.

    Raises:
        ValueError: if the shapes differ, or the points are too few or lie on a line: a rotation is then left open.
    """
    if points.shape != reference.shape or points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"similarity: expected two times (n, 3), got {tuple(points.shape)}, {tuple(reference.shape)}")
    x, y = points.detach().cpu().double(), reference.detach().cpu().double()
    a, b = x - x.mean(0), y - y.mean(0)
    left, size, right = torch.linalg.svd(b.T @ a / max(len(x), 1))
    if not size[1] > 1e-9 * size[0]:
        raise ValueError(f"similarity: expected at least 3 points that are not on one line, got {len(x)} on one")
    sign = torch.ones(3, dtype=torch.float64)
    sign[2] = torch.linalg.det(left) * torch.linalg.det(right)  # never a mirror image
    scale = (size * sign).sum() / a.square().sum(1).mean()
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = scale * (left * sign) @ right
    matrix[:3, 3] = y.mean(0) - matrix[:3, :3] @ x.mean(0)
    return SceneTransform(matrix)


def rotation_angles(first: Tensor, second: Tensor) -> Tensor:
    """Return the angles between rotations (n, 3, 3), shape (n,) [degree].

    By the chord |A - B| = sqrt(8) sin(angle / 2), which keeps its digits at small angles, where the trace loses them.
    """
    chord = (first - second).flatten(1).norm(dim=1) / 8**0.5
    return torch.rad2deg(2 * torch.asin(chord.clamp_max(1)))


def _poses(cameras: Sequence[Camera]) -> Tensor:
    return torch.stack([camera.pose.detach().cpu().double() for camera in cameras])
