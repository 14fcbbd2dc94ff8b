"""Hits on networks that somebody else trained (Sharp and Jacobson 2022): none missed, none invented."""

from pathlib import Path
from typing import Any

import pytest
import torch
from networks import SLOPE, TRAINED, Perceptron, trained, view
from reference import clip, double, first_crossing, in_double
from torch import Tensor, nn

from warpdvr import DenseMarch, Field, Rays, SphereTrace, Status
from warpdvr.testing.field import check_field

SIZE = 64


@pytest.fixture(scope="module", params=list(TRAINED))
def case(request: pytest.FixtureRequest, data: Path, device: torch.device) -> tuple[str, Field, Rays, Tensor]:
    """Return a name, the network, 64 x 64 rays and where 1024 samples and bisection say that they hit."""
    field, rays = trained(data, request.param), view(SIZE, distance=2.5)
    ends = clip(*in_double(rays), field.bounds)
    expected = first_crossing(double(field), *in_double(rays), ends, 1024, SLOPE[request.param])
    return request.param, field.to(device), Rays(rays.origin.to(device), rays.direction.to(device)), expected


def check(solve: Any, case: tuple[str, Field, Rays, Tensor], most: float) -> None:
    name, field, rays, expected = case
    hit = solve(field, rays)
    t = torch.full((len(rays),), torch.nan, dtype=torch.float64)
    t[hit.ray.cpu()] = hit.t.double().cpu()
    missed, extra = (int((a.isnan() & ~b.isnan()).sum()) for a, b in ((t, expected), (expected, t)))
    per_ray, error = hit.evaluations / len(rays), float((t - expected).abs().nan_to_num(0).max())
    print(f"{name}, {type(solve).__name__}: {len(hit.t)} hits, error {error:.1e}, {per_ray:.1f} queries per ray")
    assert (missed, extra) == (0, 0)
    assert error < 1e-4
    assert not (hit.status == Status.GAVE_UP).any()
    assert per_ray < most


def test_dense_march_misses_nothing(case: tuple[str, Field, Rays, Tensor]) -> None:
    check(DenseMarch(n=128), case, 125)


def test_sphere_tracing_misses_nothing(case: tuple[str, Field, Rays, Tensor]) -> None:
    if case[1].lipschitz is None:
        with pytest.raises(ValueError, match="use DenseMarch"):
            SphereTrace()(case[1], case[2])
    else:
        check(SphereTrace(), case, 13)


@pytest.mark.parametrize("name", TRAINED)
def test_they_keep_the_contract(name: str, data: Path, device: torch.device) -> None:
    check_field(trained(data, name).to(device))


@pytest.mark.parametrize(("activation", "hits"), [(nn.Softplus(beta=100), 939), (nn.ReLU(), 948)])
def test_the_peers_networks_are_rebuilt(activation: Any, hits: int, device: torch.device) -> None:
    """The number of hits that benchmarks/queries.md lists, found by sphere tracing."""
    field = Perceptron(activation).to(device)
    rays = view(64)
    hit = SphereTrace()(field, Rays(rays.origin.to(device), rays.direction.to(device)))
    assert len(hit.t) == hits
