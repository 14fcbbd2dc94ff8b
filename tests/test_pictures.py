"""Many pictures of one field: in order, and side by side only where that does no harm."""

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from warpdvr.fields.analytic import Sphere
from warpdvr.fields.base import Field
from warpdvr.intersection.base import Solver
from warpdvr.intersection.cached import CachedMarch
from warpdvr.intersection.grid import BoundGrid
from warpdvr.intersection.sphere_trace import SphereTrace
from warpdvr.rendering.pictures import each_picture
from warpdvr.runtime.threads import workers


class Own(Sphere):
    """A field that only Torch evaluates, which may remember something."""

    def value(self, x: Tensor) -> Tensor:
        return super().value(x)


@pytest.fixture
def two_workers() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_workers")
@pytest.mark.parametrize(
    ("field", "solver", "concurrent"),
    [
        (Sphere(), SphereTrace(), True),
        (Sphere(), SphereTrace(grid=BoundGrid(Sphere())), False),
        (Sphere(), CachedMarch().prepare(Sphere()), False),
        (Own(), SphereTrace(), False),
    ],
    ids=["a Warp function", "a grid", "remembered values", "a field of Torch"],
)
def test_pictures_come_in_their_order_without_gradients(field: Field, solver: Solver, concurrent: bool) -> None:
    together: list[int] = []
    at_once = threading.Barrier(2, timeout=20)

    def render(i: int) -> tuple[int, bool, int]:
        if concurrent and i in (1, 2):  # the first one is alone
            at_once.wait()
            together.append(i)
        return i, torch.is_grad_enabled(), workers()

    with torch.enable_grad():
        seen = list(each_picture(render, range(5), field, solver))
    assert [i for i, _, _ in seen] == list(range(5))
    assert not any(recording for _, recording, _ in seen)
    assert sorted(together) == ([1, 2] if concurrent else [])
