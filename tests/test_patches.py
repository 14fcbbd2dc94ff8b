"""Photographs compared with photographs, against twins in NumPy, SciPy and float64 that know homographies only.

The scene is a painted plane through the origin, and cameras around its normal.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from reference import Array, Asked, in_double, plane_t, sphere_t
from scipy.ndimage import map_coordinates
from torch import Tensor, nn

from warpdvr.cameras.camera import Camera, mixed_rays
from warpdvr.cameras.lenses import OpenCVLens
from warpdvr.cameras.pose import perturb
from warpdvr.cameras.projection import PINHOLE, Projection
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.pixels import PixelBatch, Pixels
from warpdvr.datasets.sampling import grey, in_image, on_background, project
from warpdvr.datasets.views import Views
from warpdvr.fitting import patch_term
from warpdvr.fitting.fit import Fit
from warpdvr.fitting.patch_term import (
    BEST,
    CANDIDATES,
    MAX_ANGLE,
    MIN_ANGLE,
    MIN_CONTRAST,
    MIN_COSINE,
    MIN_NCC,
    Patches,
    best_pairs,
    visible_pairs,
)
from warpdvr.fitting.recipe import WEIGHTS, Recipe
from warpdvr.fitting.terms import TermContext
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.rendering.surface import Surface, shaded

NORMAL = nn.functional.normalize(torch.tensor([0.1, -0.2, 1.0], dtype=torch.float64), dim=0)
SIZE, BOUNDS = 96, 0.8


class Plane(Asked):
    """The half space below a plane, tilted and shifted by parameters."""

    def __init__(self, shift: float = 0.0, tilt: float = 0.0):
        super().__init__(self.height, BOUNDS, 1.0)
        self.shift = nn.Parameter(torch.tensor(shift))
        self.tilt = nn.Parameter(torch.tensor([tilt, -tilt, 0.0]))

    def height(self, x: Tensor) -> Tensor:
        return x @ nn.functional.normalize(NORMAL.to(x) + self.tilt, dim=0) - self.shift

    def color(self, x, normal, direction, feature):
        return paint(x)


class Hidden(Asked):
    """The plane, and a ball above it that hides a part of it from some cameras."""

    def __init__(self) -> None:
        super().__init__(self.union, BOUNDS, 1.0)

    def union(self, x: Tensor) -> Tensor:
        return torch.minimum(x @ NORMAL.to(x), (x - torch.tensor(MIDDLE)).norm(dim=-1) - 0.15)


MIDDLE = (0.15, 0.1, 0.4)


def paint(x: Tensor) -> Tensor:
    a, b, c = (x @ torch.tensor(wave).to(x) for wave in ([25.0, 3, 0], [7.0, -21, 4], [-17.0, -13, 0]))
    return (0.5 + 0.15 * torch.stack([a.sin() + b.cos(), b.sin() + c.cos(), c.sin() + a.cos()], -1)).clamp(0, 1)


def eyes(count: int) -> Tensor:
    """Return places of cameras around the normal, 15 to 40 degrees away from it."""
    turn = torch.arange(count, dtype=torch.float64) * 2.4
    side = torch.tensor([0.3, 0.5, 0.7], dtype=torch.float64)[torch.arange(count) % 3]
    return 3 * nn.functional.normalize(torch.stack([side * turn.cos(), side * turn.sin(), torch.ones(count)], 1), dim=1)


def photographs(count: int = 4, projection: Projection = PINHOLE, **changes: Any) -> Views:
    """Return pictures of the painted plane, which fills them; `changes` replace parts of the views."""
    cameras = []
    for i, eye in enumerate(eyes(count)):
        camera = Camera.look_at(eye, fov=18 + i, width=SIZE - 8 * (i % 2), height=SIZE)
        cameras.append(replace(camera, projection=projection))
    images = []
    for camera in cameras:
        rays = camera.rays(dtype=torch.float64)
        t = plane_t(rays.origin, rays.direction, NORMAL, 0.0)
        color = 255 * paint(rays.at(t))
        images.append(color.round().to(torch.uint8).view(camera.height, camera.width, 3))
    masks = [torch.ones(image.shape[:2], dtype=torch.bool) for image in images]
    names, train = tuple(map(str, range(count))), tuple(range(count))
    frame = SceneTransform.identity()
    return replace(Views(tuple(images), tuple(masks), tuple(cameras), names, train, (), frame, "plane"), **changes)


def step(views: Views, field: Any = None, rays: int = 300, at: Surface | None = None) -> TermContext:
    field, pixels, generator = field or Plane(), Pixels(views), torch.Generator().manual_seed(0)
    batch, solver = pixels.draw(rays, generator), DenseMarch(64)
    seen = shaded(field, batch.rays, solver) if at is None else at
    return TermContext(field, pixels, batch, seen, solver, 0.0, generator)


def in_float64(context: TermContext) -> TermContext:
    """Return the same step with points and normals in float64, as leaves."""
    x, n = (a.detach().double().requires_grad_() for a in (context.surface.x, context.surface.normal))
    return replace(context, surface=replace(context.surface, x=x, normal=nn.functional.normalize(n, dim=1)))


def homography(reference: Camera, source: Camera, x: Array, n: Array) -> Array:
    """K_s (R + t n^T / d) K_r^-1, with n and d of the plane n x = d in the axes of the reference camera."""
    K, R, t = (a.numpy() for a in reference.krt())
    K_s, R_s, t_s = (a.numpy() for a in source.krt())
    turn = R_s @ R.T
    shift = t_s - turn @ t
    normal = R @ n
    return np.asarray(K_s @ (turn + np.outer(shift, normal) / (normal @ (R @ x + t))) @ np.linalg.inv(K))


def patch(pixel: Array) -> Array:
    a = 2 * np.arange(5) - 4
    return pixel + np.stack(np.meshgrid(a, a, indexing="ij"), -1).reshape(-1, 2)


def look_up(image: Tensor, place: Array) -> Array:
    """Return the grey between pixels by SciPy."""
    values = image.double().numpy() @ np.array([0.299, 0.587, 0.114]) / 255
    return np.asarray(map_coordinates(values, place[:, ::-1].T - 0.5, order=1, mode="nearest"))


def shows_object(views: Views, view: int, place: Array) -> bool:
    mask = views.masks[view]
    assert mask is not None
    height, width = mask.shape
    if (place < 0.5).any() or (place > np.array([width, height]) - 0.5).any():
        return False
    return bool(mask.numpy()[tuple(place.astype(int).T[::-1])].all())


def twin(context: TermContext, views: Views) -> tuple[float, dict[tuple[int, int], float]]:
    """Return the term by homographies in NumPy, and the correlation of each pair of a hit and a view that counts."""
    found: dict[tuple[int, int], float] = {}
    surface, batch = context.surface, context.batch
    for k, ray in enumerate(surface.hit.ray.tolist()):
        x, n = surface.x[k].detach().double().numpy(), surface.normal[k].detach().double().numpy()
        r = int(batch.view[ray])
        place = patch(batch.pixel[ray].double().numpy())
        if not shows_object(views, r, place):
            continue
        own = look_up(views.images[r], place)
        towards = [c.centre.numpy() - x for c in views.cameras]
        towards = [a / np.linalg.norm(a) for a in towards]
        if towards[r] @ n < MIN_COSINE or own.std() < MIN_CONTRAST:
            continue
        angle = {s: np.arccos(towards[s] @ towards[r]) for s in range(len(views)) if s != r}
        near = [s for s in sorted(angle, key=lambda s: angle[s]) if MIN_ANGLE < angle[s] < MAX_ANGLE]
        scores = {}
        for s in [s for s in near if towards[s] @ n > MIN_COSINE][:CANDIDATES]:
            warped = (
                np.concatenate([place, np.ones((len(place), 1))], 1)
                @ homography(views.cameras[r], views.cameras[s], x, n).T
            )
            warped = warped[:, :2] / warped[:, 2:]
            if not shows_object(views, s, warped):
                continue
            other = look_up(views.images[s], warped)
            ncc = np.corrcoef(own, other)[0, 1] if other.std() > MIN_CONTRAST else 0.0
            if ncc > MIN_NCC:
                scores[s] = float(ncc)
        for s in sorted(scores, key=lambda s: -scores[s])[:BEST]:
            found[k, s] = scores[s]
    hits = {k for k, _ in found}
    means = [np.mean([1 - ncc for (k, _), ncc in found.items() if k == hit]) for hit in hits]
    return float(np.mean(means)) if hits else 0.0, found


def chosen(context: TermContext) -> dict[tuple[int, int], None]:
    reference = Patches(1.0, 10**6).reference_patches(context)
    pairs = best_pairs(context, reference, visible_pairs(context, reference)[0])
    return dict.fromkeys(zip(reference.hit[pairs.row].tolist(), pairs.source.tolist(), strict=True))


def value(context: TermContext, **options: Any) -> Tensor:
    return Patches(1.0, 10**6, **options)(context)[0]


@pytest.mark.parametrize("precision, tolerance", [(in_float64, 1e-4), (lambda context: context, 2e-3)])
def test_places_are_those_of_the_homography(precision, tolerance):
    views = photographs()
    context = precision(step(views, Plane(0.03, 0.1)))
    reference = Patches(1.0, 10**6).reference_patches(context)
    assert len(reference.hit) > 100
    for s, camera in enumerate(views.cameras):
        place, z = project(context.pixels, context.pixels.pose, torch.full_like(reference.view, s), reference.plane)
        assert (z > 0).all()
        for row in range(0, len(reference.hit), 5):
            hit = reference.hit[row]
            x, n = (a[hit].detach().double().numpy() for a in (context.surface.x, context.surface.normal))
            pixel = context.batch.pixel[context.surface.hit.ray[hit]].double().numpy()
            H = homography(views.cameras[int(reference.view[row])], camera, x, n)
            wanted = np.concatenate([patch(pixel), np.ones((25, 1))], 1) @ H.T
            assert np.abs(place[row].detach().numpy() - wanted[:, :2] / wanted[:, 2:]).max() < tolerance


@pytest.mark.parametrize("count", [4, 12])
def test_the_term_is_that_of_a_twin_with_homographies(count):
    """With a mask that cuts off a part of one view, and another view without texture in a part."""
    views = photographs(count)
    left = torch.arange(views.images[1].shape[1]) < 40
    masks = (views.masks[0], left.expand(views.images[1].shape[:2]), *views.masks[2:])
    blank = views.images[2].clone()
    blank[:, :50] = 128
    views = replace(views, masks=masks, images=(*views.images[:2], blank, *views.images[3:]))
    context = step(views, Plane(0.02, 0.05))
    wanted, pairs = twin(context, views)
    assert len(pairs) > 250
    assert {s for _, s in pairs} == set(range(count))
    found = set(chosen(context))
    assert len(found ^ set(pairs)) <= 0.01 * len(pairs)  # rounding decides at thresholds
    assert value(context).item() == pytest.approx(wanted, rel=2e-3)


def test_photographs_agree_at_the_surface_and_nowhere_else():
    views = photographs()
    shifts = [value(step(views, Plane(shift))).item() for shift in (0.0, 0.01, 0.02, 0.04)]
    assert shifts[0] < 3e-3
    assert sorted(shifts) == shifts and shifts[1] > 3 * shifts[0]
    below = [value(step(views, Plane(-shift))).item() for shift in (0.0, 0.01, 0.02, 0.04)]
    assert sorted(below) == below
    tilts = []
    for tilt in (0.0, 0.2, 0.4):  # of the normals alone
        context = step(views)
        normal = nn.functional.normalize(context.surface.normal + torch.tensor([tilt, 0.0, 0.0]), dim=1)
        tilts.append(value(replace(context, surface=replace(context.surface, normal=normal))).item())
    assert sorted(tilts) == tilts and tilts[1] > 1.5 * tilts[0]


def test_lenses_are_right_as_well():
    lens = OpenCVLens(torch.tensor([-2.0, 3.0, 0.01, -0.02], dtype=torch.float64))
    views = photographs(4, lens)
    bent = step(views)
    assert len(chosen(bent)) > 250 and value(bent).item() < 3e-3
    straight = replace(views, cameras=tuple(replace(camera, projection=PINHOLE) for camera in views.cameras))
    assert value(step(straight)).item() > 10 * value(bent).item()  # a homography would not do


def test_gradients_of_point_and_normal_agree_with_finite_differences():
    context = step(photographs(), Plane(0.02, 0.1), rays=60)
    o, d = in_double(context.batch.rays[context.surface.hit.ray])
    start = context.surface.t.detach().double(), context.surface.normal.detach().double()

    def loss(t: Tensor, normal: Tensor) -> Tensor:
        surface = replace(context.surface, x=o + t[:, None] * d, normal=nn.functional.normalize(normal, dim=1))
        return value(replace(context, surface=surface))

    given = [a.clone().requires_grad_() for a in start]
    found = torch.autograd.grad(loss(*given), given)
    generator = torch.Generator().manual_seed(1)
    for i in range(2):
        for _ in range(5):
            way = torch.randn(start[i].shape, generator=generator, dtype=torch.float64)
            ends = [loss(*(a + sign * 1e-7 * way if j == i else a for j, a in enumerate(start))) for sign in (1, -1)]
            slope = (ends[0] - ends[1]).item() / 2e-7
            assert slope == pytest.approx(float((found[i] * way).sum()), rel=1e-3, abs=1e-3 * float(found[i].norm()))
            assert abs(slope) > 1e-3


def test_cameras_that_are_refined_get_their_whole_gradient():
    """Through the hits, the rays of the patches and the projection of the other views."""
    context = step(photographs(), Plane(0.02, 0.1), rays=60)
    batch, pixels, ray = context.batch, context.pixels, context.surface.hit.ray
    tilted = NORMAL + torch.tensor([0.1, -0.1, 0.0])
    tilted = tilted / tilted.norm()

    def loss(twist: Tensor) -> Tensor:
        pose = perturb(pixels.pose.double(), twist)
        rays = mixed_rays(pixels.projections, pixels.K, pose, batch.view, batch.pixel, dtype=torch.float64)
        t = plane_t(rays.origin, rays.direction, tilted, 0.02)[ray]
        x = rays.origin[ray] + t[:, None] * rays.direction[ray]
        surface = replace(context.surface, x=x, normal=tilted.expand_as(x))
        return value(replace(context, surface=surface, batch=replace(batch, rays=rays, pose=pose)))

    twist = torch.zeros(len(pixels.pose), 6, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(loss(twist), twist)
    assert (found.abs() > 1e-4).all()
    for view in range(len(twist)):
        for entry in range(6):
            change = torch.zeros_like(twist)
            change[view, entry] = 1e-7
            slope = (loss(twist.detach() + change) - loss(twist.detach() - change)).item() / 2e-7
            assert slope == pytest.approx(float(found[view, entry]), rel=1e-2, abs=1e-3 * float(found.norm()))


def test_the_photographs_alone_move_a_plane_to_its_place():
    field = Plane(0.03, 0.03)
    nothing: dict[str, Any] = dict.fromkeys(WEIGHTS, 0.0)
    recipe = Recipe(rays=256, rate=0.004, **{**nothing, "patches": 1.0})
    steps = list(Fit(field, photographs(), iterations=40, recipe=recipe))
    assert set(steps[0].losses) == {"patches", "total"}
    assert steps[-1].losses["patches"] < 0.1 * steps[0].losses["patches"]
    assert field.shift.detach().abs() < 0.003
    assert field.tilt.detach()[:2].abs().max() < 0.015


def test_cameras_and_plane_are_found_together():
    views = photographs()
    nothing: dict[str, Any] = dict.fromkeys(WEIGHTS, 0.0)
    recipe = Recipe(rays=256, rate=0.004, cameras=1e-3, **{**nothing, "patches": 1.0})
    turned = perturb(views.cameras[1].pose[None], torch.tensor([[0.0, 0, 0.01, 0.005, 0, 0]]).double())[0]
    views = replace(views, cameras=(views.cameras[0], replace(views.cameras[1], pose=turned), *views.cameras[2:]))
    steps = list(Fit(Plane(), views, iterations=60, recipe=recipe))
    assert steps[-1].losses["patches"] < 0.2 * steps[0].losses["patches"]


def test_a_view_in_which_something_hides_the_point_does_not_count():
    views = photographs(6)
    context = step(views, Hidden(), rays=1000)
    reference = Patches(1.0, 10**6).reference_patches(context)
    pairs, evaluations = visible_pairs(context, reference)
    found = set(zip(pairs.row.tolist(), pairs.source.tolist(), strict=True))
    x, middle = context.surface.x[reference.hit].detach().double(), torch.tensor(MIDDLE, dtype=torch.float64)
    assert 20 < int((x @ NORMAL > 0.1).sum())  # hits of the ball
    on_plane = (x @ NORMAL).abs() < 1e-3
    own = torch.stack([views.cameras[int(view)].centre for view in reference.view])
    hidden = 0
    for s, camera in enumerate(views.cameras):
        origin, d = camera.centre.expand_as(x), nn.functional.normalize(x - camera.centre, dim=1)
        near = (nn.functional.normalize(x - own, dim=1) * d).sum(1).arccos() < MAX_ANGLE
        place, _ = camera.project(x)
        shown = ((place >= 0.5) & (place <= torch.tensor([camera.width, camera.height]) - 0.5)).all(1)
        candidate = on_plane & near & shown & (reference.view != s)
        blocked = candidate & ~sphere_t(origin, d, 0.148, middle).isnan()
        free = candidate & sphere_t(origin, d, 0.152, middle).isnan()
        counted = torch.tensor([(row, s) in found for row in range(len(x))])
        assert not counted[blocked].any() and counted[free].all()
        assert free.sum() > 50
        hidden += int(blocked.sum())
    assert hidden > 100 and evaluations > 0


@pytest.mark.parametrize("contrast", [0, 1])
def test_without_texture_there_is_nothing_to_learn(contrast):
    views = photographs()
    images = tuple(128 + contrast * (image > 128).to(torch.uint8) for image in views.images)
    context = in_float64(step(replace(views, images=images)))
    assert len(Patches(1.0, 10**6).reference_patches(context).hit) == 0
    loss, _ = Patches(1.0, 10**6)(context)
    assert loss.item() == 0
    by_x = torch.autograd.grad(loss, context.surface.x)[0]
    assert by_x.abs().max() == 0


def test_the_same_photograph_brighter_and_steeper_scores_the_same(monkeypatch):
    """Even if the dim patches have little texture."""
    monkeypatch.setattr(patch_term, "MIN_CONTRAST", 1e-4)
    views = photographs()
    dim = tuple(image // 3 for image in views.images)
    bright = (dim[0], 3 * dim[1] + 2, 2 * dim[2] + 40, dim[3])
    scores = [value(in_float64(step(replace(views, images=images), Plane(0.02)))).item() for images in (dim, bright)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-9) and scores[0] > 0.01


def test_few_rays_are_a_sample_of_all():
    context = step(photographs(), Plane(0.02), rays=1000)
    some = [Patches(1.0, 30).reference_patches(context).hit for _ in range(2)]
    assert all(20 < len(hit) <= 30 and len(hit.unique()) == len(hit) for hit in some)
    assert set(some[0].tolist()) != set(some[1].tolist())
    assert set(some[0].tolist()) < set(Patches(1.0, 10**6).reference_patches(context).hit.tolist())


def test_greys_are_those_of_torch_and_so_are_their_derivatives():
    views = photographs(3)
    pixels, generator = Pixels(views), torch.Generator().manual_seed(0)
    weight = torch.tensor([0.299, 0.587, 0.114]).double() / 255
    for view, image in enumerate(views.images):
        size = torch.tensor([image.shape[1], image.shape[0]]).double()
        place = torch.rand(1, 500, 2, generator=generator).double() * (size - 1) + 0.5
        place[0, :2] = torch.stack([torch.full((2,), 0.5).double(), size - 0.5])
        place.requires_grad_()
        index = torch.tensor([view])
        assert in_image(pixels, index, place).all()
        picture = (image.double() @ weight)[None, None]
        wanted = nn.functional.grid_sample(picture, 2 * place[None] / size - 1, align_corners=False)[0, 0]
        found = grey(pixels, index, place)
        assert (found - wanted).abs().max() < 1e-6
        weights = torch.randn(found.shape, generator=generator).double()
        by = [torch.autograd.grad((a * weights).sum(), place)[0][0, 2:] for a in (found, wanted)]
        assert (by[0] - by[1]).abs().max() < 1e-6 * by[1].abs().max()
        outside = torch.tensor([[[0.49, 5], [5, 0.49], [size[0] - 0.49, 5], [5, size[1] - 0.49], [torch.nan, 5]]])
        assert not in_image(pixels, index, outside).any()


def test_background_is_that_of_the_pixel_around_a_place():
    views = photographs(2)
    mask = torch.zeros(views.images[1].shape[:2], dtype=torch.bool)
    mask[10, 20] = True
    pixels = Pixels(replace(views, masks=(None, mask)))
    place = torch.tensor([[[20.01, 10.01], [20.99, 10.99], [21.01, 10.5], [20.5, 9.99], [19.99, 10.5]]])
    assert on_background(pixels, torch.tensor([1]), place)[0].tolist() == [False, False, True, True, True]
    assert not on_background(pixels, torch.tensor([0]), place).any()


def test_patches_beside_the_mask_of_their_own_view_do_not_count():
    views = photographs(3)
    masks = []
    for mask in views.masks:
        assert mask is not None
        masks.append((torch.arange(mask.shape[1]) < 50).expand(mask.shape))
    context = step(replace(views, masks=tuple(masks)))
    reference = Patches(1.0, 10**6).reference_patches(context)
    pixel = context.batch.pixel[context.surface.hit.ray[reference.hit]]
    assert len(pixel) > 50 and 40 < pixel[:, 0].max() <= 45.5 and pixel.min() >= 4.5


def test_one_view_has_nothing_to_be_compared_with():
    loss, evaluations = Patches(1.0, 10)(step(photographs(1)))
    loss.backward()
    assert loss.item() == 0 and evaluations == 0


def test_cameras_of_neighbouring_frames_do_not_count():
    """Their baseline is too short to tell depths."""
    views = photographs(3)
    near = replace(views.cameras[1], pose=views.cameras[0].pose)
    context = step(replace(views, cameras=(views.cameras[0], near, views.cameras[2])))
    reference = Patches(1.0, 10**6).reference_patches(context)
    pairs, _ = visible_pairs(context, reference)
    ways = set(zip(reference.view[pairs.row].tolist(), pairs.source.tolist(), strict=True))
    assert ways == {(0, 2), (1, 2), (2, 0), (2, 1)}


def test_every_ray_knows_its_view_and_pixel():
    views = photographs(3)
    batch: PixelBatch = step(views).batch
    for view, camera in enumerate(views.cameras):
        mine = batch.view == view
        rays = camera.rays(batch.pixel[mine])
        assert (rays.direction - batch.rays.direction[mine]).abs().max() < 1e-6
        assert torch.equal(rays.origin, batch.rays.origin[mine])
