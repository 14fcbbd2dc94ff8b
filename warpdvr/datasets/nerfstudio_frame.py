"""Read one frame of a `transforms.json`: its picture and its camera."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import OPENGL, Camera
from warpdvr.datasets.files import error_prefix
from warpdvr.runtime.files import path_inside
from warpdvr.runtime.parsing import read_json

CAMERA_MODELS = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "RADIAL", "SIMPLE_RADIAL")
"""Values of camera_model that are pinholes as long as the distortion is zero."""

DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


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
        """Return the camera of an image of that size [pixel], in the data's own frame.

        Raises:
            ValueError: if it is not a pinhole camera, or an entry is missing or wrong.
        """
        self._refuse_distortion()
        w, h = self.number("w", width), self.number("h", height)
        if not (w > 0 and h > 0) or abs(w * height - h * width) > max(w, h):  # within a pixel of rounding
            raise ValueError(
                f"{self.label}: expected an image of {w:g} x {h:g} pixels, found one of {width} x {height}"
            )
        fx = self._focal_length("x", w, None)
        fy = self._focal_length("y", h, fx)
        cx, cy = self.number("cx", w / 2), self.number("cy", h / 2)
        rows = [[fx * width / w, 0, cx * width / w], [0, fy * height / h, cy * height / h], [0, 0, 1]]
        pose = self._pose() @ OPENGL
        with error_prefix(self.label):
            return Camera(torch.tensor(rows, dtype=torch.float64), pose, width, height)

    def _refuse_distortion(self) -> None:
        """Raise ValueError if the camera is not a pinhole without distortion."""
        model = self.entries.get("camera_model", "OPENCV")
        if model not in CAMERA_MODELS or self.entries.get("is_fisheye"):
            raise ValueError(
                f"{self.label}: expected a pinhole camera, found camera_model {model!r}; undistort the images first, "
                "for instance with `colmap image_undistorter`"
            )
        values = {key: self.number(key, 0.0) for key in DISTORTION}
        nonzero = [f"{key} = {value:g}" for key, value in values.items() if value != 0]
        if nonzero:
            raise ValueError(
                f"{self.label}: expected images without lens distortion, found {', '.join(nonzero)}; undistort the "
                "images first, for instance with `colmap image_undistorter`, and set these to 0"
            )

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

    def _pose(self) -> Float[Tensor, "4 4"]:
        """Return the camera-to-world matrix, OpenGL axes."""
        rows = self.entries.get("transform_matrix")
        try:
            matrix = torch.tensor(rows, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{self.label}: expected transform_matrix to be 4 x 4 numbers, found {rows!r}") from error
        if tuple(matrix.shape) not in ((4, 4), (3, 4)):
            raise ValueError(f"{self.label}: expected transform_matrix to be 4 x 4, found {tuple(matrix.shape)}")
        if not matrix.isfinite().all():
            raise ValueError(f"{self.label}: transform_matrix holds a number that is not finite")
        R = matrix[:3, :3]
        if (R @ R.T - torch.eye(3)).abs().max() > 1e-3 or R.det() < 0:
            raise ValueError(f"{self.label}: expected transform_matrix to hold a rotation, found {R.tolist()}")
        return torch.cat([matrix[:3], torch.tensor([[0.0, 0.0, 0.0, 1.0]]).to(matrix)])


def read_frames(folder: Path, path: Path) -> list[Frame]:
    """Return the frames of a JSON file in the data set `folder`.

    Raises:
        ValueError: if it cannot be read, or has no list of frames.
    """
    path = path_inside(folder, path.name)
    table: Any = read_json(path, "a JSON file")
    frames = table.pop("frames", None) if isinstance(table, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise ValueError(f"{path}: expected an entry `frames`, a list of tables, found none")
    if not frames:
        raise ValueError(f"{path}: expected at least one frame, found an empty list")
    return [Frame({**table, **frame}, path, f"{path}: frame {i}") for i, frame in enumerate(frames)]
