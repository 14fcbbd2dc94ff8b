"""Show a field, meshes and cameras in a window, or in a picture of that window.

The field itself is rendered, not a mesh of it, from polyscope's current camera. polyscope is imported only inside
functions: it links to libX11, which machines without a screen often lack.
"""

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.fields.base import FieldLike
from warpdvr.fields.bounds import longest_side
from warpdvr.geometry.mesh import Mesh
from warpdvr.intersection.base import SolverLike
from warpdvr.runtime.files import replacing
from warpdvr.viewer.progressive import CLAY, LEVELS, STYLES, Progressive, to_numpy

DEPTH = 0.15
"""Depth up to which cameras are drawn [radius of the scene]."""

OTHER = 30.0
"""Factor on the unit sphere from which on bounds or meshes are of quite another size."""

FOV = 35.0
"""Vertical field of view of the first view [degree]."""


def view(
    field: FieldLike | None,
    *,
    meshes: Mapping[str, Mesh] | None = None,
    cameras: Sequence[Camera] = (),
    screenshot: Path | str | None = None,
    supersample: int = 1,
    size: tuple[int, int] = (960, 720),
    up: Sequence[float] = (0.0, 0.0, 1.0),
    style: str = "color",
    intersect: SolverLike | None = None,
    work: Callable[[], bool] | None = None,
) -> None:
    """Open a window on a field and return when it is closed, or write a picture of it and return at once.

    Everything is in one frame. The first view shows the unit sphere, in which objects lie in the scene frame, or the
    field's bounds (without a field, the meshes) where they are of quite another size.

    Args:
        field: a `Field`, or anything that `as_field` accepts; None shows only meshes and cameras.
        meshes: meshes by their names in polyscope's list. In a window with a field they are hidden at first.
        cameras: cameras, drawn as the rays through the corners of their images.
        screenshot: a .png file to write instead of opening a window; needs no display.
        supersample: rays per side of a pixel of the screenshot; 2 smooths edges for four times the work.
        size: width and height of the window [pixel].
        up: the direction that points upwards, three numbers; polyscope takes the nearest axis.
        style: how the field is shown at first, one of `STYLES`.
        intersect: the solver; by default with a `BoundGrid`.
        work: called before each frame of the window, e.g. for a few steps of a fit; returns whether the field changed.

    Raises:
        ValueError: if an argument is wrong.
        RuntimeError: if there is no display, or a system library is missing.
    """
    if screenshot is not None and Path(screenshot).suffix.lower() != ".png":
        raise ValueError(f"{screenshot}: a screenshot is written as .png")
    if len(up) != 3 or not any(up) or len(size) != 2 or min(*size, supersample) < 1:
        raise ValueError(f"view: needs a direction up and positive sizes, got {up}, {size}, {supersample}")
    if field is None and not meshes and not cameras:
        raise ValueError("view: there is nothing to show: no field, no mesh and no camera")
    levels = LEVELS if screenshot is None else (1 / supersample,)
    picture = None if field is None else Progressive(field, intersect=intersect, style=style, levels=levels)
    ps = _start(headless=screenshot is not None)
    try:
        centre, radius = _ball(picture, meshes or {})
        _arrange(ps, size, up, centre, radius)
        _add(ps, meshes or {}, cameras, field is None or screenshot is not None, radius)
        if screenshot is None:
            ps.set_user_callback(lambda: _frame(picture, work))
            ps.show()
        else:
            ps.set_SSAA_factor(supersample)
            _save_screenshot(ps, picture, Path(screenshot))
    finally:
        ps.set_SSAA_factor(1)
        ps.clear_user_callback()
        ps.remove_everything()


def _start(*, headless: bool) -> Any:
    """Start polyscope, with or without a window, and return it."""
    linux = sys.platform.startswith("linux")
    if linux and not headless and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise RuntimeError("view: there is no display to open a window on; ask for a screenshot instead")
    backend = "openGL3_egl" if headless and linux else "openGL3_glfw"
    try:
        import polyscope as ps

        ps.set_errors_throw_exceptions(True)
        ps.set_use_prefs_file(False)
        ps.set_verbosity(0)
        ps.set_program_name("warpdvr")
        if ps.is_initialized() and ps.get_render_engine_backend_name() != backend:
            ps.shutdown()  # it supports one backend at a time
        ps.init(backend)
        return ps
    except (ImportError, OSError, RuntimeError) as problem:
        reason = " ".join(str(problem).replace("[polyscope]", "").replace("[EXCEPTION]", "").split())
        raise RuntimeError(
            f"view: polyscope cannot start ({reason}); on Debian and Ubuntu it needs the packages "
            "libegl1 libopengl0 libgl1-mesa-dri libx11-6"
        ) from problem


def _ball(picture: Progressive | None, meshes: Mapping[str, Mesh]) -> tuple[list[float], float]:
    """Return centre and radius of what is shown [scene unit]: of the unit sphere, unless the sizes are quite others."""
    x = [mesh.vertices.detach().cpu().float() for mesh in meshes.values() if len(mesh.vertices)]
    if picture is not None:
        x = [picture.field.bounds.detach().cpu().float()]
    if not x:
        return [0.0, 0.0, 0.0], 1.0
    box = torch.stack([torch.cat(x).amin(0), torch.cat(x).amax(0)])
    radius = 0.5 * longest_side(box)
    return (box.mean(0).tolist(), radius) if radius > 0 and not 1 / OTHER < radius < OTHER else ([0.0, 0.0, 0.0], 1.0)


def _arrange(
    ps: Any,
    size: tuple[int, int],
    up: Sequence[float],
    centre: Sequence[float] = (0.0, 0.0, 0.0),
    radius: float = 1.0,
) -> None:
    """Set up an empty scene around a ball, seen obliquely from above."""
    ps.set_window_size(*size)
    ps.set_ground_plane_mode("none")
    ps.set_background_color((1.0, 1.0, 1.0))
    ps.set_automatically_compute_scene_extents(False)  # there may be no mesh to measure
    ps.set_length_scale(2.0 * radius)
    ps.set_bounding_box(*(tuple(c + sign * radius for c in centre) for sign in (-1, 1)))
    axis = max(range(3), key=lambda i: abs(up[i]))
    ps.set_up_dir(("neg_" if up[axis] < 0 else "") + "xyz"[axis] + "_up")
    ps.set_view_projection_mode("perspective")
    ps.set_vertical_fov_degrees(FOV)
    half = math.atan(math.tan(math.radians(FOV) / 2) * min(1.0, size[0] / size[1]))
    eye = list(centre)
    for i, a in ((axis, math.copysign(0.51, up[axis])), (axis - 2, 0.50), (axis - 1, -0.70)):
        eye[i] += radius * a / math.sin(half)  # by radius / sin: the ball fills the picture
    ps.look_at(eye, tuple(centre))


def _add(ps: Any, meshes: Mapping[str, Mesh], cameras: Sequence[Camera], enabled: bool, radius: float) -> None:
    """Add meshes, and the cameras as a network of lines, in a scene of a radius [scene unit]."""
    for name, mesh in meshes.items():
        options = {"enabled": enabled, "smooth_shade": True, "color": CLAY, "material": "clay"}
        shape = ps.register_surface_mesh(name, to_numpy(mesh.vertices), mesh.faces.cpu().numpy(), **options)
        if mesh.colors is not None:
            shape.add_color_quantity("color", to_numpy(mesh.colors), defined_on="vertices")
    if cameras:
        nodes = torch.cat([_frustum(camera.to("cpu"), DEPTH * radius) for camera in cameras])
        edge = torch.tensor([[i, j] for k in range(4) for i, j in ((k, k + 4), (k + 4, (k + 1) % 4 + 4))])
        near = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0]])
        edges = (torch.cat([edge, near]) + 8 * torch.arange(len(cameras))[:, None, None]).reshape(-1, 2)
        edges = edges[(nodes[edges[:, 0]] != nodes[edges[:, 1]]).any(1)]  # rays from one eye have no near rectangle
        ps.register_curve_network(
            "cameras", to_numpy(nodes), edges.numpy(), radius=0.0015, color=(0.25, 0.35, 0.55), material="flat"
        )


def _frustum(camera: Camera, depth: float) -> Float[Tensor, "8 3"]:
    """Return the origins of the rays through the corners of an image, and their points at `depth`.

    polyscope's own camera views support no principal point, and no camera model but the pinhole.
    """
    corners = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]]) * torch.tensor([camera.width, camera.height])
    rays = camera.rays(corners.float())
    forward = rays.direction @ camera.pose[:3, 2].to(rays.direction)
    return torch.cat([rays.origin, rays.at(depth / forward)]).detach()


def _frame(picture: Progressive | None, work: Callable[[], bool] | None) -> None:
    """Call `work` and refine the picture before polyscope draws a frame."""
    import polyscope.imgui as imgui

    changed = work is not None and work()
    if picture is None:
        return
    if changed:
        picture.invalidate()
    has_changed, index = imgui.Combo("field", STYLES.index(picture.style), list(STYLES))
    if has_changed:
        picture.show(STYLES[index])
    picture.step()


def _save_screenshot(ps: Any, picture: Progressive | None, path: Path) -> None:
    """Render the field at full resolution and write a picture of the window."""
    while picture is not None and picture.step():
        pass
    pixels = ps.screenshot_to_buffer(transparent_bg=False)
    with replacing(path) as unfinished:
        PIL.Image.fromarray(pixels[..., :3].copy()).save(unfinished)
