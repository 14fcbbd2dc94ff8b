"""Worlds that are scaled, turned and moved look the same, and so does an object that is tiny in its bounds."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import Asked, in_double, sphere_t
from torch import Tensor

from warpdvr import Camera, DenseMarch, Hit, Rays, SphereTrace, Status, extract, make, render
from warpdvr.fields.analytic import Sphere
from warpdvr.fields.base import Field
from warpdvr.fields.layers import Activation, Dense, Layer
from warpdvr.intersection.cached import CachedMarch
from warpdvr.intersection.grid import BoundGrid
from warpdvr.intersection.range_march import RangeMarch
from warpdvr.rendering.surface import trace

scales = st.floats(-3, 3).map(lambda a: 10.0**a)
few = settings(max_examples=5, deadline=None)

Frame = tuple[float, Tensor, Tensor]
"""Scale, rotation and translation: x -> scale R x + shift."""


class Moved(Field):
    """A field in another frame: a distance grows with it, the logit of an occupancy does not."""

    R: Tensor
    shift: Tensor

    def __init__(self, part: Field, frame: Frame, bounds: Any):
        super().__init__(bounds)
        self.part, self.kind = part, part.kind
        self.scale, R, shift = frame
        self.unit = self.scale if part.kind == "distance" else 1.0
        self.lipschitz = None if part.lipschitz is None else part.lipschitz * self.unit / self.scale
        self.register_buffer("R", R.float())
        self.register_buffer("shift", shift.float())

    def value(self, x: Tensor) -> Tensor:
        return self.unit * self.part.value(((x - self.shift) @ self.R) / self.scale)


def bumpy(x: Tensor) -> Tensor:
    return x.norm(dim=-1) - 0.5 - 0.05 * torch.sin(9 * x).prod(-1)


def logit(x: Tensor) -> Tensor:
    return 8 * ((x - 0.1).norm(dim=-1) - 0.5) * (1 + 0.2 * x[:, 0])


def occupancy() -> Field:
    field = Asked(logit)
    field.kind = "occupancy"
    return field


FIELDS: dict[str, Callable[[], Field]] = {
    "torus": lambda: make("torus", major=0.5, minor=0.1),
    "bumpy": lambda: Asked(bumpy, lipschitz=1.6),
    "occupancy": occupancy,
    "voxels": lambda: make("voxel-sdf", resolution=16),
}

SOLVERS: dict[str, Callable[[Field], Any]] = {
    "trace": lambda f: SphereTrace(),
    "trace alone": lambda f: SphereTrace(cones=False),
    "dense": lambda f: DenseMarch(64),
    "cached": lambda f: CachedMarch(cells=32),
    "trace grid": lambda f: SphereTrace(grid=BoundGrid(f, cells=16, finest=64)),
    "dense grid": lambda f: DenseMarch(grid=BoundGrid(f, cells=16, finest=64)),
}

STILL: Frame = (1.0, torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))


def rays(frame: Frame = STILL, n: int = 24, distance: float = 2.2) -> Rays:
    """Rays of a picture, in another frame; rounded once."""
    scale, R, shift = frame
    camera = Camera.look_at((0.6 * distance, -0.8 * distance, 0.3), fov=40, width=n, height=n)
    o, d = in_double(camera.rays())
    return Rays((scale * o @ R.T + shift).float(), (d @ R.T).float())


def moved(field: Field, frame: Frame) -> Field:
    """The field in a frame, in the cube around the rotated bounds."""
    scale, _, shift = frame
    side = scale * torch.ones(3, dtype=torch.float64)
    return Moved(field, frame, torch.stack([shift - side, shift + side]).float().tolist())


def lengths(hit: Hit) -> Tensor:
    t = torch.full((len(hit.status),), torch.nan, dtype=torch.float64)
    t[hit.ray] = hit.t.double()
    return t


def check_same(first: Hit, second: Hit, scale: float, tolerance: float, flips: int) -> None:
    """The same rays hit, but for some that graze the surface, at the same lengths; and for about the same price."""
    a, b = lengths(first), lengths(second) / scale
    assert (first.status != second.status).sum() <= flips
    both = ~a.isnan() & ~b.isnan()
    assert both.sum() > 60
    assert (a - b)[both].abs().quantile(0.98) < tolerance
    assert (a - b)[both].abs().max() < 300 * tolerance  # at grazing hits
    assert second.evaluations == pytest.approx(first.evaluations, rel=0.05, abs=60)


@settings(max_examples=24, deadline=None)
@given(name=st.sampled_from(list(FIELDS)), solver=st.sampled_from(list(SOLVERS)), scale=scales)
def test_a_scaled_world_gives_the_same_hits(name: str, solver: str, scale: float) -> None:
    assume(name != "occupancy" or solver not in ("trace", "trace alone"))
    frame = (scale, *STILL[1:])
    still, large = moved(FIELDS[name](), STILL), moved(FIELDS[name](), frame)
    check_same(SOLVERS[solver](still)(still, rays()), SOLVERS[solver](large)(large, rays(frame)), scale, 2e-5, 2)


@settings(max_examples=16, deadline=None)
@given(
    solver=st.sampled_from(list(SOLVERS)),
    scale=scales,
    turn=st.sampled_from([(1, 2, 0), (2, 0, 1), (0, 2, 1)]),
    shift=st.tuples(*[st.floats(-4, 4)] * 3),
)
def test_a_turned_and_moved_world_gives_the_same_hits(
    solver: str, scale: float, turn: tuple[int, ...], shift: tuple[float, ...]
) -> None:
    """Turned about the axes by right angles, so that the bounds turn with it; moved by up to two of their sides."""
    R = torch.eye(3, dtype=torch.float64)[list(turn)]
    R = R * torch.where(torch.linalg.det(R) < 0, -1.0, 1.0)
    frame = (scale, R, scale * torch.tensor(shift, dtype=torch.float64))
    still, other = moved(FIELDS["bumpy"](), STILL), moved(FIELDS["bumpy"](), frame)
    first, second = SOLVERS[solver](still)(still, rays()), SOLVERS[solver](other)(other, rays(frame))
    a, b = lengths(first), lengths(second) / scale
    both = ~a.isnan() & ~b.isnan()
    assert (first.status != second.status).sum() <= 3
    assert (a - b)[both].abs().quantile(0.98) < 3e-5
    assert second.evaluations < 1.3 * first.evaluations + 100


class Octahedron(Field):
    """|x| + |y| + |z| - half / 2, as a network of rectified units."""

    def __init__(self, half: float):
        super().__init__(half)
        self.extent = half

    def as_layers(self) -> list[Layer]:
        sides = torch.cat([torch.eye(3), -torch.eye(3)]) / self.extent
        last = Dense(torch.full((1, 6), self.extent), torch.tensor([-0.5 * self.extent]))
        return [Dense(sides, torch.zeros(6)), Activation("relu"), last]

    def value(self, x: Tensor) -> Tensor:
        return x.abs().sum(-1) - 0.5 * self.extent


@few
@given(scale=scales)
def test_a_scaled_network_gives_the_same_proven_hits(scale: float) -> None:
    first, second = (RangeMarch()(Octahedron(s), rays((s, *STILL[1:]), n=12)) for s in (1.0, scale))
    assert torch.equal(first.status, second.status)
    assert (lengths(first) - lengths(second) / scale).nan_to_num().abs().max() < 2e-6
    assert second.evaluations == pytest.approx(first.evaluations, rel=0.05)


@pytest.mark.parametrize("half", [1.0, 0.02, 0.005, 1e-3, 1e3])
def test_a_torus_of_any_size_is_seen(half: float) -> None:
    field = make("torus", major=0.5 * half, minor=0.1 * half, bounds=half)
    camera = Camera.look_at((0, -2 * half, half), fov=40, width=64, height=64)
    with torch.no_grad():
        grid = BoundGrid(field)
        for solve in (None, DenseMarch(), SphereTrace(cones=False), SphereTrace(grid=grid), DenseMarch(grid=grid)):
            assert int(render(field, camera, intersect=solve).mask.sum()) == 790


@few
@given(scale=scales)
def test_a_scaled_mesh_is_the_same_mesh(scale: float) -> None:
    one = extract(make("torus", major=0.5, minor=0.2), resolution=32)
    other = extract(make("torus", major=0.5 * scale, minor=0.2 * scale, bounds=scale), resolution=32)
    assert torch.equal(one.faces, other.faces)
    assert (one.vertices - other.vertices / scale).abs().max() < 2e-6
    assert one.normals is not None and other.normals is not None
    assert (one.normals - other.normals).abs().max() < 1e-3


@few
@given(scale=scales)
def test_gradients_of_a_scaled_picture_are_scaled(scale: float) -> None:
    """A depth and a radius are lengths, so that their ratio stays; that of a colour to a radius is 1 / length."""
    found = []
    for s in (1.0, scale):
        field = Sphere(radius=0.5 * s, bounds=s)
        camera = Camera.look_at((0, -2 * s, 0.5 * s), fov=40, width=24, height=24)
        image = render(field, camera, outline=True, antialias=2, background=(0, 0, 0))
        (by_depth,) = torch.autograd.grad(image.depth.nan_to_num().sum(), field.radius, retain_graph=True)
        (by_color,) = torch.autograd.grad(image.rgb.sum(), field.radius)
        found.append((float(by_depth), s * float(by_color), float(image.rgb.detach().sum())))
    for a, b in zip(*found, strict=True):
        assert b == pytest.approx(a, rel=2e-3)


# ---- an object that is tiny in its bounds


@pytest.mark.parametrize("half", [1e2, 1e5])
@pytest.mark.parametrize("solver", [name for name in SOLVERS if name != "cached"])
def test_an_object_that_is_tiny_in_its_bounds_is_seen_and_said_to_be(half: float, solver: str) -> None:
    beams = rays(n=40, distance=2.0)
    right = sphere_t(*in_double(beams), 0.5)
    field = Sphere(radius=0.5, bounds=half)
    with pytest.warns(UserWarning, match=r"Sphere: the surface lies within .* of its bounds; give bounds about as"):
        hit = SOLVERS[solver](field)(field, beams)
    assert torch.equal(hit.status == Status.HIT, ~right.isnan())
    assert (lengths(hit) - right).nan_to_num().abs().max() < 1e-3


def test_a_grid_follows_an_object_that_is_tiny_in_its_bounds() -> None:
    field = Sphere(radius=0.5, bounds=1e3)
    with pytest.warns(UserWarning, match="surface lies within"):
        grid = BoundGrid(field)
    with torch.no_grad():
        field.center.add_(torch.tensor([300.0, 0, 0]))
    with pytest.warns(UserWarning, match="surface lies within"):
        grid.refresh(field, full=True)
    o = torch.tensor([[300.0, -3, 0], [0, -3, 0]])
    hit = SphereTrace(grid=grid)(field, Rays(o, torch.tensor([[0.0, 1, 0]] * 2)))
    assert hit.ray.tolist() == [0]
    assert hit.t.tolist() == pytest.approx([2.5], abs=1e-4)
    with torch.no_grad():
        field.center.zero_()
        field.radius.fill_(500)
    grid.refresh(field, full=True)
    hit = SphereTrace(grid=grid)(field, Rays(torch.tensor([[0.0, -900, 0]]), torch.tensor([[0.0, 1, 0]])))
    assert hit.t.tolist() == pytest.approx([400], rel=1e-4)
    outside = torch.tensor([[0.0, -900, 0]])
    assert grid.signs(outside).tolist() == [1]


def test_a_grid_around_a_tiny_object_calls_the_rest_of_the_bounds_free() -> None:
    field = Sphere(radius=0.5, bounds=1e3)
    with pytest.warns(UserWarning, match="surface lies within"):
        grid = BoundGrid(field)
    assert grid.signs(torch.tensor([[0.0, 0, 0], [0, -900, 0], [700, 1, 2]])).tolist() == [-1, 1, 1]


def test_a_wrong_bound_does_not_hide_a_part_of_the_surface() -> None:
    """A ball and a larger one far from it; values rise three times as fast as the bound allows."""
    field = Asked(lambda x: 3 * torch.minimum(x.norm(dim=-1) - 0.5, (x - 50).norm(dim=-1) - 20), 100.0, 1.0)
    camera = Camera.look_at((0, 0, 0), at=(50, 50, 50), up=(0, 0, 1), fov=60, width=16, height=16)
    o, d = in_double(camera.rays())
    o = o + 3 * d
    beams = Rays(o.float(), d.float())
    right = sphere_t(*in_double(beams), 20.0, torch.full((3,), 50.0, dtype=torch.float64))
    with pytest.warns(UserWarning, match="differ by more"):
        hit = SphereTrace()(field, beams)
    assert ((hit.status == Status.HIT) != ~right.isnan()).sum() <= 2


@pytest.mark.parametrize("radius", [0.05, 0.1, 0.3, 0.5])
def test_ordinary_objects_cost_nothing_more_and_are_no_matter_for_a_warning(radius: float) -> None:
    """Beside the 64 points that check the Lipschitz bound, a small ball costs a few hundred more."""
    field = Asked(lambda x: x.norm(dim=-1) - radius, lipschitz=1.0)
    far_away = Rays(torch.tensor([[3.0, 3, 3]]).expand(64, 3), torch.tensor([[1.0, 0, 0]]).expand(64, 3))
    SphereTrace()(field, far_away)
    assert field.asked == (64 if radius > 0.1 else pytest.approx(64, abs=300))


def test_lengths_that_are_given_stay_as_given() -> None:
    """A plate of 0.02 in bounds of 10 is thinner than a quarter of a hundredth of the side, but not than 0.01."""
    field = Asked(lambda x: (x[:, 1] - 0.0123).abs() - 0.01, 10.0, 1.0)
    beams = Rays(torch.tensor([[0.0, -9, 0]]), torch.tensor([[0.0, 1, 0]]))
    assert len(SphereTrace(thinnest=0.01)(field, beams).ray) == 1
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="thinnest >"):
            SphereTrace(thinnest=wrong)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_points_with_gradients_scale(scale: float) -> None:
    field = Sphere(radius=0.5 * scale, bounds=scale)
    seen = trace(field, rays((scale, *STILL[1:])), SphereTrace())
    assert (seen.points.x.norm(dim=-1) / scale - 0.5).abs().max() < 5e-5


@pytest.mark.parametrize("half", [1e2, 1e5])
def test_the_mesh_of_an_object_that_is_tiny_in_its_bounds_is_as_fine_as_any(half: float) -> None:
    with pytest.warns(UserWarning, match="surface lies within"):
        mesh = extract(Sphere(radius=0.5, bounds=half), resolution=32)
    assert len(mesh.faces) > 1000
    assert (mesh.vertices.norm(dim=-1) - 0.5).abs().max() < 1e-5


def test_a_surface_that_is_smaller_than_a_cell_is_no_empty_mesh() -> None:
    """With no bound of the slope nothing is known between the corners."""
    field = Asked(lambda x: x.norm(dim=-1) - 0.5, 100.0)
    with pytest.raises(ValueError, match=r"extract: .*(smaller than a cell|no surface)"):
        extract(field, resolution=32, grid=False)


@pytest.mark.parametrize("solve", [SphereTrace(), DenseMarch()])
def test_one_ray_finds_an_object_that_is_tiny_in_its_bounds(solve: Any) -> None:
    """A ray that comes nearer than its shortest step, and does not hit, is reason enough to look for a small box."""
    beam = Rays(torch.tensor([[0.1, -2, 0]]), torch.tensor([[0.0, 1, 0]]))
    with pytest.warns(UserWarning, match="surface lies within"):
        hit = solve(Sphere(radius=0.5, bounds=1e5), beam)
    assert hit.t.tolist() == pytest.approx([2 - math.sqrt(0.24)], abs=1e-3)


def test_rays_beside_a_small_box_have_a_nearest_place_too() -> None:
    """Soft masks need it: the place next to the box, on rays that meet the bounds."""
    field = Sphere(radius=0.5, bounds=1e3)
    beams = rays(n=24, distance=60.0)
    with pytest.warns(UserWarning, match="surface lies within"):
        hit = SphereTrace()(field, beams)
    assert not hit.nearest.isnan().any()
    o, d = in_double(beams)
    right = -(o * d).sum(-1)
    assert (hit.nearest - right).abs().median() < 1.0
