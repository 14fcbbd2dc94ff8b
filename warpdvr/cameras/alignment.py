"""Errors of estimated cameras, after aligning the frame that photographs leave undetermined."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform


@dataclass(frozen=True)
class CameraErrors:
    """Errors of each of n cameras with respect to its reference."""

    rotation: Float[Tensor, " n"]
    """Angle between the rotations, float64 [degree]."""
    centre: Float[Tensor, " n"]
    """Distance between the centres, float64 [unit of the reference]."""

    def __str__(self) -> str:
        r, c = self.rotation, self.centre
        return (
            f"rotations {r.mean():.3g} degrees off on average, {r.max():.3g} at most; "
            f"centres {c.mean():.3g} on average, {c.max():.3g} at most"
        )


def camera_errors(cameras: Sequence[Camera], reference: Sequence[Camera], *, aligned: bool = True) -> CameraErrors:
    """Compare estimated cameras with reference cameras.

    Args:
        cameras, reference: cameras of the same views, in the same order.
        aligned: first apply the similarity that fits the centres best. Cameras that were estimated together with a
            shape need it, because photographs do not determine the pose and the size of the scene. This takes at least
            3 cameras.

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


def similarity(points: Float[Tensor, "..."], reference: Float[Tensor, "..."]) -> SceneTransform:
    """Return the similarity that maps points (n, 3) to reference points (n, 3) with the least squared distance.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (1991), eq. 40 to 43.

    Raises:
        ValueError: if the shapes differ, or the points are too few or lie on a line, which leaves a rotation
            undetermined.
    """
    if points.shape != reference.shape or points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"similarity: expected two times (n, 3), got {tuple(points.shape)}, {tuple(reference.shape)}")
    x, y = points.detach().cpu().double(), reference.detach().cpu().double()
    a, b = x - x.mean(0), y - y.mean(0)
    left_vectors, size, right_vectors = torch.linalg.svd(b.T @ a / max(len(x), 1))
    if not size[1] > 1e-9 * size[0]:
        raise ValueError(f"similarity: expected at least 3 points that are not on one line, got {len(x)} on one")
    sign = torch.ones(3, dtype=torch.float64)
    sign[2] = torch.linalg.det(left_vectors) * torch.linalg.det(right_vectors)  # never a mirror image
    scale = (size * sign).sum() / a.square().sum(1).mean()
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = scale * (left_vectors * sign) @ right_vectors
    matrix[:3, 3] = y.mean(0) - matrix[:3, :3] @ x.mean(0)
    return SceneTransform(matrix)


def rotation_angles(first: Float[Tensor, "n 3 3"], second: Float[Tensor, "n 3 3"]) -> Float[Tensor, " n"]:
    """Return the angles between rotations [degree].

    From the chord |A - B| = sqrt(8) sin(angle / 2), which is accurate at small angles, unlike the trace.
    """
    chord = (first - second).flatten(1).norm(dim=1) / 8**0.5
    return torch.rad2deg(2 * torch.asin(chord.clamp_max(1)))


def _poses(cameras: Sequence[Camera]) -> Float[Tensor, "n 4 4"]:
    return torch.stack([camera.pose.detach().cpu().double() for camera in cameras])
