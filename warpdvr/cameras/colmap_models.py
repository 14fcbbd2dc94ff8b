"""COLMAP's camera models as projections, and back.

The names, the numbers and the order of the parameters are those of COLMAP's documentation, "Camera Models", and of its
`models.h`; COLMAP puts the centre of the top-left pixel at (0.5, 0.5), as this package does.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.closed_form_lenses import DivisionLens, EUCMLens, FOVLens
from warpdvr.cameras.lenses import FisheyeLens, OpenCVLens, RadialTangentialFisheyeLens, ThinPrismFisheyeLens
from warpdvr.cameras.projection import PINHOLE, Pinhole, Projection

_Make = Callable[[list[float]], Projection]

_MODELS: tuple[tuple[str, int, int, _Make], ...] = (
    ("SIMPLE_PINHOLE", 1, 0, lambda c: PINHOLE),
    ("PINHOLE", 2, 0, lambda c: PINHOLE),
    ("SIMPLE_RADIAL", 1, 1, lambda c: _opencv([*c, 0.0, 0.0, 0.0])),
    ("RADIAL", 1, 2, lambda c: _opencv([*c, 0.0, 0.0])),
    ("OPENCV", 2, 4, lambda c: _opencv(c)),
    ("OPENCV_FISHEYE", 2, 4, FisheyeLens),
    ("FULL_OPENCV", 2, 8, lambda c: _opencv(c)),
    ("FOV", 2, 1, FOVLens),
    ("SIMPLE_RADIAL_FISHEYE", 1, 1, lambda c: FisheyeLens([*c, 0.0, 0.0, 0.0])),
    ("RADIAL_FISHEYE", 1, 2, lambda c: FisheyeLens([*c, 0.0, 0.0])),
    ("THIN_PRISM_FISHEYE", 2, 8, ThinPrismFisheyeLens),
    ("RAD_TAN_THIN_PRISM_FISHEYE", 2, 12, RadialTangentialFisheyeLens),
    ("SIMPLE_DIVISION", 1, 1, DivisionLens),
    ("DIVISION", 2, 1, DivisionLens),
    ("SIMPLE_FISHEYE", 1, 0, lambda c: FisheyeLens([0.0] * 4)),
    ("FISHEYE", 2, 0, lambda c: FisheyeLens([0.0] * 4)),
    ("EUCM", 2, 2, EUCMLens),
)
"""Name, number of focal lengths, number of coefficients, and projection; the place is the number in binary files."""

COLMAP_MODELS: dict[int, tuple[str, int]] = {
    number: (name, focal + 2 + extra) for number, (name, focal, extra, _) in enumerate(_MODELS)
}
"""Name and count of parameters of each model, by its number in binary files; 17, EQUIRECTANGULAR, is no lens."""

_NAMES: dict[type[Projection], str] = {
    Pinhole: "PINHOLE",
    FisheyeLens: "OPENCV_FISHEYE",
    FOVLens: "FOV",
    ThinPrismFisheyeLens: "THIN_PRISM_FISHEYE",
    RadialTangentialFisheyeLens: "RAD_TAN_THIN_PRISM_FISHEYE",
    DivisionLens: "DIVISION",
    EUCMLens: "EUCM",
}


def colmap_projection(model: str, params: Sequence[float]) -> tuple[Float[Tensor, "3 3"], Projection]:
    """Return the intrinsics [pixel] and the projection of a camera model of COLMAP, in float64.

    An OpenCV model whose coefficients are all 0 is the pinhole.

    Args:
        model: its name, such as "SIMPLE_RADIAL".
        params: its parameters in COLMAP's order: focal lengths, principal point, coefficients.

    Raises:
        ValueError: if the model is not known or no lens, the number of parameters is another, one is not finite, or a
            focal length is not positive.
    """
    known = {name: (focal, extra, make) for name, focal, extra, make in _MODELS}
    if model == "EQUIRECTANGULAR":
        raise ValueError(
            "camera model EQUIRECTANGULAR shows all directions at once; cut the panorama into pinhole pictures first"
        )
    if model not in known:
        raise ValueError(f"camera model {model!r} is unknown; known are {', '.join(known)}")
    focal, extra, make = known[model]
    numbers = [float(a) for a in params]
    if len(numbers) != focal + 2 + extra:
        raise ValueError(f"camera model {model} has {focal + 2 + extra} parameters, got {len(numbers)}")
    f = numbers[:focal]
    if not all(0 < a < float("inf") for a in f):
        raise ValueError(f"camera model {model}: focal lengths must be positive, got {f}")
    cx, cy = numbers[focal : focal + 2]
    K = torch.tensor([[f[0], 0, cx], [0, f[-1], cy], [0, 0, 1]], dtype=torch.float64)
    if not K.isfinite().all():
        raise ValueError(f"camera model {model}: the principal point must be finite, got ({cx}, {cy})")
    return K, make(numbers[focal + 2 :])


def colmap_model(camera: Camera) -> tuple[str, list[float]]:
    """Return the name and the parameters of the camera model of COLMAP that equals the intrinsics of a camera.

    Raises:
        ValueError: if COLMAP has no such model: of cameras with skew, of orthographic ones, and of thin-prism terms
            without a fisheye.
    """
    (fx, skew, cx), (_, fy, cy), _ = camera.K.detach().tolist()
    projection = camera.projection
    if abs(skew) * camera.height > 1e-6 * abs(fy):
        raise ValueError(f"COLMAP's camera models have no skew, this camera has {skew:.6g} pixels")
    if fx <= 0 or fy <= 0:
        raise ValueError(f"COLMAP's camera models have positive focal lengths, this camera has {fx:.6g} and {fy:.6g}")
    values = projection.tensors().get("coefficients", torch.zeros(0)).detach().tolist()
    name = _NAMES.get(type(projection))
    if isinstance(projection, OpenCVLens):
        if any(values[8:]):
            raise ValueError("COLMAP's camera models have thin-prism terms for fisheyes only, this camera has others")
        values = [*values, *[0.0] * 8][:8]
        name = "FULL_OPENCV" if any(values[4:]) else "OPENCV"
        values = values[:8] if name == "FULL_OPENCV" else values[:4]
    if name is None:
        raise ValueError(f"COLMAP has no camera model for the projection {projection.name!r}")
    return name, [fx, fy, cx, cy, *values]


def _opencv(coefficients: list[float]) -> Projection:
    return OpenCVLens(coefficients) if any(coefficients) else PINHOLE
