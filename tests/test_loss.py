"""Losses against numbers worked out by hand, and against finite differences."""

import math

import pytest
import torch

from warpdvr import loss


def random(*shape):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_photometric_by_hand():
    color = torch.tensor([[0.5, 0.5, 0.5], [1.0, 0.0, 0.0]], requires_grad=True)
    target = torch.tensor([[0.5, 0.2, 0.5], [0.4, 0.0, 0.3]])
    value = loss.photometric(color, target)
    assert value.item() == pytest.approx((0.3 + 0.6 + 0.3) / 6)
    value.backward()
    expected = torch.tensor([[0, 1, 0], [1, 0, -1]]) / 6
    assert color.grad is not None and torch.allclose(color.grad, expected)


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


def test_eikonal_by_hand():
    slope = torch.tensor([1.0, 3.0, 0.0], requires_grad=True)
    value = loss.eikonal(slope)
    assert value.item() == pytest.approx((0 + 4 + 1) / 3)
    value.backward()
    assert slope.grad is not None and torch.allclose(slope.grad, torch.tensor([0, 4, -2]) / 3)


def test_smoothness_by_hand():
    normal = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]], requires_grad=True)
    beside = torch.tensor([[0.0, 1, 0], [0, 0, -1], [0, 1, 0]])
    value = loss.smoothness(normal, beside)
    assert value.item() == pytest.approx((math.sqrt(2) + 2 + 0) / 3, rel=1e-6)
    value.backward()
    root = math.sqrt(2)
    expected = torch.tensor([[1 / root, -1 / root, 0], [0, 0, 1], [0, 0, 0]]) / 3  # of equal normals 0, not NaN
    assert normal.grad is not None and torch.allclose(normal.grad, expected)


def test_gradients_agree_with_finite_differences():
    target = random(7, 3).flip(0)
    assert torch.autograd.gradcheck(lambda c: loss.photometric(c, target), random(7, 3).requires_grad_())
    outline = random(7) > 0.5
    assert torch.autograd.gradcheck(lambda s: loss.silhouette(s, outline, 9), (6 * random(7) - 3).requires_grad_())
    assert torch.autograd.gradcheck(loss.eikonal, (2 * random(7)).requires_grad_())
    pair = (random(7, 3) - 0.5).requires_grad_(), (random(7, 3).flip(0) - 0.2).requires_grad_()
    assert torch.autograd.gradcheck(loss.smoothness, pair)


def test_over_nothing_it_is_zero_and_so_is_its_gradient():
    weight = torch.tensor(2.0, requires_grad=True)
    none, no_color = weight * torch.zeros(0), weight * torch.zeros(0, 3)
    terms = loss.photometric(no_color, torch.zeros(0, 3)), loss.silhouette(none, torch.zeros(0).bool(), 0)
    for term in (*terms, loss.eikonal(none), loss.smoothness(no_color, no_color)):
        (slope,) = torch.autograd.grad(term, weight, retain_graph=True)
        assert term.item() == 0 and slope.item() == 0


def test_twice_the_pixels_weigh_the_same():
    a, b, outline = random(5, 3), random(5, 3).flip(0), random(5) > 0.5
    assert loss.photometric(a.repeat(2, 1), b.repeat(2, 1)).item() == pytest.approx(loss.photometric(a, b).item())
    assert loss.eikonal(a[:, 0].repeat(2)).item() == pytest.approx(loss.eikonal(a[:, 0]).item())
    assert loss.smoothness(a.repeat(2, 1), b.repeat(2, 1)).item() == pytest.approx(loss.smoothness(a, b).item())
    once = loss.silhouette(a[:, 0], outline, 8)
    assert loss.silhouette(a[:, 0].repeat(2), outline.repeat(2), 16).item() == pytest.approx(once.item())
