"""A camera as a file states it, for pictures of a size that may not be the stored one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.projection import PINHOLE, Projection
from warpdvr.datasets.files import error_prefix
from warpdvr.datasets.views import Views


@dataclass(frozen=True)
class Calibration:
    """A camera for pictures of one size. Called with another size, it returns the camera of the scaled picture."""

    K: Float[Tensor, "3 3"]
    """Intrinsic matrix for that size, float64 [pixel]."""
    pose: Float[Tensor, "4 4"]
    """Camera to world, OpenCV axes, float64 [unit of the data]."""
    width: float
    """Columns of the picture that K is for."""
    height: float
    """Rows of the picture that K is for."""
    label: str
    """File and number of the view, for messages."""
    projection: Projection = PINHOLE

    def __call__(self, width: int, height: int) -> Camera:
        """Return the camera of a picture of that size [pixel].

        The coefficients of a lens are those of the plane at distance 1, the same for all sizes.

        Raises:
            ValueError: if the picture has another shape, or the camera is damaged.
        """
        w, h = self.width, self.height
        if not (w > 0 and h > 0) or abs(w * height - h * width) > max(w, h):  # within a pixel of rounding
            turned = "; it is turned: turn it back" if (w, h) == (height, width) else ""
            raise ValueError(
                f"{self.label}: expected an image of {w:g} x {h:g} pixels, found one of {width} x {height}{turned}"
            )
        factor = torch.tensor([width / w, height / h, 1.0], dtype=torch.float64)
        with error_prefix(self.label):
            return Camera(factor[:, None] * self.K, self.pose, width, height, self.projection)


def describe_scaling(views: Views, widths: Sequence[float | None]) -> Views:
    """Return `views` with a summary that says by how much intrinsics were scaled, if they were.

    Args:
        views: whose pictures may be stored in another size.
        widths: of the pictures that the files' intrinsics are for [pixel], None where a file does not say.
    """
    stated = {width for width in widths if width is not None}
    sizes = views.stored_sizes or [(camera.width, camera.height) for camera in views.cameras]
    factors = {stored / width for stored, _ in sizes for width in stated}
    if len(stated) != 1 or len(factors) != 1 or factors == {1.0}:
        return views
    note = f"The intrinsics, for pictures {stated.pop():g} pixels wide, were scaled by {factors.pop():.3g}."
    return replace(views, summary=f"{views.summary} {note}")
