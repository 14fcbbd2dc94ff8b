"""What a ray sees when it is not its hit point: compositing, transparency and the largest occupancy."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from reference import Asked, aimed, beams, difference, double, in_double, plane_t
from torch import Tensor, nn

from warpdvr import (
    BoundGrid,
    CachedMarch,
    Camera,
    DenseMarch,
    Field,
    HitPoint,
    MaximumOccupancy,
    Rays,
    SphereTrace,
    Status,
    Transparency,
    make,
    render,
)
from warpdvr.fields.analytic import Sphere, Translate
from warpdvr.fields.conditional import ConditionalOccupancy, Shapes
from warpdvr.intersection.occupied import cells_below
from warpdvr.rendering.aggregate import Aggregation, RayValues
from warpdvr.rendering.compositing import composite
from warpdvr.rendering.ray_samples import Sections, cut

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}


def close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether numbers agree to 1e-4 in float32 and 1e-8 in float64, relative to the largest."""
    scale = float(expected.detach().abs().max().clamp_min(1))
    return bool((found.double() - expected.double()).abs().max() <= TOLERANCE[dtype] * scale)


def rays_of(origin: Any, direction: Any, dtype: torch.dtype) -> Rays:
    """Return rays whose numbers are exact in float32, so that the ends of the bounds are too."""
    o, d = torch.tensor(origin, dtype=dtype).view(-1, 3), torch.tensor(direction, dtype=dtype).view(-1, 3)
    return Rays(o.expand(len(d), 3).clone(), d)


def seen(field: Field, rays: Rays, aggregate: Aggregation) -> RayValues:
    return aggregate(field, rays, DenseMarch())


# ---- compositing


def twin(first: Tensor, opacity: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same in float64 with cumprod, ray by ray."""
    totals, lefts, weights = [], [], []
    for a, b in zip(first[:-1].tolist(), first[1:].tolist(), strict=True):
        through = torch.cat([opacity.new_ones(1), (1 - opacity[a:b]).cumprod(0)])
        weights.append(through[:-1] * opacity[a:b])
        totals.append((weights[-1][:, None] * value[a:b]).sum(0))
        lefts.append(through[-1])
    return torch.stack(totals), torch.stack(lefts), torch.cat(weights)


def samples(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return rays with none to 40 samples, some of them opaque or empty."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.nn.functional.pad(torch.randint(0, 40, (30,), generator=generator).cumsum(0), (1, 0))
    first[5:8] = first[5]
    opacity = torch.rand(int(first[-1]), generator=generator, dtype=torch.float64) ** 3
    opacity[::17], opacity[1::13] = 1.0, 0.0
    return first, opacity, torch.randn(len(opacity), 5, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compositing_agrees_with_its_twin(dtype: torch.dtype, device: str) -> None:
    first, opacity, value = samples()
    a, v = opacity.requires_grad_(), value.requires_grad_()
    expected = twin(first, a, v)
    generator = torch.Generator().manual_seed(1)
    toward = [torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in expected]
    by_twin = torch.autograd.grad(expected, (a, v), toward)
    b, w = (x.detach().to(device, dtype).requires_grad_() for x in (opacity, value))
    found = composite(first.to(device), b, w)
    parts = found.value, found.left, found.weight
    by = torch.autograd.grad(parts, (b, w), [g.to(device, dtype) for g in toward])
    for x, y in zip((*parts, *by), (*expected, *by_twin), strict=True):
        assert x.dtype == dtype and close(x.cpu(), y, dtype)


def test_compositing_agrees_with_finite_differences(device: str) -> None:
    first, opacity, value = (x.to(device) for x in samples(2))
    few = int(first[4])
    assert few > 40

    def total(opacity: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = composite(first[:5], opacity, value)
        return found.value, found.left, found.weight

    assert torch.autograd.gradcheck(total, (opacity[:few].requires_grad_(), value[:few].requires_grad_()), atol=1e-8)


def test_of_no_rays_and_no_samples_nothing_is_composited() -> None:
    none = composite(torch.zeros(4, dtype=torch.int64), torch.zeros(0, requires_grad=True), torch.zeros(0, 3))
    assert none.value.tolist() == [[0, 0, 0]] * 3 and none.left.tolist() == [1, 1, 1] and len(none.weight) == 0
    none.left.sum().backward()
    assert composite(torch.zeros(1, dtype=torch.int64), torch.zeros(0), torch.zeros(0, 2)).value.shape == (0, 2)


def test_second_derivatives_are_refused() -> None:
    camera = Camera.look_at(eye=(0, -2.5, 0.3), width=8, height=8)
    for aggregate, message in ((Transparency(), "composite: second"), (MaximumOccupancy(), "MaximumOccupancy: second")):
        for name in ("opacity", "rgb", "depth"):
            field = Sphere(0.5)
            shown = getattr(render(field, camera, aggregate=aggregate), name)
            (first,) = torch.autograd.grad(shown.nan_to_num().sum(), field.radius, create_graph=True)
            with pytest.raises(RuntimeError, match=message):
                torch.autograd.grad(first, field.radius)


# ---- transparency against closed forms


class Slab(Field):
    """The same logit everywhere in the bounds, whose normal is that of a field that falls along y by nothing."""

    kind = "occupancy"

    def __init__(self, logit: float):
        super().__init__(1.0)
        self.logit = nn.Parameter(torch.tensor(logit))

    def value(self, x: Tensor) -> Tensor:
        return self.logit + 0 * x[:, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("samples", [1, 7, 64])
def test_a_homogeneous_slab(dtype: torch.dtype, samples: int) -> None:
    """Opacity 1 - exp(-k L softplus(-v)), however finely it is cut; the mean length converges as the step squared."""
    k, field = 0.75, Slab(0.4).to(dtype)
    rays = rays_of((0, -3, 0), [(0, 1, 0), (0, 0.6, 0.8), (0, -1, 0)], dtype)
    for step in (0.11, 2.0 / 3, 5.0):
        found = seen(field, rays, Transparency(samples=samples, sharpness=k, step=step))
        density = k * torch.nn.functional.softplus(-field.logit.double())
        expected = 1 - torch.exp(-2 * density)
        assert found.opacity is not None and found.opacity[1:].tolist() == [0, 0]
        assert found.hit.status.tolist() == [Status.HIT if expected > 0.5 else Status.MISS, Status.MISS, Status.MISS]
        assert close(found.opacity[:1], expected[None], dtype)
        by, by_exact = (torch.autograd.grad(o, field.logit, retain_graph=True)[0] for o in (found.opacity[0], expected))
        assert close(by[None], by_exact[None], dtype)


def test_the_length_in_a_slab_converges_as_the_step_squared() -> None:
    field = Slab(-3.0).double()
    density = 3 * math.log1p(math.exp(3.0))
    exact = 2 + 1 / density - 2 * math.exp(-2 * density) / (1 - math.exp(-2 * density))
    rays, error = rays_of((0, -3, 0), (0, 1, 0), torch.float64), []
    for n in (32, 64, 128):
        found = seen(field, rays, Transparency(samples=n, sharpness=3.0, step=2 / n))
        error.append(abs(float(found.t.detach()) - exact))
    assert error[2] < error[1] / 3.5 < error[0] / 3.5**2 and error[2] < 2e-4


def offset_of(plane: Field) -> Tensor:
    return dict(plane.named_parameters())["offset"]


def falling(start: Any, end: Any, s: float) -> Any:
    """What passes while a distance falls from start to end."""
    return torch.sigmoid(s * end) / torch.sigmoid(s * start)


class Walls(Field):
    """Walls across y at some places, of half thicknesses that are learnt: a distance."""

    def __init__(self, places: tuple[float, ...], half: float):
        super().__init__(1.0)
        self.places, self.radii = places, nn.Parameter(torch.full((len(places),), half))

    def value(self, x: Tensor) -> Tensor:
        off = [(x[:, 1] - y).abs() - h for y, h in zip(self.places, self.radii, strict=True)]
        return torch.stack(off).amin(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("half", [0.0, 0.03, 0.3])
def test_a_thin_wall(dtype: torch.dtype, half: float) -> None:
    """What passes is Phi(-half) / Phi(f where the ray starts): half of the light for no thickness at all."""
    field, s = Walls((0.0,), half).to(dtype), 12.0
    rays = rays_of((0, -2, 0.25), [(0, 1, 0), (0, -1, 0)], dtype)
    for n in (2, 4, 64):
        found = seen(field, rays, Transparency(samples=n, sharpness=s, step=2 / n))
        h = field.radii.detach().double().requires_grad_()
        expected = 1 - falling(1 - h, -h, s)
        assert found.opacity is not None and float(found.opacity[1].detach()) == 0
        assert close(found.opacity[:1], expected, dtype)
        by, by_exact = (
            torch.autograd.grad(o.sum(), x, retain_graph=True)[0]
            for o, x in ((found.opacity, field.radii), (expected, h))
        )
        assert close(by, by_exact, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_walls(dtype: torch.dtype) -> None:
    """The second one is seen through the first; colours are composited, the background shows behind both."""
    field, s = Walls((-0.5, 0.5), 0.02).to(dtype), 15.0
    rays = rays_of((0, -2, 0.25), (0, 1, 0), dtype)
    h = field.radii.detach().double().requires_grad_()
    passes = [falling(0.5 - h[0], -h[0], s), falling(0.5 - h.mean(), -h[1], s)]  # between them both are as close
    for n in (4, 8, 64):
        found = seen(field, rays, Transparency(samples=n, sharpness=s, step=2 / n))
        expected = 1 - passes[0] * passes[1]
        assert found.opacity is not None and close(found.opacity, expected[None], dtype)
        by = torch.autograd.grad(found.opacity[0], field.radii)[0]
        assert close(by, torch.autograd.grad(expected, h, retain_graph=True)[0], dtype)
    # the mean length: the walls are alike and a unit apart, so their own mean places differ by that
    first, second = (1 - passes[0]) / expected, passes[0] * (1 - passes[1]) / expected
    alone = Walls((-0.5,), 0.02).to(dtype)
    before = seen(alone, rays, Transparency(samples=64, sharpness=s, step=2 / 64)).t
    assert close(found.t, before.double() * first + (before.double() + 1) * second, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_plane_is_where_it_is_at_any_sharpness(dtype: torch.dtype) -> None:
    """The mean length is that of the plane, and so are its derivatives by the rays and by the plane."""
    rays = rays_of((0.125, -2, 0.25), [(0, 1, 0), (-0.28, 0.96, 0), (0.28, 0.96, 0), (0, 0.96, -0.28)], dtype)
    rays = Rays(rays.origin.requires_grad_(), rays.direction.requires_grad_())
    field = make("plane", normal=(0.0, -1.0, 0.0), offset=0.125).to(dtype)
    o, d = (x.requires_grad_() for x in in_double(rays))
    n, offset = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64), torch.tensor(0.125, dtype=torch.float64)
    exact = plane_t(o, d, n, offset.requires_grad_())
    toward = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    by_exact = torch.autograd.grad(exact, (o, d, offset), toward)
    for s, step in ((60.0, 0.11), (60.0, 0.5), (2000.0, 0.11), (2000.0, 0.02)):
        found = seen(field, rays, Transparency(samples=200, sharpness=s, step=step))
        assert close(found.t, exact, dtype)
        ways = rays.origin, rays.direction, offset_of(field)
        by = torch.autograd.grad(found.t, ways, toward.to(dtype))
        for x, y in zip(by, by_exact, strict=True):
            assert close(x, y, dtype)
        assert found.opacity is not None and close(found.opacity, torch.ones(4), torch.float32)


def test_derivatives_agree_with_finite_differences() -> None:
    """By the radius of a ball and by its place, of opacity, length, normal and colour; float64."""
    rays = aimed(60, seed=3, spread=0.5)
    rays = Rays(rays.origin.double().requires_grad_(), rays.direction.double())
    generator = torch.Generator().manual_seed(4)
    toward = torch.randn(60, 8, generator=generator, dtype=torch.float64)

    def total(shape: Tensor, aggregate: Aggregation) -> tuple[Tensor, Field]:
        field = double(Translate(Sphere(0.4), (0.0, 0.0, 0.0)))
        parameters = dict(field.named_parameters())
        radius, offset = (
            next(p for name, p in parameters.items() if name.endswith(end)) for end in ("radius", "offset")
        )
        with torch.no_grad():
            radius.copy_(shape[0])
            offset.copy_(shape[1:])
        found = seen(field, rays, aggregate)
        assert found.opacity is not None
        parts = [found.opacity[:, None], found.t.nan_to_num()[:, None], found.normal, found.color]
        return (toward * torch.cat(parts, 1)).sum(), field

    def value_of(aggregate: Aggregation, shape: Tensor) -> Tensor:
        return total(shape, aggregate)[0].detach()

    for aggregate in (Transparency(samples=100, sharpness=25.0), Transparency(samples=40, sharpness=80.0)):
        shape = torch.tensor([0.4, 0.02, -0.03, 0.05], dtype=torch.float64)
        value, field = total(shape, aggregate)
        names = {name.rpartition(".")[2]: p for name, p in field.named_parameters()}
        by = torch.autograd.grad(value, (names["radius"], names["offset"], rays.origin))
        coarse, fine = (difference(partial(value_of, aggregate), shape, step) for step in (4e-5, 2e-5))
        expected = (4 * fine - coarse) / 3
        found = torch.cat([by[0].view(1), by[1]])
        assert (found - expected).abs().max() <= 1e-8 * expected.abs().max()
        assert torch.allclose(by[2].sum(0), -by[1])  # moving all rays is moving the ball the other way


# ---- the limit of a sharp surface


def test_transparency_converges_to_the_hit_point() -> None:
    """As the sharpness grows depth, normal and colour become those of the hit, up to the step squared."""
    rays, field = aimed(500, seed=5, spread=0.35), Sphere(0.6)
    hit = seen(field, rays, HitPoint())
    assert int((~hit.t.isnan()).sum()) > 300
    facing = (hit.normal * rays.direction).sum(1).detach() < -0.5
    errors = []
    for s in (50.0, 100.0, 200.0, 400.0, 5000.0):
        found = seen(field, rays, Transparency(samples=256, sharpness=s))
        assert found.opacity is not None and bool((found.opacity[facing] > 1 - math.exp(-s * 0.07) - 1e-6).all())
        parts = [
            (found.t - hit.t)[facing, None],
            (found.normal - hit.normal)[facing],
            (found.color - hit.color)[facing],
        ]
        errors.append([float(part.detach().norm(dim=1).mean()) for part in parts])
    for kind in zip(*errors, strict=True):
        assert kind[0] > 2.5 * kind[1] > 2.5**2 * kind[2] > 2.5**2 * 2 * kind[3] and kind[4] < 1e-4


def test_a_coarser_step_costs_accuracy_as_its_square() -> None:
    rays, field, errors = aimed(300, seed=6, spread=0.3), Sphere(0.6), []
    hit = seen(field, rays, HitPoint()).t
    for n in (32, 64, 128):
        found = seen(field, rays, Transparency(samples=n, sharpness=1e5)).t
        errors.append(float((found - hit).detach().nanmean().abs()))
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


class Fog(Field):
    """A ball as an occupancy, of some steepness."""

    kind = "occupancy"

    def __init__(self, steep: float):
        super().__init__(1.0)
        self.steep = steep

    def value(self, x: Tensor) -> Tensor:
        return self.steep * (x.norm(dim=-1) - 0.6)


def test_an_occupancy_converges_to_the_hit_point_as_well() -> None:
    """Opacities hold for samples, so that the step is the accuracy."""
    rays = aimed(300, seed=7, spread=0.3)
    errors = []
    for steep, n in ((1e3, 64), (1e4, 128), (1e5, 512)):
        hit = seen(Fog(steep), rays, HitPoint())
        found = seen(Fog(steep), rays, Transparency(samples=n, sharpness=20 * n))
        off = found.t - hit.t
        step = math.sqrt(12) / n
        assert off.isnan().equal(hit.t.isnan()) and bool((off.nan_to_num().abs() < step).all())
        errors.append(float((found.normal - hit.normal).detach().norm(dim=1).mean()))
    assert errors[2] < errors[1] < errors[0] and errors[2] < 0.01


# ---- the largest occupancy


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_occupancy_is_that_of_the_closest_point(dtype: torch.dtype) -> None:
    """Of a ball: sigmoid(s (radius - distance of the ray from the centre)), with derivatives by radius and rays."""
    rays = aimed(200, seed=8, spread=0.7)
    rays = Rays(rays.origin.to(dtype).requires_grad_(), rays.direction.to(dtype))
    field, s = Sphere(0.4).to(dtype), 8.0
    found = seen(field, rays, MaximumOccupancy(sharpness=s))
    o, radius = rays.origin.detach().double().requires_grad_(), torch.tensor(0.4, dtype=torch.float64).float().double()
    d = rays.direction.double() / rays.direction.double().norm(dim=1, keepdim=True)
    closest = -(o * d).sum(1)
    expected = torch.sigmoid(s * (radius.requires_grad_() - (o + closest[:, None].detach() * d).norm(dim=1)))
    assert found.opacity is not None and close(found.opacity, expected, dtype)
    by, by_exact = (
        torch.autograd.grad(y.sum(), x)
        for y, x in ((found.opacity, (field.radius, rays.origin)), (expected, (radius, o)))
    )
    assert close(by[0][None], by_exact[0][None], dtype)
    far = expected.detach() < torch.sigmoid(s * (radius.detach() - 0.05))  # not past the kink in the middle
    assert close(by[1][far], by_exact[1][far], dtype) and (by[1].double() - by_exact[1]).abs().max() < 1e-3
    assert torch.equal(found.hit.status == int(Status.HIT), found.opacity.detach() >= 0.5)
    solid = found.opacity.detach() >= 0.5
    assert (found.t - closest)[solid].abs().max() < 1e-3  # length is that of the point


def test_rays_that_meet_no_bounds_have_no_occupancy() -> None:
    rays = beams([(0, -2, 0), (0, -2, 5)], (0, 1, 0))
    rays = Rays(torch.cat([rays.origin, torch.zeros(1, 3)]), torch.cat([rays.direction, torch.zeros(1, 3)]))
    for aggregate in (MaximumOccupancy(), Transparency()):
        found = seen(Sphere(0.5), rays, aggregate)
        assert found.opacity is not None and found.opacity.tolist()[1:] == [0, 0]
        assert found.hit.status.tolist() == [Status.HIT, Status.MISS, Status.GAVE_UP]


def test_each_ray_sees_its_own_shape() -> None:
    torch.manual_seed(0)
    shapes = Shapes(ConditionalOccupancy(code=4, width=16, blocks=1), 3 * torch.randn(2, 4))
    rays, index = aimed(40, seed=12), torch.arange(40) % 2
    for aggregate in (MaximumOccupancy(samples=16), Transparency(samples=16)):
        with torch.no_grad():
            mixed = seen(shapes, replace(rays, shape_index=index), aggregate)
            alone = [seen(shapes, replace(rays, shape_index=torch.full_like(index, i)), aggregate) for i in (0, 1)]
        for name in ("opacity", "color", "normal"):
            parts = [getattr(values, name) for values in (mixed, *alone)]
            assert torch.allclose(parts[0][0::2], parts[1][0::2], atol=1e-5)
            assert torch.allclose(parts[0][1::2], parts[2][1::2], atol=1e-5)
        assert not torch.allclose(alone[0].color, alone[1].color, atol=1e-2)


# ---- pictures


def test_a_picture_is_seen_over_its_background(device: str) -> None:
    """Colours, opacity and background add up; where half of the light is stopped, a pixel counts as one that hits."""
    camera = Camera.look_at(eye=(0, -2.5, 0.3), width=24, height=20)
    field = Sphere(0.5).to(device)
    for aggregate in (Transparency(sharpness=30.0), MaximumOccupancy()):
        black = render(field, camera, aggregate=aggregate, background=(0, 0, 0))
        blue = render(field, camera, aggregate=aggregate, background=(0, 0, 1))
        opacity = blue.opacity
        assert opacity is not None and 0 <= float(opacity.detach().min()) < 0.5 < float(opacity.detach().max()) <= 1
        assert torch.allclose(blue.rgb - black.rgb, (1 - opacity)[..., None] * torch.tensor([0, 0, 1.0], device=device))
        assert torch.equal(blue.mask, opacity >= 0.5) and torch.equal(blue.mask, ~blue.depth.isnan())
        assert torch.allclose(blue.normal.norm(dim=-1), blue.mask.float(), atol=1e-5)
        assert blue.evaluations > 64 * 24 * 20 / 4
    hit = render(field, camera)
    assert hit.opacity is None and torch.equal(render(field, camera, aggregate=HitPoint()).rgb, hit.rgb)
    sharp = render(field, camera, aggregate=Transparency(sharpness=4e3))
    same = sharp.mask & hit.mask
    assert int((sharp.mask ^ hit.mask).sum()) <= 2 and int(same.sum()) > 50
    assert torch.allclose(sharp.depth[same], hit.depth[same], atol=2e-3)


def test_outlines_move_without_an_outline_term() -> None:
    """The gradient of a picture by the radius is that of the disc of its pixels, as with the outline term."""
    camera = Camera.look_at(eye=(0, -2.5, 0.3), width=64, height=64)
    shades = []
    for options in ({"outline": True}, {"aggregate": Transparency(sharpness=100.0)}):
        field = Sphere(0.5)
        (by,) = torch.autograd.grad(render(field, camera, **options).rgb.sum(), field.radius)
        shades.append(float(by))
    assert shades[1] == pytest.approx(shades[0], rel=0.05)


def test_what_is_made_of_hits_is_refused() -> None:
    camera, field = Camera.look_at(eye=(0, -2, 0), width=4, height=4), Sphere(0.5)
    options: dict[str, Any]
    for options in ({"outline": True}, {"antialias": 2}, {"silhouette": 30.0}):
        for aggregate in (Transparency(), MaximumOccupancy()):
            with pytest.raises(ValueError, match=f"render: {next(iter(options))} is made of hits, .*; leave it out"):
                render(field, camera, aggregate=aggregate, **options)
        render(field, camera, aggregate=HitPoint(), **options)
    for wrong, message in (
        (3, " must be an Aggregation such as Transparency"),
        (Transparency, ": Transparency is a class: call it"),
    ):
        with pytest.raises(ValueError, match=f"render: aggregate{message}"):
            render(field, camera, aggregate=wrong)
    for make_wrong in (
        lambda: Transparency(samples=0),
        lambda: Transparency(sharpness=0.0),
        lambda: Transparency(step=-1.0),
        lambda: MaximumOccupancy(samples=1),
        lambda: MaximumOccupancy(sharpness=0.0),
    ):
        with pytest.raises(ValueError, match=r"Transparency: |MaximumOccupancy: "):
            make_wrong()


# ---- where samples lie


def cut_of(rays: Rays, **options: Any) -> Sections:
    cells, _ = cells_below(DenseMarch(), Sphere(0.5), 0.0)
    defaults: dict[str, Any] = {"step": 0.13, "most": 100, "cells": cells}
    return cut(rays, Sphere(0.5).bounds, **(defaults | options))


def test_sections_fill_the_part_of_a_ray_in_the_bounds() -> None:
    rays = aimed(100, seed=9, spread=0.9)
    near, far = rays.clip(Sphere(0.5).bounds)
    choices: list[dict[str, Any]] = [{}, {"jitter": torch.Generator().manual_seed(3)}, {"most": 7}, {"step": 10.0}]
    for options in choices:
        sections = cut_of(rays, **options)
        start, end = sections.ends
        for r in range(len(rays)):
            a, b = int(sections.first[r]), int(sections.first[r + 1])
            assert (sections.ray[a:b] == r).all() and b - a <= options.get("most", 100)
            assert torch.equal(end[a : b - 1], start[a + 1 : b])
            assert start[a] == near[r] and end[b - 1] == far[r]
            if "most" not in options:
                assert (end[a:b] - start[a:b]).max() <= options.get("step", 0.13) + 1e-6
        assert torch.equal(sections.point_ray[sections.start], sections.ray)
        assert len(sections.t) == len(sections.ray) + len(rays)


def test_jitter_is_that_of_its_generator() -> None:
    camera = Camera.look_at(eye=(0, -2.5, 0.3), width=8, height=8)

    def shown(seed: int) -> Tensor:
        way = Transparency(samples=16, jitter=torch.Generator().manual_seed(seed))
        return render(Sphere(0.5), camera, aggregate=way).rgb.detach()

    assert torch.equal(shown(0), shown(0)) and not torch.equal(shown(0), shown(1))


def test_empty_cells_are_left_out() -> None:
    """The picture is the same from fewer evaluations; the cells follow the weights."""
    camera, field = Camera.look_at(eye=(0, -2.5, 0.8), width=40, height=40), Sphere(0.3)
    way = Transparency(step=0.03, sharpness=150.0)
    for solver in (CachedMarch(32).prepare(field), SphereTrace(grid=BoundGrid(field)), CachedMarch(32)):
        for radius in (0.3, 0.5):
            field.radius.data.fill_(radius)
            with torch.no_grad():
                plain = render(field, camera, aggregate=way)
                render(field, camera, aggregate=way, intersect=solver)
                less = render(field, camera, aggregate=way, intersect=solver)
            assert less.opacity is not None and plain.opacity is not None
            assert torch.allclose(less.opacity, plain.opacity, atol=1e-5)
            assert torch.allclose(less.rgb, plain.rgb, atol=1e-5) and torch.equal(less.mask, plain.mask)
            rebuilt = 33**3 if isinstance(solver, CachedMarch) else 0
            assert less.evaluations - rebuilt < 0.5 * plain.evaluations


def test_the_kept_part_of_sections_keeps_their_places() -> None:
    sections = cut_of(aimed(20, seed=10))
    kept = torch.rand(len(sections.ray), generator=torch.Generator().manual_seed(0)) < 0.3
    part = sections[kept]
    for some, expected in zip(part.ends, sections.ends, strict=True):
        assert torch.equal(some, expected[kept])
    assert torch.equal(part.ray, sections.ray[kept]) and torch.equal(part.point_ray[part.start], part.ray)
    assert torch.equal(part.first.diff(), torch.bincount(part.ray, minlength=20))


# ---- memory


def recorded(aggregate: Aggregation, n: int) -> float:
    """Return the bytes that autograd keeps for one ray, of n through a ball."""
    torch.manual_seed(0)
    field, kept = make("sdf", width=32, depth=3), {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    rays = aimed(n, seed=11, spread=0.3)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = seen(field, rays, aggregate)
    assert found.opacity is not None
    found.opacity.sum().backward()
    return sum(kept.values()) / n


def test_memory_for_derivatives_grows_with_what_is_seen() -> None:
    """Not with the samples of a ray: of 128, those are recorded whose weight is more than rounding.

    For this network 16 samples keep 33 kB for each ray and 128 keep 109 kB (all of them would be 68 and 512), 46 kB if
    the surface is as sharp as 400, and the largest occupancy 5 kB, whatever is looked at.
    """
    few, many = (recorded(Transparency(samples=n), 200) for n in (16, 128))
    assert few < 40e3 and many < min(120e3, 4 * few)
    sharp = [recorded(Transparency(samples=n, sharpness=400.0), 200) for n in (16, 128)]
    assert sharp[0] < 30e3 and sharp[1] < 50e3
    few, many = (recorded(MaximumOccupancy(samples=n), 200) for n in (16, 128))
    assert few < 6e3 and many == pytest.approx(few, rel=0.01)


def test_memory_of_a_picture_is_bounded_by_its_chunks() -> None:
    """No evaluation is larger than what the budget holds, for 16 and 128 samples on a ray."""
    for samples in (16, 128):
        for aggregate in (Transparency(samples=samples), MaximumOccupancy(samples=samples)):
            largest = 0

            def value(x: Tensor) -> Tensor:
                nonlocal largest
                largest = max(largest, len(x))
                return x.norm(dim=-1) - 0.5

            camera = Camera.look_at(eye=(0, -2.5, 0.3), width=48, height=48)
            budget = 4 << 20
            with torch.no_grad():
                render(Asked(value, lipschitz=1.0), camera, aggregate=aggregate, memory=budget, warn=False)
            assert 0.5 * budget / 600 < largest <= budget / 256
