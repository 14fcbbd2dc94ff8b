"""Refine cameras against a fixed field.

Each camera is refined by itself, by damped Gauss-Newton steps (Levenberg 1944, Marquardt 1963) on the twist of
`warpdvr.cameras.pose.perturb`. Colours, silhouette and depth are compared, as in Liu et al., "DIST" (2020), section 4,
from coarse pictures to fine ones (`warpdvr.fitting.pose_residuals`).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.pose import perturb
from warpdvr.datasets.views import Views, check_views
from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import Field, FieldLike
from warpdvr.fitting.image_pyramid import pyramid
from warpdvr.fitting.pose_residuals import SCALES, PoseResiduals
from warpdvr.intersection.base import Solver, SolverLike, as_solver
from warpdvr.intersection.cached import CachedMarch
from warpdvr.intersection.diagnosis import check_start
from warpdvr.runtime.inference_mode import outside_inference
from warpdvr.runtime.threads import one_thread
from warpdvr.runtime.validate import suggest

TRIES = 25
"""Largest number of poses that are tried at each size of the picture."""

CELLS = 64
"""Cells of the `CachedMarch` along the longest side of the field's bounds."""

MIN_STEP = 0.003
"""A step shorter than this ends the search at one size [pixel / focal length: radian; half the longest side]."""

FIRST_FREE = (2, 3, 4, 5)
"""Entries of the twist that change at the first size: roll and shift. The others hardly show at that size."""

MIN_GAIN = 1e-5
"""So does a step that lowers the loss by less than this share."""


@dataclass(frozen=True)
class RefinedCamera:
    """A refined camera and its losses."""

    camera: Camera
    """The refined camera [scene unit]."""
    before: float
    """The loss of the given camera, at the finest size."""
    after: float
    """The loss of the refined one."""
    poses_tried: int
    """How many poses were tried."""


@outside_inference
def refine(
    field: FieldLike | object,
    views: Views | object,
    indices: Iterable[int] | None = None,
    *,
    kinds: Sequence[str] = ("color", "mask", "depth"),
    longest: int = 400,
    intersect: SolverLike | object | None = None,
    callback: Callable[[int, RefinedCamera], None] | None = None,
) -> tuple[Camera, ...]:
    """Refine the cameras of some views against a fixed field; one view is enough.

    Colours are compared if the field has its own, masks and depth maps where the views have them.

    Args:
        field: of one shape; a `Field`, or what `as_field` makes one of.
        views: photographs with cameras to begin from, in the scene frame.
        indices: indices of the views whose cameras are refined; all of them by default.
        kinds: what is compared.
        longest: the longer side of the pictures that are compared, at most [pixel].
        intersect: how the surface is found; by default a `CachedMarch`.
        callback: called with the index of a view and its refined camera.

    Returns:
        The cameras of all views, in their order.

    Raises:
        ValueError: if a view has nothing to compare, or its camera sees nothing of the field at the start, such as one
            that is negative nowhere, or inside out.
    """
    check_refinement(kinds, longest)
    field, views = as_field(field), check_views("refine", views)
    solver = as_solver(CachedMarch(cells=CELLS, corrections=3) if intersect is None else intersect).prepare(field)
    cameras = list(views.cameras)
    for i in range(len(views)) if indices is None else indices:
        with one_thread():
            refined = _refine_camera(field, views, i, kinds, longest, solver)
        cameras[i] = refined.camera
        if callback is not None:
            callback(i, refined)
    return tuple(cameras)


def check_refinement(kinds: Sequence[str], longest: int) -> None:
    """Check the options of `refine`.

    Raises:
        ValueError: if a kind is unknown (the message suggests the nearest one), there is none, or pictures are too
            small.
    """
    unknown = [kind for kind in kinds if kind not in SCALES]
    if unknown or not kinds:
        hint = suggest(unknown[0], SCALES) if unknown else ""
        raise ValueError(f"refine: what can be compared is {', '.join(SCALES)}, got {list(kinds)}{hint}")
    if longest < 2:
        raise ValueError(f"refine: pictures need at least 2 pixels along their longer side, got {longest}")


def _refine_camera(
    field: Field, views: Views, i: int, kinds: Sequence[str], longest: int, solver: Solver
) -> RefinedCamera:
    camera, name = views.cameras[i], views.names[i]
    mask = views.masks[i] if "mask" in kinds else None
    depth = views.depths[i] if views.depths and "depth" in kinds else None
    colored = "color" in kinds and field.has_color
    if mask is None and depth is None and not colored:
        raise ValueError(
            f"refine: view {name} has nothing to be compared by, asked for {' and '.join(kinds)}: masks and depth maps "
            f"come with the views, a colour of its own {field.name} {'has' if field.has_color else 'lacks'}"
        )
    _check_visible(field, camera, name)
    start = pose = camera.pose.detach().cpu().double()
    poses_tried = 0
    for level in pyramid(camera, views.images[i], mask, depth, longest, field.bounds.device):
        problem = PoseResiduals(field, level, colored, solver, pose)
        problem.scales = (
            problem.measure_scales(pose) if poses_tried else SCALES if mask is None else {"mask": SCALES["mask"]}
        )
        pose, after, tried = _descend(problem, pose, range(6) if poses_tried else FIRST_FREE)
        poses_tried += tried
    if not math.isfinite(after):
        raise ValueError(f"refine: view {name} sees nothing of the object, its camera is too far off to be refined")
    return RefinedCamera(replace(camera, pose=pose), problem(start)[0], after, poses_tried)


def _check_visible(field: Field, camera: Camera, name: str) -> None:
    """Refuse a camera that has the object behind it or outside of its picture."""
    low, high = field.bounds.detach().cpu().double()
    corner = torch.cartesian_prod(*torch.stack([low, high], 1))
    z = camera.project(corner)[1]
    if not bool((z > 0).any()):
        raise ValueError(f"refine: view {name}: the object lies behind its camera, which cannot be refined from there")
    coarse = camera.resized(32, 32)
    near, far = coarse.rays().clip(field.bounds.cpu())
    if not bool((near <= far).any()):
        raise ValueError(f"refine: view {name}: its camera looks past the object, and cannot be refined from there")
    check_start(f"refine: view {name}", field, coarse.to(field.bounds.device).rays(), creates=False)


def _descend(
    problem: PoseResiduals, pose: Float[Tensor, "4 4"], entries: Sequence[int]
) -> tuple[Float[Tensor, "4 4"], float, int]:
    """Return a better pose, its loss, and how many poses were tried; only `entries` of the twist change."""
    loss, g, H = problem(pose)
    free = torch.tensor(entries)
    damping, poses_tried = 1e-2, 1
    length = problem.length  # the unit of shifts, too, so that steps do not depend on the size of the scene
    units = torch.tensor([1.0] * 3 + [length] * 3, dtype=g.dtype)
    small = MIN_STEP * problem.level.pixel_size(length) / length
    while poses_tried < TRIES and damping < 1e5 and math.isfinite(loss):
        curve = (units[:, None] * H * units)[free][:, free]
        curve = curve + (damping * curve.diagonal() + 1e-9 * curve.diagonal().max()).diag()
        twist = torch.zeros_like(g).index_copy(0, free, torch.linalg.solve(curve, -(units * g)[free]))
        candidate = perturb(pose[None], (units * twist)[None])[0]
        new = problem(candidate)
        poses_tried += 1
        better = new[0] < loss
        done = float(twist.abs().max()) < small or (better and new[0] > (1 - MIN_GAIN) * loss)
        if better:
            pose, (loss, g, H), damping = candidate, new, max(damping / 10, 1e-6)
        else:
            damping *= 10
        if done:
            break
    return pose, loss, poses_tried
