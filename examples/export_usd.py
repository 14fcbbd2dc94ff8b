"""Export to USD: a field becomes a mesh with colours and normals, with the camera that saw it, in one file.

The file opens in any USD viewer: z is up, `metersPerUnit` is set, vertex colours are linear and shown by a material.
Here it is read back with Pixar's own library. Written are the field as it was rendered, and the mesh out of the file
with the camera out of the file: the same picture.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import PIL.Image
import torch
from torch import Tensor

import warpdvr
from warpdvr.geometry.search import first_hit, triangle_mesh


def knot() -> warpdvr.Field:
    """Return two rings, linked."""
    ring = warpdvr.make("torus", major=0.4, minor=0.12)
    upright = warpdvr.make("rotate", part=warpdvr.make("torus", major=0.4, minor=0.12), rotation=(torch.pi / 2, 0, 0))
    parts = [
        warpdvr.make("translate", part=ring, offset=(-0.2, 0, 0)),
        warpdvr.make("translate", part=upright, offset=(0.2, 0, 0)),
    ]
    return warpdvr.make("union", parts=parts)


def read(path: Path) -> tuple[warpdvr.Mesh, Tensor]:
    """Return the mesh of a USD file in world space, and the pose of its camera (4, 4), camera to world, OpenGL axes."""
    from pxr import Usd, UsdGeom

    stage = Usd.Stage.Open(str(path))
    prims = list(stage.Traverse())
    prim = next(prim for prim in prims if prim.IsA(UsdGeom.Mesh))
    eye = next(prim for prim in prims if prim.IsA(UsdGeom.Camera))
    matrices = [UsdGeom.XformCache().GetLocalToWorldTransform(p) for p in (prim, eye)]
    to_world, pose = (torch.from_numpy(np.array(matrix)).T for matrix in matrices)  # USD multiplies rows by matrices
    mesh = UsdGeom.Mesh(prim)
    points = torch.from_numpy(np.array(mesh.GetPointsAttr().Get(), dtype=np.float32))
    faces = torch.from_numpy(np.array(mesh.GetFaceVertexIndicesAttr().Get(), dtype=np.int64)).reshape(-1, 3)
    return warpdvr.Mesh(points, faces).transformed(to_world), pose


def shaded(mesh: warpdvr.Mesh, camera: warpdvr.Camera) -> tuple[np.ndarray, Tensor]:
    """Return a picture of a mesh in the same clay as a field has (h, w, 3), and its mask (h, w)."""
    rays = camera.rays()
    face, _, _ = first_hit(triangle_mesh(mesh.vertices, mesh.faces), rays.origin, rays.direction)
    a, b, c = mesh.vertices[mesh.faces[face.clamp_min(0).long()]].unbind(1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    grey = torch.where(face < 0, 1.0, 0.25 + 0.6 * (normal * rays.direction).sum(-1).abs())
    picture = (255 * grey).to(torch.uint8).view(camera.height, camera.width, 1).expand(-1, -1, 3)
    return picture.numpy(), (face >= 0).view(camera.height, camera.width)


def main(out: Path, size: int = 200, resolution: int = 64) -> tuple[float, float]:
    """Write the picture to `out`; return how far vertices are off the surface, and the IoU of the two outlines."""
    field = knot()
    camera = warpdvr.Camera.look_at(eye=(1.4, -1.8, 1.2), fov=36, width=size, height=size)
    with torch.no_grad():
        image = warpdvr.render(field, camera)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "scene.usdc"
        warpdvr.write_usd(file, warpdvr.extract(field, resolution=resolution), [camera])
        mesh, pose = read(file)
    eye, forward = pose[:3, 3], -pose[:3, 2]
    picture, mask = shaded(mesh, warpdvr.Camera.look_at(eye, eye + forward, fov=36, width=size, height=size))
    PIL.Image.fromarray(np.concatenate([image.picture(), picture], axis=1)).save(out)
    iou = (mask & image.mask).sum() / (mask | image.mask).sum()
    with torch.no_grad():
        return float(field.value(mesh.vertices).abs().max()), float(iou)


if __name__ == "__main__":
    print(
        "vertices at most {:.1e} off the surface, outlines agree to an IoU of {:.4f}".format(
            *main(Path("export_usd.png"))
        )
    )
