"""Read cameras of RealityCapture (RealityScan), and write them: the CSV file "Internal/External camera parameters".

Its columns are `#name,x,y,alt,heading,pitch,roll,f,px,py,k1,k2,k3,k4,t1,t2`. x, y and alt are the centre of the camera,
z up. The formulas are those of nerfstudio's converter (nerfstudio/process_data/realitycapture_utils.py, since pull
request 3131): camera to world R = Rz(-heading) Rx(pitch) Ry(roll) [degree] with axes right, up, backwards, f for a film
of 36 mm along the longer side, and px and py offsets from the centre in shares of the longer side, as in the vendor's
XMP files ("RealityCapture XMP Camera Math": PrincipalPointU). k1, k2 and k3 are the radial terms of x' = x (1 + k1 r^2
+ k2 r^4 + k3 r^6), the vendor's model Brown3. k4, t1 and t2, of Brown4 and of tangential models, are refused where they
are not zero: k4 is no term of our lens, and we found no published order and sign of t1 and t2.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PureWindowsPath

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.camera_numbers import from_opengl, intrinsics, make_camera, parameters_of, refuse
from warpdvr.datasets.entries import Entry, Listing, NamedCamera
from warpdvr.datasets.formats import Detection, ReadOptions, inside
from warpdvr.datasets.lens_coefficients import Brown, brown_of
from warpdvr.datasets.listing import ListedFormat
from warpdvr.datasets.textfiles import read_text, to_number

COLUMNS = "#name,x,y,alt,heading,pitch,roll,f,px,py,k1,k2,k3,k4,t1,t2".split(",")

REQUIRED = frozenset(COLUMNS[:8])


class RealityCapture(ListedFormat):
    """`*.csv` with `#name,x,y,alt,heading,pitch,roll,f` and perhaps more columns."""

    title = "RealityCapture"
    pattern = "*.csv"
    besides = "columns beyond those that are read"

    def recognises(self, path: Path) -> bool:
        """Return whether the first line names the columns."""
        with path.open("rb") as file:
            first = file.readline(1000).decode("utf-8-sig", "replace").strip()
        return set(first.replace(" ", "").split(",")) >= REQUIRED

    def listing(self, data: Detection, options: ReadOptions) -> Listing:
        """Return a view per line."""
        path = data.choose(*(f.name for f in inside(data.folder, data.camera_files) if self.recognises(f)))
        try:
            rows = list(csv.DictReader(io.StringIO(read_text(path)), skipinitialspace=True))
        except csv.Error as error:
            raise ValueError(f"{path}: expected lines of values between commas, found others ({error})") from error
        entries = []
        for row in rows:
            values = {key.strip(): value for key, value in row.items() if key and isinstance(value, str)}
            label = f"{path}: {values.get('#name', '')}"
            entries.append(Entry(PureWindowsPath(values.get("#name", "")).name, partial(_camera, label, values), label))
        words = (
            "heading, pitch and roll of axes right, up, backwards, f for 36 mm, px and py in shares of the longer side "
            "(by common use: the format is not published)"
        )
        return Listing(tuple(entries), path.name, words)

    def export(self, cameras: Sequence[NamedCamera]) -> dict[str, bytes]:
        """Return `cameras.csv`."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for named in cameras:
            writer.writerow([named.name, *map(repr, _numbers(named))])
        return {"cameras.csv": stream.getvalue().encode()}


def _camera(label: str, row: Mapping[str, str], width: int, height: int) -> Camera:
    v = {key: to_number(f"{label}: {key}", row.get(key, "0") or "0") for key in COLUMNS[1:]}
    if unknown := [f"{key} = {v[key]:g}" for key in ("k4", "t1", "t2") if v[key]]:
        raise ValueError(
            f"{label}: expected a lens of k1, k2 and k3 only, found {', '.join(unknown)}; choose the distortion model "
            "Brown3, or export undistorted pictures"
        )
    longer = max(width, height)
    f = v["f"] * longer / 36
    K = intrinsics(f, f, width / 2 + v["px"] * longer, height / 2 + v["py"] * longer)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = _rotation(v["heading"], v["pitch"], v["roll"])
    pose[:3, 3] = torch.tensor([v["x"], v["y"], v["alt"]], dtype=torch.float64)
    lens = Brown(v["k1"], v["k2"], v["k3"]).projection()
    return make_camera(label, K, from_opengl(pose), (width, height), projection=lens)


def _rotation(heading: float, pitch: float, roll: float) -> Float[Tensor, "3 3"]:
    """Return Rz(-heading) Rx(pitch) Ry(roll); angles [degree]."""
    (sh, ch), (sp, cp), (sr, cr) = (
        (math.sin(math.radians(angle)), math.cos(math.radians(angle))) for angle in (-heading, pitch, roll)
    )
    z = torch.tensor([[ch, -sh, 0], [sh, ch, 0], [0, 0, 1]], dtype=torch.float64)
    x = torch.tensor([[1, 0, 0], [0, cp, -sp], [0, sp, cp]], dtype=torch.float64)
    y = torch.tensor([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]], dtype=torch.float64)
    return z @ x @ y


def _angles(R: Float[Tensor, "3 3"]) -> tuple[float, float, float]:
    """Return heading, pitch and roll [degree] of a rotation; roll is 0 where the camera looks along the vertical."""
    sine = min(1.0, max(-1.0, float(R[2, 1])))
    pitch = math.atan2(sine, math.hypot(float(R[2, 0]), float(R[2, 2])))
    if math.hypot(float(R[2, 0]), float(R[2, 2])) < 1e-12:
        return math.degrees(-math.atan2(float(R[1, 0]), float(R[0, 0]))), math.degrees(pitch), 0.0
    heading = -math.atan2(-float(R[0, 1]), float(R[1, 1]))
    roll = math.atan2(-float(R[2, 0]), float(R[2, 2]))
    return math.degrees(heading), math.degrees(pitch), math.degrees(roll)


def _numbers(named: NamedCamera) -> list[float]:
    """Return the numbers of a line."""
    p, b = parameters_of(named, RealityCapture.title, square=True), brown_of(named, RealityCapture.title)
    if b.p1 or b.p2:
        refuse(named, RealityCapture.title, "has tangential distortion")
    longer = max(p.width, p.height)
    place = p.pose[:3, 3].tolist()
    offset = [(p.cx - p.width / 2) / longer, (p.cy - p.height / 2) / longer]
    return [*place, *_angles(from_opengl(p.pose)[:3, :3]), p.fx * 36 / longer, *offset, b.k1, b.k2, b.k3, 0.0, 0.0, 0.0]
