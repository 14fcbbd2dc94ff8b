"""A user's habits: each works, or one sentence says what to write instead."""

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import octahedron
import pytest
import torch
from test_house import python
from torch import Tensor, nn

import warpdvr
from warpdvr import AmbientLight, BoundGrid, CachedMarch, Camera, DenseMarch, Field, Lambert, SphereTrace
from warpdvr.cameras.rays import Rays
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.fields import registry
from warpdvr.fields.adapter import as_field
from warpdvr.fields.conditional import ConditionalOccupancy, Shapes
from warpdvr.rendering.turntable import turn
from warpdvr.testing.field import check_field

CAMERA = Camera.look_at((0, -2, 0), width=17, height=17)
AWAY = Camera.look_at((0, -20, 0), (0, -40, 0), width=9, height=9)


def ball(x: Tensor) -> Tensor:
    return x.norm(dim=-1) - 0.5


class Net(nn.Module):
    """A ball with dents, of which a network tells; a layer of choice stands in its middle."""

    bounds = 1.0

    def __init__(self, layer: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 16), layer or nn.Identity(), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        dent: Tensor = self.net(x)[:, 0]
        return ball(x) + 0.05 * dent


class Valued(nn.Module):
    """A module with `value` and `bounds`, and nothing else of a field."""

    bounds = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.radius = nn.Parameter(torch.tensor(0.5))

    def value(self, x: Tensor) -> Tensor:
        return x.norm(dim=-1) - self.radius


class Plain:
    """No module at all."""

    bounds, lipschitz = 1.0, 1.0

    def value(self, x: Tensor) -> Tensor:
        return ball(x)


def hits(field: object, **options: Any) -> int:
    with torch.no_grad():
        return int(warpdvr.render(field, CAMERA, **options).mask.sum())


ROUND = hits(warpdvr.make("sphere"))


# ---------------------------------------------------------------------------------------------- inference mode


PICTURES: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda f: warpdvr.render(f, CAMERA).rgb,
    "dense": lambda f: warpdvr.render(f, CAMERA, intersect=DenseMarch()).normal,
    "grid": lambda f: warpdvr.render(f, CAMERA, intersect=DenseMarch(grid=BoundGrid(f, cells=16))).normal,
    "cached": lambda f: warpdvr.render(f, CAMERA, intersect=CachedMarch(cells=16)).normal,
    "all of it": lambda f: warpdvr.render(f, CAMERA, silhouette=10.0, outline=True, antialias=2).rgb,
    "lights": lambda f: warpdvr.render(f, CAMERA, material=Lambert(), lights=[AmbientLight()]).rgb,
    "turntable": lambda f: next(turn(f, [CAMERA])).rgb,
    "surface": lambda f: warpdvr.surface(f, CAMERA.rays()).normal,
    "mesh": lambda f: warpdvr.extract(f, resolution=12).vertices,
}


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("kind", ["sphere", "net", "hashgrid"])
def test_inference_mode_gives_the_same_picture(picture: str, kind: str) -> None:
    torch.manual_seed(0)
    small = {"size": 2**8, "levels": 2, "color_size": 2**8, "color_levels": 2}
    field = Net() if kind == "net" else warpdvr.make(kind, **small) if kind == "hashgrid" else warpdvr.make(kind)
    with torch.no_grad():
        expected = PICTURES[picture](field)
    with torch.inference_mode():
        found = PICTURES[picture](field)
    assert torch.equal(found, expected) and not found.is_inference()


def test_everything_may_happen_in_inference_mode() -> None:
    """Fields of ours and functions are made there, cameras too, and all can be differentiated afterwards."""
    with torch.inference_mode():
        sphere, given = warpdvr.make("sphere"), as_field(ball, 1.0)
        camera = Camera.look_at((0, -2, 0), width=17, height=17)
        check_field(sphere)
        assert int(warpdvr.render(given, camera).mask.sum()) == ROUND
    image = warpdvr.render(sphere, camera)
    image.depth[8, 8].backward()
    assert sphere.get_parameter("radius").grad == pytest.approx(-1, abs=1e-4)


def test_rays_of_inference_mode_may_be_used_where_gradients_are() -> None:
    with torch.inference_mode():
        rays = CAMERA.rays()
    field = warpdvr.make("sphere")
    warpdvr.surface(field, rays).t.sum().backward()
    assert float(field.get_parameter("radius").grad) < -ROUND + 1e-3  # type: ignore[arg-type]


def test_codes_of_an_encoder_in_inference_mode() -> None:
    decoder = ConditionalOccupancy(code=4, width=8, blocks=1)
    with torch.inference_mode():
        shapes = Shapes(decoder, torch.zeros(1, 4) + 0.5)
        assert hits(shapes) > 0
    assert hits(shapes) > 0


def test_a_fit_learns_whatever_surrounds_it() -> None:
    views = mesh_views("warp:bunny", count=2, test=0, size=16)
    for surrounding in (torch.inference_mode(), torch.no_grad()):
        field = warpdvr.make("sphere", radius=0.4)
        with surrounding:
            for _ in warpdvr.Fit(field, views, iterations=2, recipe=warpdvr.Recipe(rays=64, cells=16)):
                pass
        assert float(field.get_parameter("radius").detach()) != pytest.approx(0.4)


def test_weights_of_inference_mode_are_named() -> None:
    with torch.inference_mode():
        field = Valued()
        with pytest.raises(ValueError, match=r"^Valued: radius was made in torch.inference_mode\(\), .*copy.deepcopy"):
            hits(field)
    with pytest.raises(ValueError, match=r"^Valued: radius was made in torch.inference_mode\(\)"):
        warpdvr.extract(field, resolution=8)
    assert hits(copy.deepcopy(field)) == ROUND  # as the sentence says


# ------------------------------------------------------------------------------------------------------ copies


OPTIONS: dict[str, dict[str, Any]] = {
    "union": {"parts": [{"kind": "sphere"}, {"kind": "box"}]},
    "smooth-union": {"parts": [{"kind": "sphere"}, {"kind": "box"}]},
    "translate": {"part": {"kind": "sphere"}, "offset": [0.1, 0.0, 0.0]},
    "rotate": {"part": {"kind": "box"}, "rotation": [0.1, 0.2, 0.3]},
    "scale": {"part": {"kind": "torus"}, "factor": 0.7},
    "repaint": {"shape": {"kind": "sphere"}, "size": 2**8, "levels": 2},
    "hashgrid": {"size": 2**8, "levels": 2, "color_size": 2**8, "color_levels": 2},
    "hashgrid-occupancy": {"size": 2**8, "levels": 2, "color_size": 2**8, "color_levels": 2},
    "voxel-sdf": {"resolution": 8},
    "voxel-occupancy": {"resolution": 8},
}


@pytest.mark.parametrize("name", registry.names())
def test_every_field_can_be_copied_before_and_after_a_picture(name: str, tmp_path: Path) -> None:
    options = {"decoder": str(octahedron.write(tmp_path / "a.npz"))} if name == "deepsdf" else OPTIONS.get(name, {})
    field, x = warpdvr.make(name, **options), torch.rand(5, 3)
    before = copy.deepcopy(field)
    warpdvr.render(field, CAMERA).rgb.sum()
    after = copy.deepcopy(field)
    assert torch.equal(before.value(x), field.value(x)) and torch.equal(after.value(x), field.value(x))
    assert not {id(p) for p in after.parameters()} & {id(p) for p in field.parameters()}


@pytest.mark.parametrize("source", ["constant", "free", "encoder"])
def test_shapes_can_be_copied_moved_and_checked(source: str) -> None:
    torch.manual_seed(0)
    decoder = ConditionalOccupancy(code=4, width=8, blocks=1)
    codes = {
        "constant": torch.ones(1, 4),
        "free": nn.Parameter(torch.ones(1, 4)),
        "encoder": nn.Linear(3, 4)(torch.ones(1, 3)),
    }[source]
    shapes, x = Shapes(decoder, codes, torch.ones(1, 3)), torch.rand(5, 3)
    warpdvr.render(shapes, CAMERA).rgb.sum()
    twin = copy.deepcopy(shapes)
    assert torch.equal(twin.value(x), shapes.value(x))
    twin.value(x).sum().backward()
    assert twin.decoder.get_parameter("shift.weight").grad is not None and decoder.shift.weight.grad is None
    check_field(shapes)
    moved = copy.deepcopy(shapes).double()
    assert moved.value(x.double()).dtype == torch.float64 and moved.codes.dtype == torch.float64


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("style", ["hook", "parametrization"])
def test_a_network_with_weight_norm_can_be_copied_as_a_field(style: str) -> None:
    norm = nn.utils.weight_norm if style == "hook" else nn.utils.parametrizations.weight_norm
    field, x = as_field(Net(norm(nn.Linear(16, 16)))), torch.rand(5, 3)
    warpdvr.render(field, CAMERA).depth.nansum().backward()
    twin = copy.deepcopy(field)
    assert torch.equal(twin.value(x), field.value(x))
    twin.value(x).sum().backward()
    assert all(p.grad is not None for p in twin.parameters())


# ---------------------------------------------------------------------------------------- what can be a field


WHATEVER: dict[str, Callable[[], object]] = {
    "module with value and bounds": Valued,
    "object with value and bounds": Plain,
    "DataParallel": lambda: nn.DataParallel(Valued()),
    "DataParallel twice": lambda: nn.DataParallel(nn.DataParallel(warpdvr.make("sphere"))),
    "function": lambda: as_field(ball, bounds=1.0),
    "function with bounds": lambda: _with_bounds(lambda x: ball(x)),
    "partial": lambda: as_field(functools.partial(lambda x, r: x.norm(dim=-1) - r, r=0.5), 1.0),
    "bound method": lambda: as_field(Valued().value, 1.0),
    "compiled": lambda: torch.compile(Valued(), backend="eager"),
    "compiled field": lambda: torch.compile(warpdvr.make("sphere"), backend="eager"),
    "bounds of NumPy": lambda: as_field(ball, np.array([[-1, -1, -1], [1, 1, 1]])),
}


def _with_bounds(function: Any) -> object:
    function.bounds = 1.0
    return function


@pytest.mark.parametrize("kind", WHATEVER)
def test_whatever_has_values_and_bounds_is_a_field(kind: str) -> None:
    assert hits(WHATEVER[kind]()) == ROUND


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")
def test_a_scripted_or_traced_or_compiled_network_is_a_field() -> None:
    expected = hits(Net())
    assert hits(as_field(torch.jit.trace(Net(), torch.rand(5, 3)), 1.0)) == expected
    assert hits(torch.compile(Net(), backend="eager")) == expected
    layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
    scripted = as_field(torch.jit.script(layers), 1.0)  # all that matters is that it is the same
    assert hits(scripted, warn=False) == hits(as_field(layers, 1.0), warn=False)


def test_the_module_behind_a_method_is_fitted() -> None:
    module = Valued()
    field = as_field(functools.partial(module.value), 1.0)
    assert [p is module.radius for p in field.parameters()] == [True]
    assert copy.deepcopy(field).value(torch.zeros(1, 3)).item() == -0.5


def test_members_of_other_meanings_are_left_alone() -> None:
    """A parameter called `color` is no method."""

    class Odd(Valued):
        def __init__(self) -> None:
            super().__init__()
            self.color, self.prior, self.rates = nn.Parameter(torch.ones(3)), 3.0, 0.1

    field = as_field(Odd())
    assert not field.has_color and field.prior() is None and field.rates == Field.rates and hits(field) == ROUND


NO_FIELD: dict[str, tuple[Callable[[], object], str]] = {
    "name": (lambda: "sphere", r"got str; write warpdvr.make\('sphere'\) for a field by its name$"),
    "function without bounds": (lambda: ball, r"ball has no bounds; give as_field\(..., bounds=1.0\)"),
    "column": (
        lambda: as_field(nn.Sequential(nn.Linear(3, 1)), 1.0),
        r"take its only column, such as value\[:, 0\], or end a Sequential with nn.Flatten\(0\)$",
    ),
    "step of 0": (lambda: _with("step", 0), r"^Valued.step: must be a positive number, the width of central diff"),
    "numpy": (lambda: as_field(lambda x: np.ones(len(x)), 1.0), "got a NumPy array; write it with Torch"),
}


def _with(name: str, member: object) -> nn.Module:
    module = Valued()
    setattr(module, name, member)
    return module


@pytest.mark.parametrize("kind", NO_FIELD)
def test_what_is_no_field_is_told_what_to_write(kind: str) -> None:
    make, sentence = NO_FIELD[kind]
    with pytest.raises(ValueError, match=sentence):
        warpdvr.render(make(), CAMERA)


# ---------------------------------------------------------------------------------------------- training mode


LAYERS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "batch norm": (lambda: nn.BatchNorm1d(16), "net.1 is BatchNorm1d, whose statistics every picture would change"),
    "dropout": (lambda: nn.Dropout(0.5), "net.1 is Dropout, whose values depend on chance"),
    "alpha dropout": (lambda: nn.AlphaDropout(0.1), "net.1 is AlphaDropout, whose values depend on chance"),
    "spectral norm": (
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(16, 16)),
        "is spectrally normalised, and every picture would change its vectors",
    ),
}
DOORS: dict[str, Callable[[Any], object]] = {
    "render": hits,
    "extract": lambda field: warpdvr.extract(field, resolution=8),
    "BoundGrid": lambda field: BoundGrid(field, cells=4),
    "surface": lambda field: warpdvr.surface(field, CAMERA.rays()),
    "check_field": check_field,
    "as_field": as_field,
    "Fit": lambda field: warpdvr.Fit(field, mesh_views("warp:bunny", count=2, test=0, size=8), iterations=1),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("layer", LAYERS)
def test_layers_in_training_mode_are_refused_at_every_door(layer: str, door: str) -> None:
    make, sentence = LAYERS[layer]
    module = Net(make())
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    for field in (module, as_field(module.eval())):
        module.train()
        with pytest.raises(ValueError, match=rf"^Net: .*{sentence}.* in training mode; call eval\(\)"):
            DOORS[door](field)
    assert all(torch.equal(before[name], buffer) for name, buffer in module.named_buffers())
    module.eval()
    assert DOORS[door](module) is not False  # as the sentence says


def test_dropout_that_drops_nothing_may_train() -> None:
    assert hits(Net(nn.Dropout(0.0)).train()) == hits(Net())


class Chance(nn.Module):
    bounds = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return ball(x) + 0.1 * nn.functional.dropout(torch.ones_like(x[:, 0]), 0.5, self.training) + 0.3 * torch.rand(1)


class Counter(nn.Module):
    bounds = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return ball(x)


def test_chance_and_buffers_that_change_are_noticed_without_such_layers() -> None:
    with pytest.raises(ValueError, match=r"^Chance.value: the value at a point depends on chance; call eval\(\)"):
        as_field(Chance())
    with pytest.raises(ValueError, match=r"^Counter.value: changes its buffer calls where it is evaluated; call eval"):
        as_field(Counter())


# --------------------------------------------------------------------------------------------------- answers


class NeverEmpty(nn.Module):
    """It cannot be asked for no points."""

    bounds = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.radius = nn.Parameter(torch.tensor(0.5))

    def value(self, x: Tensor) -> Tensor:
        return x.norm(dim=-1) - self.radius + 0 * x.amax().detach()

    def geometry(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(x), x.reshape(-1, 3)[[0]] * 0 + x

    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor) -> Tensor:
        return (0 * x.amax() + feature).abs().clamp(0, 1)


class NeverEmptyField(Field):
    def value(self, x: Tensor) -> Tensor:
        assert len(x)
        return ball(x)


@pytest.mark.parametrize("make", [NeverEmpty, NeverEmptyField])
def test_a_field_that_cannot_be_asked_for_no_points(make: type[nn.Module]) -> None:
    assert hits(make()) == ROUND
    for options in ({}, {"silhouette": 10.0}, {"outline": True}, {"antialias": 2}, {"intersect": DenseMarch()}):
        image = warpdvr.render(make(), AWAY, **options)
        assert not image.mask.any() and torch.equal(image.rgb, torch.ones(9, 9, 3))
    assert len(warpdvr.extract(make(), resolution=12).faces) > 100
    assert len(BoundGrid(make(), cells=8).signs(torch.zeros(1, 3))) == 1
    field = as_field(NeverEmpty())
    assert field.value(torch.zeros(0, 3)).shape == (0,)
    warpdvr.render(field, AWAY).depth.nansum().backward()  # a miss has no gradient, but is no error


class Colored(Valued):
    """A field in colours of somebody's choice."""

    def __init__(self, answer: Callable[[Tensor], object], name: str = "color") -> None:
        super().__init__()
        self.answer = answer
        setattr(self, name, self.answered)

    def answered(self, x: Tensor, *arguments: object) -> object:
        return self.answer(x)


COLORS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "numpy": (lambda x: np.zeros((len(x), 3)), "got ndarray; write it with Torch$"),
    "grey": (lambda x: x[:, :1], r"expected shape \(\d+, 3\) for \d+ points, got \(\d+, 1\)$"),
    "bytes": (lambda x: torch.full_like(x, 255, dtype=torch.uint8), r"floating point sRGB in \[0, 1\] .* torch.uint8"),
    "nothing": (lambda x: None, "got NoneType$"),
}
GEOMETRIES: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "value alone": (ball, r"geometry: expected \(value, feature\), got Tensor$"),
    "flat features": (lambda x: (ball(x), ball(x)), r"geometry: expected features of shape \(\d+, k\) or None, got"),
    "features of NumPy": (lambda x: (ball(x), np.zeros((len(x), 2))), "or None, got ndarray$"),
    "column": (lambda x: (ball(x)[:, None], None), "take its only column"),
}


@pytest.mark.parametrize("kind", COLORS)
def test_colours_that_are_none(kind: str) -> None:
    answer, sentence = COLORS[kind]
    with pytest.raises(ValueError, match=f"^Colored.color: .*{sentence}"):
        warpdvr.render(Colored(answer), CAMERA)


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_geometries_that_are_none(kind: str) -> None:
    answer, sentence = GEOMETRIES[kind]
    with pytest.raises(ValueError, match=f"^Colored.*{sentence}"):
        warpdvr.render(Colored(answer, "geometry"), CAMERA)


@pytest.mark.parametrize(("level", "hint"), [(200.0, "divide by 255"), (-1.0, "end with torch.sigmoid, or clamp them")])
def test_colours_outside_of_their_range_are_warned_of(level: float, hint: str) -> None:
    with pytest.warns(UserWarning, match=rf"^render: Colored.color returned .*expected sRGB in \[0, 1\]; {hint}$"):
        hits(Colored(lambda x: torch.full_like(x, level)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_colours_of_another_precision_are_shown(dtype: torch.dtype) -> None:
    image = warpdvr.render(Colored(lambda x: torch.full_like(x, 0.25, dtype=dtype)), CAMERA)
    assert image.rgb.dtype == torch.float32 and bool((image.rgb[image.mask] == 0.25).all())


class Foreign(nn.Module):
    """Distances of a library that Torch cannot differentiate; slopes are differences."""

    bounds, lipschitz, step = 1.0, 1.0, 1e-3

    def value(self, x: Tensor) -> Tensor:
        return torch.from_numpy(np.linalg.norm(x.detach().numpy(), axis=-1) - 0.5)


def test_a_field_without_gradients_makes_pictures_by_differences() -> None:
    with torch.no_grad():
        image = warpdvr.render(Foreign(), CAMERA)
    assert int(image.mask.sum()) == ROUND and image.normal[8, 8].tolist() == pytest.approx([0, -1, 0], abs=1e-3)
    with pytest.raises(ValueError, match=r"has no gradient .* give it a `step` and render it under torch.no_grad\(\)$"):
        warpdvr.render(Foreign(), CAMERA)


# -------------------------------------------------------------------------------------------------- gradients


def test_a_frozen_field_has_gradients_by_the_pose() -> None:
    field = Net().requires_grad_(False)
    pose = CAMERA.pose.clone().requires_grad_()
    image = warpdvr.render(field, Camera(CAMERA.K, pose, 17, 17), silhouette=10.0, outline=True)
    (image.depth.nansum() + image.rgb.sum() + image.silhouette.sum()).backward()  # type: ignore[union-attr]
    assert pose.grad is not None and bool(pose.grad.isfinite().all()) and bool(pose.grad.any())


def test_an_output_may_depend_on_what_is_no_parameter() -> None:
    """A ball of a radius that somebody else computes: dt / dr = -1 in the middle."""
    root = torch.tensor(0.25, requires_grad=True)
    field = as_field(lambda x: x.norm(dim=-1) - root.sqrt(), 1.0)
    warpdvr.render(field, CAMERA).depth[8, 8].backward()
    assert root.grad is not None and root.grad.item() == pytest.approx(-0.5 / 0.5, abs=1e-3)


@pytest.mark.parametrize("dtypes", [(torch.float64, torch.float32), (torch.float32, torch.float64)])
def test_pose_and_K_may_differ_in_type(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    K, pose = (m.to(t).clone().requires_grad_() for m, t in zip((CAMERA.K, CAMERA.pose), dtypes, strict=True))
    warpdvr.render(warpdvr.make("sphere"), Camera(K, pose, 17, 17)).depth.nansum().backward()
    assert K.grad is not None and pose.grad is not None
    assert (K.grad.dtype, pose.grad.dtype) == dtypes and bool(pose.grad.any())


# -------------------------------------------------------------------------------------------------- arguments


K, POSE = CAMERA.K, CAMERA.pose
CAMERAS: dict[str, Callable[[], Camera]] = {
    "numpy": lambda: Camera(K.numpy(), POSE.numpy(), 17, 17),
    "lists": lambda: Camera(K.tolist(), POSE.tolist(), 17, 17),
    "whole floats": lambda: Camera(K, POSE, 17.0, np.float64(17)),
    "numbers of NumPy and Torch": lambda: Camera(K, POSE, np.int64(17), torch.tensor(17)),
    "look_at": lambda: Camera.look_at(np.array([0, -2, 0]), width=17.0, height=np.int32(17), fov=torch.tensor(40)),
    "tensor of whole numbers": lambda: Camera.look_at(torch.tensor([0, -2, 0]), width=17, height=17),
    "resized": lambda: CAMERA.resized(34, 34).resized(17.0, 17.0),
}


@pytest.mark.parametrize("kind", CAMERAS)
def test_a_camera_of_what_there_is(kind: str) -> None:
    camera = CAMERAS[kind]()
    assert torch.allclose(camera.K, K) and torch.allclose(camera.pose, POSE)
    assert (type(camera.width), type(camera.height)) == (int, int)
    assert hits_of(camera) == ROUND


def hits_of(camera: Camera) -> int:
    return int(warpdvr.render(warpdvr.make("sphere"), camera).mask.sum())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_camera_of_half_precision_or_whole_numbers(dtype: torch.dtype) -> None:
    whole = torch.tensor([[24, 0, 8], [0, 24, 8], [0, 0, 1]])
    assert Camera(whole, POSE, 17, 17).K.dtype == torch.float64
    half = Camera(whole.to(dtype), POSE.to(dtype), 17, 17)
    assert half.K.dtype == half.pose.dtype == torch.float32 and half.K.tolist() == whole.tolist()
    assert hits_of(half) > 0


def test_pixels_and_points_of_a_camera_are_lists_or_arrays() -> None:
    for pixel in ([[8.5, 8.5]], np.array([[8.5, 8.5]])):
        assert CAMERA.rays(pixel).direction[0].tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    assert CAMERA.project([[0, 0, 0]])[0][0].tolist() == pytest.approx([8.5, 8.5])
    with pytest.raises(ValueError, match=r"^camera: pixel must have shape \(n, 2\), got \(2,\)$"):
        CAMERA.rays([8.5, 8.5])


BAD_CAMERAS: dict[str, tuple[Callable[[], object], str]] = {
    "NaN": (lambda: Camera(K * float("nan"), POSE, 17, 17), "K holds a number that is not finite"),
    "text": (lambda: Camera("K", POSE, 17, 17), r"K must be a tensor of shape \(3, 3\), got 'K'"),
    "truth": (lambda: Camera(K.bool(), POSE, 17, 17), "K must hold real numbers, got torch.bool"),
    "fraction": (lambda: Camera(K, POSE, 17.5, 17), r"width \[pixel\] must be a whole number, got 17.5"),
    "size as text": (lambda: Camera(K, POSE, "17", 17), r"width \[pixel\] must be a whole number, got '17'"),
    "negative": (lambda: Camera(K, POSE, 17, -1), "must have pixels, got 17 x -1"),
    "no height": (lambda: Camera.look_at((0, -2, 0), width=17, height=0), "must have pixels, got 17 x 0"),
    "fov": (lambda: Camera.look_at((0, -2, 0), fov="wide"), r"fov \[degree\] must be a finite number, got 'wide'"),
    "eye": (lambda: Camera.look_at((0, -2)), r"eye must have shape \(3,\) .*, got \(2,\)"),
    "projection": (lambda: Camera(K, POSE, 17, 17, warpdvr.Pinhole), r"Pinhole is a class: call it"),
    "resized": (lambda: CAMERA.resized(8.5, 8), r"width \[pixel\] must be a whole number, got 8.5"),
}


@pytest.mark.parametrize("kind", BAD_CAMERAS)
def test_a_camera_of_nonsense(kind: str) -> None:
    make, sentence = BAD_CAMERAS[kind]
    with pytest.raises(ValueError, match=f"^camera: .*{sentence}"):
        make()


RENDERS: list[tuple[dict[str, Any], str]] = [
    ({"intersect": DenseMarch}, r"intersect: DenseMarch is a class: call it, such as DenseMarch\(\)"),
    ({"intersect": "dense"}, r"intersect: expected a solver such as DenseMarch\(\), .*got 'dense'"),
    ({"intersect": 0}, r"intersect: expected a solver .*got 0"),
    ({"background": "white"}, r"one sRGB colour, such as \(1.0, 1.0, 1.0\) for white"),
    ({"background": "black"}, r"one sRGB colour, such as \(0.0, 0.0, 0.0\) for black"),
    ({"background": (255, 0, 0)}, r"background must hold sRGB colours in \[0, 1\], got 0 to 255; divide by 255"),
    ({"background": torch.tensor([9, 255, 9]).byte()}, r"colours in \[0, 1\], got 9 to 255; divide by 255"),
    ({"background": (0, float("nan"), 0)}, r"background must hold sRGB colours in \[0, 1\], got nan"),
    ({"memory": 0}, r"memory \[byte\] must be a whole number, at least 1, got 0"),
    ({"memory": "1GB"}, r"memory \[byte\] must be a whole number, at least 1, got '1GB'"),
    ({"antialias": "2"}, "antialias must be a whole number, at least 1, got '2'"),
    ({"antialias": float("nan")}, "antialias must be a whole number, at least 1, got nan"),
    ({"silhouette": -1}, r"silhouette, .* must be positive, got -1"),
    ({"outline": "yes"}, "outline must be True or False, got 'yes'"),
    ({"lights": None}, "lights must be a list of lights"),
]


@pytest.mark.parametrize(("options", "sentence"), RENDERS)
def test_arguments_of_a_picture_are_checked_before_the_field_is_asked(options: dict[str, Any], sentence: str) -> None:
    def asked(x: Tensor) -> Tensor:
        raise AssertionError("the field was asked")

    field = warpdvr.make("sphere")
    field.value = asked  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=sentence):
        warpdvr.render(field, CAMERA, **options)


@pytest.mark.parametrize("camera", [None, Camera, [CAMERA], "camera", warpdvr.make("sphere")])
def test_what_is_no_camera(camera: object) -> None:
    with pytest.raises(ValueError, match=r"^render: camera"):
        warpdvr.render(warpdvr.make("sphere"), camera)


def test_whole_floats_and_whole_colours_are_taken() -> None:
    assert hits(warpdvr.make("sphere"), memory=1e6, antialias=2.0, background=torch.tensor([1, 0, 0])) == ROUND
    learnt = torch.tensor([1.2, 0.0, 0.0], requires_grad=True)  # an optimizer may leave the range
    warpdvr.render(warpdvr.make("sphere"), CAMERA, background=learnt).rgb.sum().backward()
    assert learnt.grad is not None and learnt.grad.tolist() == [17 * 17 - ROUND] * 3


MADE: list[tuple[str, dict[str, Any], str]] = [
    ("sphere", {"radius": -1}, "sphere: radius must be positive, got -1"),
    ("sphere", {"radius": float("nan")}, "sphere: radius must be"),
    ("sphere", {"radius": "big"}, "radius of sphere must be of type float, got 'big'"),
    ("sphere", {"center": (0, 0)}, r"sphere: center must have shape \(3,\), got \(2,\)"),
    ("box", {"size": (-1, 1, 1)}, "box: size must be positive"),
    ("box", {"size": 1.0}, r"box: size must have shape \(3,\), got \(\)"),
    ("torus", {"major": -1}, "torus: major must be positive, got -1"),
    ("torus", {"minor": 0}, "torus: minor must be positive, got 0"),
    ("plane", {"normal": (0, 0, 0)}, "plane: normal must not be 0"),
    ("plane", {"offset": float("inf")}, "plane: offset must be a finite number, got inf"),
    ("union", {"parts": {"kind": "sphere"}}, "union: parts must be a list of fields, got Sphere"),
    ("smooth-union", {"parts": [{"kind": "sphere"}], "blend": 0}, "smooth-union: blend must be positive, got 0"),
    ("translate", {"part": {"kind": "sphere"}, "offset": (1, 2)}, r"translate: offset must have shape \(3,\)"),
    ("rotate", {"part": {"kind": "sphere"}, "rotation": "x"}, "rotate: rotation must be a tensor of shape"),
    ("scale", {"part": {"kind": "sphere"}, "factor": float("nan")}, "scale: factor must be a finite number, got nan"),
    ("hashgrid", {"features": 0}, "hashgrid: features must be a whole number, at least 1, got 0"),
    ("hashgrid", {"levels": 1.5}, "levels of hashgrid must be of type int, got 1.5"),
    ("hashgrid", {"view_frequencies": -1}, "hashgrid: view_frequencies must be a whole number, at least 0, got -1"),
    ("hashgrid", {"radius": -1.0}, "hashgrid: radius must be positive, got -1.0"),
    ("hashgrid-occupancy", {"steepness": 0}, "hashgrid-occupancy: steepness must be positive, got 0"),
    ("hashgrid-occupancy", {"features": 0}, "hashgrid-occupancy: features must be a whole number, at least 1, got 0"),
    ("sdf", {"features": 0}, "sdf: features must be a whole number, at least 1, got 0"),
    ("sdf", {"frequencies": -1}, "sdf: frequencies must be a whole number, at least 0, got -1"),
    ("sdf", {"radius": 0.0}, "sdf: radius must be positive, got 0.0"),
    ("occupancy", {"steepness": -1.0}, "occupancy: steepness must be positive, got -1.0"),
    ("occupancy", {"frequencies": -1}, "occupancy: frequencies must be a whole number, at least 0, got -1"),
    ("voxel-sdf", {"radius": -1.0}, "voxel-sdf: needs .* a radius > 0, got"),
    ("voxel-occupancy", {"steepness": 0.0}, "voxel-occupancy: steepness must be positive, got 0.0"),
    ("repaint", {"shape": {"kind": "sphere"}, "view_frequencies": -1}, "repaint: view_frequencies must be a whole"),
]


@pytest.mark.parametrize(("name", "options", "sentence"), MADE)
def test_options_of_fields_make_sense(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        warpdvr.make(name, **options)


FITS: list[tuple[dict[str, Any], str]] = [
    ({"iterations": "9"}, "iterations must be positive, got '9'"),
    ({"iterations": True}, "iterations must be positive, got True"),
    ({"seed": -1}, r"seed must be a whole number from 0 to 2\^63 - 1, got -1"),
    ({"seed": "one"}, "seed must be a whole number .*, got 'one'"),
    ({"recipe": 3}, "recipe must be a Recipe, or the name of one such as 'quick', got 3"),
    ({"recipe": warpdvr.Recipe}, r"Recipe is a class: call it, such as Recipe\(\)"),
    ({"intersect": "dense"}, r"expected a solver such as DenseMarch\(\)"),
    ({"intersect": DenseMarch}, r"DenseMarch is a class: call it"),
]
MESHES: list[tuple[dict[str, Any], str]] = [
    ({"resolution": "fine"}, "resolution must be a whole number, got 'fine'"),
    ({"resolution": 16.5}, "resolution must be a whole number, got 16.5"),
    ({"project": -1}, "project must be a whole number, at least 0, got -1"),
    ({"colors": "yes"}, "colors must be True or False, got 'yes'"),
    ({"grid": None}, "grid must be True, False or a BoundGrid of the field, got None"),
    ({"grid": BoundGrid}, r"BoundGrid is a class: call it"),
]


@pytest.mark.parametrize(("options", "sentence"), FITS)
def test_arguments_of_a_fit(options: dict[str, Any], sentence: str) -> None:
    views = mesh_views("warp:bunny", count=2, test=0, size=8)
    with pytest.raises(ValueError, match=sentence):
        warpdvr.Fit(warpdvr.make("sphere"), views, **{"iterations": 1, **options})


@pytest.mark.parametrize(("options", "sentence"), MESHES)
def test_arguments_of_a_mesh(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^extract: .*{sentence}"):
        warpdvr.extract(warpdvr.make("sphere"), **options)


def test_solvers_and_grids_are_told_apart_from_nonsense(tmp_path: Path) -> None:
    """In a plain interpreter: here, the types of their fields are checked before they are."""
    code = """
from warpdvr import *
f = make("sphere")
for make_it in (
    lambda: DenseMarch(n=2.5), lambda: DenseMarch(n="a"), lambda: DenseMarch(tolerance=-1), lambda: DenseMarch(grid=f),
    lambda: DenseMarch(grid=BoundGrid), lambda: SphereTrace(thinnest="a"), lambda: SphereTrace(cones="no"),
    lambda: CachedMarch(cells=2.5), lambda: RangeMarch(tolerance=float("nan")), lambda: BoundGrid(f, cells=2.5),
    lambda: BoundGrid(f, finest=0), lambda: BoundGrid(f, spread="a"), lambda: DenseMarch(n=64.0).n,
):
    try:
        print(make_it())
    except ValueError as error:
        print(error)
"""
    run = python(code, tmp_path)
    assert run.stderr == "" and run.stdout.splitlines() == [
        "DenseMarch: n must be a whole number, got 2.5",
        "DenseMarch: n must be a whole number, got 'a'",
        "DenseMarch: needs a number tolerance >= 0, got -1",
        "DenseMarch: grid must be a BoundGrid, got Sphere",
        "DenseMarch: grid: BoundGrid is a class: call it, such as BoundGrid()",
        "SphereTrace: needs a number thinnest >= 0, got 'a'",
        "SphereTrace: cones must be True or False, got 'no'",
        "CachedMarch: cells must be a whole number, got 2.5",
        "RangeMarch: needs a number tolerance >= 0, got nan",
        "BoundGrid: cells must be a whole number, at least 1, got 2.5",
        "BoundGrid: finest must be a whole number, at least 1, got 0",
        "BoundGrid: spread must be positive, got 'a'",
        "64",
    ]


# ---------------------------------------------------------------------------------------------- one's own rays


@pytest.mark.parametrize("solver", [None, DenseMarch(), SphereTrace(grid=None)], ids=["default", "dense", "sphere"])
def test_a_surface_seen_along_rays_of_ones_own(solver: object) -> None:
    """A scanner around a ball of radius 0.5: 1.5 away, dt / dr = -1 for each ray, normals against the rays."""
    angle = torch.arange(360) * torch.pi / 180
    direction = torch.stack([angle.cos(), angle.sin(), torch.zeros(360)], -1)
    field = as_field(Valued(), lipschitz=1.0)
    seen = warpdvr.surface(field, Rays(-2 * direction, direction), solver)
    assert torch.allclose(seen.t, torch.full((360,), 1.5), atol=1e-4) and seen.hit.ray.tolist() == list(range(360))
    assert torch.allclose(seen.normal, -direction, atol=1e-4) and seen.color.shape == (360, 3)
    seen.t.sum().backward()
    assert field.get_parameter("module.radius").grad == pytest.approx(-360, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("sphere", CAMERA.rays()), r"as_field: .*warpdvr.make\('sphere'\)"),
        ((Plain(), CAMERA), r"surface: rays must be Rays\(origin, direction\), got Camera"),
        ((Plain(), ([[0, -2, 0]], [[0, 1, 0]])), r"surface: rays must be Rays\(origin, direction\), got tuple"),
        ((Plain(), CAMERA.rays(), DenseMarch), r"intersect: DenseMarch is a class: call it"),
    ],
)
def test_what_is_no_surface(arguments: tuple[object, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}"):
        warpdvr.surface(*arguments)  # type: ignore[arg-type]
