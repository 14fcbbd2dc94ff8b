"""What is known of a category apart from the network: codes of its shapes, and their outlines from known cameras."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from warpdvr.datasets.views import Views
from warpdvr.evaluation.overlap import iou
from warpdvr.singleview.preprocess import square_intrinsics, square_mask

SIDE = 32
"""Width and height of an outline [pixel]."""


@dataclass(frozen=True)
class ShapeBank:
    """n shapes, and m pictures of them."""

    codes: Tensor
    """Latent code of each shape, (n, code)."""
    shape_index: Tensor
    """Which shape each picture shows, (m,), int64."""
    outline: Tensor
    """How much of each pixel the shape covers, of 255, (m, SIDE, SIDE), uint8."""
    pose: Tensor
    """Camera to world, (m, 4, 4), float32; the translation in scene units."""
    K: Tensor
    """Intrinsics, (m, 3, 3), float32, of a square picture; its width is the unit."""

    @classmethod
    def of(cls, codes: Tensor, shapes: Sequence[Views]) -> "ShapeBank":
        """Return the shape bank of n shapes, given their codes (n, code) and their pictures."""
        shape_index, outlines, poses, intrinsics = [], [], [], []
        for k, views in enumerate(shapes):
            for i in views.train:
                camera, mask = views.cameras[i], views.masks[i]
                if mask is None:
                    continue
                shape_index.append(k)
                outlines.append((255 * outline(square_mask(mask))).round().to(torch.uint8))
                poses.append(camera.pose.float())
                intrinsics.append(square_intrinsics(camera.K.float(), camera.width, camera.height))
        rest = torch.stack(outlines), torch.stack(poses), torch.stack(intrinsics)
        return cls(codes.detach().clone(), torch.tensor(shape_index), *rest)

    def joined(self, outlines: Sequence[tuple[Tensor, ...]]) -> "ShapeBank":
        """Return the same with more pictures: tuples of `shape_index`, `outline`, `pose` and `K`."""
        parts = zip((self.shape_index, self.outline, self.pose, self.K), *outlines, strict=True)
        return ShapeBank(self.codes, *(torch.cat(part) for part in parts))

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "ShapeBank":
        """Return the shape bank that `tensors` returned; KeyError if something is missing."""
        return cls(*(tensors[f.name] for f in fields(cls)))

    def tensors(self) -> dict[str, Tensor]:
        """Return all that it holds, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def axes(self) -> Tensor:
        """Return the principal axes of the codes, each a standard deviation long, (k, code)."""
        _, size, axes = torch.linalg.svd(self.codes - self.codes.mean(0), full_matrices=False)
        scaled: Tensor = size[:, None] * axes / max(len(self.codes) - 1, 1) ** 0.5
        return scaled

    def nearest(self, mask: Tensor, n: int, *, symmetric: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return shapes (k,), poses (k, 4, 4) and intrinsics (k, 3, 3) of the pictures that are most like a mask.

        The best picture of each shape counts. Outlines are compared by the IoU of what they cover.

        Args:
            mask: of a square picture, (s, s), bool.
            n: how many shapes are wanted; k is fewer if fewer are known.
            symmetric: axis along which all shapes are their own mirror images, so that mirrored pictures count too.
        """
        target, outlines = outline(mask), self.outline.float() / 255
        plain = iou(outlines, target)
        mirrored = torch.zeros_like(plain) if symmetric is None else iou(outlines, target.flip(1))
        best = torch.zeros(len(self.codes)).scatter_reduce(0, self.shape_index, torch.maximum(plain, mirrored), "amax")
        pose, K = [], []
        chosen = best.topk(min(n, len(best))).indices
        for k in chosen.tolist():
            i = int(torch.where(self.shape_index == k, torch.maximum(plain, mirrored), -1.0).argmax())
            use_mirrored = mirrored[i] > plain[i]
            pose.append(_mirrored(self.pose[i], symmetric) if use_mirrored else self.pose[i])
            K.append(_flipped(self.K[i]) if use_mirrored else self.K[i])
        return chosen, torch.stack(pose), torch.stack(K)


def outline(mask: Tensor) -> Tensor:
    """Return how much of each of SIDE x SIDE pixels a square mask (s, s) covers, from 0 to 1."""
    return torch.nn.functional.interpolate(mask.float()[None, None], size=(SIDE, SIDE), mode="area")[0, 0]


def _mirrored(pose: Tensor, symmetric: int | None) -> Tensor:
    """Return the pose from which a symmetric shape looks like a mirrored picture of it from `pose` (4, 4)."""
    world, picture = torch.eye(4), torch.diag(torch.tensor([-1.0, 1, 1, 1]))
    if symmetric is not None:
        world[symmetric, symmetric] = -1
    return world @ pose @ picture


def _flipped(K: Tensor) -> Tensor:
    """Return the intrinsics of a mirrored picture, in units of its width; skew turns its sign."""
    sign = torch.tensor([[1.0, -1, -1], [1, 1, 1], [1, 1, 1]])
    return sign * K + torch.tensor([[0.0, 0, 1], [0, 0, 0], [0, 0, 0]])
