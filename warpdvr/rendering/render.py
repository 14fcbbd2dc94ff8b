"""From a field and a camera to an image."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import Field, FieldLike
from warpdvr.intersection.base import Solver, SolverLike, as_solver
from warpdvr.intersection.default import default_intersect
from warpdvr.intersection.diagnosis import warn_of_rays
from warpdvr.intersection.lowest import DEPTHS
from warpdvr.rendering.aggregate import Aggregation, HitPoint
from warpdvr.rendering.antialias import smooth_edges
from warpdvr.rendering.arguments import (
    background_pixels,
    check_aggregate,
    check_camera,
    check_memory,
    check_silhouette,
    shader_of,
    warn_of_colors,
)
from warpdvr.rendering.film import Film, expose
from warpdvr.rendering.grazing import pixel_spacing
from warpdvr.rendering.image import Image
from warpdvr.rendering.visibility import VisibleImage, boundary
from warpdvr.runtime.arguments import check_switches, whole
from warpdvr.runtime.inference_mode import outside_inference
from warpdvr.runtime.memory import evaluation_memory, out_of_memory
from warpdvr.shading.lights import Light
from warpdvr.shading.materials import Material
from warpdvr.shading.shade import Shader

SMALLER = "ask for a smaller picture or, where no gradient is needed, render within torch.no_grad()"
"""What to do where a device has no memory for a single ray beside what it holds of the others."""


@outside_inference
@out_of_memory("render", SMALLER)
def render(
    field: FieldLike | object,
    camera: Camera | object,
    *,
    intersect: SolverLike | object | None = None,
    background: Sequence[float] | Float[Tensor, "3"] | Float[Tensor, "h w 3"] | object | None = (1.0, 1.0, 1.0),
    aggregate: Aggregation | object | None = None,
    silhouette: float | object | None = None,
    outline: bool | object = False,
    antialias: int | object = 1,
    material: Material | object | None = None,
    lights: Sequence[Light] | object = (),
    memory: int | object | None = None,
    warn: bool = True,
) -> Image:
    """Render a field.

    Differentiable twice with respect to the field's weights and the camera where autograd is recording; soft mask,
    outlines and other aggregations than `HitPoint` once (RuntimeError). Use `torch.no_grad()` for a picture.

    Args:
        field: a `Field`, or what `as_field` makes one of.
        camera: the view.
        intersect: finds the surface; by default `SphereTrace()` given a Lipschitz bound, else `DenseMarch()`.
        background: sRGB colour where no ray hits, one for all pixels or one for each. None: it is black, and colours
            of pixels on edges are those of the object alone (straight), to be laid over anything by a mask.
        aggregate: what a ray sees: `HitPoint()` (default), `MaximumOccupancy()` or `Transparency()`.
        silhouette: sharpness of the soft mask [1 / field value]; None leaves it out.
        outline: add the gradient of moving outlines to `Image.rgb`, whose values do not change, and make that of
            grazing colours and normals the mean over a pixel, see `warpdvr.rendering.visibility` and `grazing`.
        antialias: rays along each axis of pixels on edges, where a neighbour sees something nearer or farther; their
            `rgb` is the mean in linear light. 3, without a `BoundGrid`, may cost as much as the rest of the picture.
        material: how the surface reflects the lights in the field's colours, such as `Lambert()`; None: colours alone.
        lights: the lights of the scene, needed with a material.
        memory: approximate limit for a chunk of rays, without a recorded gradient [byte]; None: 512 MiB on a CPU, a
            quarter of what is free on a GPU. A chunk that a device has no memory for is halved.
        warn: say what is wrong with the field in this picture, see `warpdvr.intersection.diagnosis`.

    Raises:
        ValueError: if an argument makes no sense; for `silhouette`, `outline` and `antialias` without `HitPoint`.
        torch.OutOfMemoryError: if a device has no memory for one ray at a time either.
    """
    camera = check_camera("render", camera)
    pixels = background_pixels((0.0, 0.0, 0.0) if background is None else background, camera)
    sharpness, straight = check_silhouette(silhouette), background is None
    check_switches("render", outline=outline)
    shader, places = shader_of(material, lights), whole("render: antialias", antialias)
    budget = check_memory(memory)
    way = check_aggregate(aggregate, silhouette=sharpness is not None, outline=bool(outline), antialias=places > 1)
    field = as_field(field)
    solver = as_solver(default_intersect(field) if intersect is None else intersect).prepare(field)
    camera = camera.to(field.bounds.device)
    chunk = _rays_at_once(field, way.points_per_ray(solver), sharpness, budget)
    way = replace(way, spacing=pixel_spacing(camera)) if outline and isinstance(way, HitPoint) else way
    film = expose(field, camera, solver, aggregate=way, shader=shader, sharpness=sharpness, chunk=chunk)
    backdrop, moves = pixels.to(film.color), bool(outline) and torch.is_grad_enabled()
    rgb, evaluations = _edges(
        field, camera, solver, film, backdrop, straight, places=places, outline=moves, chunk=chunk, shader=shader
    )
    return film.image(camera, rgb, evaluations + (_warn(field, camera, film) if warn else 0))


def _edges(
    field: Field,
    camera: Camera,
    solver: Solver,
    film: Film,
    backdrop: Float[Tensor, "n 3"],
    straight: bool,
    *,
    places: int,
    outline: bool,
    chunk: int,
    shader: Shader,
) -> tuple[Float[Tensor, "n 3"], int]:
    """Return the colours of a film over a background, its edges smoothed and its outlines movable where that is asked
    for, and the evaluations of all this and of the film."""
    rgb, evaluations = film.over(backdrop), film.evaluations
    if places > 1:
        seen = rgb, film.depth, None if straight else backdrop
        rgb, for_edges = smooth_edges(field, camera, solver, *seen, places=places, chunk=chunk, shader=shader)
        evaluations += for_edges
    if outline:
        edge_term, for_outlines = boundary(field, _visible(camera, film, backdrop), solver, chunk=chunk, shader=shader)
        rgb, evaluations = rgb + edge_term, evaluations + for_outlines
    return rgb, evaluations


def _rays_at_once(field: Field, points_per_ray: int, sharpness: float | None, memory: int | None) -> int:
    """Return the number of rays whose evaluation takes about `memory` bytes, or what the device gives."""
    memory = evaluation_memory(field.bounds.device) if memory is None else memory
    points_per_ray = max(points_per_ray, 1 if sharpness is None else DEPTHS + 1)
    return max(1, memory // (bytes_per_point(field) * points_per_ray))


def bytes_per_point(field: Field) -> int:
    """Return about how many bytes the evaluation of one point takes: the tensors that autograd saves, and a margin."""
    n, saved = 64, 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        if tensor.ndim and tensor.shape[0] == n:
            saved += tensor.numel() * tensor.element_size()
        return tensor

    low, high = field.bounds
    points = (low + (high - low) * torch.linspace(0.1, 0.9, n, device=low.device)[:, None]).requires_grad_()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        field.geometry(points)
    return 256 + 2 * saved // n


def _warn(field: Field, camera: Camera, film: Film) -> int:
    """Warn of what is wrong with the field in a picture, and return the evaluations that it took to find out."""
    warn_of_colors(field, film.color)
    if flat := int(film.flat.sum()):
        warnings.warn(
            f"render: {field.name} has no slope at {flat} of {int(film.mask.sum())} hits, as if it were "
            "piecewise constant: depth has no gradient there, and normals are 0; interpolate its values",
            stacklevel=5,
        )
    return warn_of_rays("render", field, camera.rays, film.status, stacklevel=5)


def _visible(camera: Camera, film: Film, backdrop: Float[Tensor, "n 3"]) -> VisibleImage:
    rays = camera.rays(dtype=torch.promote_types(film.depth.dtype, torch.float32))
    t = (film.depth / (rays.direction @ camera.pose[:3, 2].to(rays.direction))).detach()
    shape = (1, camera.height, camera.width)
    return VisibleImage(rays, shape, film.status, t, film.normal.detach(), backdrop.detach())
