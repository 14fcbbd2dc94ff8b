"""Outlines that colours move: against finite differences of a picture with 8 x 8 rays in a pixel, in closed form and
float64, that shares no code with the renderer."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from reference import Asked, box_t, difference, double, pixel_rays
from torch import Tensor, nn

from warpdvr import Camera, DenseMarch, Rays, SphereTrace, Status, render
from warpdvr.cameras.rays import pixel_centres
from warpdvr.fields.analytic import Box
from warpdvr.fields.base import Field
from warpdvr.rendering.render import bytes_per_point
from warpdvr.rendering.surface import surface
from warpdvr.rendering.visibility import VisibleImage, boundary

SKY, FRONT, BACK = (0.1, 0.2, 0.9), (0.9, 0.4, 0.1), (0.1, 0.8, 0.3)
CAMERA = Camera.look_at((0.3, 0.2, 3.0), up=(0.0, 1.0, 0.0), width=96, height=72)
ONE = [[0.1, -0.05, 0.0]], [0.6]
TWO = [[0.25, -0.05, 0.5], [-0.2, 0.1, -0.5]], [0.35, 0.6]
INNER = [[0.1, -0.05, 0.5], [0.0, 0.0, -9.0]], [0.4, 8.5]  # the back ball fills the view


class Balls(Field):
    """Balls in plain colours, or in one that depends on the place."""

    def __init__(self, center: Any, radius: Any, paint: float = 0.0, factor: float = 1.0) -> None:
        super().__init__(3.0)
        self.lipschitz, self.paint, self.factor, self.asked = factor, paint, factor, 0
        self.center, self.radius = nn.Parameter(torch.tensor(center)), nn.Parameter(torch.tensor(radius))

    def each(self, x: Tensor) -> Tensor:
        return self.factor * ((x[:, None] - self.center).norm(dim=-1) - self.radius)

    def value(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return self.each(x).amin(1)

    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor | None) -> Tensor:
        return painted(x, self.each(x).argmin(1), self.paint)


class Cube(Box):
    """A box in one colour, its value the largest of three: no distance, and with kinks behind every edge."""

    def value(self, x: Tensor) -> Tensor:
        return ((x - self.center).abs() - 0.5 * self.size).amax(-1)

    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor | None) -> Tensor:
        return torch.tensor(FRONT).to(x).expand_as(x)


def painted(x: Tensor, which: Tensor, paint: float) -> Tensor:
    return torch.tensor([FRONT, BACK]).to(x)[which] + paint * torch.sin(2 * x)


def weights(camera: Camera) -> Tensor:
    """Return smooth weights of all colours, shape (h, w, 3)."""
    u, v = (pixel_centres(camera.width, camera.height) / camera.width).view(camera.height, camera.width, 2).unbind(-1)
    return torch.stack([torch.sin(3 * u + v) + 0.3, torch.cos(2 * v - u), u * v + 0.5 * u], -1)


def fine(camera: Camera, see: Callable[[Tensor, Tensor], Tensor], k: int = 8) -> Tensor:
    """Return the weighted sum over pixels of a picture with k x k rays in each; `see` has a colour for each ray."""
    width, height = camera.width, camera.height
    pixel = pixel_centres(k * width, k * height).double() / k
    o, d = (torch.tensor(a.copy()) for a in pixel_rays(camera.K.numpy(), camera.pose.detach().numpy(), pixel.numpy()))
    color = see(o, d).view(height, k, width, k, 3).mean((1, 3))
    return (color * weights(camera)).sum()


def balls(o: Tensor, d: Tensor, center: Tensor, radius: Tensor, paint: float = 0.0) -> Tensor:
    to = o[:, None] - center
    b = (to * d[:, None]).sum(-1)
    root = b.square() - to.square().sum(-1) + radius**2
    t, which = torch.where(root > 0, -b - root.clamp_min(0).sqrt(), torch.inf).min(1)
    seen = t < torch.inf
    color = painted(o + torch.where(seen, t, 0.0)[:, None] * d, which, paint)
    return torch.where(seen[:, None], color, torch.tensor(SKY).double())


def apart(found: Tensor, expected: Tensor) -> float:
    return float((found.cpu().double() - expected).norm() / expected.norm())


def gradients(field: Any, camera: Camera, *inputs: Tensor, **options: Any) -> list[Tensor]:
    image = render(field, camera, background=SKY, outline=True, **options)
    return list(torch.autograd.grad((image.rgb * weights(camera).to(image.rgb)).sum(), inputs))


@pytest.mark.parametrize(
    ("scene", "paint", "solve"),
    [
        (ONE, 0.0, SphereTrace()),
        (TWO, 0.0, SphereTrace()),
        (TWO, 0.0, DenseMarch()),
        (INNER, 0.0, SphereTrace()),
        (ONE, 0.08, DenseMarch()),
    ],
    ids=["one", "two", "two, marched", "one in front of a wall", "painted"],
)
def test_balls_move_as_finite_differences_say(scene: Any, paint: float, solve: Any, device: torch.device) -> None:
    """All centres and radii; the outline of the front ball is one against the back ball and against the sky."""
    field = Balls(scene[0], scene[1], paint).to(device)
    found = gradients(field, CAMERA, field.center, field.radius, intersect=solve)
    center, radius = (torch.tensor(a).double() for a in scene)
    moved = difference(lambda c: fine(CAMERA, lambda o, d: balls(o, d, c, radius, paint)), center, 0.02)
    grown = difference(lambda r: fine(CAMERA, lambda o, d: balls(o, d, center, r, paint)), radius, 0.02)
    front = 1 if scene is INNER else len(radius)  # outside of the view nothing is seen of the back ball's outline
    assert apart(found[0][:front], moved[:front]) < 0.05
    assert apart(found[0][:front], moved[:front]) < 0.05
    assert apart(found[1][:front], grown[:front]) < 0.05
    assert moved[:front].norm() > 20 and grown[:front].abs().min() > 20


def test_an_outline_in_front_of_another_surface_is_not_one_against_the_background(device: torch.device) -> None:
    """All pixels hit: were the colour behind taken for the background's, the gradient would be another one."""
    field = Balls(*INNER).to(device)
    assert render(field, CAMERA).mask.all()
    one, other = (
        torch.autograd.grad(render(field, CAMERA, background=sky, outline=True).rgb.sum(), field.radius)[0]
        for sky in (SKY, BACK)
    )
    assert torch.equal(one, other) and one[0].abs() > 10


@pytest.mark.parametrize("value", [Cube.value, Box.value], ids=["largest", "distance"])
def test_edges_move_as_finite_differences_say(value: Any, device: torch.device) -> None:
    camera = Camera.look_at((1.6, 1.2, 0.9), width=96, height=84)
    field = Cube((0.8, 0.6, 0.5), (0.05, -0.1, 0.02)).to(device)
    field.value = lambda x: value(field, x)  # type: ignore[method-assign]
    found = torch.cat(gradients(field, camera, field.size, field.center))

    def see(o: Tensor, d: Tensor, a: Tensor) -> Tensor:
        return torch.where(box_t(o, d, a[:3], a[3:]).isnan()[:, None], torch.tensor(SKY), torch.tensor(FRONT))

    at = torch.tensor([0.8, 0.6, 0.5, 0.05, -0.1, 0.02]).double()
    assert apart(found, difference(lambda a: fine(camera, lambda o, d: see(o, d, a)), at, 0.02)) < 0.05


def test_a_camera_moves_outlines_too(device: torch.device) -> None:
    pose = CAMERA.pose.clone()

    def moved(shift: Tensor) -> Camera:
        return replace(CAMERA, pose=pose + nn.functional.pad(shift[:, None], (3, 0, 0, 1)).to(pose))

    shift = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (found,) = gradients(Balls(*TWO).to(device), moved(shift), shift)
    center, radius = (torch.tensor(a).double() for a in TWO)
    see = lambda o, d: balls(o, d, center, radius)  # noqa: E731
    expected = difference(lambda a: fine(moved(a), see), torch.zeros(3), 0.02)
    assert apart(found, expected) < 0.05 and expected.norm() > 50


def test_the_scale_of_the_values_does_not_matter(device: torch.device) -> None:
    one, other = (Balls(*TWO, factor=factor).to(device) for factor in (1.0, 7.0))
    solve = DenseMarch()
    a, b = (gradients(field, CAMERA, field.radius, intersect=solve)[0] for field in (one, other))
    assert apart(a, b.cpu().double()) < 2e-3


@pytest.mark.parametrize("outline", [True, False])
def test_colours_alone_move_an_outline_into_place(outline: bool, device: torch.device) -> None:
    """Mean squared differences of colours from two sides, no mask. Without the outline's gradient nothing moves."""
    eyes = (2.4, 0.3, 0.2), (0.2, 2.4, 0.4)
    cameras = [Camera.look_at(eye, width=24, height=24) for eye in eyes]
    field, solve = Balls([[0.15, -0.1, 0.1]], [0.35]).to(device), DenseMarch(64, splits=0)
    truth = torch.tensor([[-0.05, 0.1, -0.1]]), 0.5
    with torch.no_grad():
        right = Balls(truth[0].tolist(), [truth[1]]).to(device)
        targets = [area(right, camera) for camera in cameras]
    adam = torch.optim.Adam(field.parameters(), lr=0.04)
    for step in range(40 if outline else 5):
        images = [render(field, c, background=SKY, outline=outline, intersect=solve).rgb for c in cameras]
        adam.param_groups[0]["lr"] = 0.04 * 0.93**step
        adam.zero_grad()
        loss = torch.stack([(a - b).square().mean() for a, b in zip(images, targets, strict=True)]).sum()
        (loss + 0 * field.radius.sum() + 0 * field.center.sum()).backward()
        adam.step()
    if outline:
        assert (field.center.detach().cpu() - truth[0]).abs().max() < 0.02
        assert field.radius.item() == pytest.approx(truth[1], abs=0.02)
    else:
        assert field.radius.item() == pytest.approx(0.35) and field.center[0, 0].item() == pytest.approx(0.15)


def area(field: Any, camera: Camera, k: int = 4) -> Tensor:
    """Return a picture of k x k rays in a pixel."""
    width, height = camera.width, camera.height
    rgb = render(field, camera.resized(k * width, k * height), background=SKY).rgb
    return rgb.view(height, k, width, k, 3).mean((1, 3))


@pytest.mark.parametrize("solve", [SphereTrace(), DenseMarch()], ids=["trace", "dense"])
@pytest.mark.parametrize("step", [None, 0.01])
def test_values_stay_and_every_evaluation_is_counted(solve: Any, step: float | None, device: torch.device) -> None:
    field = Balls(*TWO).to(device)
    field.step = step
    plain = render(field, CAMERA, background=SKY, intersect=solve)
    field.asked = 0
    image = render(field, CAMERA, background=SKY, intersect=solve, outline=True)
    assert image.evaluations == field.asked - 64 > plain.evaluations  # 64 points measure the memory
    for name in ("rgb", "depth", "normal", "mask", "status"):
        assert torch.equal(getattr(image, name).nan_to_num(), getattr(plain, name).nan_to_num()), name
    with torch.no_grad():
        seen = render(field, CAMERA, background=SKY, intersect=solve, outline=True)
        assert seen.evaluations == render(field, CAMERA, background=SKY, intersect=solve).evaluations
    assert not seen.rgb.requires_grad


@pytest.mark.parametrize(("solve", "most"), [(SphereTrace(), 220), (DenseMarch(), 470)], ids=["trace", "dense"])
def test_the_cost_is_one_of_the_outline_not_of_the_area(solve: Any, most: int, device: torch.device) -> None:
    """Of a ball of radius r pixels there are about 8 r pairs of pixels: rows and columns cross it twice each."""
    field, extra = Balls(*ONE).to(device), []
    for camera in (CAMERA, CAMERA.resized(192, 144)):
        image, plain = (render(field, camera, intersect=solve, outline=outline) for outline in (True, False))
        row = image.mask.sum(1).max() + image.mask.sum(0).max()
        extra.append((image.evaluations - plain.evaluations) / float(2 * row))
    assert max(extra) < most and extra[1] < 1.2 * extra[0]


def test_chunks_do_not_show(device: torch.device) -> None:
    field = Balls(*TWO).to(device)
    memory = 8 * bytes_per_point(field) * 50
    camera, solve = CAMERA.resized(32, 24), DenseMarch(32, splits=0)
    whole = gradients(field, camera, field.center, field.radius, intersect=solve)
    parts = gradients(field, camera, field.center, field.radius, intersect=solve, memory=memory)
    for a, b in zip(whole, parts, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-3)


def test_a_field_in_float64(device: torch.device) -> None:
    one = Balls(*TWO).to(device)
    two = double(one)
    a, b = (gradients(field, CAMERA, field.radius)[0] for field in (one, two))
    assert b.dtype == torch.float64 and apart(a, b.cpu()) < 1e-2


@pytest.mark.parametrize(
    "camera",
    [
        Camera.look_at((3.0, 0.0, 0.0), (6.0, 0.0, 0.0), width=8, height=6),
        Camera.look_at((0.0, 0.0, 3.0), up=(0.0, 1.0, 0.0), fov=5.0, width=8, height=6),
        Camera.look_at((0.0, 0.0, 3.0), up=(0.0, 1.0, 0.0), width=1, height=1),
        Camera.look_at((0.0, 0.0, 0.1), up=(0.0, 1.0, 0.0), width=8, height=6),
    ],
    ids=["no hit", "all hit", "one pixel", "from inside"],
)
def test_where_there_is_no_outline_nothing_moves(camera: Camera, device: torch.device) -> None:
    field = Balls([[0.0, 0.0, 0.0]], [0.6]).to(device)
    image, plain = (render(field, camera, outline=outline, warn=False) for outline in (True, False))
    assert image.evaluations == plain.evaluations and torch.equal(image.rgb, plain.rgb)
    (image.rgb.sum() + 0 * field.radius.sum()).backward()
    assert field.radius.grad is not None and field.radius.grad.item() == 0


@pytest.mark.parametrize(("width", "height"), [(16, 1), (1, 16)])
def test_a_single_line_of_pixels(width: int, height: int, device: torch.device) -> None:
    """Both ends of the lit part move outwards: by pixels for a unit of the radius, as seen from distance 3."""
    camera = replace(Camera.look_at((0, 0, 3.0), up=(0, 1.0, 0), width=16, height=16), width=width, height=height)
    K = camera.K.clone()
    K[:2, 2] = torch.tensor([width / 2, height / 2])
    field = Balls([[0.0, 0.0, 0.0]], [0.6]).to(device)
    image = render(field, replace(camera, K=K), background=SKY, outline=True)
    (found,) = torch.autograd.grad(image.rgb[..., 0].sum(), field.radius)
    end = lambda r: K[0, 0].item() * r / (9 - r * r).sqrt()  # noqa: E731
    expected = 2 * (FRONT[0] - SKY[0]) * difference(end, torch.tensor(0.6)).item()
    assert found.item() == pytest.approx(expected, rel=0.02)


class Sizes(Field):
    """Balls of several sizes, told apart by what a ray asks for."""

    def __init__(self, radius: Tensor) -> None:
        super().__init__(1.0)
        self.radius = nn.Parameter(radius)

    def select(self, which: Tensor) -> Any:
        told = Asked(lambda x: x.norm(dim=-1) - self.radius[which])
        told.color = lambda x, *_: torch.full_like(x, 0.2)  # type: ignore[method-assign]
        return told.to(self.bounds.device)

    def value(self, x: Tensor) -> Tensor:
        raise AssertionError("it is asked without being told for which shape")


def test_images_of_several_shapes_at_once(device: torch.device) -> None:
    radius = torch.tensor([0.3, 0.5, 0.4], device=device)
    field, camera, solve = Sizes(radius).to(device), CAMERA.resized(16, 12).to(device), DenseMarch(64)
    rays, n = camera.rays(), 16 * 12
    every = Rays(rays.origin.repeat(3, 1), rays.direction.repeat(3, 1), torch.arange(3).repeat_interleave(n).to(device))
    seen = surface(field, every, solve)
    t = torch.zeros(3 * n, device=device).index_copy(0, seen.hit.ray, seen.t.detach())
    normal = torch.zeros(3 * n, 3, device=device).index_copy(0, seen.hit.ray, seen.normal.detach())
    image = VisibleImage(every, (3, 12, 16), seen.hit.status, t, normal, torch.ones(3 * n, 3, device=device))
    moved, evaluations = boundary(field, image, solve)
    assert evaluations > 0 and not moved.any() and (seen.hit.status == Status.HIT).any()
    (found,) = torch.autograd.grad(moved.sum(), field.radius)
    for i, r in enumerate(radius):
        alone = Sizes(r[None]).to(device).select(torch.zeros(1, dtype=torch.int64, device=device))
        size = nn.Parameter(r.clone())
        alone.function = lambda x, size=size: x.norm(dim=-1) - size
        (expected,) = torch.autograd.grad(render(alone, camera, intersect=solve, outline=True).rgb.sum(), size)
        assert found[i].item() == pytest.approx(expected.item(), rel=1e-3) and expected.item() < -10
