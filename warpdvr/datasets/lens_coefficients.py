"""Coefficients of lenses as files of cameras name them, and the projections that have them."""

from dataclasses import astuple, dataclass

from warpdvr.cameras.lenses import FisheyeLens, OpenCVLens
from warpdvr.cameras.projection import PINHOLE, Pinhole, Projection
from warpdvr.datasets.camera_numbers import refuse
from warpdvr.datasets.entries import NamedCamera


@dataclass(frozen=True)
class Brown:
    """Radial and tangential distortion of (x, y) = (X, Y) / Z, with the names of OpenCV.

    x' = x (1 + k1 r^2 + k2 r^4 + k3 r^6) + 2 p1 x y + p2 (r^2 + 2 x^2), and y' with p1 and p2 exchanged (OpenCV
    documentation, "Camera Calibration and 3D Reconstruction").
    """

    k1: float = 0.0
    k2: float = 0.0
    k3: float = 0.0
    p1: float = 0.0
    p2: float = 0.0

    def projection(self) -> Projection:
        """Return the camera model, a pinhole where all coefficients are zero."""
        if not any(astuple(self)):
            return PINHOLE
        return OpenCVLens([self.k1, self.k2, self.p1, self.p2, *([self.k3] if self.k3 else [])])


def brown_of(named: NamedCamera, title: str) -> Brown:
    """Return the coefficients of a camera.

    Raises:
        ValueError: if it has another lens.
    """
    lens = named.camera.projection
    if isinstance(lens, Pinhole):
        return Brown()
    if not isinstance(lens, OpenCVLens):
        refuse(named, title, f"has a lens of kind {lens.name}")
    k1, k2, p1, p2, k3, *rest = (*lens.tensors()["coefficients"].tolist(), 0.0, 0.0)
    if any(rest):
        refuse(named, title, "has a lens with more coefficients than k1, k2, k3, p1 and p2")
    return Brown(k1, k2, k3, p1, p2)


def fisheye_of(named: NamedCamera) -> tuple[float, float, float, float] | None:
    """Return the coefficients k1 .. k4 of the angle of a fisheye lens, None for another lens."""
    lens = named.camera.projection
    if not isinstance(lens, FisheyeLens):
        return None
    k1, k2, k3, k4 = lens.tensors()["coefficients"].tolist()
    return k1, k2, k3, k4
