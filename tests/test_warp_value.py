"""Values of fields as Warp functions: those of Torch, and the hits of one launch those of a march through Torch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import warp as wp
from torch import Tensor

from warpdvr import Camera, SphereTrace, make, render
from warpdvr.fields.adapter import warp_value_of
from warpdvr.fields.analytic import Sphere
from warpdvr.fields.base import Field
from warpdvr.fields.warp_value import WarpValue
from warpdvr.intersection.cached import CachedMarch
from warpdvr.intersection.hit import Status
from warpdvr.testing.field import check_field

TWO = [{"kind": "sphere", "radius": 0.3}, {"kind": "box", "center": [0.2, 0.1, 0.0]}]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def rough_voxels(kind: str) -> Field:
    """Return a ball of voxels with noise on it."""
    field: Any = make(kind, resolution=24)
    table = (field.distance if kind == "voxel-sdf" else field.logit).table
    with torch.no_grad():
        table[:, 0] += 0.02 * torch.randn(len(table))
    field.bound_slope()
    return field


def rough_hashgrid(**options: object) -> Field:
    field: Any = make("hashgrid", levels=4, size=2**12, finest=64, **options)
    with torch.no_grad():
        field.encode.table.normal_(0.0, 0.02)
    field.bound_slope()
    return field


FIELDS: dict[str, Callable[[], Field]] = {
    "sphere": lambda: make("sphere", center=(0.1, -0.2, 0.3)),
    "box": lambda: make("box", size=(0.8, 0.5, 0.3), center=(0.1, 0.0, -0.1)),
    "torus": lambda: make("torus"),
    "plane": lambda: make("plane", normal=(0.3, -0.4, 2.0), offset=0.2),
    "union": lambda: make("union", parts=[*TWO, {"kind": "torus"}]),
    "smooth-union": lambda: make("smooth-union", parts=[*TWO, {"kind": "torus"}], blend=0.1),
    "translate": lambda: make("translate", part={"kind": "torus"}, offset=(0.1, 0.2, -0.1)),
    "rotate": lambda: make("rotate", part={"kind": "box"}, rotation=(0.3, -0.5, 0.9)),
    "scale": lambda: make("scale", part={"kind": "union", "parts": TWO}, factor=0.7),
    "voxel-sdf": lambda: rough_voxels("voxel-sdf"),
    "voxel-occupancy": lambda: rough_voxels("voxel-occupancy"),
    "hashgrid": rough_hashgrid,
    "hashgrid, two layers": lambda: rough_hashgrid(depth=2, width=32),
    "sdf": lambda: make("sdf", frequencies=4, width=32),
    "repaint": lambda: make("repaint", shape=rough_hashgrid()),
}


def points(field: Field, n: int = 4000) -> Tensor:
    """Return points in the bounds and around them, and one that is no number."""
    low, high = field.bounds
    x = low + (high - low) * (1.4 * torch.rand(n, 3, generator=torch.Generator().manual_seed(0)).to(low) - 0.2)
    x[0, 1] = torch.nan
    return x


@pytest.mark.parametrize("name", FIELDS)
def test_a_warp_function_has_the_values_of_torch(name: str, device: torch.device) -> None:
    field = FIELDS[name]().to(device)
    x = points(field)
    value = warp_value_of(field)
    assert value is not None
    with torch.no_grad():
        torch.testing.assert_close(
            value(x), field.value(x), rtol=0, atol=2e-6 * max(1.0, field.lipschitz or 10.0), equal_nan=True
        )


@pytest.mark.parametrize("name", [name for name, make in FIELDS.items() if make().lipschitz is not None])
@pytest.mark.parametrize("cones", [False, True])
def test_one_launch_finds_the_hits_of_torch(name: str, cones: bool, device: torch.device) -> None:
    field = FIELDS[name]().to(device)
    camera = Camera.look_at((1.5, -2.2, 1.1), width=96, height=80, fov=50).to(device)
    with torch.no_grad():
        fused, torch_ = (
            render(field, camera, intersect=SphereTrace(fused=fused, cones=cones)) for fused in (True, False)
        )
    assert (fused.status != torch_.status).sum() <= 1
    both = fused.mask & torch_.mask
    assert both.sum() > 300
    assert ((fused.depth - torch_.depth)[both].abs() > 1e-4).sum() <= 1
    assert fused.evaluations < 1.25 * torch_.evaluations


@pytest.mark.parametrize("name", ["box", "voxel-sdf", "voxel-occupancy", "hashgrid"])
def test_one_launch_settles_the_guesses_of_a_fit_as_torch_does(name: str, device: torch.device) -> None:
    field = FIELDS[name]().to(device)
    rays = Camera.look_at((1.5, -2.2, 1.1), width=128, height=112, fov=50).to(device).rays()
    fused, torch_ = (CachedMarch(cells=24, fused=fused)(field, rays) for fused in (True, False))
    assert (fused.status != torch_.status).sum() <= 2
    assert abs(fused.evaluations - torch_.evaluations) <= 32
    t = [torch.full(rays.origin.shape[:1], torch.nan).to(device).index_copy(0, h.ray, h.t) for h in (fused, torch_)]
    off = (t[0] - t[1]).abs()
    assert off.isfinite().sum() > 500
    assert (off > 2e-5).sum() <= 0.002 * len(fused.ray)
    nearest = (fused.nearest - torch_.nearest).abs()
    assert (nearest > 1e-3).sum() <= 0.002 * len(nearest)
    assert (fused.status == int(Status.GAVE_UP)).sum() < 50


def test_a_class_that_defines_its_value_anew_has_no_warp_function_of_its_base() -> None:
    class Larger(Sphere):
        def value(self, x: Tensor) -> Tensor:
            return super().value(x) - 0.1

    class Same(Sphere):
        pass

    assert warp_value_of(Same()) is not None
    assert warp_value_of(Larger()) is None
    with torch.no_grad():
        image = render(Larger(0.4), Camera.look_at((0, -2.5, 0), width=32, height=32))
    assert abs(float(image.depth[16, 16]) - 2.0) < 5e-3


def test_what_torch_changes_in_a_field_is_not_overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    hooked, patched = rough_hashgrid(), Sphere()
    hooked.get_submodule("encode").register_forward_hook(lambda module, given, out: 2 * out)
    monkeypatch.setattr(patched, "value", lambda x: x[:, 0])
    replaced = rough_hashgrid()
    replaced.perceptron = torch.nn.Sequential(torch.nn.Linear(11, 16))
    assert warp_value_of(replaced) is None
    assert warp_value_of(hooked) is None
    assert warp_value_of(patched) is None
    assert warp_value_of(Sphere().double()) is None
    assert warp_value_of(rough_hashgrid(dtype="float16")) is None
    assert warp_value_of(make("union", parts=[{"kind": "sphere"}, {"kind": "sdf"}])) is None


def test_programs_that_are_too_long_or_too_deep_are_left_to_torch() -> None:
    balls = [Sphere(0.1, (x, 0.0, 0.0)) for x in torch.linspace(-0.8, 0.8, 32).tolist()]
    assert warp_value_of(make("union", parts=balls)) is not None
    assert warp_value_of(make("union", parts=[*balls, Sphere(0.1)])) is None
    nested: Field = Sphere(0.5)
    for depth in range(1, 10):
        nested = make("translate", part=nested, offset=(0.01, 0.0, 0.0))
        assert (warp_value_of(nested) is not None) == (depth <= 8)


def test_weights_that_change_are_seen(device: torch.device) -> None:
    field = rough_hashgrid().to(device)
    x, value = points(field, 64)[1:], warp_value_of(field)
    assert value is not None
    before = value(x)
    with torch.no_grad():
        for weight in field.parameters():
            weight.add_(0.01)
    after = warp_value_of(field)
    assert after is not None
    assert (after(x) - before).abs().max() > 1e-3
    torch.testing.assert_close(after(x), field.value(x).detach(), rtol=0, atol=1e-5)


def test_a_wrong_warp_function_is_found(device: torch.device) -> None:
    class Wrong(Sphere):
        def value(self, x: Tensor) -> Tensor:
            return super().value(x)

        def warp_value(self) -> WarpValue | None:
            return Sphere(0.45).to(self.bounds.device).warp_value()

    with pytest.raises(
        ValueError, match=r"^Wrong\.warp_value: differs from value\(\) by up to \d\.\de-\d+ of its range$"
    ):
        check_field(Wrong(0.5).to(device))


def test_a_picture_takes_few_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[str] = []
    launch = wp.launch

    def counted(kernel: Any, *arguments: Any, **options: Any) -> None:
        launched.append(kernel.key)
        launch(kernel, *arguments, **options)

    monkeypatch.setattr(wp, "launch", counted)
    field, camera = rough_hashgrid(), Camera.look_at((1.5, -2.2, 1.1), width=96, height=80)
    with torch.no_grad():
        render(field, camera)
        few = len(launched)
        render(field, camera, intersect=SphereTrace(fused=False))
    assert few <= 20 < 100 < len(launched) - few
