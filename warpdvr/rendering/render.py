"""From a field and a camera to an image."""

import warnings
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import Field, FieldLike
from warpdvr.intersection.base import SolverLike, as_solver
from warpdvr.intersection.default import default_intersect
from warpdvr.intersection.lowest import DEPTHS
from warpdvr.rendering.aggregate import HitPoint
from warpdvr.rendering.antialias import smooth_edges
from warpdvr.rendering.film import Film, background_pixels, expose
from warpdvr.rendering.grazing import pixel_spacing
from warpdvr.rendering.image import Image
from warpdvr.rendering.visibility import VisibleImage, boundary
from warpdvr.runtime.validate import refuse_class
from warpdvr.shading.lights import Light
from warpdvr.shading.materials import Material
from warpdvr.shading.shade import Shader, shade

MEMORY = 512 << 20
"""Default memory budget of a render [byte]."""


def render(
    field: FieldLike,
    camera: Camera,
    *,
    intersect: SolverLike | None = None,
    background: Sequence[float] | Float[Tensor, "3"] | Float[Tensor, "h w 3"] = (1.0, 1.0, 1.0),
    silhouette: float | None = None,
    outline: bool = False,
    antialias: float = 1,
    material: Material | None = None,
    lights: Sequence[Light] = (),
    memory: int = MEMORY,
) -> Image:
    """Render a field.

    Differentiable twice with respect to the field's weights and the camera where autograd is recording (the soft mask
    and the outline term once; they raise a RuntimeError). Call it under `torch.no_grad()` for a picture.

    Args:
        field: a `Field`, or what `as_field` makes one of.
        camera: the view.
        intersect: finds the surface; by default `SphereTrace()` for fields with a Lipschitz bound, else
            `DenseMarch()`.
        background: sRGB colour where no ray hits, one for all pixels or one for each.
        silhouette: sharpness of the soft mask [1 / field value]; None leaves it out.
        outline: add the gradient of moving outlines to `Image.rgb`, whose values do not change, and make that of
            grazing colours and normals the mean over a pixel, see `warpdvr.rendering.visibility` and `grazing`.
        antialias: rays along each axis of pixels on edges, where a neighbour sees something in front of or behind what
            they see, a whole number; their `rgb` is the mean in linear light. 1 takes the centre alone. With 3 and
            without a `BoundGrid` this may cost as much as the rest of the picture.
        material: how the surface reflects the lights, such as `Lambert()`, with the field's colour as that of the
            surface; None shows the field's colour without shading.
        lights: the lights of the scene, needed with a material.
        memory: approximate limit for the evaluation of one chunk of rays [byte]. A recorded gradient comes on top.

    Raises:
        ValueError: if an argument makes no sense, or a material and lights are not given together.
    """
    field = as_field(field)
    if antialias < 1 or antialias != int(antialias):
        raise ValueError(f"render: antialias must be a whole number of places, at least 1, got {antialias}")
    shader = _shader(material, lights)
    solver = as_solver(intersect or default_intersect(field)).prepare(field)
    camera = camera.to(field.bounds.device)
    pixels = background_pixels(background, camera)
    chunk = max(
        1, memory // bytes_per_point(field) // max(solver.points_per_ray, 1 if silhouette is None else DEPTHS + 1)
    )
    spacing = pixel_spacing(camera) if outline else None
    film = expose(field, camera, solver, aggregate=HitPoint(spacing), shader=shader, sharpness=silhouette, chunk=chunk)
    backdrop = pixels.to(film.color)
    rgb, evaluations = film.over(backdrop), film.evaluations
    if antialias > 1:
        smooth = partial(smooth_edges, chunk=chunk, shader=shader)
        rgb, for_edges = smooth(field, camera, solver, rgb, film.depth, backdrop, places=int(antialias))
        evaluations += for_edges
    if outline and torch.is_grad_enabled():
        edge_term, for_outlines = boundary(field, _visible(camera, film, backdrop), solver, chunk=chunk, shader=shader)
        rgb, evaluations = rgb + edge_term, evaluations + for_outlines
    return _warned(field, film.image(camera, rgb, evaluations))


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


def _warned(field: Field, image: Image) -> Image:
    """Return an image, with a warning if the field has no slope at some of its hits."""
    if image.flat:
        warnings.warn(
            f"render: {field.name} has no slope at {image.flat} of {int(image.mask.sum())} hits, as if it were "
            "piecewise constant: depth has no gradient there, and normals are 0; interpolate its values",
            stacklevel=3,
        )
    return image


def _shader(material: Material | object | None, lights: Sequence[Light] | object) -> Shader:
    """Return the shader; the field's own colours need no lights, a material needs some."""
    refuse_class("render: material", material)
    if not isinstance(material, Material | None):
        raise ValueError(f"render: material must be a Material such as Lambert(), got {material!r}")
    if not isinstance(lights, Sequence) or not all(isinstance(light, Light) for light in lights):
        raise ValueError(f"render: lights must be a list of lights such as [AmbientLight()], got {lights!r}")
    if (material is None) != (len(lights) == 0):
        provided, missing = ("lights", "material=Lambert()") if material is None else ("a material", "lights=[...]")
        raise ValueError(f"render: {provided} without the other half shows nothing; give {missing} too")
    return shade if material is None else partial(shade, material=material, lights=tuple(lights))


def _visible(camera: Camera, film: Film, backdrop: Float[Tensor, "n 3"]) -> VisibleImage:
    rays = camera.rays(dtype=torch.promote_types(film.depth.dtype, torch.float32))
    t = (film.depth / (rays.direction @ camera.pose[:3, 2].to(rays.direction))).detach()
    shape = (1, camera.height, camera.width)
    return VisibleImage(rays, shape, film.status, t, film.normal.detach(), backdrop.detach())
