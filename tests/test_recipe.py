"""Recipes: which weights learn at which rate, and what changes over time."""

import math
import re
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from warpdvr.fields.base import Field
from warpdvr.fitting.recipe import RECIPES, WEIGHTS, Recipe, schedule


class Parts(nn.Module):
    """Names with common endings."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(2))
        self.fine = nn.ParameterDict({"table": torch.zeros(3)})
        self.table_of = nn.Linear(2, 2)
        self.layer = nn.Linear(2, 2)


def rates_of(field, recipe, rates):
    """Return the rate of each parameter; each must be in one group, and each rate in one."""
    known = {id(parameter): name for name, parameter in field.named_parameters()}
    groups = recipe.groups(field, rates)
    told = [(known[id(parameter)], group["rate"]) for group in groups for parameter in group["params"]]
    assert len(told) == len(known) == len(dict(told))
    assert len(groups) == len({group["rate"] for group in groups})
    return dict(told)


def test_the_longest_ending_of_a_name_counts():
    told = rates_of(Parts(), Recipe(), {"": 1.0, "table": 2.0, "fine.table": 3.0, "f.bias": 4.0})
    layers = {"table_of.weight": 1.0, "table_of.bias": 4.0, "layer.weight": 1.0, "layer.bias": 1.0}
    assert told == {"table": 2.0, "fine.table": 3.0, **layers}


def test_a_rate_of_the_recipe_keeps_the_proportions_of_the_field():
    told = rates_of(Parts(), Recipe(rate=0.5), {"": 0.01, "table": 0.002})
    assert told.pop("table") == told.pop("fine.table") == pytest.approx(0.1)
    assert set(told.values()) == {0.5}


def test_what_a_field_does_not_say():
    assert set(rates_of(Parts(), Recipe(), Field.rates).values()) == {2e-3}
    assert set(rates_of(Parts(), Recipe(rate=0.3), Field.rates).values()) == {0.3}


def test_groups_are_what_an_optimiser_takes():
    field = Parts()
    optimizer = torch.optim.Adam(Recipe().groups(field, {"": 1.0, "table": 2.0}), lr=0.0)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(field.parameters()))


def test_sharpness_grows_by_equal_factors():
    recipe = Recipe(sharpness=(10.0, 1000.0))
    assert [recipe.sharp(a / 4) for a in range(5)] == pytest.approx([10, 10 * 10**0.5, 100, 100 * 10**0.5, 1000])
    assert Recipe(sharpness=(5.0, 5.0)).sharp(0.7) == pytest.approx(5)


def test_learning_rate_rises_and_falls():
    assert schedule(0.0) == pytest.approx(0.05)
    assert schedule(0.01) == pytest.approx(0.55, abs=1e-3)
    assert schedule(0.5) == pytest.approx(0.05 + 0.95 / 2)
    assert schedule(1.0) == pytest.approx(0.05)
    rates = [schedule(i / 1000) for i in range(1001)]
    assert max(rates) <= 1 and max(rates) > 0.99 and rates.index(max(rates)) == pytest.approx(20, abs=1)
    assert all(b < a for a, b in pairwise(rates[20:]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rays": 0},
        {"rate": 0.0},
        {"rate": -1.0},
        {"rate": math.nan},
        {"rate": math.inf},
        {"sharpness": (0.0, 1.0)},
        {"sharpness": (1.0, math.inf)},
    ],
)
def test_numbers_that_must_be_positive(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=rf"^fit: {name} must be positive and finite, got {re.escape(str(value))}$"):
        Recipe(**wrong)


@pytest.mark.parametrize("weight", [*WEIGHTS, "cameras"])
def test_weights_must_not_be_negative(weight):
    zero: dict[str, Any] = {weight: 0.0}
    below: dict[str, Any] = {weight: -0.1}
    Recipe(**zero)
    with pytest.raises(ValueError, match=rf"^fit: {weight} must be finite and not negative, got -0.1$"):
        Recipe(**below)


def test_some_weight_must_be_positive():
    zero: dict[str, Any] = dict.fromkeys(WEIGHTS, 0.0)
    with pytest.raises(ValueError, match=r"^fit: at least one of the weights must be positive: color, mask, .*depth"):
        Recipe(cameras=1.0, **zero)
    for name in WEIGHTS:
        Recipe(**{**zero, name: 0.1})


def test_samples_change_where_they_did_in_dvr():
    """At 50, 100 and 250 of 400 thousand steps."""
    recipe = Recipe(samples=(16, 32, 64, 128))
    told = [recipe.march(thousand / 400) for thousand in (0, 49.9, 50, 99.9, 100, 249.9, 250, 399.9, 400)]
    assert told == [16, 16, 32, 32, 64, 64, 128, 128, 128]


def test_what_needs_neighbours_is_drawn_in_blocks():
    assert not Recipe().blocks and Recipe(gradient=0.1).blocks and Recipe(outline=0.1).blocks


@pytest.mark.parametrize("wrong", [(0.0, 0.5), (0.0, 0.5, 1.1), (-0.1, 0.5, 1.0), (math.nan, 0.5, 1.0)])
def test_backgrounds_that_are_no_colour(wrong):
    with pytest.raises(ValueError, match=r"^fit: background must be three numbers in \[0, 1\], got \["):
        Recipe(background=wrong)


def test_one_number_of_samples_stays_and_none_stays_none():
    assert {Recipe(samples=(7,)).march(a / 4) for a in range(5)} == {7}
    assert {Recipe().march(a / 4) for a in range(5)} == {None}


@pytest.mark.parametrize("samples", [(1,), (0, 2, 2, 2), (16, 32), (16, 32, 64), (16, 32, 64, 128, 256), (2, 2, 2, 1)])
def test_samples_that_make_no_sense(samples):
    with pytest.raises(ValueError, match=r"^fit: samples must be one number or 4, each at least 2, got \["):
        Recipe(samples=samples)


def test_recipes_by_name():
    assert set(RECIPES) == {"quick", "dvr", "code"} and RECIPES["quick"] == Recipe()
    dvr = RECIPES["dvr"]
    assert {name: getattr(dvr, name) for name in WEIGHTS if getattr(dvr, name)} == {
        "color": 3.0,  # 1 where the channels are summed
        "smooth": 0.05,
        "freespace": 1.0,
        "occupancy": 1.0,
    }
    assert dvr.samples == (16, 32, 64, 128) and dvr.cameras == 0 and dvr.rays == 2048


def test_what_wants_no_gradient_is_not_fitted():
    field = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    field[0].requires_grad_(False)
    groups: Any = Recipe().groups(field, {"": 1.0})
    assert [id(p) for g in groups for p in g["params"]] == [id(p) for p in field[1].parameters()]


def test_sharpness_that_is_not_given_is_that_of_the_size_of_the_bounds():
    assert [Recipe().sharp(a, side=2.2) for a in (0, 1)] == pytest.approx([60, 600])
    assert [Recipe().sharp(a, side=2.2e-3) for a in (0, 1)] == pytest.approx([6e4, 6e5])
    assert Recipe(sharpness=(5.0, 50.0)).sharp(0, side=2.2e-3) == 5
