"""The shape bank of a category: the codes of its shapes, and their outlines from known cameras."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from warpdvr.datasets.views import Views
from warpdvr.evaluation.overlap import iou
from warpdvr.singleview.preprocess import square_intrinsics, square_mask

SIDE = 32
"""Width and height of an outline [pixel]."""


@dataclass(frozen=True)
class ShapeBank:
    """n shapes, and m pictures of them."""

    codes: Float[Tensor, "n code"]
    """Latent code of each shape."""
    shape_index: Int[Tensor, " m"]
    """The shape that each picture shows."""
    outline: UInt8[Tensor, "m side side"]
    """How much of each of `SIDE` x `SIDE` pixels the shape covers, from 0 to 255."""
    pose: Float[Tensor, "m 4 4"]
    """Camera to world; the translation in scene units."""
    K: Float[Tensor, "m 3 3"]
    """Intrinsics of a square picture, whose width is the unit."""

    @classmethod
    def of(cls, codes: Float[Tensor, "n code"], shapes: Sequence[Views]) -> "ShapeBank":
        """Return the shape bank of n shapes, given their codes and their pictures, on the device of the codes."""
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
        pictures = (torch.stack(parts).to(codes.device) for parts in (outlines, poses, intrinsics))
        return cls(codes.detach().clone(), torch.tensor(shape_index, device=codes.device), *pictures)

    def to(self, device: torch.device | str) -> "ShapeBank":
        """Return the shape bank on a device."""
        return ShapeBank(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def joined(self, outlines: Sequence[tuple[Tensor, ...]]) -> "ShapeBank":
        """Return the shape bank with more pictures: tuples of `shape_index`, `outline`, `pose` and `K`."""
        parts = zip((self.shape_index, self.outline, self.pose, self.K), *outlines, strict=True)
        return ShapeBank(self.codes, *(torch.cat(part) for part in parts))

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "ShapeBank":
        """Return the shape bank of the tensors that `tensors` returned; KeyError if one is missing."""
        return cls(*(tensors[f.name] for f in fields(cls)))

    def tensors(self) -> dict[str, Tensor]:
        """Return all its tensors, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def axes(self) -> Float[Tensor, "k code"]:
        """Return the principal axes of the codes, each one standard deviation long."""
        _, size, axes = torch.linalg.svd(self.codes - self.codes.mean(0), full_matrices=False)
        scaled: Tensor = size[:, None] * axes / max(len(self.codes) - 1, 1) ** 0.5
        return scaled

    def nearest(
        self, mask: Bool[Tensor, "s s"], n: int, *, symmetric: int | None
    ) -> tuple[Int[Tensor, " k"], Float[Tensor, "k 4 4"], Float[Tensor, "k 3 3"]]:
        """Return shapes, poses and intrinsics of the pictures that are most similar to a mask.

        The best picture of each shape counts. Outlines are compared by the IoU of what they cover.

        Args:
            mask: mask of a square picture.
            n: number of shapes to return, at most.
            symmetric: axis along which all shapes are their own mirror images, so that mirrored pictures count too.
        """
        target, outlines = outline(mask), self.outline.float() / 255
        plain = iou(outlines, target)
        mirrored = torch.zeros_like(plain) if symmetric is None else iou(outlines, target.flip(1))
        none = plain.new_zeros(len(self.codes))
        best = none.scatter_reduce(0, self.shape_index, torch.maximum(plain, mirrored), "amax")
        pose, K = [], []
        shapes = best.topk(min(n, len(best))).indices
        for k in shapes.tolist():
            i = int(torch.where(self.shape_index == k, torch.maximum(plain, mirrored), -1.0).argmax())
            use_mirrored = mirrored[i] > plain[i]
            pose.append(_mirrored(self.pose[i], symmetric) if use_mirrored else self.pose[i])
            K.append(_flipped(self.K[i]) if use_mirrored else self.K[i])
        return shapes, torch.stack(pose), torch.stack(K)


def outline(mask: Bool[Tensor, "s s"]) -> Float[Tensor, "side side"]:
    """Return how much of each of `SIDE` x `SIDE` pixels a square mask covers, from 0 to 1."""
    return torch.nn.functional.interpolate(mask.float()[None, None], size=(SIDE, SIDE), mode="area")[0, 0]


def _mirrored(pose: Float[Tensor, "4 4"], symmetric: int | None) -> Float[Tensor, "4 4"]:
    """Return the pose from which a symmetric shape looks like its mirrored picture from `pose`."""
    world, picture = torch.eye(4).to(pose), torch.diag(pose.new_tensor([-1.0, 1, 1, 1]))
    if symmetric is not None:
        world[symmetric, symmetric] = -1
    return world @ pose @ picture


def _flipped(K: Float[Tensor, "3 3"]) -> Float[Tensor, "3 3"]:
    """Return the intrinsics of a mirrored picture, in units of its width; the skew changes its sign."""
    sign = K.new_tensor([[1.0, -1, -1], [1, 1, 1], [1, 1, 1]])
    return sign * K + K.new_tensor([[0.0, 0, 1], [0, 0, 0], [0, 0, 0]])
