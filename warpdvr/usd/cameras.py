"""Write cameras as USD, and say which of them USD cannot hold."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from warpdvr.cameras.camera import OPENGL, Camera
from warpdvr.cameras.projection import ORTHOGRAPHIC, PINHOLE

APERTURE = 0.036
"""Horizontal aperture of every camera [metre]; only its ratio to the focal length matters."""


def transform_camera(camera: Camera, matrix: Float[Tensor, "4 4"]) -> Camera:
    """Return the camera in another frame, float64 on the CPU; its axes stay orthonormal at any scale."""
    pose = matrix @ camera.pose.detach().double().cpu()
    scale = matrix[:3, :3].det().abs() ** (1 / 3)
    pose[:3, :3] /= scale
    if matrix[:3, :3].det() < 0:
        raise ValueError("write_usd: transform must not mirror, because there is no mirrored camera")
    K = camera.projection.rescaled(camera.K.detach().double().cpu(), float(scale))
    return replace(camera, K=K, pose=pose, projection=camera.projection.to("cpu"))


def name_cameras(cameras: Sequence[Camera], names: Sequence[str] | None) -> dict[str, Camera]:
    """Return cameras by the names of their prims, made from `names`, or View_000 and so on.

    Raises:
        ValueError: if there is not one different name per camera.
    """
    from pxr import Tf

    names = [f"View_{i:03d}" for i in range(len(cameras))] if names is None else names
    prims = [Tf.MakeValidIdentifier(name) for name in names]
    if len(prims) != len(cameras) or len(set(prims)) != len(prims):
        raise ValueError(
            f"names must be one different name per camera, got {len(prims)} for {len(cameras)}: {prims[:5]}"
        )
    return dict(zip(prims, cameras, strict=True))


def representable(folder: str, cameras: Mapping[str, Camera], file: Path, *, approximate: bool) -> dict[str, Camera]:
    """Return the cameras by name as USD can hold them, with one warning for all that it cannot hold as they are.

    Raises:
        ValueError: if there is such a camera, unless cameras may be approximated.
    """
    problems = {name: problem for name, camera in cameras.items() if (problem := _problem(camera))}
    if not problems:
        return dict(cameras)
    name, problem = next(iter(problems.items()))
    if not approximate:
        raise ValueError(f"{folder}/{name}: {problem}")
    nearest = {name: _nearest(camera) if name in problems else camera for name, camera in cameras.items()}
    changed = [name for name in problems if nearest[name] is not None]
    left_out = [name for name in problems if nearest[name] is None]
    text = f"{file}: camera {name} is not written as it is: {problem}"
    if changed:
        text += (
            f"; written without skew and lens distortion, with K and the projection as custom data: {_some(changed)}"
        )
    if left_out:
        text += f"; left out: {_some(left_out)}"
    warnings.warn(text, stacklevel=3)
    return {name: camera for name, camera in nearest.items() if camera is not None}


def add_camera(
    stage: Any,
    path: str,
    camera: Camera,
    extent: NDArray[np.floating],
    *,
    aperture: float,
    origin: Float[Tensor, "3"],
    source: Camera,
) -> None:
    """Write one camera; focal length and apertures are in tenths of a stage unit.

    The formulas and the signs of the offsets agree with the frustum of `Gf.Camera`. Of a perspective camera only the
    ratio of aperture to focal length matters; the apertures of an orthographic camera are the size of its window.

    Args:
        stage, path: where to add the prim.
        camera: a camera of `representable`.
        extent: corners of the box of the surface, shape (2, 3), relative to `origin` [stage unit].
        aperture: horizontal aperture of a perspective camera [tenth of a stage unit].
        origin: the point that the parent prim moves to its place; the pose is relative to it [stage unit].
        source: the camera as it was given, whose K and projection become custom data.
    """
    from pxr import Gf, UsdGeom, Vt

    kind = camera.projection.frustum
    left, right, top, bottom = camera.projection.window(camera.K, camera.width, camera.height)
    focal = aperture / (right - left) if kind == "perspective" else 10.0  # 10 tenths: the plane of the window
    prim = UsdGeom.Camera.Define(stage, path)
    prim.CreateProjectionAttr(kind)
    prim.CreateFocalLengthAttr(focal)
    prim.CreateHorizontalApertureAttr(focal * (right - left))
    prim.CreateVerticalApertureAttr(focal * (bottom - top))
    prim.CreateHorizontalApertureOffsetAttr(focal * (left + right) / 2)
    prim.CreateVerticalApertureOffsetAttr(-focal * (top + bottom) / 2)
    pose = camera.pose.clone()
    pose[:3, 3] -= origin
    farthest = np.linalg.norm(pose[:3, 3].numpy() - extent, axis=1).max() + np.linalg.norm(extent[1] - extent[0])
    prim.CreateClippingRangeAttr(Gf.Vec2f(1e-3 * float(farthest), 2 * float(farthest)))
    prim.GetPrim().SetCustomDataByKey("warpdvr:K", Vt.DoubleArray(source.K.reshape(-1).tolist()))
    if source is not camera:
        prim.GetPrim().SetCustomDataByKey("warpdvr:projection", json.dumps(source.projection.describe()))
    rows = (pose @ OPENGL).T.reshape(-1).tolist()  # USD multiplies row vectors
    UsdGeom.Xformable(prim).AddTransformOp().Set(Gf.Matrix4d(*rows))


def _problem(camera: Camera) -> str:
    """Return why USD has no such camera, or "" if it has."""
    (fx, skew, _), (_, fy, _), _ = camera.K.tolist()
    name = camera.projection.name
    if camera.projection.frustum is None:
        return f"USD has perspective and orthographic cameras only, this one is {name!r}"
    if abs(skew / fy) * camera.height > 0.5 or min(fx, fy) <= 0:
        return f"USD has no such camera: {name}, skew {skew:.3g}, fx {fx:.4g}, fy {fy:.4g}"
    return ""


def _nearest(camera: Camera) -> Camera | None:
    """Return the camera without skew that shows the middle at the same scale; None if that is far from what K says.

    Of an orthographic camera that scale is the same at all depths, of others it falls with the depth.
    """
    step, K = 1e-3, camera.K.clone()
    side = step * torch.tensor([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]).to(K)
    at = torch.cat([side + torch.tensor([0, 0, depth]).to(K) for depth in (1.0, 2.0)])
    right, left, down, up = camera.projection.local_project(K, at).detach().view(2, 4, 2).unbind(1)
    scale = torch.stack([(right - left)[:, 0], (down - up)[:, 1]], 1) / (2 * step)  # at the depths 1 and 2
    given = K.diagonal()[:2]
    if not bool(((given > 0) & (scale[0] > given / 2) & (scale[0] < 2 * given)).all()):
        return None
    parallel = bool((scale[1] > 0.75 * scale[0]).all())
    K[0, 0], K[1, 1], K[0, 1] = scale[0, 0], scale[0, 1], 0.0
    return replace(camera, K=K, projection=ORTHOGRAPHIC if parallel else PINHOLE)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
