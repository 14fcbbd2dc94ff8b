"""Fields that are inside out or negative nowhere are told, and their neighbours that are all right are not."""

import math
import warnings
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from test_fit import SMALL, ball
from torch import nn

from warpdvr import BoundGrid, CachedMarch, Camera, DenseMarch, Field, Fit, Rays, SphereTrace, Status, extract, render
from warpdvr.fields.adapter import as_field
from warpdvr.fitting.pose_refinement import refine
from warpdvr.fitting.recipe import WEIGHTS, Recipe
from warpdvr.intersection.diagnosis import is_inside_out, lowest_value
from warpdvr.rendering.surface import surface
from warpdvr.testing import check_field

CAMERA = Camera.look_at((0.3, -2.5, 0.7), width=32, height=24)
INSIDE, NEVER, UNDECIDED = "rays start inside", "no sampled value is negative", "many rays stay undecided"


def sphere(x: torch.Tensor, radius: float = 0.5) -> torch.Tensor:
    return x.norm(dim=-1) - radius


def torus(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x[:, :2].norm(dim=-1) - 0.6, x[:, 2]], -1).norm(dim=-1) - 0.2


FORMULAS: dict[str, Any] = {
    "ball": sphere,
    "torus": torus,
    "ball inside out": lambda x: -sphere(x),
    "torus inside out": lambda x: -torus(x),
    "ball inside out that sticks out": lambda x: -sphere(x, 1.1),
    "unsigned ball": lambda x: sphere(x).abs(),
    "unsigned torus": lambda x: torus(x).abs(),
    "positive": lambda x: sphere(x) + 0.6,
    "ball cut off": lambda x: sphere(x, 1.3),
    "half space": lambda x: x[:, 2] - 0.5,
    "tiny ball": lambda x: sphere(x - 0.31, 0.01),
    "gyroid": lambda x: (torch.sin(7 * x) * torch.cos(7 * x).roll(1, -1)).sum(-1) / 20,
}


class Formula(Field):
    """A formula as somebody writes it, with a weight for fits."""

    def __init__(self, name: str, kind: Any = "distance", lipschitz: float | None = 1.0, bounds: float = 1.0):
        super().__init__(bounds)
        self.formula, self.kind, self.lipschitz, self.asked = FORMULAS[name], kind, lipschitz, 0
        self.shift = nn.Parameter(torch.zeros(3))

    def value(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += len(x)
        value: torch.Tensor = self.formula(x + self.shift)
        return value if self.kind == "distance" else 20 * value


def made(name: str, kind: str) -> Field:
    """A field of one of the kinds that there are: a distance, logits, or a function of which nothing is known."""
    if kind == "function":
        return as_field(FORMULAS[name], bounds=1.0)
    return Formula(name, kind, 1.0 if kind == "distance" else None)


KINDS = "distance", "occupancy", "function"
SOLVERS: dict[str, Any] = {
    "default": lambda field: None,
    "dense": lambda field: DenseMarch(),
    "dense with grid": lambda field: DenseMarch(grid=BoundGrid(field)),
    "sphere with grid": lambda field: SphereTrace(grid=BoundGrid(field)),
    "cached": lambda field: CachedMarch(),
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("torus inside out", INSIDE),
        ("unsigned torus", NEVER),
        ("positive", NEVER),
        ("torus", None),
        ("gyroid", None),
        ("ball cut off", None),
    ],
)
def test_pictures_say_why_nothing_is_seen(name: str, kind: str, solver: str, said: str | None) -> None:
    field = made(name, kind)
    intersect = SOLVERS[solver](field)
    with torch.no_grad():
        if said is None:  # a warning would fail
            assert render(field, CAMERA, intersect=intersect).mask.sum() > 20
            return
        with pytest.warns(UserWarning, match=rf"^render: .*{said}.*is the sign turned round") as told:
            render(field, CAMERA, intersect=intersect)
    assert len(told) == 1


@pytest.mark.parametrize("name", ["ball inside out", "ball inside out that sticks out"])
def test_a_ball_inside_out_is_told(name: str) -> None:
    with pytest.warns(UserWarning, match=INSIDE), torch.no_grad():
        render(Formula(name), CAMERA)


def test_a_camera_inside_of_the_object_is_told_the_same() -> None:
    with pytest.warns(UserWarning, match=r"no ray hits, because rays start inside: the camera.*may be inside"):
        render(Formula("ball"), Camera.look_at((0.0, 0.1, 0.0), width=8, height=8))


def test_a_room_that_is_seen_from_within_stays_silent() -> None:
    image = render(Formula("ball inside out"), Camera.look_at((0.0, 0.1, 0.0), width=8, height=8))
    assert image.mask.all()


PAST_SURFACE, PAST_BOUNDS = (-0.9, 0.0, -0.9), (9.0, 0.0, 0.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "target"),
    [
        *((name, target) for name in ("ball", "torus", "tiny ball") for target in (PAST_SURFACE, PAST_BOUNDS)),
        ("gyroid", PAST_BOUNDS),  # it is everywhere in its bounds
    ],
)
def test_a_camera_that_looks_past_the_object_stays_silent(name: str, kind: str, target: Any) -> None:
    """A picture may be empty; of the sign that says nothing."""
    camera = Camera.look_at((-0.9, -2.5, -0.9), target, fov=4.0, width=8, height=6)
    assert not render(made(name, kind), camera).mask.any()


def test_evaluations_are_counted_and_grow_only_where_nothing_is_hit() -> None:
    for name, most in (("ball", 0), ("unsigned ball", 9000)):
        spent = []
        for warn in (True, False):
            field = Formula(name)
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                image = render(field, CAMERA, warn=warn)
            spent.append(image.evaluations)
            assert image.evaluations == field.asked - 64  # 64 points measure the memory
        assert (most > 0) <= spent[0] - spent[1] <= most


def test_rays_of_ones_own_are_told_too() -> None:
    rays = CAMERA.rays()
    with pytest.warns(UserWarning, match=f"^surface: .*{INSIDE}"):
        surface(Formula("torus inside out"), rays, SphereTrace())
    with pytest.warns(UserWarning, match=f"^surface: .*{NEVER}"):
        surface(Formula("positive"), rays, SphereTrace())
    assert len(surface(Formula("torus"), rays, SphereTrace()).t)


def test_rays_that_stay_undecided_are_told_once_they_are_many() -> None:
    with pytest.warns(UserWarning, match=rf"^render: {UNDECIDED}.*max_steps"), torch.no_grad():
        image = render(Formula("ball"), CAMERA, intersect=SphereTrace(max_steps=2, cones=False))
    undecided = int((image.status == Status.GAVE_UP).sum())
    assert undecided > 0.05 * int(image.mask.sum()) and f"{undecided} gave up" in repr(image)
    broken = as_field(lambda x: torch.where(x[:, :1].abs() < 0.3, math.nan, x).norm(dim=-1) - 0.5, bounds=1.0)
    with pytest.warns(UserWarning, match="not a number"), torch.no_grad():
        render(broken, CAMERA)


def test_a_few_undecided_rays_are_ordinary() -> None:
    hits = replace(SphereTrace(), max_steps=6)
    with torch.no_grad():
        image = render(Formula("torus"), CAMERA, intersect=hits, warn=False)
        undecided = image.status == Status.GAVE_UP
        share = int(undecided.sum()) / int((undecided | image.mask).sum())
        if 0 < share < 0.05:
            render(Formula("torus"), CAMERA, intersect=hits)

    def one_in_fifty(field: Field, rays: Rays) -> Any:
        hit = DenseMarch()(field, rays)
        status = hit.status.clone()
        keep = torch.arange(len(hit.ray)) % 50 > 0
        status[hit.ray[~keep]] = int(Status.GAVE_UP)
        return replace(hit, t=hit.t[keep], ray=hit.ray[keep], status=status)

    with torch.no_grad():
        assert (render(Formula("torus"), CAMERA, intersect=one_in_fifty).status == Status.GAVE_UP).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("torus inside out", "open at the bounds; is the sign turned round"),
        ("ball inside out that sticks out", "open at the bounds; is the sign turned round"),
        ("unsigned torus", r"no surface inside its bounds.*is the sign turned round"),
        ("positive", r"no surface inside its bounds.*is the sign turned round"),
        ("torus", None),
        ("gyroid", None),
        ("ball cut off", None),
        ("half space", None),
    ],
)
def test_meshes_refuse_what_is_inside_out(name: str, kind: str, said: str | None) -> None:
    if said is None:
        assert len(extract(made(name, kind), resolution=24).faces)
        return
    with pytest.raises(ValueError, match=f"^extract: .*{said}"):
        extract(made(name, kind), resolution=24)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ball inside out", "most values on the sides of the bounds are negative"),
        ("torus inside out", "most values on the sides of the bounds are negative"),
        ("unsigned ball", NEVER),
        ("positive", NEVER),
        ("tiny ball", None),
        ("torus", None),
        ("gyroid", None),
        ("ball cut off", None),
        ("half space", None),
    ],
)
@pytest.mark.parametrize("kind", ["distance", "occupancy"])
def test_check_field_refuses_what_is_inside_out(name: str, kind: str, said: str | None) -> None:
    field = made(name, kind)
    if said is None:
        return check_field(field)
    with pytest.raises(ValueError, match=rf"^Formula.value: {said}.*is the sign turned round"):
        check_field(field)


@pytest.mark.parametrize("kind", ["distance", "occupancy"])
@pytest.mark.parametrize("name", ["ball inside out", "torus inside out"])
def test_a_fit_of_a_field_that_is_inside_out_is_refused_before_its_first_step(name: str, kind: str) -> None:
    with pytest.raises(ValueError, match=r"^fit: all rays start inside.*is the sign turned round"):
        Fit(made(name, kind), ball(), iterations=5, recipe=SMALL)


def test_a_fit_of_a_field_that_is_negative_nowhere_is_refused_before_its_first_step() -> None:
    for name in ("unsigned ball", "positive"):
        with pytest.raises(ValueError, match=rf"^fit: {NEVER}.*is the sign turned round"):
            Fit(Formula(name), ball(), iterations=5, recipe=SMALL)
    nothing: dict[str, Any] = dict.fromkeys(WEIGHTS, 0.0)
    with pytest.raises(ValueError, match=NEVER):  # colours alone create no surface
        Fit(made("positive", "occupancy"), ball(), iterations=5, recipe=Recipe(**{**nothing, "color": 1.0}))


@pytest.mark.parametrize("name", ["ball", "torus", "tiny ball"])
@pytest.mark.parametrize("kind", ["distance", "occupancy"])
def test_a_fit_that_begins_with_a_surface_begins(name: str, kind: str) -> None:
    job = Fit(made(name, kind), ball(), iterations=5, recipe=SMALL)
    assert job.evaluations < 2000 and len(list(islice(job, 2))) == 2


class Network(nn.Module):
    """Logits with random weights that are positive everywhere."""

    bounds = 1.0

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        last = nn.Linear(32, 1)
        last.bias.data.fill_(1.0)
        self.layers = nn.Sequential(nn.Linear(3, 32), nn.Softplus(beta=10.0), last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = self.layers(x)[:, 0]
        return value


def test_masks_create_a_surface_in_a_network_of_logits_that_has_none() -> None:
    field = Network()
    assert lowest_value(as_field(field))[0] > 0
    job = Fit(field, ball(), iterations=200, recipe=replace(SMALL, rate=0.02))
    assert len(list(job)) == 200  # it does not give up
    assert lowest_value(as_field(field))[0] < 0


@pytest.mark.parametrize(
    ("name", "said"), [("torus inside out", "all rays start inside"), ("unsigned ball", NEVER), ("ball", None)]
)
def test_cameras_are_not_refined_against_what_is_inside_out(name: str, said: str | None) -> None:
    field, views = Formula(name), ball(2, size=24)
    if said is None:
        refine(field, views, kinds=["mask"], longest=16)
        return
    with pytest.raises(ValueError, match=f"^refine: view 0: {said}.*is the sign turned round"):
        refine(field, views, kinds=["mask"], longest=16)


def test_a_lowest_value_ends_with_the_first_negative_one() -> None:
    assert lowest_value(Formula("ball"))[1] == 125
    low, evaluations = lowest_value(Formula("tiny ball"))
    assert low < 0 and evaluations < 2000
    assert lowest_value(Formula("unsigned ball"))[0] == pytest.approx(0, abs=1e-2)
    assert lowest_value(Formula("ball"), -1)[0] < 0 < lowest_value(Formula("positive"))[0]


@pytest.mark.parametrize("radius", [1.1, 1.2, 1.3, 1.4, 1.5])
def test_what_is_cut_off_by_the_bounds_is_not_inside_out(radius: float) -> None:
    assert not is_inside_out(as_field(lambda x: sphere(x, radius), bounds=1.0))
    assert is_inside_out(Formula("ball inside out", bounds=0.6))


def test_an_image_says_in_a_line_what_became_of_its_rays() -> None:
    image = render(Formula("torus"), CAMERA)
    hits, misses = int(image.mask.sum()), int((image.status == Status.MISS).sum())
    assert repr(image) == (
        f"Image(32 x 24 pixels: {hits} hit, {misses} miss, 0 start inside, 0 gave up; "
        f"{image.evaluations / 768:.2f} queries per ray)"
    )
    assert str(image) == repr(image)
    seen = surface(Formula("torus"), CAMERA.rays(), SphereTrace())
    for shown in (repr(seen), repr(seen.hit)):
        assert f"768 rays: {hits} hit, {misses} miss" in shown and "tensor" not in shown
