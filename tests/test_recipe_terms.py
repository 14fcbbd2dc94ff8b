"""Each term of the loss alone, against the closed form of a ball in float64, worked out from the rays that were drawn.

The ball of the field lies beside that of the photographs, so there are rays of every kind.
"""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from reference import Asked, difference, in_double, pixel_rays, sphere_t
from torch import Tensor, nn

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.rays import Rays, pixel_centres
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.pixels import BACKGROUND, OBJECT, UNKNOWN, PixelBatch, Pixels
from warpdvr.datasets.views import Views
from warpdvr.fitting.exposure import Exposure
from warpdvr.fitting.recipe import WEIGHTS, Recipe
from warpdvr.fitting.recipe_terms import recipe_terms
from warpdvr.fitting.samples import SlopeSampler, SpaceSampler
from warpdvr.fitting.terms import TermContext, evaluate_terms
from warpdvr.intersection.base import Solver
from warpdvr.intersection.default import default_intersect
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.intersection.hit import Status
from warpdvr.rendering.surface import Surface, shaded

RADIUS, BOUNDS = 0.5, 0.8
ASIDE = torch.tensor([0.0, 0.2, 0.1], dtype=torch.float64)
"""Where the ball of the photographs lies; it has the same radius."""
SHARPNESS = (60.0, 600.0)


class Ball(Asked):
    """A ball as a quadratic form, (x x - r r) / 2 r, in colours of the place. It keeps what it was last asked at."""

    def __init__(self, lipschitz: float | None = 3.0):
        super().__init__(self.form, BOUNDS, lipschitz)
        self.kind = "occupancy" if lipschitz is None else "distance"
        self.radius = nn.Parameter(torch.tensor(RADIUS))
        self.x = torch.zeros(0, 3)

    def form(self, x: Tensor) -> Tensor:
        self.x = x.detach().double()
        return (x.square().sum(-1) - self.radius**2) / (2 * self.radius)

    def color(self, x, normal, direction, feature):
        return paint(x)


def paint(x: Tensor) -> Tensor:
    return 0.5 + 0.4 * (3 * x).sin()


def photographs(size: int = 24) -> Views:
    """Photographs of the other ball: the last two without masks, the first without depth; background has depth too."""
    images, masks, depths = [], [], []
    eyes = 3 * nn.functional.normalize(
        torch.tensor([[3.0, 0, 1], [-1, 2, 0.5], [-1, -2, -0.5], [0.5, 1, 3], [2, -1, -1.0]]), dim=1
    )
    cameras = tuple(Camera.look_at(eye, width=size, height=size) for eye in eyes)
    for camera in cameras:
        o, d = in_double(camera.rays())
        t = sphere_t(o, d, RADIUS, ASIDE)
        image = paint(o + t[:, None] * d).nan_to_num(0.3) ** 2
        images.append((255 * image).round().to(torch.uint8).view(size, size, 3))
        masks.append(~t.isnan().view(size, size))
        z = (t * (d @ camera.pose[:3, 2])).nan_to_num(2.0).float().view(size, size) + 0.03
        z[::5] = torch.nan
        depths.append(z)
    return Views(
        tuple(images),
        (*masks[:-2], None, None),
        cameras,
        tuple("abcde"),
        tuple(range(5)),
        (),
        SceneTransform.identity(),
        "a ball",
        depths=(None, *depths[1:]),
    )


def only(*names: str, rays: int = 2000) -> Recipe:
    """Return a recipe with these terms alone, each of weight 1."""
    told: dict[str, Any] = {name: float(name in names) for name in WEIGHTS}
    return Recipe(rays=rays, sharpness=SHARPNESS, **told)


def context(
    field: Ball,
    pixels: Pixels,
    generator: torch.Generator,
    batch: PixelBatch,
    visible: Surface,
    progress: float = 0.0,
    solver: Solver | None = None,
) -> TermContext:
    return TermContext(field, pixels, batch, visible, solver or default_intersect(field), progress, generator)


def asked(recipe: Recipe, lipschitz: float | None = 3.0, progress: float = 0.5, drawn: PixelBatch | None = None) -> Any:
    """Return the terms, and all that a computation by hand needs."""
    pixels, field, generator = Pixels(photographs()), Ball(lipschitz), torch.Generator().manual_seed(0)
    drawn = drawn or pixels.draw(recipe.rays, generator, patches=recipe.blocks)
    seen = shaded(field, drawn.rays, DenseMarch(64))
    assert field.asked == seen.hit.evaluations + 2 * len(seen.hit.ray)
    before = generator.clone_state()
    step = context(field, pixels, generator, drawn, seen, progress)
    terms, evaluations = evaluate_terms(recipe_terms(recipe, field), step)
    assert evaluations + seen.hit.evaluations == field.asked
    o, d = in_double(drawn.rays)
    r = torch.tensor(RADIUS, dtype=torch.float64, requires_grad=True)
    hit = ~sphere_t(o, d, RADIUS).isnan()
    t = torch.full_like(o[:, 0], torch.nan).masked_scatter(hit, sphere_t(o[hit], d[hit], r))
    return SimpleNamespace(
        terms=terms,
        extra=evaluations - 2 * len(seen.hit.ray),
        places=field.x,
        field=field,
        pixels=pixels,
        before=before,
        drawn=drawn,
        seen=seen,
        r=r,
        t=t,
        x=o + t[:, None] * d,
        hit=hit,
        label=drawn.label.long(),
        met=torch.less_equal(*drawn.rays.clip(field.bounds)),
        at=lambda t: o + t.detach().double()[:, None] * d,
    )


def check(case: Any, name: str, expected: Tensor, extra: int, grows: bool = True) -> None:
    """Compare the only term, its derivative with respect to the radius, and the number of questions."""
    assert set(case.terms) == {name}
    assert case.terms[name].item() == pytest.approx(expected.item(), rel=1e-4)
    assert case.extra == extra
    (found,) = torch.autograd.grad(case.terms[name], case.field.radius)
    (slope,) = torch.autograd.grad(expected, case.r)
    assert found.item() == pytest.approx(slope.item(), rel=2e-3)
    assert abs(slope.item()) > 1e-3 or not grows


def entropy(logit: Tensor, y: Tensor) -> Tensor:
    return -(y * logit.sigmoid().log() + (1 - y) * (-logit).sigmoid().log())


def form(x: Tensor, r: Tensor) -> Tensor:
    return (x.square().sum(-1) - r**2) / (2 * r)


def shows(case: Any) -> Tensor:
    """Return which rays hit what the photographs say is the object."""
    right = case.hit & (case.label == OBJECT)
    unsure = case.hit & (case.label == UNKNOWN)
    right[unsure] = case.pixels.inside(case.x[unsure].detach().float())
    assert 0.1 < right[unsure].float().mean() < 0.9  # both kinds
    return right


def test_there_are_rays_of_every_kind():
    case = asked(only("color"))
    known = ~case.drawn.depth.isnan()
    assert torch.equal(torch.nonzero(case.hit)[:, 0], case.seen.hit.ray)
    kinds = [(label, hit, deep) for label in (OBJECT, BACKGROUND) for hit in (0, 1) for deep in (0, 1)]
    for label, hit, deep in kinds:
        assert ((case.label == label) & (case.hit == hit) & (known == deep)).sum() > 4
    assert ((case.label == UNKNOWN) & case.hit).sum() > 4 and (~case.met & (case.label == BACKGROUND)).sum() > 4


@pytest.mark.parametrize("square", [0.0, 1.5])
def test_color_is_compared_where_the_object_is_hit(square):
    case = asked(replace(only("color"), square=square))
    right = shows(case)
    d = (paint(case.x[right]) - case.drawn.color[right]).abs()
    if square:
        s = square * d.detach().median()
        assert (d < s).any() and (d > s).any()
        d = torch.where(d < s, d * d / (2 * s), d - s / 2)
    check(case, "color", d.sum() / (3 * right.sum()), 0)


def test_a_view_without_mask_teaches_colour_only_in_the_hull_of_the_others():
    """The left half of what the camera on the x axis sees is y < 0."""
    size = 24
    eyes = (3.0, 0.0, 0.0), (2.5, 0.5, 1.5)
    cameras = tuple(Camera.look_at(eye, width=size, height=size) for eye in eyes)
    image = torch.full((size, size, 3), 51, dtype=torch.uint8)
    half = (torch.arange(size) < size // 2).expand(size, size)
    views = Views((image,) * 2, (half, None), cameras, ("a", "b"), (0, 1), (), SceneTransform.identity(), "two")
    rays = [camera.rays() for camera in cameras]
    both = Rays(*(torch.cat([getattr(one, name) for one in rays]) for name in ("origin", "direction")))
    n = size * size
    label = torch.cat([half.reshape(-1).to(torch.int8), torch.full((n,), UNKNOWN, dtype=torch.int8)])
    none = torch.full((2 * n,), torch.nan)
    field = Ball()
    pixels = Pixels(views)
    place = torch.arange(2).repeat_interleave(n), pixel_centres(size, size).repeat(2, 1)
    drawn = PixelBatch(both, torch.full((2 * n, 3), 0.2), label, none, torch.ones(2 * n), pixels.pose, *place)
    seen = shaded(field, both, DenseMarch(64))
    recipe = replace(only("color"), square=0.0)
    step = context(field, pixels, torch.Generator(), drawn, seen)
    terms, _ = evaluate_terms(recipe_terms(recipe, field), step)
    o, d = in_double(both)
    x = o + sphere_t(o, d, RADIUS)[:, None] * d
    left = x[:, 1] < 0
    assert 0.2 < left[n:][~x[n:, 1].isnan()].float().mean() < 0.8
    assert terms["color"].item() == pytest.approx((paint(x[left]) - 0.2).abs().mean().item(), rel=1e-5)


def test_image_gradients_are_compared_in_patches_that_hit_the_object():
    case = asked(only("gradient", rays=8000))
    right = shows(case).view(-1, 4)
    whole = right.all(1)
    assert 5 < whole.sum() < right.any(1).sum()
    a, b = paint(case.x).view(-1, 4, 3)[whole], case.drawn.color.double().view(-1, 4, 3)[whole]
    along = [(a[:, 0] - a[:, k]) - (b[:, 0] - b[:, k]) for k in (1, 2)]
    check(case, "gradient", (along[0] ** 2 + along[1] ** 2).sqrt().mean(), 0)


def test_depth_is_compared_where_it_is_known_and_not_of_the_background():
    case = asked(only("depth"))
    known = case.drawn.rays.at(case.drawn.depth / case.drawn.forward).detach()
    in_hull = case.pixels.inside(known.nan_to_num(9.0).float())
    right = case.hit & ~case.drawn.depth.isnan() & ((case.label == OBJECT) | ((case.label == UNKNOWN) & in_hull))
    assert (case.label[right] == UNKNOWN).any() and (case.hit & (case.label == UNKNOWN) & ~in_hull).any()
    difference = (case.t * case.drawn.forward - case.drawn.depth)[right].abs()
    check(case, "depth", difference.mean(), 0)


def test_depth_is_not_a_ray_length():
    case = asked(only("depth"))
    assert case.drawn.forward.max() - case.drawn.forward.min() > 0.01  # the test above could tell


@pytest.mark.parametrize("lipschitz", [3.0, None])
@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_mask_is_asked_at_the_nearest_point(lipschitz, progress):
    case = asked(only("mask"), lipschitz, progress)
    sharpness = 1.0 if lipschitz is None else 60 * 10**progress
    growth = 1.0 if lipschitz is None else 10**progress
    open_ = case.met & ((case.label == BACKGROUND) | ((case.label == OBJECT) & ~case.hit))
    x = case.at(case.seen.hit.nearest)[open_]
    assert torch.allclose(case.places, x, atol=1e-5)
    assert (form(x, case.r)[case.hit[open_]].abs() < 1e-4).all()
    logit = -sharpness * form(x, case.r)
    n = (case.met & (case.label != UNKNOWN)).sum()
    # float32 values at hits, which are 0 up to rounding, times a sharpness of up to 190
    check(case, "mask", entropy(logit, (case.label[open_] == OBJECT).double()).sum() / n / growth, int(open_.sum()))


@pytest.mark.parametrize("lipschitz", [3.0, None])
def test_hinge_is_asked_at_the_nearest_point(lipschitz):
    case = asked(only("hinge"), lipschitz)
    open_ = case.met & ((case.label == BACKGROUND) | ((case.label == OBJECT) & ~case.hit))
    value = form(case.at(case.seen.hit.nearest)[open_], case.r)
    inside = case.label[open_] == OBJECT
    assert inside.sum() > 50 and (~inside & (value < 1e-5)).sum() > 50
    wrong = torch.cat([(value - 1e-4)[inside], (1e-4 - value)[~inside]]).clamp_min(0)
    check(case, "hinge", wrong.sum() / (case.met & (case.label != UNKNOWN)).sum(), int(open_.sum()))


@pytest.mark.parametrize("name", ["color", "gradient", "outline"])
def test_colours_are_compared_as_the_exposures_of_photographs_show_them(name):
    """Photographs that are brighter or darker than the ball: the terms are 0 with their gains, not without."""
    recipe, exposure = replace(only(name, rays=8000), square=0.0), Exposure(5)
    with torch.no_grad():
        exposure.correction[0, :, 0] = torch.tensor([0.2, -0.2, 0.1, 0.0, -0.1])
    case = asked(recipe)
    color = torch.where(case.hit[:, None], paint(case.x).nan_to_num(), 1.0).float()
    gain, _ = exposure.values()
    bright = torch.where(case.hit[:, None], gain[case.drawn.view] * color, color).detach()
    step = context(case.field, case.pixels, torch.Generator(), replace(case.drawn, color=bright), case.seen)
    losses = [
        evaluate_terms(recipe_terms(recipe, case.field, exposure=learnt), step)[0][name].item()
        for learnt in (exposure, None)
    ]
    assert losses[0] < 1e-4 and losses[1] > 0.003


def test_an_outline_is_told_by_all_pixels_whatever_their_mask():
    case = asked(only("outline"))
    color = torch.where(case.hit[:, None], paint(case.x).nan_to_num(), 1.0)
    assert set(case.terms) == {"outline"} and case.extra > 0
    expected = (color - case.drawn.color).abs().mean()
    assert case.terms["outline"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_colours_in_blocks_move_an_outline_as_finite_differences_say():
    """Blocks that cover an image, at their four places. The photograph is black: the loss is the mean colour."""
    size, sky = 64, (0.02, 0.1, 0.05)
    camera = Camera.look_at((2.2, 0.4, 0.3), width=size, height=size)
    blocks = pixel_centres(size, size).view(size // 2, 2, size // 2, 2, 2).transpose(1, 2).reshape(-1, 2)
    n, none = size * size, torch.full((size * size,), torch.nan)
    field, pixels, solve = Ball(), Pixels(photographs()), DenseMarch(64)
    found: list[Tensor] = []
    recipe = replace(only("outline", rays=n), background=sky)
    for offset in torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 2):
        rays = camera.rays(blocks + offset)
        black, beside, place = (
            torch.zeros(n, 3),
            torch.zeros(n, dtype=torch.int8),
            (torch.zeros(n).long(), blocks + offset),
        )
        drawn = PixelBatch(rays, black, beside, none, torch.ones(n), pixels.pose, *place)
        seen = shaded(field, rays, solve)
        step = context(field, pixels, torch.Generator(), drawn, seen, solver=solve)
        terms, _ = evaluate_terms(recipe_terms(recipe, field), step)
        found += torch.autograd.grad(terms["outline"], field.radius)
    fine = pixel_centres(8 * size, 8 * size).numpy() / 8
    o, d = (torch.tensor(a.copy()) for a in pixel_rays(camera.K.numpy(), camera.pose.numpy(), fine))

    def mean(radius: Tensor) -> Tensor:
        t = sphere_t(o, d, radius)[:, None]
        return torch.where(t.isnan(), torch.tensor(sky).double(), paint(o + t * d).nan_to_num()).mean()

    expected = difference(mean, torch.tensor(RADIUS), 0.01).item()
    assert torch.stack(found).mean().item() == pytest.approx(expected, rel=0.03)
    assert min(found) > 0.8 * expected and max(found) < 1.2 * expected  # from a quarter of the blocks


@pytest.mark.parametrize("name", ["freespace", "occupancy"])
@pytest.mark.parametrize("lipschitz", [3.0, None])
def test_free_and_occupied_space_are_asked_at_their_places(lipschitz, name):
    case = asked(only(name), lipschitz)
    free = name == "freespace"
    wanted = case.met & ((case.label == BACKGROUND) if free else (case.label == OBJECT) & ~case.hit)
    assert len(case.places) == wanted.sum() if free else 10 < len(case.places) <= wanted.sum()
    logit = -(1.0 if lipschitz is None else SHARPNESS[0] * 10**0.5) * form(case.places, case.r)
    n = (case.met & (case.label != UNKNOWN)).sum()
    y = torch.full_like(logit, 0.0 if free else 1.0).detach()
    check(case, name, entropy(logit, y).sum() / n, len(case.places))


def places(case: Any, drawn: PixelBatch | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the places on the rays (n, 3), NaN where none is asked, which are meant inside, and which are open."""
    open_ = torch.nonzero(case.met & ((case.label == BACKGROUND) | ((case.label == OBJECT) & ~case.hit)))[:, 0]
    generator = torch.Generator().manual_seed(5)
    step = context(case.field, case.pixels, generator, drawn or case.drawn, case.seen)
    x, inside, ray = SpaceSampler(True, False, Recipe().sharp).places(step)
    low, high = case.field.bounds
    assert (x >= low - 1e-5).all() and (x <= high + 1e-5).all()
    o, d = in_double(case.drawn.rays[ray])
    assert torch.linalg.cross(x.double() - o, d).norm(dim=1).max() < 1e-5  # on their rays
    assert set(ray.tolist()) <= set(open_.tolist()) and len(ray.unique()) == len(ray)
    assert torch.equal(inside, case.label[ray] == OBJECT)
    at, is_inside = torch.full((len(case.label), 3), torch.nan, dtype=torch.float64), torch.zeros_like(case.met)
    at[ray], is_inside[ray] = x.double(), inside
    is_open = torch.zeros_like(case.met).index_fill(0, open_, True)
    assert not at[is_open & (case.label == BACKGROUND)].isnan().any()
    return at, is_inside, is_open


def test_free_space_is_asked_at_the_hit_or_anywhere():
    case = asked(only("color"))
    x, _, open_ = places(case)
    free = open_ & (case.label == BACKGROUND)
    at_hit = free & case.hit
    assert at_hit.sum() > 50 and torch.allclose(x[at_hit], case.x[at_hit].detach(), atol=1e-4)
    o, d = in_double(case.drawn.rays)
    near, far = case.drawn.rays.clip(case.field.bounds)
    passes = free & ~case.hit
    part = (((x - o) * d).sum(1) - near)[passes] / (far - near)[passes]
    assert part.min() >= -1e-4 and part.max() <= 1 + 1e-4
    n = len(part)
    assert part.mean() == pytest.approx(0.5, abs=4 / math.sqrt(12 * n))  # uniform
    assert part.square().mean() == pytest.approx(1 / 3, abs=4 * math.sqrt(4 / 45 / n))


def test_occupied_space_is_asked_at_a_known_depth_or_in_the_hull():
    case = asked(only("color", rays=4000))
    x, inside, open_ = places(case)
    o, d = in_double(case.drawn.rays)
    deep = inside & ~case.drawn.depth.isnan()
    z = ((x - o) * d).sum(1) * case.drawn.forward
    assert deep.sum() > 50 and torch.allclose(z[deep].float(), case.drawn.depth[deep], atol=1e-4)
    near, far = case.drawn.rays.clip(case.field.bounds)
    some = open_ & (case.label == OBJECT) & case.drawn.depth.isnan()
    line = (near + (far - near) * torch.linspace(0, 1, 200)[:, None])[:, some].T.double()
    points = o[some, None] + line[..., None] * d[some, None]
    share = in_hull(case, points.reshape(-1, 3)).view(line.shape).double().mean(1)
    hope = 1 - (1 - share) ** 16
    assert in_hull(case, x[some & inside]).all() and share.mean() < 0.75
    spread = (hope * (1 - hope)).sum().sqrt().item()
    assert (some & inside).sum() > 100 and abs((some & inside).sum() - hope.sum()) < 4 * spread + 1


def in_hull(case: Any, x: Tensor) -> Tensor:
    """No view sees background there, and half of them look there."""
    against, within = case.pixels.votes(x.float())
    return (against == 0) & (2 * within >= len(case.pixels.pose))


def test_a_ray_that_begins_inside_should_begin_in_free_space():
    case = asked(only("color"))
    field = Ball()
    field.bounds = torch.tensor([[-0.3, -0.3, -0.3], [0.3, 0.3, 0.3]])  # the ball reaches beyond them
    seen = shaded(field, case.drawn.rays, DenseMarch(16))
    begins = (seen.hit.status == int(Status.INSIDE)) & (case.label != UNKNOWN)
    assert (begins & (case.label == OBJECT)).sum() > 50
    step = context(field, case.pixels, torch.Generator(), case.drawn, seen)
    x, inside, ray = SpaceSampler(True, False, Recipe().sharp).places(step)
    near, _ = case.drawn.rays.clip(field.bounds)
    asked_there = begins[ray]
    assert asked_there.sum() == begins.sum() and not inside[asked_there].any()
    assert torch.allclose(x[asked_there], case.drawn.rays.at(near)[ray][asked_there], atol=1e-5)


@pytest.mark.parametrize("wrong", [0.5, 9.0])
def test_a_known_depth_beyond_the_bounds_is_not_believed(wrong):
    case = asked(only("color"))
    x, inside, _ = places(case, replace(case.drawn, depth=torch.full_like(case.drawn.depth, wrong)))
    unknown, _, _ = places(case, replace(case.drawn, depth=torch.full_like(case.drawn.depth, torch.nan)))
    assert inside.any() and torch.equal(x[inside], unknown[inside])


def test_smoothness_compares_hits_with_points_beside_them():
    case = asked(only("smooth"))
    n = case.drawn.rays.origin.shape[0] // 8
    step = context(case.field, case.pixels, case.before, case.drawn, case.seen)
    _, pick = SlopeSampler(n, everywhere=False).points(step)
    x, on_surface = case.x[case.hit][pick], case.places
    aside = on_surface - x.detach()
    assert len(on_surface) == len(pick) == n and len(pick.unique()) > n // 2
    assert aside.square().mean().sqrt() == pytest.approx(0.02 * BOUNDS, rel=0.2) and aside.mean().abs() < 0.01 * BOUNDS
    difference = nn.functional.normalize(x, dim=1) - nn.functional.normalize(on_surface, dim=1)
    check(case, "smooth", difference.norm(dim=1).mean(), n, grows=False)


def test_eikonal_is_asked_anywhere_near_hits_and_at_them():
    case = asked(only("eikonal"))
    n = case.drawn.rays.origin.shape[0] // 8
    on_surface, at_hits = case.places, case.x[case.hit]
    assert len(on_surface) == 2 * n
    assert (on_surface[:n].abs() <= BOUNDS).all() and (on_surface[:n].abs().amax(0) > 0.9 * BOUNDS).all()
    assert ((on_surface[n:].norm(dim=1) - RADIUS).abs() < 0.1 * BOUNDS).all()
    slope = torch.cat([on_surface, at_hits]).norm(dim=1) / case.r
    check(case, "eikonal", (slope - 1).square().mean(), 2 * n)


def test_only_distances_have_an_eikonal_term():
    recipe = only("eikonal", "smooth", "color")
    assert set(asked(recipe).terms) == {"color", "smooth", "eikonal"}
    case = asked(recipe, lipschitz=None)
    assert set(case.terms) == {"color", "smooth"} and case.extra == 2000 // 8
    with pytest.raises(ValueError, match=r"^fit: the recipe weighs eikonal alone, .* but Ball.kind is 'occupancy'$"):
        asked(only("eikonal"), lipschitz=None)


def test_all_terms_together_are_what_each_is_alone():
    names = [name for name in WEIGHTS if name != "occupancy"]  # how often that asks is left to chance
    every = asked(only(*names, rays=400))
    assert set(every.terms) == set(names)
    drawn, alone = every.drawn, 0
    for name in names:
        case = asked(only(name, rays=400), drawn=drawn)
        alone += case.extra
        if name not in ("freespace", "smooth", "eikonal"):  # those ask at random places
            assert case.terms[name].item() == every.terms[name].item()
    shared = asked(only("mask", rays=400), drawn=drawn).extra  # mask and hinge ask at the same points
    assert every.extra == alone - shared - 400 // 8  # smoothness and eikonal share the points beside hits


def test_a_term_does_not_depend_on_the_number_of_rays():
    """Of rays that are settled or whose place is certain, all are there twice."""
    case = asked(only("gradient"))
    sure = case.hit | ((case.label == OBJECT) & ~case.drawn.depth.isnan()) | (case.label == UNKNOWN)
    index = torch.nonzero(sure.view(-1, 4).all(1).repeat_interleave(4))[:, 0]
    names = "color", "gradient", "depth", "mask", "hinge", "outline", "freespace", "occupancy"
    found = []
    for rows in (index, torch.cat([index, index])):
        each = "rays", "color", "label", "depth", "forward", "view", "pixel"
        told = {name: getattr(case.drawn, name)[rows] for name in each}
        terms = asked(only(*names, rays=len(rows)), drawn=PixelBatch(**told, pose=case.pixels.pose)).terms
        found.append({name: terms[name].item() for name in names})
    assert found[0] == pytest.approx(found[1], rel=1e-5) and min(found[0].values()) > 0


@pytest.mark.parametrize("name", WEIGHTS)
def test_without_a_hit_every_term_is_a_number(name):
    case = asked(only("color"))
    rays = case.drawn.rays[torch.nonzero(~case.hit)[:, 0]]
    n = 4 * (len(rays) // 4)
    ones, zeros = torch.ones(n), torch.zeros(n, 3)
    place = torch.zeros(n).long(), torch.full((n, 2), 12.0)
    drawn = PixelBatch(rays[:n], zeros, torch.zeros(n, dtype=torch.int8), ones, ones, case.pixels.pose, *place)
    case = asked(only(name, rays=n), drawn=drawn)
    term = case.terms[name]
    term.backward()
    assert len(case.seen.hit.ray) == 0 and term.isfinite()
    assert (term > 0) == (name in ("mask", "outline", "freespace", "eikonal"))
