"""Transform between the scene and the data's own frame and units."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera


@dataclass(frozen=True)
class SceneTransform:
    """A similarity from the scene to the data's own units: x_data = scale * R x_scene + offset.

    Raises:
        ValueError: if the matrix is not a similarity (one scale, no mirror image).
    """

    matrix: Float[Tensor, "4 4"]
    """Float64; maps a point of the scene [scene unit] to the data's own frame [unit of the data]."""

    def __post_init__(self) -> None:
        if tuple(self.matrix.shape) != (4, 4) or not bool(self.matrix.isfinite().all()):
            raise ValueError(f"scene transform: expected a finite (4, 4) matrix, got {self.matrix.tolist()}")
        linear, scale = self.matrix[:3, :3], self.scale
        square = linear @ linear.T
        last = torch.tensor([0.0, 0.0, 0.0, 1.0]).to(self.matrix)
        if (
            not scale > 0
            or (square / scale**2 - torch.eye(3).to(linear)).abs().max() > 1e-4
            or (self.matrix[3] != last).any()
        ):
            raise ValueError(f"scene transform: expected one scale, a rotation and a shift, got {self.matrix.tolist()}")

    @classmethod
    def identity(cls) -> "SceneTransform":
        """Return the transform for data in scene units."""
        return cls(torch.eye(4, dtype=torch.float64))

    @classmethod
    def around(cls, centre: Float[Tensor, "3"], scale: float) -> "SceneTransform":
        """Return the transform that puts the data's point `centre` at the origin and keeps the axes."""
        matrix = torch.diag(torch.tensor([scale, scale, scale, 1.0], dtype=torch.float64))
        matrix[:3, 3] = centre
        return cls(matrix)

    @property
    def scale(self) -> float:
        """The length of a scene unit [unit of the data]."""
        det = float(torch.linalg.det(self.matrix[:3, :3]))
        return det ** (1 / 3) if det > 0 else 0.0

    def apply(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Transform points from the scene to the data's own units, in the precision of x; differentiable.

        It is computed in that of the matrix, float64. Give `x.double()` where the data lie far from their origin.
        """
        matrix = self.matrix.to(x.device)
        return (x.to(matrix) @ matrix[:3, :3].T + matrix[:3, 3]).to(x)

    def inverse(self) -> "SceneTransform":
        """Return the transform from the data's own units to the scene."""
        matrix = torch.eye(4).to(self.matrix)
        matrix[:3, :3] = torch.linalg.inv(self.matrix[:3, :3])  # apart from the shift, which may be far larger
        matrix[:3, 3] = -matrix[:3, :3] @ self.matrix[:3, 3]
        return SceneTransform(matrix)

    def to_scene(self, camera: Camera) -> Camera:
        """Transform a camera from the data's own frame to the scene."""
        pose = self.inverse().matrix @ camera.pose.to(self.matrix)
        pose[:3, :3] *= self.scale
        return replace(camera, K=camera.projection.rescaled(camera.K, 1 / self.scale), pose=pose)

    def to_data(self, camera: Camera) -> Camera:
        """Transform a camera from the scene to the data's own frame; the inverse of `to_scene`."""
        pose = self.matrix @ camera.pose.to(self.matrix)
        pose[:3, :3] /= self.scale
        return replace(camera, K=camera.projection.rescaled(camera.K, self.scale), pose=pose)
