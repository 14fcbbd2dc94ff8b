"""Write a surface and cameras as USD."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.geometry.mesh import Mesh, vertex_normals
from warpdvr.geometry.precision import local_origin
from warpdvr.runtime.files import check_file, replacing
from warpdvr.shading.srgb import linear
from warpdvr.usd.cameras import APERTURE, add_camera, name_cameras, representable, transform_camera

ROOT = "/NeuralSurface"
"""The default prim, parent of geometry, materials and cameras."""

CAMERAS = f"{ROOT}/Cameras"
"""The parent of the cameras."""

Metadata = Mapping[str, bool | int | float | str | Sequence[float]]
"""Custom data by key."""


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
    approximate_cameras: bool = False,
) -> None:
    """Write a closed mesh and cameras to a .usd, .usdc or .usda file; an existing file is replaced atomically.

    Vertex colours become `displayColor`, linear as USD requires, with a material that shows it. Each camera projects as
    its K does, and stores K itself as custom data `warpdvr:K`. Points are float32, as USD has them: those of a mesh far
    from the origin (`geometry.precision.FAR`) are written around it, and points and cameras are moved by a translation
    in double precision.

    Args:
        path: the file to write.
        mesh: the surface; without normals it gets those of `vertex_normals`.
        cameras: the cameras; perspective or orthographic, without skew and lens distortion.
        names: one name per camera; View_000 and so on by default.
        transform: similarity from the frame of mesh and cameras to the frame to write, such as a scene transform.
        up: the direction that points upwards after `transform`, three numbers. In the file +z is up: points and poses
            are rotated if `up` is one of the other axes, to 1e-6; if it is no axis, they are not rotated.
        meters_per_unit: length of the unit after `transform` [metre].
        metadata: numbers, strings or lists of numbers to keep in the file as custom data `warpdvr:<key>`.
        approximate_cameras: instead of refusing cameras that USD does not have, write them without skew and lens
            distortion, right in the middle of the image, and keep K and the projection (JSON) as custom data
            `warpdvr:K` and `warpdvr:projection`; leave out those of which that is no approximation, such as a panorama
            or a mirrored picture; and warn once for all of them.

    Raises:
        ValueError: if the suffix, `up` or a name is wrong, the mesh is empty or not finite, or USD has no such camera.
    """
    path = Path(path)
    check_writable(path)
    mesh.check_exportable(path)
    if not meters_per_unit > 0:
        raise ValueError(f"meters_per_unit must be positive, got {meters_per_unit}")
    matrix = _upright(up) @ (torch.eye(4) if transform is None else transform).double().cpu()
    stage = _new_stage(meters_per_unit)
    _add_metadata(stage.GetDefaultPrim(), metadata or {})
    mesh = mesh.transformed(matrix)
    origin = local_origin(mesh.vertices)
    _add_mesh(stage, replace(mesh, vertices=(mesh.vertices.double() - origin).float()), origin.cpu())
    given = name_cameras([transform_camera(camera, matrix) for camera in cameras], names)
    _add_cameras(stage, given, representable(CAMERAS, given, path, approximate=approximate_cameras), origin.cpu())
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


def _add_folder(stage: Any, path: str, origin: Float[Tensor, "3"]) -> None:
    """Add the parent of prims whose coordinates are relative to `origin`: it moves them there in double precision.

    The default prim itself has no transform, as those who place the asset expect.
    """
    from pxr import Gf, UsdGeom

    if not origin.any():
        UsdGeom.Scope.Define(stage, path)
        return
    move = UsdGeom.Xform.Define(stage, path).AddTranslateOp(UsdGeom.XformOp.PrecisionDouble)
    move.Set(Gf.Vec3d(*origin.tolist()))


def _add_mesh(stage: Any, mesh: Mesh, origin: Float[Tensor, "3"]) -> None:
    from pxr import UsdGeom, UsdShade

    _add_folder(stage, f"{ROOT}/Geometry", origin)
    UsdGeom.Scope.Define(stage, f"{ROOT}/Materials")
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


def _add_cameras(
    stage: Any, given: Mapping[str, Camera], written: Mapping[str, Camera], origin: Float[Tensor, "3"]
) -> None:
    from pxr import UsdGeom

    if written:
        _add_folder(stage, CAMERAS, origin)
    extent = np.array(UsdGeom.Mesh.Get(stage, f"{ROOT}/Geometry/Surface").GetExtentAttr().Get())
    aperture = 10 * APERTURE / UsdGeom.GetStageMetersPerUnit(stage)
    for name, camera in written.items():
        add_camera(stage, f"{CAMERAS}/{name}", camera, extent, aperture=aperture, origin=origin, source=given[name])


def _vectors(a: Float[Tensor, "n 3"]) -> Any:
    from pxr import Vt

    return Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(a.detach().cpu().numpy(), np.float32))


def _integers(a: Int[Tensor, " n"]) -> Any:
    from pxr import Vt

    return Vt.IntArray.FromNumpy(np.ascontiguousarray(a.cpu().numpy(), np.int32))
