"""Write a surface and cameras as USD."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from warpdvr.cameras.camera import OPENGL, Camera
from warpdvr.geometry.mesh import Mesh, vertex_normals
from warpdvr.runtime.files import check_file, replacing
from warpdvr.shading.srgb import linear

ROOT = "/NeuralSurface"
"""The default prim, parent of geometry, materials and cameras."""

Metadata = Mapping[str, bool | int | float | str | Sequence[float]]
"""Custom data by key."""

APERTURE = 0.036
"""Horizontal aperture of every camera [metre]; only its ratio to the focal length matters."""


def write_usd(
    path: str | Path,
    mesh: Mesh,
    cameras: Sequence[Camera] = (),
    *,
    names: Sequence[str] | None = None,
    transform: Float[Tensor, "4 4"] | None = None,
    up: Sequence[float] = (0.0, 0.0, 1.0),
    meters_per_unit: float = 1.0,
    metadata: Metadata | None = None,
) -> None:
    """Write a closed mesh and cameras to a .usd, .usdc or .usda file; an existing file is replaced atomically.

    Vertex colours become `displayColor`, linear as USD requires, with a material that shows it. Each camera projects as
    its K does, and stores K itself as custom data `warpdvr:K`.

    Args:
        path: the file to write.
        mesh: the surface; without normals it gets those of `vertex_normals`.
        cameras: the cameras; perspective or orthographic, without skew.
        names: one name per camera; View_000 and so on by default.
        transform: similarity from the frame of mesh and cameras to the frame to write, such as a scene transform.
        up: the direction that points upwards after `transform`, three numbers. In the file +z is up: points and poses
            are rotated if `up` is one of the other axes, to 1e-6; if it is no axis, they are not rotated.
        meters_per_unit: length of the unit after `transform` [metre].
        metadata: numbers, strings or lists of numbers to keep in the file as custom data `warpdvr:<key>`.

    Raises:
        ValueError: if the suffix, `up` or a name is wrong, the mesh is empty, or USD has no such camera.
    """
    path = Path(path)
    check_writable(path)
    if not len(mesh.faces):
        raise ValueError(f"{path}: the mesh to write has no faces")
    if not meters_per_unit > 0:
        raise ValueError(f"meters_per_unit must be positive, got {meters_per_unit}")
    names = [f"View_{i:03d}" for i in range(len(cameras))] if names is None else names
    matrix = _upright(up) @ (torch.eye(4) if transform is None else transform).double().cpu()
    stage = _new_stage(meters_per_unit)
    _add_metadata(stage.GetDefaultPrim(), metadata or {})
    _add_mesh(stage, mesh.transformed(matrix.to(mesh.vertices.device)))
    _add_cameras(stage, [_transform_camera(camera, matrix) for camera in cameras], names, meters_per_unit)
    with replacing(path) as unfinished:
        try:
            written = stage.GetRootLayer().Export(str(unfinished))
        except RuntimeError:  # whose text is USD's own log
            written = False
        if not written:
            raise ValueError(f"{path}: USD could not write this file; check its name, and that the disk is not full")


def check_writable(path: Path) -> None:
    """Check that USD can be written to a path, before the work whose result it is to hold.

    Raises:
        ValueError: if the suffix is not one of USD's, or there is no folder for it.
    """
    check_file(path, (".usd", ".usdc", ".usda"), "USD")


def _upright(up: Sequence[float]) -> Float[Tensor, "4 4"]:
    """Return the rotation that turns `up` to +z if it is one of the axes, else the identity."""
    z = torch.tensor(up, dtype=torch.float64)
    if tuple(z.shape) != (3,) or not 0 < float(z.norm()) < math.inf:
        raise ValueError(f"write_usd: up must be a direction, three numbers, got {tuple(up)}")
    z = z / z.norm()
    axis, rotation = z.round(), torch.eye(4, dtype=torch.float64)
    if (z - axis).abs().max() <= 1e-6 and axis[2] != 1:
        x = torch.eye(3, dtype=torch.float64)[1 if axis[0] else 0]
        rotation[:3, :3] = torch.stack([x, torch.linalg.cross(axis, x), axis])
    return rotation


def _transform_camera(camera: Camera, matrix: Float[Tensor, "4 4"]) -> Camera:
    """Return the camera in another frame; its axes stay orthonormal at any scale."""
    pose = matrix @ camera.pose.detach().double().cpu()
    scale = matrix[:3, :3].det().abs() ** (1 / 3)
    pose[:3, :3] /= scale
    if matrix[:3, :3].det() < 0:
        raise ValueError("write_usd: transform must not mirror, because there is no mirrored camera")
    K = camera.projection.rescaled(camera.K.detach().double().cpu(), float(scale))
    return replace(camera, K=K, pose=pose, projection=camera.projection.to("cpu"))


def _new_stage(meters_per_unit: float) -> Any:
    from pxr import Kind, Usd, UsdGeom

    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, meters_per_unit)
    stage.SetMetadata("kilogramsPerUnit", 1.0)
    root = UsdGeom.Xform.Define(stage, ROOT).GetPrim()
    stage.SetDefaultPrim(root)
    model = Usd.ModelAPI(root)
    model.SetKind(Kind.Tokens.component)
    model.SetAssetName(ROOT[1:])
    root.SetDocumentation("Exported by warpdvr")
    return stage


def _add_metadata(prim: Any, metadata: Metadata) -> None:
    from pxr import Vt

    for key, value in metadata.items():
        if isinstance(value, str | bool | int | float):
            prim.SetCustomDataByKey(f"warpdvr:{key}", value)
        else:
            prim.SetCustomDataByKey(f"warpdvr:{key}", Vt.DoubleArray([float(a) for a in value]))


def _add_mesh(stage: Any, mesh: Mesh) -> None:
    from pxr import UsdGeom, UsdShade

    for folder in ("Geometry", "Materials"):
        UsdGeom.Scope.Define(stage, f"{ROOT}/{folder}")
    normals = vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
    prim = UsdGeom.Mesh.Define(stage, f"{ROOT}/Geometry/Surface")
    prim.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)  # unset means Catmull-Clark
    prim.CreateOrientationAttr(UsdGeom.Tokens.rightHanded)
    prim.CreateDoubleSidedAttr(False)
    prim.CreatePointsAttr(_vectors(mesh.vertices))
    prim.CreateFaceVertexIndicesAttr(_integers(mesh.faces.reshape(-1)))
    prim.CreateFaceVertexCountsAttr(_integers(torch.full((len(mesh.faces),), 3)))
    prim.CreateExtentAttr(_vectors(torch.stack([mesh.vertices.amin(0), mesh.vertices.amax(0)])))
    prim.CreateNormalsAttr(_vectors(normals))
    prim.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    _add_colors(prim, mesh.colors)
    UsdShade.MaterialBindingAPI.Apply(prim.GetPrim()).Bind(_add_material(stage))


def _add_colors(prim: Any, colors: Float[Tensor, "n 3"] | None) -> None:
    """Write linear vertex colours, each distinct colour once; a single grey if there are none."""
    from pxr import Sdf, UsdGeom

    colors = torch.full((1, 3), 0.5) if colors is None else colors.detach().cpu()
    value, index = torch.unique(linear(colors.clamp(0, 1)), dim=0, return_inverse=True)
    kind = UsdGeom.Tokens.constant if len(value) == 1 else UsdGeom.Tokens.vertex
    primvar = UsdGeom.PrimvarsAPI(prim).CreatePrimvar("displayColor", Sdf.ValueTypeNames.Color3fArray, kind)
    if 1 < len(value) < len(colors):
        primvar.SetIndices(_integers(index))
    primvar.Set(_vectors(linear(colors.clamp(0, 1)) if len(value) == len(colors) else value))


def _add_material(stage: Any) -> Any:
    """Add a UsdPreviewSurface that reads `displayColor`, which it ignores by default."""
    from pxr import Sdf, UsdShade

    kinds = Sdf.ValueTypeNames
    material = UsdShade.Material.Define(stage, f"{ROOT}/Materials/VertexColor")
    surface = UsdShade.Shader.Define(stage, f"{ROOT}/Materials/VertexColor/Surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    surface.CreateInput("roughness", kinds.Float).Set(0.5)
    surface.CreateInput("metallic", kinds.Float).Set(0.0)
    reader = UsdShade.Shader.Define(stage, f"{ROOT}/Materials/VertexColor/ColorReader")
    reader.CreateIdAttr("UsdPrimvarReader_float3")
    reader.CreateInput("varname", kinds.String).Set("displayColor")
    color = surface.CreateInput("diffuseColor", kinds.Color3f)
    color.ConnectToSource(reader.CreateOutput("result", kinds.Float3))
    material.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", kinds.Token))
    return material


def _add_cameras(stage: Any, cameras: Sequence[Camera], names: Sequence[str], meters_per_unit: float) -> None:
    from pxr import Tf, UsdGeom

    prims = [Tf.MakeValidIdentifier(name) for name in names]
    if len(prims) != len(cameras) or len(set(prims)) != len(prims):
        raise ValueError(
            f"names must be one different name per camera, got {len(prims)} for {len(cameras)}: {prims[:5]}"
        )
    if cameras:
        UsdGeom.Scope.Define(stage, f"{ROOT}/Cameras")
    extent = np.array(UsdGeom.Mesh.Get(stage, f"{ROOT}/Geometry/Surface").GetExtentAttr().Get())
    for camera, name in zip(cameras, prims, strict=True):
        _add_camera(stage, f"{ROOT}/Cameras/{name}", camera, extent, 10 * APERTURE / meters_per_unit)


def _add_camera(stage: Any, path: str, camera: Camera, extent: NDArray[np.floating], aperture: float) -> None:
    """Write one camera; focal length and apertures are in tenths of a stage unit.

    The formulas and the signs of the offsets agree with the frustum of `Gf.Camera`. Of a perspective camera only the
    ratio of aperture to focal length matters; the apertures of an orthographic camera are the size of its window.
    """
    from pxr import Gf, UsdGeom, Vt

    (fx, skew, _), (_, fy, _), _ = camera.K.tolist()
    kind, name = camera.projection.frustum, camera.projection.name
    if kind is None:
        raise ValueError(f"{path}: USD has perspective and orthographic cameras only, this one is {name!r}")
    if abs(skew / fy) * camera.height > 0.5 or min(fx, fy) <= 0:
        raise ValueError(f"{path}: USD has no such camera: {name}, skew {skew:.3g}, fx {fx:.4g}, fy {fy:.4g}")
    left, right, top, bottom = camera.projection.window(camera.K, camera.width, camera.height)
    focal = aperture / (right - left) if kind == "perspective" else 10.0  # 10 tenths: the plane of the window
    prim = UsdGeom.Camera.Define(stage, path)
    prim.CreateProjectionAttr(kind)
    prim.CreateFocalLengthAttr(focal)
    prim.CreateHorizontalApertureAttr(focal * (right - left))
    prim.CreateVerticalApertureAttr(focal * (bottom - top))
    prim.CreateHorizontalApertureOffsetAttr(focal * (left + right) / 2)
    prim.CreateVerticalApertureOffsetAttr(-focal * (top + bottom) / 2)
    farthest = np.linalg.norm(camera.centre.numpy() - extent, axis=1).max() + np.linalg.norm(extent[1] - extent[0])
    prim.CreateClippingRangeAttr(Gf.Vec2f(1e-3 * float(farthest), 2 * float(farthest)))
    prim.GetPrim().SetCustomDataByKey("warpdvr:K", Vt.DoubleArray(camera.K.reshape(-1).tolist()))
    rows = (camera.pose @ OPENGL).T.reshape(-1).tolist()  # USD multiplies row vectors
    UsdGeom.Xformable(prim).AddTransformOp().Set(Gf.Matrix4d(*rows))


def _vectors(a: Float[Tensor, "n 3"]) -> Any:
    from pxr import Vt

    return Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(a.detach().cpu().numpy(), np.float32))


def _integers(a: Int[Tensor, " n"]) -> Any:
    from pxr import Vt

    return Vt.IntArray.FromNumpy(np.ascontiguousarray(a.cpu().numpy(), np.int32))
