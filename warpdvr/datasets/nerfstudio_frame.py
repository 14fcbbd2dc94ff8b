"""Read one frame of a `transforms.json`: its picture and its camera, with the lens.

The coefficients are OpenCV's: k1, k2, p1, p2 and k3 of a perspective lens, k1 to k4 of a fisheye, both also the
conventions of nerfstudio (nerfstudio/cameras/camera_utils.py) and instant-ngp (src/nerf_loader.cu, read_lens).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import OPENGL, Camera
from warpdvr.cameras.colmap_models import colmap_model, colmap_projection
from warpdvr.cameras.projection import Projection
from warpdvr.cameras.rotation import check_rotation
from warpdvr.datasets.calibration import Calibration
from warpdvr.datasets.files import error_prefix
from warpdvr.runtime.files import path_inside
from warpdvr.runtime.parsing import read_json

PERSPECTIVE = ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "PERSPECTIVE")
"""Values of camera_model that mean a perspective lens with the coefficients that are there."""

FISHEYE = ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "SIMPLE_FISHEYE", "FISHEYE")
"""Values of camera_model that mean a fisheye with the coefficients that are there."""

COEFFICIENTS = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
"""Names of the coefficients of a perspective lens, in the order of OpenCV; a fisheye has k1 to k4."""

UNDISTORT = "undistort the images first, for instance with `colmap image_undistorter`"


@dataclass(frozen=True)
class Frame:
    """A view, as described in the file."""

    entries: dict[str, object]
    """Entries of this frame over those of the whole file."""
    file: Path
    """The JSON file."""
    label: str
    """File and number of the frame, for messages."""

    def number(self, key: str, default: float) -> float:
        """Return an entry as a number, or the default if it is missing."""
        value = self.entries.get(key, default)
        try:
            return float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{self.label}: expected {key} to be a number, found {value!r}") from error

    def file_name(self, key: str, kind: str) -> str:
        """Return an entry that names a file; `kind`, such as "picture", is for the message.

        Raises:
            ValueError: if it is missing or not text.
        """
        name = self.entries.get(key)
        if not isinstance(name, str) or not name or "\0" in name:
            raise ValueError(f"{self.label}: expected {key} to name a {kind}, found {name!r}")
        return name

    def camera(self, width: int, height: int) -> Camera:
        """Return the camera of an image of that size [pixel], in the frame of the file.

        Raises:
            ValueError: if its lens is unknown, or an entry is missing or wrong.
        """
        w, h = self.number("w", width), self.number("h", height)
        K, projection = self._lens(w, h)
        axes = torch.eye(4, dtype=torch.float64) if self.entries.get("from_na") else OPENGL
        pose = rigid_matrix(self.label, "transform_matrix", self.entries.get("transform_matrix")) @ axes
        return Calibration(K, pose, w, h, self.label, projection)(width, height)

    def _lens(self, w: float, h: float) -> tuple[Float[Tensor, "3 3"], Projection]:
        """Return the intrinsics for an image of that size [pixel], and the projection."""
        K = self._intrinsics(w, h)
        model, coefficients = self._coefficients()
        numbers = [*K.diagonal()[:2].tolist(), *K[:2, 2].tolist(), *coefficients]
        with error_prefix(self.label):
            projection = colmap_projection(model, numbers)[1]
        return K, projection

    def _coefficients(self) -> tuple[str, list[float]]:
        """Return the COLMAP model with these coefficients, and them in its order."""
        name = self.entries.get("camera_model", "OPENCV")
        if name == "EQUIRECTANGULAR" or self.entries.get("equirectangular") or self.entries.get("latlong"):
            raise ValueError(
                f"{self.label}: the photographs are panoramas (equirectangular), which have no image plane; cut them "
                "into perspective views first, for instance with `ns-process-data images --camera-type equirectangular`"
            )
        if name not in PERSPECTIVE + FISHEYE:
            known = ", ".join(PERSPECTIVE + FISHEYE[:1])
            raise ValueError(
                f"{self.label}: expected a camera_model such as {known}, found camera_model {name!r}; {UNDISTORT}"
            )
        fisheye = name in FISHEYE or bool(self.entries.get("is_fisheye"))
        used: tuple[str, ...] = ("k1", "k2", "k3", "k4") if fisheye else COEFFICIENTS[:5]
        if name == "FULL_OPENCV":
            used = COEFFICIENTS
        values = {key: self._coefficient(key) for key in COEFFICIENTS}
        rest = [f"{key} = {value:g}" for key, value in values.items() if value != 0 and key not in used]
        if rest:
            kind = "a fisheye has k1 to k4" if fisheye else "OPENCV has k1, k2, p1, p2 and k3"
            raise ValueError(f"{self.label}: {kind}, found {', '.join(rest)}; {UNDISTORT}, and set these to 0")
        if fisheye:
            return "OPENCV_FISHEYE", [values[key] for key in used]
        if not any(values.values()):
            return "PINHOLE", []
        simple = not any(values[key] for key in COEFFICIENTS[4:])
        return ("OPENCV" if simple else "FULL_OPENCV"), [values[key] for key in COEFFICIENTS[: 4 if simple else 8]]

    def _coefficient(self, key: str) -> float:
        """Return a coefficient, by its name or from `distortion_params`: k1, k2, k3, k4, p1, p2."""
        stored, names = self.entries.get("distortion_params"), ("k1", "k2", "k3", "k4", "p1", "p2")
        if isinstance(stored, list) and len(stored) == len(names) and key in names:
            return Frame({key: stored[names.index(key)]}, self.file, self.label).number(key, 0.0)
        return self.number(key, 0.0)

    def _intrinsics(self, w: float, h: float) -> Float[Tensor, "3 3"]:
        """Return the intrinsics for an image of that size [pixel]."""
        focal_keys = {f"{kind}_{axis}" for kind in ("fl", "camera_angle") for axis in "xy"}
        if "intrinsic_matrix" in self.entries and not focal_keys & self.entries.keys():
            return intrinsic_matrix(self.label, "intrinsic_matrix", self.entries["intrinsic_matrix"])
        fx = self._focal_length("x", w, None)
        fy = self._focal_length("y", h, fx)
        cx, cy = self.number("cx", w / 2), self.number("cy", h / 2)
        return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)

    def _focal_length(self, axis: str, size: float, default: float | None) -> float:
        """Return the focal length along an axis [pixel], from fl_ or from camera_angle_ [radian]."""
        focal = self.number(f"fl_{axis}", math.nan)
        angle = self.number(f"camera_angle_{axis}", math.nan)
        if f"fl_{axis}" not in self.entries and 0 < angle < math.pi:
            focal = 0.5 * size / math.tan(angle / 2)
        elif f"fl_{axis}" not in self.entries and f"camera_angle_{axis}" not in self.entries and default is not None:
            focal = default
        if not 0 < focal < math.inf:
            raise ValueError(
                f"{self.label}: expected fl_{axis} or camera_angle_{axis} to be positive, found {focal} and {angle}"
            )
        return focal


def lens_entries(camera: Camera) -> dict[str, object]:
    """Return the entries of a frame that hold the intrinsics and the lens of a camera.

    Raises:
        ValueError: if the file cannot hold its projection.
    """
    model, (fx, fy, cx, cy, *values) = colmap_model(camera)
    if model not in PERSPECTIVE + FISHEYE:
        raise ValueError(f"transforms.json holds no lens of the model {model}; {UNDISTORT}")
    fisheye = model in FISHEYE
    names = ("k1", "k2", "k3", "k4") if fisheye else COEFFICIENTS
    coefficients = dict.fromkeys(names[:4], 0.0) | {k: v for k, v in zip(names, values, strict=False) if v != 0}
    if not fisheye:
        model = "FULL_OPENCV" if coefficients.keys() & set(COEFFICIENTS[5:]) else "OPENCV"
    intrinsics = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": camera.width, "h": camera.height}
    return {"camera_model": model, "is_fisheye": fisheye, **intrinsics, **coefficients}


def read_table(folder: Path, path: Path) -> dict[str, object]:
    """Return the content of a JSON file in the data set `folder`.

    Raises:
        ValueError: if it cannot be read, or has no list of frames.
    """
    path = path_inside(folder, path.name)
    table: Any = read_json(path, "a JSON file")
    frames = table.get("frames") if isinstance(table, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise ValueError(f"{path}: expected an entry `frames`, a list of tables, found none")
    if not frames:
        raise ValueError(f"{path}: expected at least one frame, found an empty list")
    return {**table}


def frames_of(path: Path, table: Mapping[str, object]) -> list[Frame]:
    """Return the frames of a table that `read_table` returned for this file."""
    common = {key: value for key, value in table.items() if key != "frames"}
    frames: list[dict[str, object]] = table["frames"]  # type: ignore[assignment]
    return [Frame({**common, **frame}, path, f"{path}: frame {i}") for i, frame in enumerate(frames)]


def matrix(label: str, key: str, rows: object, shapes: tuple[tuple[int, int], ...]) -> Float[Tensor, "_ _"]:
    """Return an entry that is a matrix of finite numbers, float64.

    Raises:
        ValueError: if it is not, or has none of these shapes; the message ends with the first of them.
    """
    expected = f"expected {key} to be {shapes[0][0]} x {shapes[0][1]}"
    try:
        found = torch.tensor(rows, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{label}: {expected} numbers, found {rows!r}") from error
    if tuple(found.shape) not in shapes:
        raise ValueError(f"{label}: {expected}, found {tuple(found.shape)}")
    if not found.isfinite().all():
        raise ValueError(f"{label}: {key} holds a number that is not finite")
    return found


def similarity_matrix(label: str, key: str, rows: object) -> Float[Tensor, "4 4"]:
    """Return an entry that is a 4 x 4 or 3 x 4 matrix, with the last row 0, 0, 0, 1."""
    found = matrix(label, key, rows, ((4, 4), (3, 4)))
    return torch.cat([found[:3], torch.tensor([[0.0, 0.0, 0.0, 1.0]]).to(found)])


def rigid_matrix(label: str, key: str, rows: object) -> Float[Tensor, "4 4"]:
    """Return an entry that is a rotation and a shift.

    Raises:
        ValueError: if it is not.
    """
    found = similarity_matrix(label, key, rows)
    check_rotation(found[:3, :3], f"{label}: expected {key} to hold a rotation")
    return found


def intrinsic_matrix(label: str, key: str, rows: object) -> Float[Tensor, "3 3"]:
    """Return an entry that is a 3 x 3 or 4 x 4 intrinsic matrix [pixel]."""
    return matrix(label, key, rows, ((3, 3), (4, 4), (3, 4)))[:3, :3]
