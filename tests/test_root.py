"""The root finder in a bracket: against closed forms and SciPy's, on values that stop simpler methods."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.optimize
import torch
from reference import Asked, beams, double
from torch import Tensor

from warpdvr.fields.base import query
from warpdvr.intersection.root import close_in
from warpdvr.kernels.root import MAX_STEPS as STEPS

TOLERANCE = 1e-6

VALUES: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "linear": (lambda t: 0.3 - t, 0.3),
    "logit": (lambda t: 200 * (0.3 - t), 0.3),
    "sigmoid": (lambda t: 0.5 - torch.sigmoid(20 * (t - 0.3)), 0.3),
    "convex": (lambda t: torch.exp(-20 * (t - 0.3)) - 1, 0.3),
    "concave": (lambda t: 1 - torch.exp(20 * (t - 0.3)), 0.3),
    "flat root": (lambda t: (0.3 - t) ** 3, 0.3),
    "step": (lambda t: torch.where(t < 0.3, 1.0, -1.0), 0.3),
    "steep on one side": (lambda t: torch.where(t < 0.3, 1e-6 * (0.3 - t), 1e6 * (0.3 - t)), 0.3),
    "three roots": (lambda t: -(t - 0.2) * (t - 0.5) * (t - 0.8), 0.2),
    "wave": (lambda t: torch.cos(t * math.pi / 2 + 0.6), 2 / math.pi * (math.pi / 2 - 0.6)),
}
BUDGET = {"linear": 1, "logit": 2, "sigmoid": 9, "convex": 12, "concave": 12, "wave": 6, "three roots": 10}
"""Most evaluations per root; bisection needs 20 to get from 1 to 1e-6, and regula falsi gets stuck."""


def along_x(function: Callable[[Tensor], Tensor]) -> Asked:
    return Asked(lambda x: function(x[:, 0]))


def solve(
    field: Asked, low: Tensor, high: Tensor, device: torch.device, tolerance: float = TOLERANCE
) -> tuple[Tensor, int]:
    """Close in between ends on the x axis; values at the ends are asked for first and are not counted."""
    field = field.to(device)
    rays = beams(torch.zeros(len(low), 3), (1.0, 0.0, 0.0), device)
    low, high = low.float().to(device), high.float().to(device)
    ends = low, high, *(query(field, rays.at(t)) for t in (low, high))
    field.asked = 0
    t, evaluations = close_in(field, rays.origin, rays.direction, ends, tolerance)
    assert evaluations == field.asked
    return t.cpu(), evaluations


@pytest.mark.parametrize("name", VALUES)
def test_the_root_is_found(name: str, device: torch.device) -> None:
    function, root = VALUES[name]
    t, evaluations = solve(along_x(function), torch.zeros(1), torch.ones(1), device)
    if name == "three roots":
        assert min(abs(t.item() - r) for r in (0.2, 0.5, 0.8)) <= TOLERANCE
    else:  # where the root is threefold, values of 1e-14 lie 2e-5 from it
        assert abs(t.item() - root) <= (3e-5 if name == "flat root" else 1.5 * TOLERANCE)
    assert evaluations <= BUDGET.get(name, STEPS)


def test_it_agrees_with_brent_on_random_cubics(device: torch.device) -> None:
    rng = np.random.default_rng(0)
    checked = 0
    while checked < 40:
        c = rng.normal(size=4)
        if np.polyval(c, 0) <= 0.01 or np.polyval(c, 1) >= -0.01 or sum(np.isreal(np.roots(c))) > 1:
            continue
        checked += 1
        root = scipy.optimize.brentq(lambda t, c=c: np.polyval(c, t), 0, 1, xtol=1e-14)
        field = along_x(lambda t, c=c: ((c[0] * t + c[1]) * t + c[2]) * t + c[3])  # type: ignore[misc]
        t, evaluations = solve(double(field), torch.zeros(1), torch.ones(1), device)
        assert abs(t.item() - root) <= 2 * TOLERANCE
        assert evaluations <= 12


def test_many_brackets_do_not_disturb_each_other(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(500, generator=generator)
    high = torch.floor(low * 7 + 1) / 7 + 0.05 * torch.rand(500, generator=generator)
    low = torch.floor(low * 7) / 7 + 0.08
    even = torch.floor(low * 7) % 2 == 0
    field = along_x(lambda t: torch.sin(7 * math.pi * t))
    t, evaluations = solve(field, low[even], high[even], device)
    alone = [solve(field, a[None], b[None], device) for a, b in zip(low[even], high[even], strict=True)]
    assert torch.equal(t, torch.cat([a for a, _ in alone]))
    assert evaluations == sum(count for _, count in alone)
    assert (t - torch.floor(low[even] * 7 + 1) / 7).abs().max() < 1.5 * TOLERANCE


def test_an_end_that_is_exactly_zero_costs_nothing(device: torch.device) -> None:
    field = along_x(lambda t: 0.5 - t)
    t, evaluations = solve(field, torch.tensor([0.25, 0.5]), torch.tensor([0.5, 0.75]), device)
    assert t.tolist() == [0.5, 0.5]
    assert evaluations == 0


def test_a_bracket_shorter_than_the_tolerance_costs_nothing(device: torch.device) -> None:
    t, evaluations = solve(along_x(lambda t: 0.3 - t), torch.tensor([0.2]), torch.tensor([0.32]), device, 0.2)
    assert evaluations == 0
    assert t.item() == pytest.approx(0.3)  # where a line through the ends is 0


def test_far_away_it_stops_at_neighbouring_floats(device: torch.device) -> None:
    field = along_x(lambda t: torch.sign(5000.3 - t))
    t, evaluations = solve(field, torch.tensor([4000.0]), torch.tensor([6000.0]), device)
    assert abs(t.item() - 5000.3) < 2e-3
    assert evaluations < STEPS


def test_no_bracket_is_an_ordinary_input(device: torch.device) -> None:
    t, evaluations = solve(along_x(lambda t: t), torch.zeros(0), torch.zeros(0), device)
    assert (tuple(t.shape), evaluations) == ((0,), 0)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e3, 1e30])
def test_the_size_of_the_values_does_not_matter(scale: float, device: torch.device) -> None:
    field = along_x(lambda t: scale * (0.5 - torch.sigmoid(20 * (t - 0.3))))
    t, _ = solve(field, torch.zeros(1), torch.ones(1), device)
    assert abs(t.item() - 0.3) <= 1.5 * TOLERANCE


def test_a_field_in_float64_is_asked_in_float64(device: torch.device) -> None:
    seen = []

    def value(t: Tensor) -> Tensor:
        seen.append(t.dtype)
        return 0.3 - t

    t, _ = solve(double(along_x(value)), torch.zeros(1), torch.ones(1), device)
    assert set(seen) == {torch.float64}
    assert t.dtype == torch.float32
