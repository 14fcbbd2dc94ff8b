"""See a field, meshes of it and the cameras around it in a window, or in a picture of that window.

The field itself is rendered, not a mesh of it, from wherever polyscope's camera stands. polyscope is imported inside
functions only: it links libX11, which machines without a screen often lack.
"""

import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from warpdvr.atomic import replacing
from warpdvr.camera import OPENGL, Camera
from warpdvr.intersect import Intersect
from warpdvr.mesh import Mesh
from warpdvr.render import Image, render
from warpdvr.shade import normal_color

FOV = 35.0
"""Vertical field of view of the first view [degree]."""
LEVELS = (8.0, 4.0, 2.0, 1.0)
"""Side of a rendered pixel at each stage of the refinement [pixel of the window]."""
PATIENCE = 0.1
"""About how long the window may stand still for one step after the first stage [s]."""
SHOWN = ("colour", "normals", "clay")
"""What a field can be shown as: its own colours as they are, its normals as colours, clay under polyscope's lights."""
CLAY = (0.80, 0.76, 0.70)
"""Colour of clay, and of meshes."""


def view(
    field: Any | None,
    *,
    meshes: Mapping[str, Mesh] | None = None,
    cameras: Sequence[Camera] = (),
    screenshot: Path | str | None = None,
    supersample: int = 1,
    size: tuple[int, int] = (960, 720),
    up: str = "Z",
    shown: str = "colour",
    intersect: Intersect | None = None,
    work: Callable[[], bool] | None = None,
) -> None:
    """Open a window on a field and return when it is closed, or write a picture of it and return at once.

    Everything is in the scene frame, where the object lies in the unit sphere.

    Args:
        field: any module that meets the contract of `warpdvr.Field`; None shows the rest alone.
        meshes: by their names in polyscope's list. In a window they are hidden at first if there is a field.
        cameras: drawn as pyramids through the corners of their images.
        screenshot: a .png file to write instead of opening a window; needs no display.
        supersample: rays per side of a pixel of the screenshot; 2 smooths edges for four times the work.
        size: width and height of the window [pixel].
        up: the axis that points upwards, "Z" or "Y".
        shown: what the field is shown as first, one of `SHOWN`.
        intersect: how the surface is found, see `warpdvr.render`.
        work: called before each frame of the window, e.g. for some steps of a fit; True says that the field changed.

    Raises:
        ValueError: if an argument is wrong.
        RuntimeError: if there is no display, or a system library is missing.
    """
    if screenshot is not None and Path(screenshot).suffix.lower() != ".png":
        raise ValueError(f"{screenshot}: a screenshot is written as .png")
    if up not in ("Y", "Z") or len(size) != 2 or min(*size, supersample) < 1:
        raise ValueError(f"view: needs up 'Y' or 'Z' and positive sizes, got {up!r}, {size}, {supersample}")
    if field is None and not meshes and not cameras:
        raise ValueError("view: there is nothing to show: no field, no mesh and no camera")
    levels = LEVELS if screenshot is None else (1 / supersample,)
    picture = None if field is None else Progressive(field, intersect=intersect, shown=shown, levels=levels)
    ps = _start(headless=screenshot is not None)
    try:
        _arrange(ps, size, up)
        _add(ps, meshes or {}, cameras, field is None or screenshot is not None)
        if screenshot is None:
            ps.set_user_callback(lambda: _frame(picture, work))
            ps.show()
        else:
            ps.set_SSAA_factor(supersample)
            _shoot(ps, picture, Path(screenshot))
    finally:
        ps.set_SSAA_factor(1)
        ps.clear_user_callback()
        ps.remove_everything()


class Progressive:
    """A field in polyscope: coarse while the camera moves, then finer, then idle. Composited by depth."""

    def __init__(
        self,
        field: Any,
        *,
        intersect: Intersect | None = None,
        shown: str = "colour",
        levels: Sequence[float] = LEVELS,
    ):
        if shown not in SHOWN:
            raise ValueError(f"view: cannot show {shown!r}; known are {', '.join(SHOWN)}")
        self.field, self.intersect, self.shown, self.levels = field, intersect, shown, levels
        self._done: tuple[Image, Camera] | None = None
        self._camera: Camera | None = None
        self._stages: Iterator[None] = iter(())
        self._speed, self._least = 0.0, 1

    def invalidate(self) -> None:
        """Start over at the next step: the field's weights have changed."""
        self._camera = None

    def show(self, what: str) -> None:
        """Show the picture as another one of `SHOWN`; asks nothing of the field."""
        self.shown = what
        if self._done is not None:
            self._hand_over(*self._done)

    def step(self) -> bool:
        """Do the next part of the work for the view that polyscope has now; False says that there was none."""
        camera = view_camera()
        if self._camera is None or not _same(camera, self._camera):
            self._camera, self._stages = camera, self._refine(camera)
        return next(self._stages, self) is None

    def _refine(self, camera: Camera) -> Iterator[None]:
        """Render and hand over one stage after the other; the first as a whole, others in bands of rows."""
        for i, level in enumerate(self.levels):
            width, height = (max(1, round(side / level)) for side in (camera.width, camera.height))
            stage, top = camera.resized(width, height), 0
            bands: list[Image] = []
            self._least = width * height if i == 0 else self._least
            while top < height:
                if bands:
                    yield
                most = self._speed * PATIENCE if i else 0.0
                rows = min(height - top, max(1, int(max(self._least, most) / width)))  # thin ones cost more
                bands.append(self._render(_rows(stage, top, rows)))
                top += rows
            self._hand_over(_stacked(bands), camera)
            yield

    @torch.no_grad()
    def _render(self, camera: Camera) -> Image:
        start = perf_counter()
        image = render(self.field, camera, intersect=self.intersect)
        self._speed = camera.width * camera.height / (perf_counter() - start)
        return image

    def _hand_over(self, image: Image, camera: Camera) -> None:
        import polyscope as ps

        # Only at first: polyscope remembers, by the name, that the user has switched the field off.
        options = {"enabled": True if self._done is None else None, "allow_fullscreen_compositing": True}
        depth = _numpy(torch.where(image.mask, image.depth, torch.inf))
        self._done = image, camera
        if self.shown == "clay":
            normal = _numpy(image.normal @ (camera.pose @ OPENGL)[:3, :3].to(image.normal))  # in view space
            ps.add_depth_render_image_quantity("field", depth, normal, color=CLAY, material="clay", **options)
        else:
            color = image.rgb if self.shown == "colour" else normal_color(image.normal)
            ps.add_raw_color_render_image_quantity("field", depth, _numpy(color), **options)
        ps.request_redraw()


def view_camera() -> Camera:
    """Return the camera that polyscope looks through, with the pixels of its window [scene unit]."""
    import polyscope as ps

    if ps.get_view_projection_mode() != "perspective":
        ps.set_view_projection_mode("perspective")  # the only one that we have rays for
    seen, (width, height) = ps.get_view_camera_parameters(), ps.get_buffer_size()
    slope = 2 * math.tan(math.radians(seen.get_fov_vertical_deg()) / 2)
    fx, fy = width / (slope * seen.get_aspect()), height / slope
    K = torch.tensor([[fx, 0, width / 2], [0, fy, height / 2], [0, 0, 1]], dtype=torch.float64)
    pose = torch.linalg.inv(torch.tensor(seen.get_view_mat(), dtype=torch.float64)) @ OPENGL
    return Camera(K, pose, width, height)


def _start(*, headless: bool) -> Any:
    """Return polyscope, running with a window or without one."""
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
            ps.shutdown()  # it knows one backend at a time
        ps.init(backend)
        return ps
    except (ImportError, OSError, RuntimeError) as problem:
        reason = " ".join(str(problem).replace("[polyscope]", "").replace("[EXCEPTION]", "").split())
        raise RuntimeError(
            f"view: polyscope cannot start ({reason}); on Debian and Ubuntu it needs the packages "
            "libegl1 libopengl0 libgl1-mesa-dri libx11-6"
        ) from problem


def _arrange(ps: Any, size: tuple[int, int], up: str) -> None:
    """Set an empty scene around the unit sphere, seen from above at an angle."""
    ps.set_window_size(*size)
    ps.set_ground_plane_mode("none")
    ps.set_background_color((1.0, 1.0, 1.0))
    ps.set_automatically_compute_scene_extents(False)  # there may be no mesh to measure
    ps.set_length_scale(2.0)
    ps.set_bounding_box((-1, -1, -1), (1, 1, 1))
    ps.set_up_dir(f"{up.lower()}_up")
    ps.set_view_projection_mode("perspective")
    ps.set_vertical_fov_degrees(FOV)
    half = math.atan(math.tan(math.radians(FOV) / 2) * min(1.0, size[0] / size[1]))
    x, y, z = (a / math.sin(half) for a in (0.50, -0.70, 0.51))  # of length 1: the unit sphere fills the picture
    ps.look_at((x, y, z) if up == "Z" else (x, z, -y), (0.0, 0.0, 0.0))


def _add(ps: Any, meshes: Mapping[str, Mesh], cameras: Sequence[Camera], enabled: bool) -> None:
    for name, mesh in meshes.items():
        options = {"enabled": enabled, "smooth_shade": True, "color": CLAY, "material": "clay"}
        shape = ps.register_surface_mesh(name, _numpy(mesh.vertices), mesh.faces.cpu().numpy(), **options)
        if mesh.colors is not None:
            shape.add_color_quantity("colour", _numpy(mesh.colors), defined_on="vertices")
    if cameras:
        nodes = _numpy(torch.cat([_pyramid(camera.to("cpu")) for camera in cameras]))
        edge = torch.tensor([[0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [2, 3], [3, 4], [4, 1]])
        edges = (edge + 5 * torch.arange(len(cameras))[:, None, None]).reshape(-1, 2).numpy()
        ps.register_curve_network("cameras", nodes, edges, radius=0.0015, color=(0.25, 0.35, 0.55), material="flat")


def _pyramid(camera: Camera, height: float = 0.15) -> Tensor:
    """Return centre and corners of a camera, shape (5, 3); polyscope's own camera views know no principal point."""
    corners = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]]) * torch.tensor([camera.width, camera.height])
    rays = camera.rays(corners.float())
    return torch.cat([rays.origin[:1], rays.at(height / (rays.direction @ camera.pose[:3, 2].to(rays.direction)))])


def _frame(picture: Progressive | None, work: Callable[[], bool] | None) -> None:
    """Do what is due before polyscope draws."""
    import polyscope.imgui as imgui

    changed = work is not None and work()
    if picture is None:
        return
    if changed:
        picture.invalidate()
    picked, index = imgui.Combo("field", SHOWN.index(picture.shown), list(SHOWN))
    if picked:
        picture.show(SHOWN[index])
    picture.step()


def _shoot(ps: Any, picture: Progressive | None, path: Path) -> None:
    while picture is not None and picture.step():
        pass
    pixels = ps.screenshot_to_buffer(transparent_bg=False)
    with replacing(path) as unfinished:
        PIL.Image.fromarray(pixels[..., :3].copy()).save(unfinished)


def _rows(camera: Camera, top: int, rows: int) -> Camera:
    """Return the camera of some rows of an image."""
    K = camera.K.clone()
    K[1, 2] -= top
    return replace(camera, K=K, height=rows)


def _stacked(bands: list[Image]) -> Image:
    """Return bands of rows as one image."""
    names = "rgb", "depth", "normal", "mask", "status"
    parts = {name: torch.cat([getattr(band, name) for band in bands]) for name in names}
    return Image(**parts, evaluations=sum(band.evaluations for band in bands))


def _same(a: Camera, b: Camera) -> bool:
    return (a.width, a.height) == (b.width, b.height) and torch.equal(a.K, b.K) and torch.equal(a.pose, b.pose)


def _numpy(tensor: Tensor) -> Any:
    return tensor.detach().float().cpu().numpy()
