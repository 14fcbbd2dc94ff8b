"""How much brighter or darker photographs are than others, compared with what was done to them."""

import pytest
import torch

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.paths import fibonacci_sphere
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.views import Views
from warpdvr.fields.analytic import Sphere
from warpdvr.fitting.exposure import Exposure
from warpdvr.fitting.fit import Fit
from warpdvr.fitting.recipe import Recipe
from warpdvr.fitting.recipe_terms import Photometric
from warpdvr.rendering.render import render

GAINS, N = {2: 0.55, 5: 1.3}, 9


class Painted(Sphere):
    """A ball whose colours are a linear function of its place, to learn."""

    def __init__(self, weight=0.0):
        super().__init__(0.5)
        self.radius.requires_grad_(False)
        self.weight = torch.nn.Parameter(torch.full((3,), weight))

    def color(self, x, normal, direction, feature):
        return 0.4 + self.weight * x


def photographs(gains=GAINS, offset=0.0):
    cameras = [Camera.look_at(3 * e, up=(0.1, 0.9, 0.2), fov=40, width=48, height=48) for e in fibonacci_sphere(N)]
    with torch.no_grad():
        seen = [render(Painted(0.5), camera) for camera in cameras]
    bright = (gains.get(i, 1.0) * image.rgb + (offset if i in gains else 0) for i, image in enumerate(seen))
    images = tuple((255 * rgb).round().clamp(0, 255).byte() for rgb in bright)
    masks, names = tuple(image.mask for image in seen), tuple(map(str, range(N)))
    return Views(images, masks, tuple(cameras), names, tuple(range(N)), (), SceneTransform.identity(), "a ball")


def fitted(views, exposure=0.02, steps=200, device="cpu", **values):
    field = Painted().to(device)
    recipe = Recipe(rays=512, rate=0.02, color=1.0, mask=0.0, exposure=exposure, learn_background=False)
    fit = Fit(field, views, recipe=recipe.with_values(**values), iterations=steps)
    for _ in fit:
        pass
    return field, fit


def learnt(fit) -> Exposure:
    assert fit.refined.exposure is not None
    return fit.refined.exposure


def test_gains_of_single_photographs_are_found(device):
    field, fit = fitted(photographs(), device=device)
    gain, offset = learnt(fit).values()
    brightness = gain + offset / 0.4  # the two differ little where colours do
    expected = torch.tensor([GAINS.get(i, 1.0) for i in range(N)])[:, None].expand(N, 3)
    torch.testing.assert_close(brightness.detach().cpu(), expected, rtol=0, atol=0.03)
    torch.testing.assert_close(field.weight.detach().cpu(), torch.full((3,), 0.5), rtol=0, atol=0.03)
    without, _ = fitted(photographs(), exposure=0.0, device=device)
    assert (without.weight - 0.5).abs().max() > 2 * (field.weight - 0.5).abs().max()


def test_medians_stay_where_they_are():
    exposure = Exposure(5)
    with torch.no_grad():
        exposure.correction.copy_(torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)))
    gain, offset = exposure.values()
    torch.testing.assert_close(gain.median(0).values, torch.ones(3))
    torch.testing.assert_close(offset.median(0).values, torch.zeros(3))


def test_colors_have_gain_and_offset_of_their_view():
    exposure = Exposure(3)
    with torch.no_grad():
        exposure.correction[0, 1], exposure.correction[1, 1] = torch.tensor(2.0).log(), 0.1
    color, view = torch.tensor([[0.1, 0.2, 0.3]] * 3), torch.tensor([0, 1, 2])
    shown = exposure(color, torch.zeros(3, 3), view)
    torch.testing.assert_close(shown[1], torch.tensor([0.3, 0.5, 0.7]))
    assert torch.equal(shown[[0, 2]], color[[0, 2]])
    apart = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)  # no two medians
    assert torch.autograd.gradcheck(
        lambda c, p: torch.func.functional_call(exposure, {"correction": p}, (c, torch.zeros(3, 3), view)),
        (color.double().requires_grad_(), apart.requires_grad_()),
    )


def test_what_is_brighter_than_a_saturated_pixel_is_right():
    exposure, view = Exposure(1), torch.zeros(2, dtype=torch.int64)
    color = torch.tensor([[1.4, 0.5, 0.9], [1.4, 0.5, 0.9]]).requires_grad_()
    target = torch.tensor([[1.0, 1.0, 1.0], [0.9, 0.9, 0.9]])
    (slope,) = torch.autograd.grad(Photometric(0.0, exposure)(color, target, view), color)
    assert slope.ne(0).tolist() == [[False, True, True], [True, True, False]]


def test_a_fit_with_exposures_can_be_resumed():
    views = photographs()
    recipe = Recipe(rays=256, rate=0.01, mask=0.0, exposure=0.01)
    whole, first, second = (Fit(Painted(), views, recipe=recipe, iterations=20) for _ in range(3))
    for _ in whole:
        pass
    for _ in range(12):
        next(first)
    second.field.load_state_dict(first.field.state_dict())
    second.resume(first.state())
    for _ in second:
        pass
    assert torch.equal(learnt(whole).correction, learnt(second).correction)
    assert learnt(whole).correction.abs().max() > 0.01


@pytest.mark.parametrize(
    ("given", "duration", "rate"),
    [
        (None, {"iterations": 1999}, 0.0),
        (None, {"iterations": 2000}, 0.001),
        (None, {"minutes": 1.9}, 0.0),
        (None, {"minutes": 2.0}, 0.001),
        (0.5, {"iterations": 10}, 0.5),
    ],
)
def test_short_fits_take_photographs_as_alike_unless_a_rate_is_given(given, duration, rate):
    fit = Fit(Painted(), photographs(), recipe=Recipe(volume=0.0, exposure=given), **duration)
    (group,) = [g for g in fit.optimizer.param_groups if any(p is learnt(fit).correction for p in g["params"])]
    assert group["rate"] == rate


@pytest.mark.parametrize("missing", [True, False])
def test_a_state_without_such_exposures_is_refused(missing):
    recipe = Recipe(rays=256, mask=0.0, exposure=0.01)
    fit = Fit(Painted(), photographs(), recipe=recipe, iterations=2)
    state = fit.state()
    state["exposures"] = torch.zeros(2, 3, 3)
    if missing:
        del state["exposures"]
    expected = "taken|took them as given" if missing else "holds the exposures of 3 views, not of 9$"
    with pytest.raises(ValueError, match=f"^fit: .*({expected})"):
        fit.resume(state)
