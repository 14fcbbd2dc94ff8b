"""Meshes with colours: find them in a folder or a zip archive, and read them with their textures."""

import io
import json
import posixpath
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from warpdvr.runtime.files import path_inside
from warpdvr.runtime.parsing import check_regular, describe_error, read_bytes
from warpdvr.shading.srgb import linear

Folder = Path | zipfile.Path

SUFFIXES = (".obj", ".ply", ".off", ".stl", ".glb")
"""The files that count as meshes."""

TEXTURE_KINDS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF", "TGA", "DDS")
"""The kinds of textures that are decoded, by Pillow's names; for others, such as EPS, it may start a program."""

GREY = 178
"""The colour of anything that has neither texture nor colour, sRGB of 255."""

MAX_UNPACKED, MAX_DEPTH = 2**28, 32
"""The most that a file in an archive may unpack to [byte], and how deep folders may be nested."""


@dataclass(frozen=True)
class TexturedMesh:
    """A triangle mesh with textures; the colour of a point is that of its texture times that of its vertices."""

    vertices: Float[Tensor, "n 3"]
    """Positions, float64 [unit of the file]."""
    faces: Int[Tensor, "m 3"]
    """Indices of vertices, int64."""
    tint: Float[Tensor, "n 3"]
    """Linear colours of the vertices, float32."""
    uv: Float[Tensor, "n 2"]
    """Texture coordinates of the vertices, float32; v counts from the bottom, the texture repeats."""
    texture: Int[Tensor, " m"]
    """Index of the texture of each face, int64; -1 for none."""
    textures: tuple[NDArray[np.uint8], ...]
    """Shape (h, w, 3) each, sRGB."""
    missing_files: tuple[str, ...] = ()
    """Files that the mesh names but that are missing or cannot be read."""

    def color(self, face: Int[Tensor, " k"], weight: Float[Tensor, "k 3"]) -> Float[Tensor, "k 3"]:
        """Return the linear colours of points on the faces `face` with barycentric weights `weight`."""
        corner = self.faces[face]
        color = (self.tint[corner] * weight[..., None]).sum(1)
        uv = (self.uv[corner] * weight[..., None]).sum(1)
        for i, texture in enumerate(self.textures):
            on = self.texture[face] == i
            color[on] *= torch.from_numpy(_bilinear(texture, uv[on].double().numpy()))
        return color


@dataclass(frozen=True)
class MeshFile:
    """The files of an object that has not been read yet."""

    name: str
    """Its name, valid as the name of a folder."""
    folder: Folder
    """The folder of its files; no file outside it is read."""
    meshes: tuple[str, ...]
    """Paths of its mesh files in the folder; `read_textured` accepts exactly one."""

    def read(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            ValueError: if it lies outside, is no regular file, or unpacks to more than `MAX_UNPACKED`.
            OSError: if an archive has no such file.
            KeyError: likewise.
        """
        inside = posixpath.normpath(path.replace("\\", "/"))
        if isinstance(self.folder, Path):
            return read_bytes(path_inside(self.folder, inside), "a file of a mesh")
        member = self.folder.joinpath(inside)
        size = self.folder.root.getinfo(member.at).file_size
        if size > MAX_UNPACKED:
            raise ValueError(f"{inside} unpacks to {size} bytes, more than the {MAX_UNPACKED} that are read")
        return member.read_bytes()


@contextmanager
def open_folder(source: Path) -> Iterator[Folder]:
    """Open a folder or a zip archive as a folder; an archive is read in place and never unpacked."""
    if source.is_dir():
        yield source
        return
    expected = "a folder or a zip archive of meshes"
    check_regular(source, expected)
    try:
        archive = zipfile.ZipFile(source)
    except Exception as error:  # of a damaged table of contents, of any kind
        raise ValueError(f"{source}: expected {expected}, found neither ({describe_error(error)})") from error
    with archive:
        yield zipfile.Path(archive)


def find_meshes(folder: Folder) -> list[MeshFile]:
    """Return the objects in a folder by name: its mesh files, and its sub-folders that hold one at any depth.

    If the folder holds nothing but one sub-folder with several objects, those objects are returned.
    """
    files = []
    for child in _children(folder):
        if child.is_dir() and (meshes := tuple(_meshes(child, ""))):
            files.append(MeshFile(child.name, child, meshes))
        elif _is_mesh(child):
            files.append(MeshFile(Path(child.name).stem, folder, (child.name,)))
    if len(files) == 1 and files[0].folder is not folder and len(inner := find_meshes(files[0].folder)) > 1:
        return inner
    return files


def read_textured(file: MeshFile) -> TexturedMesh:
    """Read a mesh and its textures; a missing texture or material leaves the plain colour, or else grey.

    Raises:
        ValueError: if the mesh cannot be read, has no triangles, or holds a number that is not finite.
    """
    import trimesh

    if len(file.meshes) > 1:
        raise ValueError(f"{file.folder}: expected one mesh, found {', '.join(file.meshes)}")
    path = file.meshes[0]
    whole = file.folder.joinpath(path)
    resolver = FileResolver(file, posixpath.dirname(path))
    try:
        content, kind = file.read(path), posixpath.splitext(path)[1].lower()
        if kind == ".glb":
            _check_glb(content)
        scene = trimesh.load(io.BytesIO(content), file_type=kind[1:], resolver=resolver, force="scene", process=False)
        placed = [(scene.geometry[name], at) for at, name in map(scene.graph.get, scene.graph.nodes_geometry)]
        parts = [(part, at) for part, at in placed if isinstance(part, trimesh.Trimesh) and len(part.faces)]
        mesh = _concatenated(parts, resolver) if parts else None
    except Exception as error:  # the readers of a dozen formats fail in any way
        reason = " ".join(str(error).split())
        raise ValueError(f"{whole} cannot be read as a mesh ({type(error).__name__}: {reason})") from error
    if mesh is None:
        raise ValueError(f"{whole} holds no triangles")
    if not bool(mesh.vertices.isfinite().all()):
        raise ValueError(f"{whole} holds a number that is not finite")
    return mesh


def _check_glb(content: bytes) -> None:
    """Refuse a GLB with an array that no data are behind: trimesh makes as many zeros as it announces.

    Its first chunk is JSON, whose length is at byte 12 (glTF 2.0, section 4.4).
    """
    (length,) = struct.unpack_from("<I", content, 12)
    for accessor in json.loads(content[20 : 20 + length]).get("accessors", []):
        if "bufferView" not in accessor and accessor.get("count", 0) > len(content):
            raise ValueError(f"an array of {accessor['count']} elements is announced, but there are no data for it")


class FileResolver:
    """Give trimesh the files that a mesh names, and note those that are missing."""

    def __init__(self, file: MeshFile, folder: str):
        self.file, self.folder = file, folder
        self.missing_files: list[str] = []

    def get(self, name: str) -> bytes:
        """Return the content of a file; OSError if it is missing."""
        try:
            return self.file.read(posixpath.join(self.folder, name.replace("\\", "/")))
        except (OSError, KeyError, ValueError) as error:
            self.missing_files.append(name)
            raise OSError(f"{name}: not found") from error  # trimesh goes on without the file

    __getitem__ = get


def _concatenated(parts: list[tuple[Any, Any]], resolver: FileResolver) -> TexturedMesh:
    """Join trimesh's meshes, one per material and each with its pose (4, 4), into one."""
    vertices, faces, tints, uvs, of_face = [], [], [], [], []
    n_vertex, textures = 0, list[NDArray[np.uint8]]()
    for part, pose in parts:
        tint, uv, image = _vertex_colors(part.visual, len(part.vertices), resolver)
        vertices.append(part.vertices @ pose[:3, :3].T + pose[:3, 3])
        faces.append(part.faces + n_vertex)
        n_vertex += len(part.vertices)
        tints.append(tint)
        uvs.append(uv)
        of_face.append(np.full(len(part.faces), -1 if image is None else len(textures)))
        textures += [] if image is None else [image]
    return TexturedMesh(
        torch.from_numpy(np.concatenate(vertices)),
        torch.from_numpy(np.concatenate(faces)).long(),
        _linear_table()[torch.from_numpy(np.concatenate(tints)).long()],
        torch.from_numpy(np.nan_to_num(np.concatenate(uvs))).float(),
        torch.from_numpy(np.concatenate(of_face)),
        tuple(textures),
        tuple(dict.fromkeys(resolver.missing_files)),
    )


def _vertex_colors(
    visual: Any, n: int, resolver: FileResolver
) -> tuple[np.ndarray, np.ndarray, NDArray[np.uint8] | None]:
    """Return the vertices' colours (n, 3), sRGB of 255, their texture coordinates (n, 2), and the texture, if any."""
    tint, uv = np.full((n, 3), GREY), np.zeros((n, 2))
    if visual.kind in ("vertex", "face"):
        return visual.vertex_colors[:, :3], uv, None
    material: Any = getattr(visual, "material", None)
    material = material.to_simple() if hasattr(material, "to_simple") else material
    if visual.kind != "texture" or material is None:
        return tint, uv, None
    image = material.image  # without a format: a picture that trimesh made up, where the file has no material
    if image is not None and image.format is not None and np.shape(visual.uv) == (n, 2):
        try:
            if image.format not in TEXTURE_KINDS:
                raise ValueError(f"a texture of kind {image.format}")
            # exporters write Kd 0 beside a texture, so that the texture alone counts
            return np.full((n, 3), 255), visual.uv, np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError):  # Pillow reads the pixels only now
            resolver.missing_files.append(str(image.info.get("file_path", "the texture")))
    has_color = "kd" in getattr(material, "kwargs", {}) or hasattr(visual.material, "to_simple")
    return np.full((n, 3), material.diffuse[:3]) if has_color else tint, uv, None


def _bilinear(texture: UInt8[np.ndarray, "h w 3"], uv: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "k 3"]:
    """Return the linear colours of a repeating texture, interpolated between the four nearest texels."""
    height, width = texture.shape[:2]
    at = np.stack([uv[:, 0] % 1 * width, (1 - uv[:, 1]) % 1 * height], 1) - 0.5
    low = np.floor(at).astype(int)
    x, y = (at - low).T[..., None]
    (x0, y0), (x1, y1) = (low % (width, height)).T, ((low + 1) % (width, height)).T
    light = _linear_table().numpy()
    above, below = (light[texture[row, x0]] * (1 - x) + light[texture[row, x1]] * x for row in (y0, y1))
    mixed: NDArray[np.float32] = (above * (1 - y) + below * y).astype(np.float32)
    return mixed


@cache
def _linear_table() -> Float[Tensor, "256"]:
    """Return the linear value of each sRGB value of 8 bits."""
    return linear(torch.arange(256) / 255)


def _meshes(folder: Folder, path: str) -> Iterator[str]:
    """Yield the paths of the mesh files in a folder at any depth, each after the prefix `path`."""
    if path.count("/") > MAX_DEPTH:
        raise ValueError(f"{folder}: folders are nested more than {MAX_DEPTH} deep")
    for child in _children(folder):
        if child.is_dir():
            yield from _meshes(child, f"{path}{child.name}/")
        elif _is_mesh(child):
            yield path + child.name


def _children(folder: Folder) -> list[Folder]:
    """Return the files and folders in a folder by name, without hidden ones and those with unsafe names."""
    children = (child for child in folder.iterdir() if _is_safe_name(child.name) and child != folder)
    return sorted(children, key=lambda child: child.name)  # an archive may name a folder inside of itself


def _is_mesh(file: Folder) -> bool:
    return posixpath.splitext(file.name)[1].lower() in SUFFIXES and file.is_file()


def _is_safe_name(name: str) -> bool:
    """Return whether a name is safe as a file name: an archive may hold "..", or another system's separators."""
    return not name.startswith((".", "__MACOSX")) and name != "" and not set(name) & set("/\\:")
