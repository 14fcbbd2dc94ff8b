"""Render a field in polyscope: coarse while the camera moves, at full resolution when it rests."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from warpdvr.cameras.camera import OPENGL, Camera
from warpdvr.cameras.projection import ORTHOGRAPHIC, PINHOLE
from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import FieldLike
from warpdvr.intersection.base import SolverLike
from warpdvr.intersection.default import default_intersect_for_pictures
from warpdvr.intersection.diagnosis import warn_of_rays
from warpdvr.rendering.image import Image, normal_color
from warpdvr.rendering.render import render

LEVELS = (8.0, 4.0, 2.0, 1.0)
"""Side of a rendered pixel at each stage of the refinement [pixel of the window]."""
PATIENCE = 0.1
"""About how long one step may block the window after the first stage [s]."""
STYLES = ("color", "normals", "clay")
"""How to show a field: its own colours, its normals as colours, or as clay under polyscope's lights."""
CLAY = (0.80, 0.76, 0.70)
"""Colour of clay, and of meshes."""


class Progressive:
    """A field in polyscope, composited by depth: coarse while the camera moves, then finer, then idle."""

    def __init__(
        self,
        field: FieldLike,
        *,
        intersect: SolverLike | None = None,
        style: str = "color",
        levels: Sequence[float] = LEVELS,
    ):
        if style not in STYLES:
            raise ValueError(f"view: there is no style {style!r}; choose one of {', '.join(STYLES)}")
        self.field, self.style, self.levels = as_field(field), style, levels
        self._solver = self._intersect = intersect
        self._shown: tuple[Image, Camera] | None = None
        self._camera: Camera | None = None
        self._stages: Iterator[None] = iter(())
        self._speed, self._min_pixels = 0.0, 1

    def invalidate(self) -> None:
        """Start over at the next step, because the field has changed."""
        self._camera, self._intersect = None, self._solver

    def show(self, style: str) -> None:
        """Show the picture in another of the `STYLES`, without evaluating the field."""
        self.style = style
        if self._shown is not None:
            self._hand_over(*self._shown)

    def step(self) -> bool:
        """Do the next part of the work for polyscope's current view; return False if there is none left."""
        camera = view_camera()
        if self._camera is None or not _is_same(camera, self._camera):
            self._camera, self._stages = camera, self._refine(camera)
        return next(self._stages, self) is None

    def _refine(self, camera: Camera) -> Iterator[None]:
        """Render and show one stage after another; the first in one piece, the others in bands of rows."""
        for i, level in enumerate(self.levels):
            width, height = (max(1, round(side / level)) for side in (camera.width, camera.height))
            stage, top = camera.resized(width, height), 0
            bands: list[Image] = []
            self._min_pixels = width * height if i == 0 else self._min_pixels
            while top < height:
                if bands:
                    yield
                affordable = self._speed * PATIENCE if i else 0.0  # pixels
                rows = min(height - top, max(1, int(max(self._min_pixels, affordable) / width)))  # thin bands cost more
                bands.append(self._render(_rows(stage, top, rows)))
                top += rows
            image = _stack(bands)
            if self._shown is None:  # of the first picture alone, since a user may well move into the object
                warn_of_rays("view", self.field, stage.rays, image.status.flatten(), stacklevel=1)
            self._hand_over(image, camera)
            yield

    @torch.no_grad()
    def _render(self, camera: Camera) -> Image:
        start = perf_counter()
        if self._intersect is None:
            self._intersect, _ = default_intersect_for_pictures(self.field)
        image = render(self.field, camera, intersect=self._intersect, warn=False)
        self._speed = camera.width * camera.height / (perf_counter() - start)
        return image

    def _hand_over(self, image: Image, camera: Camera) -> None:
        import polyscope as ps

        # Enable it only once: polyscope remembers by name whether the user has switched the field off.
        options = {"enabled": True if self._shown is None else None, "allow_fullscreen_compositing": True}
        depth = to_numpy(torch.where(image.mask, image.depth, torch.inf))
        self._shown = image, camera
        if self.style == "clay":
            normal = to_numpy(image.normal @ (camera.pose @ OPENGL)[:3, :3].to(image.normal))  # in view space
            ps.add_depth_render_image_quantity("field", depth, normal, color=CLAY, material="clay", **options)
        else:
            color = image.rgb if self.style == "color" else normal_color(image.normal)
            ps.add_raw_color_render_image_quantity("field", depth, to_numpy(color), **options)
        ps.request_redraw()


def view_camera() -> Camera:
    """Return the camera that polyscope looks through, with the pixels of its window [scene unit]."""
    import polyscope as ps

    parallel = ps.get_view_projection_mode() == "orthographic"
    view, (width, height) = ps.get_view_camera_parameters(), ps.get_buffer_size()
    extent = 2 * math.tan(math.radians(view.get_fov_vertical_deg()) / 2)  # height of the view on the plane z = 1
    if parallel:
        extent *= 2 * ps.get_length_scale()  # polyscope's factor for parallel rays
    fx, fy = width / (extent * view.get_aspect()), height / extent
    K = torch.tensor([[fx, 0, width / 2], [0, fy, height / 2], [0, 0, 1]], dtype=torch.float64)
    pose = torch.linalg.inv(torch.tensor(view.get_view_mat(), dtype=torch.float64)) @ OPENGL
    return Camera(K, pose, width, height, ORTHOGRAPHIC if parallel else PINHOLE)


def _rows(camera: Camera, top: int, rows: int) -> Camera:
    """Return the camera of `rows` rows of an image from row `top` on."""
    K = camera.K.clone()
    K[1, 2] -= top
    return replace(camera, K=K, height=rows)


def _stack(bands: list[Image]) -> Image:
    """Join bands of rows into one image."""
    names = "rgb", "depth", "normal", "mask", "status"
    parts = {name: torch.cat([getattr(band, name) for band in bands]) for name in names}
    return Image(**parts, evaluations=sum(band.evaluations for band in bands), flat=sum(band.flat for band in bands))


def _is_same(a: Camera, b: Camera) -> bool:
    same_model = (a.width, a.height, a.projection) == (b.width, b.height, b.projection)
    return same_model and torch.equal(a.K, b.K) and torch.equal(a.pose, b.pose)


def to_numpy(tensor: Float[Tensor, "..."]) -> NDArray[np.float32]:
    """Return a tensor as polyscope expects it: float32, on the host."""
    array: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    return array
