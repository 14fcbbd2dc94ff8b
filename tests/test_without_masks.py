"""Photographs without masks: the object is found by its colours, compared with outlines in closed form."""

from dataclasses import replace

import pytest
import torch

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.cli.fit import needs_masks
from warpdvr.datasets.segmentation import derive_masks
from warpdvr.datasets.views import Views
from warpdvr.fitting.recipe import Recipe

SIZE, RADIUS, FLOOR = 96, 0.5, -0.5


def scene_views(n=20, *, floor=(0.45, 0.3, 0.2), ball=(0.2, 0.45, 0.75), outward=False, noise=0.0):
    """Views of a chequered ball on a chequered floor, and the exact outlines of the ball.

    With `noise`, each view has a background of its own.
    """
    generator = torch.Generator().manual_seed(0)
    images, outlines, cameras = [], [], []
    for k in range(n):
        angle, height = torch.tensor(2 * torch.pi * k / n), 1.2 + 0.8 * (k % 3)
        eye = torch.tensor([2.4 * angle.cos(), height, 2.4 * angle.sin()], dtype=torch.float64)
        target = 2 * eye if outward else torch.zeros(3, dtype=torch.float64)
        camera = Camera.look_at(eye, target, up=(0.0, 1.0, 0.0), fov=45, width=SIZE, height=SIZE)
        rays = camera.rays()
        o, d = rays.origin, rays.direction
        b = (o * d).sum(1)
        root = b.square() - o.square().sum(1) + RADIUS**2
        hit = (root > 0) & (b < 0)
        x = o + (-b - root.clamp_min(0).sqrt())[:, None] * d
        on_floor = o + ((FLOOR - o[:, 1]) / d[:, 1])[:, None] * d
        below = (d[:, 1] < 0)[:, None]

        def chequers(x, color):
            parity = (x * 6).floor().sum(1, keepdim=True) % 2
            return torch.tensor(color) * (0.75 + 0.25 * parity)

        wall = torch.tensor([0.6, 0.55, 0.4]) + noise * torch.rand(3, generator=generator)
        behind = torch.where(below, chequers(on_floor, floor), wall.double())
        color = torch.where(hit[:, None], chequers(x, ball), behind)
        images.append((255 * color).round().clamp(0, 255).to(torch.uint8).view(SIZE, SIZE, 3))
        outlines.append(hit.view(SIZE, SIZE))
        cameras.append(camera)
    test = (0, 8)
    train = tuple(i for i in range(n) if i not in test)
    names = tuple(f"{i:03d}" for i in range(n))
    none = (None,) * n
    views = Views(tuple(images), none, tuple(cameras), names, train, test, SceneTransform.identity(), "No masks.")
    return views, outlines


def overlap(a, b):
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_ball_on_a_floor_is_found(noise):
    views, outlines = scene_views(noise=noise)
    found = derive_masks(views)
    assert all(found.masks[i] is None for i in views.test)
    assert min(overlap(found.masks[i], outlines[i]) for i in views.train) >= 0.9
    assert "Masks derived from colours for 18 of 18 views" in found.summary


def test_given_masks_are_kept():
    views, outlines = scene_views()
    views = replace(views, masks=(None, outlines[1], *views.masks[2:]))
    assert derive_masks(views) is views and not needs_masks(views, Recipe())


def test_a_view_that_shows_something_else_gets_no_mask():
    views, _ = scene_views()
    images = list(views.images)
    for i, color in ((3, [0.45, 0.3, 0.2]), (4, [0.2, 0.45, 0.75])):  # nothing but floor, nothing but ball
        images[i] = (255 * torch.tensor(color)).to(torch.uint8).expand(SIZE, SIZE, 3).clone()
    found = derive_masks(replace(views, images=tuple(images)))
    assert found.masks[3] is None and found.masks[4] is None and found.masks[5] is not None


def test_an_object_of_the_colours_of_its_surroundings_is_refused():
    views, _ = scene_views(ball=(0.45, 0.3, 0.2))
    with pytest.raises(ValueError, match=r"there are no masks, and .*; give masks that are white on the object"):
        derive_masks(views)


def test_photographs_of_one_colour_are_refused():
    views, _ = scene_views()
    grey = tuple(torch.full_like(image, 90) for image in views.images)
    with pytest.raises(ValueError, match=r"there are no masks, and .*; give masks that are white on the object"):
        derive_masks(replace(views, images=grey))


def test_cameras_that_look_outward_are_refused():
    views, _ = scene_views(outward=True)
    with pytest.raises(ValueError, match="expected cameras that look at the object"):
        derive_masks(views)


def test_views_that_are_all_alike_are_refused():
    views, _ = scene_views()
    n = len(views)
    alike = replace(views, images=views.images[:1] * n, cameras=views.cameras[:1] * n)
    with pytest.raises(ValueError, match="the cameras look in parallel"):
        derive_masks(alike)
