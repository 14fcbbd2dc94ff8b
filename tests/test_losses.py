"""Losses against numbers worked out by hand, and against finite differences."""

import math

import pytest
import torch

from warpdvr.fitting import losses as loss


def random(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


RAYS = 12
OPEN = torch.arange(RAYS) % 3 != 1  # the rays that the terms with an n speak of; the others are known and count as 0
COLOR, PATCH, VECTOR = random(RAYS, 3, seed=1), random(RAYS, 2, 2, 3, seed=2), random(RAYS, 3, seed=3) - 0.5
NUMBER = random(RAYS, seed=4)


def only(x, row):
    return x[row][OPEN[row]]


# Per loss the argument that has a gradient, an item per ray, pixel, patch or pair, and the loss of the items `row`.
LOSSES = {
    "photometric": (random(RAYS, 3), lambda x, row: loss.photometric(x[row], COLOR.to(x)[row])),
    "squares": (random(RAYS, 3), lambda x, row: loss.photometric(x[row], COLOR.to(x)[row], 0.3)),
    "depth": (1 + random(RAYS), lambda x, row: loss.depth(x[row], (NUMBER + 1.2).to(x)[row])),
    "image_gradient": (random(RAYS, 2, 2, 3), lambda x, row: loss.image_gradient(x[row], PATCH.to(x)[row])),
    "silhouette": (
        6 * random(RAYS) - 3,
        lambda x, row: loss.silhouette(only(x, row), only(NUMBER > 0.5, row), len(row)),
    ),
    "hinge": (random(RAYS) - 0.5, lambda x, row: loss.hinge(only(x, row), only(NUMBER > 0.5, row), len(row))),
    "freespace": (6 * random(RAYS) - 3, lambda x, row: loss.freespace(only(x, row), len(row))),
    "occupancy": (6 * random(RAYS) - 3, lambda x, row: loss.occupancy(only(x, row), len(row))),
    "eikonal": (2 * random(RAYS), lambda x, row: loss.eikonal(x[row])),
    "smoothness": (random(RAYS, 3) - 0.5, lambda x, row: loss.smoothness(x[row], VECTOR.to(x)[row])),
}
every_loss = pytest.mark.parametrize(("start", "term"), LOSSES.values(), ids=LOSSES)


def value_and_gradient(term, start, row):
    x = start.float().requires_grad_()
    value = term(x, row)
    return value.item(), torch.autograd.grad(value, x)[0]


def same(one, other):
    (value, slope), (value_2, slope_2) = one, other
    assert value == pytest.approx(value_2, rel=1e-5) and value > 0.01
    assert (slope - slope_2).norm() <= 1e-5 * slope_2.norm()


def test_photometric_by_hand():
    color = torch.tensor([[0.5, 0.5, 0.5], [1.0, 0.0, 0.0]], requires_grad=True)
    target = torch.tensor([[0.5, 0.2, 0.5], [0.4, 0.0, 0.3]])
    value = loss.photometric(color, target)
    assert value.item() == pytest.approx((0.3 + 0.6 + 0.3) / 6)
    value.backward()
    expected = torch.tensor([[0, 1, 0], [1, 0, -1]]) / 6
    assert color.grad is not None and torch.allclose(color.grad, expected)


def test_photometric_with_squares_by_hand():
    """Differences of 0.3 and 0.6 lie above 0.2, those of 0.1 below it."""
    color = torch.tensor([[0.5, 0.5, 0.5], [1.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[0.5, 0.2, 0.4], [0.4, 0.1, 0.0]])  # in float32, as photographs are
    value = loss.photometric(color, target, 0.2)
    assert value.item() == pytest.approx((0.2 + 2 * 0.1**2 / 0.4 + 0.5) / 6)
    value.backward()
    expected = torch.tensor([[0, 1, 0.5], [1, -0.5, 0]]) / 6
    assert color.grad is not None and torch.allclose(color.grad.float(), expected)


def test_depth_by_hand():
    z = torch.tensor([2.0, 1.5, 3.0, 1.0], requires_grad=True)
    value = loss.depth(z, torch.tensor([2.25, 1.0, 3.0, 3.0]))
    assert value.item() == pytest.approx((0.25 + 0.5 + 0 + 2) / 4)
    value.backward()
    assert z.grad is not None and torch.allclose(z.grad, torch.tensor([-0.25, 0.25, 0, -0.25]))


def test_image_gradient_by_hand():
    color, target = torch.zeros(2, 2, 2, 3), torch.zeros(2, 2, 2, 3)
    color[0, :, :, 0] = torch.tensor([[0.5, 0.2], [0.9, 0.7]])  # differences 0.3 and -0.4: length 0.5
    color[0, :, :, 1], target[0, :, :, 1] = 0.8, 0.3  # a constant has no gradient
    color[1, :, :, 2] = torch.tensor([[0.4, 0.4], [0.4, 0.9]])  # the fourth pixel has no part
    target[1, :, :, 2] = torch.tensor([[0.4, 0.6], [0.4, 0.1]])  # differences -0.2 and 0
    color.requires_grad_()
    value = loss.image_gradient(color, target)
    assert value.item() == pytest.approx((0.5 + 0.2) / 6)
    value.backward()
    expected = torch.zeros(2, 2, 2, 3)
    expected[0, :, :, 0] = torch.tensor([[0.6 - 0.8, -0.6], [0.8, 0]]) / 6
    expected[1, :, :, 2] = torch.tensor([[1.0, -1], [0, 0]]) / 6
    assert color.grad is not None and torch.allclose(color.grad, expected, atol=1e-6)


def test_freespace_by_hand():
    logit = torch.tensor([0.0, 2.0, -1.0], requires_grad=True)
    value = loss.freespace(logit, 10)  # -log(1 - sigmoid(logit)): 0.693147, 2.126928, 0.313262
    assert value.item() == pytest.approx(0.3133337)
    value.backward()
    assert logit.grad is not None and torch.allclose(logit.grad, torch.tensor([0.05, 0.0880797, 0.0268941]))


def test_occupancy_by_hand():
    logit = torch.tensor([0.0, 2.0, -1.0], requires_grad=True)
    value = loss.occupancy(logit, 10)  # -log(sigmoid(logit)): 0.693147, 0.126928, 1.313262
    assert value.item() == pytest.approx(0.2133337)
    value.backward()
    assert logit.grad is not None and torch.allclose(logit.grad, torch.tensor([-0.05, -0.0119203, -0.0731059]))


def test_freespace_and_occupancy_stay_finite_far_from_the_surface():
    logit = torch.tensor([1e4, -1e4], requires_grad=True)
    for term, expected in (loss.freespace, [0.5, 0.0]), (loss.occupancy, [0.0, -0.5]):
        value = term(logit, 2)
        (slope,) = torch.autograd.grad(value, logit)
        assert value.item() == pytest.approx(5e3) and slope.tolist() == expected


def test_silhouette_by_hand():
    soft = torch.tensor([0.0, 2.0, -1.0], requires_grad=True)
    value = loss.silhouette(soft, torch.tensor([True, False, False]), 10)
    log = math.log
    assert value.item() == pytest.approx((log(2) + log(1 + math.exp(2)) + log(1 + math.exp(-1))) / 10)
    value.backward()
    expected = (torch.sigmoid(soft.detach()) - torch.tensor([1.0, 0, 0])) / 10
    assert soft.grad is not None and torch.allclose(soft.grad, expected)


def test_silhouette_stays_finite_far_from_the_surface():
    soft = torch.tensor([1e4, -1e4], requires_grad=True)
    value = loss.silhouette(soft, torch.tensor([False, True]), 2)
    value.backward()
    assert value.item() == pytest.approx(1e4)
    assert soft.grad is not None and torch.allclose(soft.grad, torch.tensor([0.5, -0.5]))


def test_hinge_by_hand():
    value = torch.tensor([0.3, -0.2, 0.05, 0.3, -0.2, 0.05], requires_grad=True)
    target = torch.tensor([True, True, True, False, False, False])
    found = loss.hinge(value, target, 10, margin=0.1)
    assert found.item() == pytest.approx((0.2 + 0 + 0 + 0 + 0.3 + 0.05) / 10)
    found.backward()
    expected = torch.tensor([1.0, 0, 0, 0, -1, -1]) / 10
    assert value.grad is not None and torch.allclose(value.grad, expected)


def test_hinge_pushes_a_hit_beside_the_object_outwards():
    """A hit's value is 0 up to rounding, of either sign."""
    value = torch.tensor([1e-6, -1e-6, 0.0], requires_grad=True)
    (slope,) = torch.autograd.grad(loss.hinge(value, torch.zeros(3).bool(), 3), value)
    assert torch.allclose(slope, torch.full((3,), -1 / 3))


def test_eikonal_by_hand():
    slope = torch.tensor([1.0, 3.0, 0.0], requires_grad=True)
    value = loss.eikonal(slope)
    assert value.item() == pytest.approx((0 + 4 + 1) / 3)
    value.backward()
    assert slope.grad is not None and torch.allclose(slope.grad, torch.tensor([0, 4, -2]) / 3)


def test_smoothness_by_hand():
    normal = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]], requires_grad=True)
    on_surface = torch.tensor([[0.0, 1, 0], [0, 0, -1], [0, 1, 0]])
    value = loss.smoothness(normal, on_surface)
    assert value.item() == pytest.approx((math.sqrt(2) + 2 + 0) / 3, rel=1e-6)
    value.backward()
    root = math.sqrt(2)
    expected = torch.tensor([[1 / root, -1 / root, 0], [0, 0, 1], [0, 0, 0]]) / 3  # of equal normals 0, not NaN
    assert normal.grad is not None and torch.allclose(normal.grad, expected)


@every_loss
def test_gradients_agree_with_finite_differences(start, term):
    x, row = start.clone().requires_grad_(), torch.arange(RAYS)
    assert torch.autograd.gradcheck(lambda x: term(x, row), x)
    direction, step = random(*x.shape, seed=9) - 0.5, 1e-6
    (slope,) = torch.autograd.grad(term(x, row), x)
    central = (term(start + step * direction, row) - term(start - step * direction, row)) / (2 * step)
    assert (slope * direction).sum().item() == pytest.approx(central.item(), rel=1e-6)


@every_loss
def test_order_and_chunks_do_not_matter(start, term):
    whole = value_and_gradient(term, start, torch.arange(RAYS))
    order = torch.randperm(RAYS, generator=torch.Generator().manual_seed(0))
    same(value_and_gradient(term, start, order), whole)
    chunks = [(len(row) / RAYS, value_and_gradient(term, start, row)) for row in order.split([1, 4, 0, 7])]
    value = sum(share * value for share, (value, _) in chunks)
    same((value, sum(share * slope for share, (_, slope) in chunks)), whole)


@every_loss
def test_twice_the_pixels_weigh_the_same(start, term):
    row = torch.arange(RAYS)
    same(value_and_gradient(term, start, row.repeat(2)), value_and_gradient(term, start, row))


@every_loss
def test_over_nothing_it_is_zero_and_so_is_its_gradient(start, term):
    weight = torch.tensor(2.0, dtype=start.dtype, requires_grad=True)
    value = term(weight * start, torch.arange(0))
    (slope,) = torch.autograd.grad(value, weight)
    assert value.item() == 0 and slope.item() == 0


@pytest.mark.parametrize("term", [loss.silhouette, loss.hinge, loss.freespace, loss.occupancy])
def test_rays_that_need_no_teaching_count_as_zero(term):
    none = torch.zeros(0, requires_grad=True)
    value = term(none, torch.zeros(0).bool(), 5) if term in (loss.silhouette, loss.hinge) else term(none, 5)
    (slope,) = torch.autograd.grad(value, none)
    assert value.item() == 0 and slope.shape == (0,)


@pytest.mark.parametrize(
    ("term", "equal"),
    [(loss.photometric, COLOR), (loss.depth, NUMBER), (loss.image_gradient, PATCH), (loss.smoothness, VECTOR)],
)
def test_of_equals_the_gradient_is_zero(term, equal):
    x = equal.clone().requires_grad_()
    value = term(x, equal)
    (slope,) = torch.autograd.grad(value, x)
    assert 0 <= value.item() <= 1e-6 and not slope.any()  # NaN counts as something


def test_rays_that_hit_beside_the_object_count_twice():
    """Log 2 each at a logit of 0, whose slope of 1/2 becomes that of a ray that should have hit and misses by far."""
    soft, target = torch.tensor([0.0, 0.0, -50.0], requires_grad=True), torch.tensor([False, False, True])
    entered = torch.tensor([True, False, False])
    value = loss.silhouette(soft, target, 10, entered)
    assert float(value.detach()) == pytest.approx((3 * math.log(2) + 50) / 10)
    value.backward()
    torch.testing.assert_close(soft.grad, torch.tensor([0.1, 0.05, -0.1]))
    assert float(loss.silhouette(soft, target, 10).detach()) == pytest.approx((2 * math.log(2) + 50) / 10)
