"""What is behind the object, learnt from photographs beside it, and what it is good for."""

import math
import sys
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import Tensor, nn

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.rays import Rays
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.views import Views
from warpdvr.evaluation.images import evaluate
from warpdvr.fields.analytic import Sphere
from warpdvr.fitting.fit import Fit
from warpdvr.fitting.recipe import Recipe
from warpdvr.rendering.background import Background

evaluate_module = sys.modules["warpdvr.evaluation.images"]  # the package has a function of that name
RADIUS, SIZE, WALL = 0.6, 40, -0.9
SMALL = Recipe(rays=256)


class Painted(Sphere):
    """A ball in one colour, which may be learnt."""

    def __init__(self, radius: float = RADIUS):
        super().__init__(radius)
        self.paint = nn.Parameter(torch.zeros(3))

    def color(self, x, normal, direction, feature):
        return torch.sigmoid(self.paint).expand(len(x), 3)


def wall(rays: Rays) -> Tensor:
    """A wall behind the ball, at z = WALL, whose colour changes from place to place."""
    t = (WALL - rays.origin[:, 2]) / rays.direction[:, 2]
    x = rays.origin + t[:, None] * rays.direction
    return 0.5 + 0.4 * torch.stack([x[:, 0].sin(), (1.5 * x[:, 1]).cos(), 0.5 * x[:, 0]], 1).clamp(-1, 1)


def views(n: int = 12) -> Views:
    """Photographs of a grey ball before the wall, whose masks reach two pixels too far; the first is held out."""
    i = torch.arange(n).double()
    eyes = torch.stack([0.9 * (2.4 * i).cos(), 0.9 * (2.4 * i).sin(), 2.5 + 0 * i], 1)
    cameras = tuple(Camera.look_at(eye, up=(0, 1, 0), width=SIZE, height=SIZE) for eye in eyes)
    images, masks = [], []
    for camera in cameras:
        rays = camera.rays()
        ball = (torch.linalg.cross(rays.direction, rays.origin).norm(dim=1) < RADIUS).view(SIZE, SIZE)
        image = torch.where(ball[..., None], 0.5, wall(rays).view(SIZE, SIZE, 3))
        images.append((255 * image).round().to(torch.uint8))
        masks.append(torch.nn.functional.max_pool2d(ball.float()[None], 5, 1, 2)[0] > 0)
    names = tuple(map(str, range(n)))
    return Views(
        tuple(images), tuple(masks), cameras, names, tuple(range(1, n)), (0,), SceneTransform.identity(), "a ball"
    )


def learnt(job: Fit) -> Background:
    assert job.background is not None
    return job.background


def test_a_wall_is_learnt_and_fills_what_masks_hold_too_much():
    """The sphere of the field stays as it is; between it and the rim of the mask, the wall is seen."""
    field, given = Painted(), views()
    field.radius.requires_grad_(False)
    field.center.requires_grad_(False)
    job = Fit(field, given, iterations=500, recipe=Recipe(rays=512))
    list(job)
    rays, mask = given.cameras[0].rays(), given.masks[0]
    assert mask is not None
    error = (learnt(job)(rays) - wall(rays)).detach().view(SIZE, SIZE, 3).abs()
    assert error[~mask].mean() < 0.03
    plain, full = evaluate(field, given), evaluate(field, given, background=learnt(job))
    assert plain.psnr < 15 and full.psnr > 25
    assert plain.iou == full.iou < 0.9


def test_a_pixel_that_nothing_is_hit_in_has_its_colour():
    class Half(Background):
        def forward(self, rays: Rays) -> Tensor:
            return torch.full_like(rays.origin, 0.25)

    given = views()
    black, grey = evaluate(Painted(), given), evaluate(Painted(), given, background=Half())
    photograph, mask = given.images[0] / 255, given.masks[0]
    assert mask is not None
    ball = (photograph - 0.5).abs().amax(-1) < 0.01
    for scores, behind, slack in ((black, 0.0, 1e-3), (grey, 0.25, 0.5)):  # edges are mixed where there is a background
        error = (torch.where(ball[..., None], 0.5, behind) - photograph)[mask].square().mean()
        assert scores.psnr == pytest.approx(-10 * math.log10(error), abs=slack)


def test_the_field_does_not_feel_it():
    """Neither through random numbers nor through the length of the gradient, which is cut."""
    found = []
    for learnt in (False, True):
        torch.manual_seed(0)
        field = Painted(0.5)
        job = Fit(field, views(), iterations=20, recipe=Recipe(rays=256, learn_background=learnt))
        losses = [{k: v for k, v in step.losses.items() if k not in ("background_color", "total")} for step in job]
        assert (job.background is not None) == learnt
        found.append((losses, [p.detach().clone() for p in field.parameters()]))
    (without, before), (losses, weights) = found
    assert losses == without and all(torch.equal(a, b) for a, b in zip(weights, before, strict=True))


def test_there_is_none_where_colours_are_not_learnt():
    assert Fit(Painted(), views(), iterations=1, recipe=Recipe(color=0.0)).background is None


def test_a_fit_goes_on_with_the_one_that_it_had():
    straight, first, second = Painted(0.5), Painted(0.5), Painted(0.5)
    whole = Fit(straight, views(), iterations=12, recipe=SMALL)
    list(whole)
    begun = Fit(first, views(), iterations=12, recipe=SMALL)
    list(islice(begun, 6))
    second.load_state_dict(first.state_dict())
    rest = Fit(second, views(), iterations=12, recipe=SMALL, seed=9)
    rest.resume(begun.state())
    list(rest)
    rays = views().cameras[0].rays()
    saved = Background.saved(whole.state())
    assert saved is not None
    assert torch.equal(learnt(rest)(rays), learnt(whole)(rays)) and torch.equal(saved(rays), learnt(whole)(rays))
    assert not torch.equal(learnt(begun)(rays), learnt(rest)(rays))


def test_a_fit_without_one_goes_on_and_begins_one():
    first = Painted(0.5)
    none = Fit(first, views(), iterations=12, recipe=Recipe(rays=256, learn_background=False))
    list(islice(none, 6))
    assert Background.saved(none.state()) is None
    job = Fit(first, views(), iterations=12, recipe=SMALL)
    job.resume(none.state())
    new = learnt(job).state()
    assert len(list(job)) == 6
    assert not all(torch.equal(a, b) for a, b in zip(new.values(), learnt(job).state().values(), strict=True))


def test_a_state_with_one_that_is_not_wanted_or_of_another_network_is_refused():
    job = Fit(Painted(), views(), iterations=4, recipe=SMALL)
    list(islice(job, 1))
    with pytest.raises(ValueError, match="is of a fit that learnt a background, but now there is to be none"):
        Fit(Painted(), views(), iterations=4, recipe=Recipe(learn_background=False)).resume(job.state())
    with pytest.raises(ValueError, match="the weights are of another network"):
        Background.saved(Background(width=8).state())


def test_where_no_pixel_lies_beside_the_object_there_is_none():
    given = views()
    everywhere = tuple(torch.ones(SIZE, SIZE, dtype=torch.bool) for _ in given.masks)
    assert Fit(Painted(), replace(given, masks=everywhere), iterations=1, recipe=SMALL).background is None


def test_photographs_are_compared_a_part_after_the_other(monkeypatch):
    """So that memory does not grow with their size."""
    torch.manual_seed(0)
    asked, made = [], Background()
    made.register_forward_pre_hook(lambda module, given: asked.append(len(given[0])))
    whole = evaluate(Painted(), views(), background=made)
    monkeypatch.setattr(evaluate_module, "CHUNK", 500)
    assert evaluate(Painted(), views(), background=made).psnr == pytest.approx(whole.psnr, abs=1e-4)
    assert asked == [SIZE**2, 500, 500, 500, 100]


def test_a_fit_in_float64_learns_one_too():
    field = Painted(0.5).double()
    list(Fit(field, views(), iterations=3, recipe=SMALL))
    assert field.radius.dtype == torch.float64 and field.radius.item() != 0.5


def test_colours_change_with_rays_as_finite_differences_say():
    torch.manual_seed(0)
    made, camera = Background().double(), Camera.look_at((0.3, -0.2, 2.5), up=(0, 1, 0), width=4, height=3)
    rays = camera.rays()
    o, d = (a.double().requires_grad_() for a in (rays.origin, rays.direction))
    assert torch.autograd.gradcheck(lambda o, d: made(Rays(o, d)), (o, d))
    assert ((made(Rays(o, d)) > 0) & (made(Rays(o, d)) < 1)).all()


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_surroundings_of_a_scaled_scene_look_the_same(scale: float) -> None:
    camera = Camera.look_at((0.3, -0.2, 2.5), up=(0, 1, 0), width=8, height=8)
    rays, cpu = camera.rays(), torch.device("cpu")
    first = Background.new(3, cpu, torch.tensor([[-1.1] * 3, [1.1] * 3]))
    moved = Background.new(3, cpu, torch.tensor([[-0.1 * scale] * 3, [2.1 * scale] * 3]))
    unit = Background.new(3, cpu)
    assert (first(rays) - unit(rays)).abs().max() < 1e-5
    assert (first(rays) - moved(Rays((rays.origin + 1) * scale, rays.direction))).abs().max() < 1e-4
    again = Background.saved(moved.state())
    assert again is not None
    assert torch.equal(again.ball, moved.ball)
    old = {name: weight for name, weight in unit.state().items() if not name.endswith("ball")}
    assert Background.saved(old) is not None
