"""Read cameras of Agisoft Metashape (PhotoScan), and write them: the XML file of "Export Cameras".

Formulas as in the Metashape Professional user manual, appendix D, "Camera models", frame camera: with (x, y) = (X, Y)
/ Z and OpenCV axes,

    x' = x (1 + k1 r^2 + k2 r^4 + k3 r^6 + k4 r^8) + p1 (r^2 + 2 x^2) + 2 p2 x y,    y' with p1 and p2 exchanged,
    u = w / 2 + cx + x' f + x' b1 + y' b2,    v = h / 2 + cy + y' f,

so its p1 and p2 are OpenCV's p2 and p1; the centre of the first pixel is at (0.5, 0.5). The equidistant fisheye has x
= x0 atan(r0) / r0 instead of x0 = X / Z. `transform` of a camera leads to the frame of its chunk; `rotation`,
`translation` and `scale` of the chunk, where it has them, from there to the world.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.lenses import FisheyeLens
from warpdvr.cameras.projection import Projection
from warpdvr.datasets.camera_numbers import intrinsics, make_camera, parameters_of, refuse_equirectangular
from warpdvr.datasets.entries import Entry, Listing, NamedCamera
from warpdvr.datasets.files import picture_names
from warpdvr.datasets.formats import Detection, ReadOptions
from warpdvr.datasets.lens_coefficients import Brown, brown_of, fisheye_of
from warpdvr.datasets.listing import ListedFormat
from warpdvr.datasets.textfiles import join_numbers, read_xml, shorten, to_matrix, to_number, to_numbers

FOLDERS = ("images", "image", "")
"""Where the pictures are looked for."""

COEFFICIENTS = ("f", "cx", "cy", "b1", "b2", "k1", "k2", "k3", "k4", "p1", "p2", "p3", "p4")


class Metashape(ListedFormat):
    """`*.xml`: a `document` of a `chunk` with `sensors` and `cameras`."""

    title = "Metashape"
    pattern = "*.xml"
    besides = "markers, settings and the sharing of sensors"

    def recognises(self, path: Path) -> bool:
        """Return whether it is a document with a chunk; a file with forbidden declarations is reported by `listing`."""
        with path.open("rb") as file:
            start = file.read(4096)
        return b"<document" in start and (b"<chunk" in start or b"<!ENTITY" in start.upper())

    def listing(self, data: Detection, options: ReadOptions) -> Listing:
        """Return a view per camera; that of one without a transform raises a sentence that says so."""
        path = data.choose("cameras.xml")
        chunks = read_xml(path).findall("chunk")
        if len(chunks) != 1:
            raise ValueError(f"{path}: expected one chunk, found {len(chunks)}; export the cameras of one chunk")
        sensors = {s.get("id"): _sensor(f"{path}: sensor {s.get('id')}", s) for s in chunks[0].iter("sensor")}
        worlds = {
            c.get("id"): _similarity(f"{path}: component", c.find("transform")) for c in chunks[0].iter("component")
        }
        world = _similarity(f"{path}: chunk", chunks[0].find("transform"))
        names = picture_names(data.folder, [name or "." for name in FOLDERS])  # labels may lack the suffix
        entries = []
        for camera in chunks[0].iter("camera"):
            label = f"{path}: camera {shorten(camera.get('label'))}"
            sensor = sensors.get(camera.get("sensor_id"))
            if sensor is None:
                raise ValueError(f"{label}: sensor_id {camera.get('sensor_id')!r} names no sensor")
            own = world if chunks[0].find("transform") is not None else worlds.get(camera.get("component_id"), world)
            name = PureWindowsPath(camera.get("label") or "").name
            entries.append(
                Entry(names.get(name, name), partial(_camera, label, camera.findtext("transform"), sensor, own), label)
            )
        words = "camera to chunk, OpenCV axes, pixel centres at +0.5, in the frame of the world"
        return Listing(tuple(entries), path.name, words, FOLDERS)

    def export(self, cameras: Sequence[NamedCamera]) -> dict[str, bytes]:
        """Return `cameras.xml`; each picture has its own sensor."""
        document = ElementTree.Element("document", version="2.0.0")
        chunk = ElementTree.SubElement(document, "chunk", label="warpdvr", enabled="true")
        sensors, views = ElementTree.SubElement(chunk, "sensors"), ElementTree.SubElement(chunk, "cameras")
        for i, named in enumerate(cameras):
            _add_sensor(sensors, i, named)
            view = ElementTree.SubElement(views, "camera", id=str(i), sensor_id=str(i), label=named.name)
            ElementTree.SubElement(view, "transform").text = join_numbers(named.camera.pose.detach().cpu())
        ElementTree.indent(document)
        return {"cameras.xml": ElementTree.tostring(document, encoding="utf-8", xml_declaration=True) + b"\n"}


@dataclass(frozen=True)
class Sensor:
    """A lens and the size of its pictures."""

    kind: str
    size: tuple[float, float]
    values: dict[str, float]
    """The coefficients, 0 where the file has none."""


def _sensor(label: str, sensor: ElementTree.Element) -> Sensor:
    """Return the adjusted calibration of a sensor."""
    resolution = sensor.find("resolution")
    calibrations = sensor.findall("calibration")
    if resolution is None or not calibrations:
        return Sensor("missing", (0.0, 0.0), {})
    best = next((c for c in calibrations if c.get("class") == "adjusted"), calibrations[0])
    values = {key: to_number(f"{label}: {key}", best.findtext(key, "0")) for key in COEFFICIENTS}
    w, h = (to_number(f"{label}: {key}", resolution.get(key)) for key in ("width", "height"))
    return Sensor(best.get("type") or sensor.get("type") or "frame", (w, h), values)


def _projection(label: str, sensor: Sensor) -> Projection:
    """Return the lens of a sensor."""
    v = sensor.values
    if v["p3"] or v["p4"] or (sensor.kind == "frame" and v["k4"]):
        raise ValueError(
            f"{label}: expected k1, k2, k3, p1 and p2 only, found k4, p3 or p4; export undistorted pictures"
        )
    if sensor.kind == "frame":
        return Brown(v["k1"], v["k2"], v["k3"], v["p2"], v["p1"]).projection()
    if v["p1"] or v["p2"]:
        raise ValueError(f"{label}: expected a fisheye lens without p1 and p2; export undistorted pictures")
    return FisheyeLens([v["k1"], v["k2"], v["k3"], v["k4"]])


def _camera(
    label: str, text: str | None, sensor: Sensor, world: Float[Tensor, "4 4"], width: int, height: int
) -> Camera:
    if text is None:
        raise ValueError(f"{label}: it has no transform, Metashape did not align this picture")
    if sensor.kind == "spherical":
        refuse_equirectangular(label, "a spherical sensor")
    if sensor.kind not in ("frame", "fisheye", "equidistant_fisheye"):
        found = "no calibration" if sensor.kind == "missing" else f"{sensor.kind!r}"
        raise ValueError(f"{label}: expected the calibration of a frame or fisheye sensor, found {found}")
    v, (w, h) = sensor.values, sensor.size
    K = intrinsics(v["f"] + v["b1"], v["f"], w / 2 + v["cx"], h / 2 + v["cy"], v["b2"])
    pose = world @ to_matrix(f"{label}: transform", text, 4, 4)
    pose[:3, :3] /= torch.linalg.det(world[:3, :3]) ** (1 / 3)
    return make_camera(label, K, pose, (width, height), stored=(w, h), projection=_projection(label, sensor))


def _similarity(label: str, transform: ElementTree.Element | None) -> Float[Tensor, "4 4"]:
    """Return the matrix of a chunk's transform, the identity without one."""
    matrix = torch.eye(4, dtype=torch.float64)
    if transform is None:
        return matrix
    if rotation := transform.findtext("rotation"):
        matrix[:3, :3] = to_matrix(f"{label}: rotation", rotation, 3, 3)
    scale = to_number(f"{label}: scale", transform.findtext("scale", "1"))
    if not (scale > 0 and torch.linalg.det(matrix[:3, :3]) > 0):
        raise ValueError(f"{label}: expected a rotation and a positive scale, found {matrix[:3, :3].tolist()}, {scale}")
    matrix[:3, :3] *= scale
    if translation := transform.findtext("translation"):
        matrix[:3, 3] = torch.tensor(to_numbers(f"{label}: translation", translation, 3), dtype=torch.float64)
    return matrix


def _add_sensor(sensors: ElementTree.Element, i: int, named: NamedCamera) -> None:
    """Add the sensor of a picture."""
    p = parameters_of(named, Metashape.title, skew=True)
    values = {"f": p.fy, "cx": p.cx - p.width / 2, "cy": p.cy - p.height / 2, "b1": p.fx - p.fy, "b2": p.skew}
    if angles := fisheye_of(named):
        kind = "equidistant_fisheye"
        values |= dict(zip(("k1", "k2", "k3", "k4"), angles, strict=True))
    else:
        kind, b = "frame", brown_of(named, Metashape.title)
        values |= {"k1": b.k1, "k2": b.k2, "k3": b.k3, "p1": b.p2, "p2": b.p1}
    sensor = ElementTree.SubElement(sensors, "sensor", id=str(i), label=named.name, type=kind)
    size = {"width": str(p.width), "height": str(p.height)}
    ElementTree.SubElement(sensor, "resolution", size)
    calibration = ElementTree.SubElement(sensor, "calibration", {"type": kind, "class": "adjusted"})
    ElementTree.SubElement(calibration, "resolution", size)
    for key, value in values.items():
        if value:
            ElementTree.SubElement(calibration, key).text = repr(value)
