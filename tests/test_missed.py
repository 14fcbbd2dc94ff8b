"""Surfaces that are easy to miss: with a grid no ray misses one, and no hit is made up."""

from pathlib import Path
from typing import Any

import pytest
import torch
from adversarial import ADVERSARIES, changes_sign, lengths, voxels
from networks import view, views
from reference import Asked, clip, double, first_crossing, in_double

from warpdvr import DenseMarch, SphereTrace
from warpdvr.intersection.grid import BoundGrid
from warpdvr.intersection.hit import Hit, Status

SIZE = 48


def both(grid: BoundGrid) -> list[Any]:
    return [DenseMarch(grid=grid), SphereTrace(grid=grid)]


@pytest.mark.parametrize("name", [name for name, adversary in ADVERSARIES.items() if not adversary.needs_data])
@torch.no_grad()
def test_nothing_is_missed_with_a_grid(name: str) -> None:
    field, rays = ADVERSARIES[name].make(Path()), view(SIZE, distance=2.2)
    o, d = in_double(rays)
    expected = first_crossing(double(field), o, d, clip(o, d, field.bounds), 4096)
    assert (~expected.isnan()).sum() > 200
    for solve in both(BoundGrid(field)):
        hit = solve(field, rays)
        t = lengths(hit)
        assert not (t.isnan() & ~expected.isnan()).any()
        # there is no bound of the Mandelbulb's slope: up to 50 in spots of 1e-3, where a grid cannot know it
        assert (t - expected > 1e-4).sum() <= (1 if name == "Mandelbulb" else 0)
        assert changes_sign(double(field), o[hit.ray], d[hit.ray], hit.t.double()).all()


@torch.no_grad()
def test_a_distance_that_is_cut_off_hides_nothing_from_a_proven_bound() -> None:
    """Needles of radius 4e-3 in cells of 1/16: a corner sees them only where the value is not cut off."""
    field, rays = ADVERSARIES["truncated needles"].make(Path()), view(SIZE, distance=2.2)
    grid = BoundGrid(field)
    expected = lengths(DenseMarch(512)(field, rays))
    assert not (lengths(SphereTrace(grid=grid)(field, rays)).isnan() & ~expected.isnan()).any()
    field.lipschitz_is_measured = True  # a bound that proves nothing costs no more than before
    assert BoundGrid(field).evaluations < 0.3 * grid.evaluations


@pytest.mark.parametrize("resolution", [128, 100])
@torch.no_grad()
def test_voxels_are_seen_between_the_corners_of_a_grid(resolution: int) -> None:
    """The corners of boxes are those of voxels, where the values say nothing about the edges in between."""
    field, rays = voxels(resolution), views(256, 1, seed=2)
    expected = lengths(SphereTrace()(field, rays))
    for solve in both(BoundGrid(field)):
        t = lengths(solve(field, rays))
        assert not (t.isnan() & ~expected.isnan()).any()
        assert not (t - expected > 2e-4).any()


def status(hit: Hit) -> list[int]:
    return torch.bincount(hit.status.long(), minlength=5).tolist()


@pytest.mark.parametrize("radius", [0.55, 0.8])
@pytest.mark.parametrize("lipschitz", [None, 1.0])
@torch.no_grad()
def test_a_value_that_is_infinite_outside_of_a_radius_is_a_miss_with_a_grid(
    radius: float, lipschitz: float | None
) -> None:
    def ball(x: torch.Tensor) -> torch.Tensor:
        r = x.norm(dim=-1)
        return torch.where(r < radius, r - 0.5, torch.inf)

    field, rays = Asked(ball, 1.0, lipschitz), view(SIZE, distance=2.2)
    expected = status(DenseMarch()(Asked(lambda x: x.norm(dim=-1) - 0.5, 1.0), rays))
    assert expected[int(Status.GAVE_UP)] == 0
    for solve in [DenseMarch(), *both(BoundGrid(field))]:
        assert status(solve(field, rays)) == expected


@torch.no_grad()
def test_an_infinite_value_proves_no_free_space() -> None:
    field = Asked(lambda x: torch.where(x.norm(dim=-1) < 0.55, x.norm(dim=-1) - 0.5, torch.inf), 1.0, 1.0)
    rays = view(SIZE, distance=2.2)
    crosses = ~lengths(DenseMarch()(field, rays)).isnan()
    assert crosses.sum() > 200
    assert (SphereTrace()(field, rays).status[crosses] == int(Status.GAVE_UP)).all()
