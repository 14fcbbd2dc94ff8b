"""Photograph a category of meshes: posed pictures of each with masks and depth, in the layout of DVR."""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.paths import fibonacci_sphere
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets import dvr
from warpdvr.datasets.normalise import RADIUS
from warpdvr.datasets.studio import CPU, MeshHits, Studio, studio_lights
from warpdvr.datasets.views import Views
from warpdvr.geometry.mesh import Mesh, bounding_ball
from warpdvr.geometry.textured import SUFFIXES, MeshFile, TexturedMesh, find_meshes, open_folder, read_textured
from warpdvr.runtime.files import make_folder, replacing
from warpdvr.runtime.parsing import read_json
from warpdvr.shading.materials import Lambert

RECORD = "render.json"
"""The file in the category's folder that records how its pictures were taken."""


def photograph(
    source: Path,
    out: Path,
    *,
    views: int = 24,
    size: int = 64,
    samples: int = 4,
    seed: int = 0,
    fov: float = 40.0,
    distance: float = 3.0,
    device: torch.device = CPU,
    progress: Callable[[float], None] = lambda done: None,
) -> list[str]:
    """Render each mesh of a category from all sides into `out`/NAME, in the layout of DVR (`warpdvr.datasets.dvr`).

    Each object is centred on its bounding box and scaled so that its farthest vertex is at 0.9; all keep their axes,
    +y is up. Objects that are in `out` already are skipped, so that an interrupted run can be continued.

    Args:
        source: a folder or zip archive with a sub-folder, or a mesh file, for each object; .obj with .mtl and textures,
            .glb, or .ply, .off and .stl with or without colours of the vertices.
        out: the folder of the category; it is created if needed.
        views: number of cameras on a sphere around each object, below it too, all looking at its middle.
        size: width and height of the images [pixel].
        samples: a pixel's colour and mask are those of samples x samples rays; its depth is that of its centre.
        seed: seed of the small displacements of the cameras, which differ between objects.
        fov: field of view [degree].
        distance: distance of the cameras from the origin [scene unit].
        device: where rays are cast at the meshes.
        progress: called with the share of objects that are done.

    Returns:
        A sentence about each object that was left out because its mesh is of no use, or that lacks a texture.

    Raises:
        ValueError: if there is no mesh in `source`, `out` was rendered in another way, or a number makes no sense.
    """
    settings = RenderSettings(views, size, samples, seed, fov, distance)
    messages = []
    with open_folder(Path(source)) as folder:
        files = find_meshes(folder)
        _check_names(files, Path(source))
        _record_settings(settings, Path(out))
        for i, file in enumerate(files):
            progress(i / len(files))
            if not (Path(out) / file.name).exists():
                messages += _render_object(settings, file, Path(out), device)
        progress(1.0)
    return messages


def _render_object(settings: "RenderSettings", file: MeshFile, out: Path, device: torch.device) -> list[str]:
    """Render one object into its folder, completely or not at all; return messages for the user."""
    try:
        mesh = read_textured(file)
        views = settings.photograph(mesh, file.name, device)
    except ValueError as problem:
        return [f"{file.name} is left out: {problem}"]
    unfinished = out / f".{file.name}.{os.getpid()}"
    try:
        dvr.write(unfinished, views)
        os.rename(unfinished, out / file.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    if not mesh.missing_files:
        return []
    return [f"{file.name} lacks {', '.join(mesh.missing_files)}, its plain colours are shown there"]


@dataclass(frozen=True)
class RenderSettings:
    """How pictures are taken; the fields are the arguments of `photograph`."""

    views: int
    size: int
    samples: int
    seed: int
    fov: float
    distance: float

    def __post_init__(self) -> None:
        if self.views < 1 or self.size < 2 or self.samples < 1 or not (0 < self.fov < 180 and self.distance > 1):
            raise ValueError(
                "photograph: expected views >= 1, size >= 2, samples >= 1, fov between 0 and 180 and distance > 1, "
                f"found {self.views}, {self.size}, {self.samples}, {self.fov} and {self.distance}"
            )

    def photograph(self, mesh: TexturedMesh, name: str, device: torch.device = CPU) -> Views:
        """Return all views of a mesh; the scene has the units of the data."""
        shown = CategoryMesh(mesh, device)
        cameras = self._cameras(name)
        images, masks, depths = zip(*(shown.picture(camera, self.samples) for camera in cameras), strict=True)
        if not all(bool(mask.any()) for mask in masks):
            raise ValueError(f"it is too thin to cover a pixel of {self.size} x {self.size} in every view")
        names, train = tuple(f"{i:04d}" for i in range(self.views)), tuple(range(self.views))
        identity, summary = SceneTransform.identity(), f"Mesh {name}, rendered."
        return Views(images, masks, cameras, names, train, (), identity, summary, depths=depths)

    def _cameras(self, name: str) -> tuple[Camera, ...]:
        """Return cameras on a Fibonacci sphere around y, each displaced by up to a quarter of their spacing."""
        n = self.views
        random = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        eye = fibonacci_sphere(n).numpy() + random.uniform(-0.5, 0.5, (n, 3)) / n**0.5
        eye *= self.distance / np.linalg.norm(eye, axis=1, keepdims=True)
        up = (0.0, 1.0, 0.0)
        return tuple(Camera.look_at(e, up=up, fov=self.fov, width=self.size, height=self.size) for e in eye)


class CategoryMesh:
    """An object in its category's frame: the middle of its box at the origin, its farthest vertex at 0.9."""

    def __init__(self, textured: TexturedMesh, device: torch.device = CPU):
        """Normalise a mesh that was read from a file; rays are cast at it on a device.

        Raises:
            ValueError: if it has no size or no area.
        """
        vertices = _normalised_vertices(textured)
        a, b, c = vertices[textured.faces].unbind(1)
        across = torch.linalg.cross(b - a, c - a)
        if not float(across.norm(dim=1).sum()) > 1e-9:
            raise ValueError("its triangles have no area")
        self.mesh = Mesh(vertices.float(), textured.faces)
        normals = torch.nn.functional.normalize(across, dim=1, eps=1e-30).float()
        material, lights = Lambert(two_sided=True), studio_lights()  # sheets are one-sided

        def light(hits: MeshHits) -> Float[Tensor, "n 3"]:
            color = textured.color(hits.face, hits.weight)
            return material.reflected(color, normals[hits.face], hits.rays.direction, lights)

        self.studio = Studio(self.mesh.vertices, self.mesh.faces, light, device)

    def picture(
        self, camera: Camera, samples: int
    ) -> tuple[UInt8[Tensor, "h w 3"], Bool[Tensor, "h w"], Float[Tensor, "h w"]]:
        """Return an image of straight colours, the mask of pixels that are covered by more than half, and the depth."""
        side = (torch.arange(samples) + 0.5) / samples
        return *self.studio.photograph(camera, torch.cartesian_prod(side, side)), self.studio.depth(camera)


def category_meshes(source: Path, names: Collection[str]) -> dict[str, CategoryMesh]:
    """Return the objects of these names from the source of `photograph`, normalised as in their pictures.

    Raises:
        ValueError: if one of them is not there or cannot be read.
    """
    with open_folder(Path(source)) as folder:
        files = {file.name: file for file in find_meshes(folder)}
        if missing := sorted(set(names) - set(files)):
            raise ValueError(f"{source}: expected the mesh of {missing[0]}, found none ({len(missing)} are missing)")
        return {name: CategoryMesh(read_textured(files[name])) for name in sorted(names)}


def _normalised_vertices(mesh: TexturedMesh) -> Float[Tensor, "n 3"]:
    """Return the vertices, the middle of the box at the origin and the farthest at `RADIUS`; unused ones do not
    count."""
    centre, radius = bounding_ball(mesh.vertices[mesh.faces.unique()])
    return (mesh.vertices - centre) * (RADIUS / radius)


def _check_names(files: list[MeshFile], source: Path) -> None:
    """Refuse a source without a mesh, and one where two objects would have the same folder."""
    if not files:
        raise ValueError(f"{source}: expected a mesh ({', '.join(SUFFIXES)}) for each object, found none")
    names = [file.name for file in files]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise ValueError(f"{source}: expected one mesh for each name, found several called {duplicate!r}")


def _record_settings(settings: RenderSettings, out: Path) -> None:
    """Record in `out` how its pictures are taken; refuse a folder whose pictures were taken in another way."""
    make_folder(out)
    record, expected = out / RECORD, asdict(settings)
    if not record.exists():
        with replacing(record) as unfinished:
            unfinished.write_text(json.dumps(expected) + "\n")
        return
    recorded = read_json(record, "the record of how pictures were taken")
    if recorded != expected:
        raise ValueError(f"{record}: expected {json.dumps(expected)} as asked for, found {json.dumps(recorded)}")
