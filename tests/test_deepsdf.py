"""Trained decoders: against double precision from elsewhere, closed forms and differences; and files that are none."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import octahedron
import pytest
import torch
from reference import aimed
from safetensors.torch import save_file
from torch import Tensor

from warpdvr import Camera, Rays, SphereTrace, make, reattach, render
from warpdvr.cameras.transform import SceneTransform
from warpdvr.fields.conditional import Shapes
from warpdvr.fields.deepsdf import DeepSDF, DeepSDFDecoder
from warpdvr.fitting.checkpoint import Checkpoint, load
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.rendering.surface import surface
from warpdvr.testing.field import check_field

HOME = Path("weights/deepsdf_maurock")


def plain(home: Path, _: Path) -> dict[str, Any]:
    return {"decoder": str(home / "decoder.npz")}


def arrays(home: Path) -> dict[str, Tensor]:
    with np.load(home / "decoder.npz", allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def tensors(home: Path, tmp: Path) -> dict[str, Any]:
    """Safetensors under other names, which the architecture in the metadata tells."""
    given = arrays(home)
    told = json.loads((home / "architecture.json").read_text())
    renamed = {"codes": given["codes"]}
    for i, layer in enumerate(told["layers"]):
        for what in ("weight", "bias"):
            renamed[f"part{9 - i}{what}"] = given[layer[what]]
            layer[what] = f"part{9 - i}{what}"
    save_file(renamed, tmp / "a.safetensors", metadata={"architecture": json.dumps(told)})
    return {"decoder": str(tmp / "a.safetensors")}


def normalised(home: Path, tmp: Path, endings: tuple[str, str]) -> dict[str, Any]:
    """A state dict of facebookresearch/DeepSDF: data-parallel, rows normalised, codes in a file of their own."""
    given, state = arrays(home), {}
    for i in range(8):
        w = given[f"w{i}"].double()
        state[f"module.lin{i}.bias"] = given[f"b{i}"]
        if i in (3, 7):
            state[f"module.lin{i}.weight"] = given[f"w{i}"]
            continue
        scale = torch.linspace(0.5, 3, len(w)).double()[:, None]  # |v| is any number
        state[f"module.lin{i}.{endings[0]}"] = w.norm(dim=1, keepdim=True).float()
        state[f"module.lin{i}.{endings[1]}"] = (scale * w).float()
    torch.save({"epoch": 2000, "model_state_dict": state}, tmp / "a.pth")
    torch.save({"epoch": 2000, "latent_codes": {"weight": given["codes"]}}, tmp / "codes.pth")
    return {"decoder": str(tmp / "a.pth"), "latents": str(tmp / "codes.pth")}


def old(home: Path, tmp: Path) -> dict[str, Any]:
    return normalised(home, tmp, ("weight_g", "weight_v"))


def new(home: Path, tmp: Path) -> dict[str, Any]:
    return normalised(home, tmp, ("parametrizations.weight.original0", "parametrizations.weight.original1"))


@pytest.mark.parametrize("store", [plain, tensors, old, new])
def test_values_are_those_of_the_trained_decoder(data: Path, tmp_path: Path, store: Any, device: torch.device) -> None:
    options = store(data / HOME, tmp_path)
    given = arrays(data / HOME)
    for k in range(3):
        field = DeepSDF(**options, index=k).to(device)
        value = field.value(given["check_points"].to(device)).detach().cpu().double()
        assert (value - given["check_sdf"][k]).abs().max() < 2e-7
    mean = DeepSDF(**options)
    assert torch.allclose(mean.code.detach(), given["codes"].mean(0))
    assert {n for n, p in mean.named_parameters() if p.requires_grad} == {"code"}


@pytest.mark.parametrize("k", [0, 1])
def test_a_decoder_with_a_skip_has_its_closed_form(tmp_path: Path, k: int) -> None:
    field = DeepSDF(str(octahedron.write(tmp_path / "a.npz")), index=k)
    x = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.allclose(field.value(x), octahedron.exact(octahedron.CODES[k], x), atol=1e-6)
    check_field(field)
    slope = 3**0.5  # tanh has slope 1 at most
    assert 1.2 * slope * (1 - 0.3**2) < field.lipschitz <= 1.2501 * slope
    assert field.bound_slope() == 4096


def test_shapes_of_a_decoder_are_those_of_each_code(data: Path, device: torch.device) -> None:
    file = data / HOME / "decoder.npz"
    decoder, codes = DeepSDFDecoder.read(file, bounds=0.8)
    several = Shapes(decoder.to(device), codes.to(device))
    rays = aimed(90, spread=0.3, device=device)
    shape_index = torch.arange(90, device=device) % 3
    with torch.no_grad():
        seen = surface(several, Rays(rays.origin, rays.direction, shape_index), DenseMarch(32))
        for k in range(3):
            alone = DeepSDF(str(file), index=k, bounds=0.8).to(device)
            own = surface(alone, Rays(rays.origin[shape_index == k], rays.direction[shape_index == k]), DenseMarch(32))
            mine = shape_index[seen.hit.ray] == k
            assert len(own.t) > 5 and torch.allclose(seen.t[mine], own.t, atol=1e-4)
            assert torch.allclose(seen.normal[mine], own.normal, atol=1e-3)
    assert seen.color.shape == (len(seen.t), 3) and 0 < float(seen.color.min()) <= float(seen.color.max()) < 1


def moved(field: Any, away: Tensor) -> Any:
    """The value as a function of points, for a code that is so far away."""
    shifts = field.decoder.prepared((field.code.detach() + away)[None])
    return lambda x: field.decoder.geometry(x, shifts, None)[0]


def crossing(value: Any, o: Tensor, d: Tensor, t: Tensor) -> Tensor:
    """Where the value changes its sign within 0.01 of t, by bisection."""
    low, high = t - 0.01, t + 0.01
    for _ in range(40):
        middle = (low + high) / 2
        outside = value(o + middle[:, None] * d) > 0
        low, high = torch.where(outside, middle, low), torch.where(outside, high, middle)
    return (low + high) / 2


def test_depth_has_the_gradient_by_differences(data: Path) -> None:
    """In float64; crossings are closed in by bisection, as an error of 1e-6 may lead across a kink of the ReLUs."""
    field = DeepSDF(str(data / HOME / "decoder.npz"), bounds=0.8).double()
    rays = aimed(40, spread=0.2)
    seen = surface(field, rays, SphereTrace())
    o, d = (a[seen.hit.ray].double() for a in (rays.origin, rays.direction))
    head_on = (seen.normal * d).sum(-1).abs() > 0.3
    weight = torch.linspace(1, 2, len(seen.t)).double() * head_on
    with torch.no_grad():
        t = crossing(field.value, o, d, seen.t)
    assert (t - seen.t.detach()).abs().max() < 1e-4
    (found,) = torch.autograd.grad((weight * reattach(field.value, o, d, t)).sum(), field.code)
    generator = torch.Generator().manual_seed(1)
    assert int(head_on.sum()) > 10
    with torch.no_grad():
        for _ in range(3):
            away = torch.randn(64, generator=generator).double()
            sides = [crossing(moved(field, s * 1e-7 * away), o, d, t) for s in (1, -1)]
            expected = (weight * (sides[0] - sides[1])).sum() / 2e-7
            assert abs(found @ away - expected) < 1e-4 * abs(expected)


def test_soft_mask_has_the_gradient_by_differences(data: Path) -> None:
    """In float64, at the nearest points of rays that pass by and, roughly, for those points as they move along.

    The smallest value on a ray lies on a kink of the ReLUs, where the value's own slope is one of those of two sides.
    """
    field = DeepSDF(str(data / HOME / "decoder.npz"), bounds=0.8).double()
    camera = Camera.look_at((0.0, -1.6, 0.4), (0.0, 0.0, 0.0), up=(0.0, 0.0, 1.0), fov=40.0, width=8, height=8)
    sharpness = 20.0
    image = render(field, camera, intersect=DenseMarch(96), silhouette=sharpness)
    rays = camera.rays()
    nearest = DenseMarch(96)(field, rays).nearest
    beside = (~image.mask.view(-1) & ~nearest.isnan()).nonzero()[:, 0]
    o, d, t = (a[beside].double() for a in (rays.origin, rays.direction, nearest))
    t = t[:, None] + torch.linspace(-0.01, 0.01, 41).double()
    assert image.silhouette is not None
    soft = image.silhouette.view(-1)[beside]
    weight = torch.linspace(-1, 2, len(soft)).double()
    (found,) = torch.autograd.grad((weight * soft).sum(), field.code)
    away = torch.randn(64, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        sides = []
        for side in (1, -1):
            value = moved(field, side * 1e-7 * away)
            there = torch.stack([value(a + b[:, None] * c) for a, b, c in zip(o, t, d, strict=True)])
            sides.append(weight @ torch.sigmoid(-sharpness * torch.stack([there[:, 20], there.amin(1)], 1)))
    fixed, least = (sides[0] - sides[1]) / 2e-7
    assert len(soft) > 20 and abs(found @ away - fixed) < 1e-4 * abs(fixed)
    assert abs(found @ away - least) < 0.1 * abs(least)


def test_the_prior_is_the_distance_from_the_mean_of_the_known(tmp_path: Path) -> None:
    field = DeepSDF(str(octahedron.write(tmp_path / "a.npz")), index=0, prior=0.3)
    assert float(field.prior().detach()) == pytest.approx(
        0.3
    )  # of two codes both are as far from the mean as their spread
    half = (octahedron.CODES[0] - octahedron.CODES[1]) / 2
    (slope,) = torch.autograd.grad(field.prior(), field.code)
    assert torch.allclose(slope, 0.3 * 2 * half / half.square().sum())
    alone = DeepSDF(str(octahedron.write(tmp_path / "b.npz", codes=torch.empty(0))), prior=0.3)
    assert torch.equal(alone.code.detach(), torch.zeros(2)) and float(alone.prior().detach()) == 0
    with torch.no_grad():
        alone.code.add_(torch.tensor([0.6, 0.8]))
    assert float(alone.prior().detach()) == pytest.approx(0.3)


def test_a_decoder_may_be_fitted_too(tmp_path: Path) -> None:
    field = DeepSDF(str(octahedron.write(tmp_path / "a.npz")), frozen=False)
    assert all(p.requires_grad for p in field.parameters())
    check_field(field)


def test_a_checkpoint_needs_no_decoder_any_more(tmp_path: Path) -> None:
    file = octahedron.write(tmp_path / "a.npz")
    field: Any = make("deepsdf", decoder=str(file), index=1, bounds=0.9, prior=0.2)
    eye = SceneTransform.identity()
    held = Checkpoint("deepsdf", dict(field.options), field.state_dict(), eye, (0.0, 0.0, 1.0), (), {})
    held.save(tmp_path / "field.safetensors")
    file.unlink()
    again: Any = load(tmp_path / "field.safetensors").field()
    x = torch.rand(50, 3)
    assert torch.equal(again.value(x), field.value(x)) and torch.equal(again.prior(), field.prior())
    assert torch.equal(again.bounds, field.bounds) and again.lipschitz == field.lipschitz
    assert again.options == field.options and again.decoder.bounds == field.bounds.tolist()
    assert {n for n, p in again.named_parameters() if p.requires_grad} == {"code"}


class Trap:
    def __reduce__(self) -> Any:
        return print, ("this must not run",)


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Trap()))


def trapped(path: Path) -> None:
    torch.save({"model_state_dict": {"lin0.weight": Trap()}}, path)


def told(path: Path, text: str) -> None:
    octahedron.write(path)
    path.with_name("architecture.json").write_text(text)


def named(layer: int, **more: str) -> str:
    layers: list[dict[str, Any]] = [{"weight": f"w{i}", "bias": f"b{i}"} for i in range(3)]
    layers[layer] |= more
    return json.dumps({"layers": layers})


none = torch.empty(0)

FILES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "nothing": ("a.npz", lambda f: None, "expected the file of a decoder, found nothing"),
    "folder": ("a.npz", lambda f: f.mkdir(), "expected the file of a decoder, found a folder"),
    "text npz": (
        "a.npz",
        lambda f: f.write_text("?"),
        "found a file that is something else, is damaged, or holds code",
    ),
    "text tensors": ("a.safetensors", lambda f: f.write_text("?"), "expected the tensors of a decoder, found a file"),
    "text pth": (
        "a.pth",
        lambda f: f.write_text("hello"),
        "found a file that is something else, is damaged, or holds code",
    ),
    "empty pth": ("a.pth", lambda f: f.write_bytes(b""), "expected the tensors of a decoder, found a file that"),
    "pickle": ("a.pth", pickled, "holds code, which is not run"),
    "trap": ("a.pth", trapped, "holds code, which is not run"),
    "objects": ("a.npz", lambda f: np.savez(f, w0=np.array([{}], object)), "expected the tensors of a decoder"),
    "tensor": ("a.pth", lambda f: torch.save(torch.zeros(3), f), "expected the layers of a decoder .* found none"),
    "numbers": ("a.pth", lambda f: torch.save({1: torch.zeros(3)}, f), "expected the layers of a decoder .* found 1"),
    "no state": ("a.pth", lambda f: torch.save({"model_state_dict": 3.0}, f), "expected the tensors of a decoder"),
    "others": ("a.npz", lambda f: np.savez(f, image=np.zeros(3)), "expected the layers of a decoder .* found image"),
    "no weight": (
        "a.npz",
        lambda f: octahedron.write(f, w1=none),
        "layer 1 needs a weight of 2 dimensions, found none",
    ),
    "no bias": ("a.npz", lambda f: octahedron.write(f, b2=none), "layer 2 needs a bias of 1 dimension, found none"),
    "no layer": ("a.npz", lambda f: octahedron.write(f, w1=none, b1=none), "layer 1 needs a weight"),
    "flat": ("a.npz", lambda f: octahedron.write(f, w1=torch.zeros(5)), r"weight of 2 dimensions, found \(5,\)"),
    "whole numbers": ("a.npz", lambda f: octahedron.write(f, w1=torch.ones(2, 11).long()), "needs a weight of 2"),
    "misshaped": (
        "a.npz",
        lambda f: octahedron.write(f, w1=torch.zeros(2, 9)),
        "layer 1 takes 9 numbers, expected 6 of the layer before, or 11 with code and point again",
    ),
    "biases": ("a.npz", lambda f: octahedron.write(f, b1=torch.zeros(3)), "a weight with 2 rows, but 3 biases"),
    "outputs": (
        "a.npz",
        lambda f: octahedron.write(f, w2=torch.zeros(4, 2), b2=torch.zeros(4)),
        "last layer returns 4 numbers, expected 1",
    ),
    "no code": ("a.npz", lambda f: octahedron.write(f, w0=torch.zeros(6, 3)), "layer 0 takes 3 numbers, expected at"),
    "NaN": ("a.npz", lambda f: octahedron.write(f, b1=torch.tensor([0.0, torch.nan])), "a number that is not finite"),
    "code length": (
        "a.npz",
        lambda f: octahedron.write(f, codes=torch.zeros(4, 3)),
        r"expected codes \(shapes, 2\), as layer 0 takes, found \(4, 3\)",
    ),
    "norm": (
        "a.pth",
        lambda f: torch.save({"module.lin0.weight": torch.zeros(2, 5), "module.bn0.weight": torch.zeros(2)}, f),
        "found layer normalisation",
    ),
    "no json": ("a.npz", lambda f: told(f, "?"), "expected the tensors of a decoder"),
    "architecture": ("a.npz", lambda f: told(f, "[1, 2]"), "expected an architecture with `layers`"),
    "activation": ("a.npz", lambda f: told(f, named(1, activation="sine")), "activation 'sine', expected 'relu'"),
    "last": ("a.npz", lambda f: told(f, named(2, activation="relu")), "layer 2 has activation 'relu', expected"),
    "names": (
        "a.npz",
        lambda f: told(f, named(1, weight="other")),
        "layer 1 needs a weight of 2 dimensions, found none",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_decoder_is_said_in_one_sentence(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, spoil, said = FILES[kind]
    spoil(tmp_path / name)
    with pytest.raises(ValueError, match=said) as error:
        DeepSDF(str(tmp_path / name))
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"index": 2}, "index must be that of one of 2 known shapes, from 0 on, got 2"),
        ({"index": -1}, "index must be"),
        ({"prior": -1.0}, "prior must be a number and not negative, got -1"),
        ({"architecture": {"code": 2, "outputs": [3, 1], "skips": []}}, "file of a decoder, or the architecture"),
        ({"decoder": "", "architecture": {"code": 2}}, "architecture must hold code, outputs and skips"),
        ({"decoder": "", "architecture": {"code": 2, "outputs": [3, 2], "skips": []}}, "the last with 1 output"),
        ({"decoder": ""}, "needs the file of a decoder"),
    ],
)
def test_mistakes_in_options(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    file = str(octahedron.write(tmp_path / "a.npz"))
    with pytest.raises(ValueError, match=said):
        make("deepsdf", **({"decoder": file} | options))


def test_codes_of_another_file_must_be_codes(tmp_path: Path) -> None:
    file = octahedron.write(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", other=np.zeros(3))
    np.savez(tmp_path / "c.npz", codes=np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"b\.npz: expected latent codes .* found other"):
        DeepSDF(str(file), str(tmp_path / "b.npz"))
    with pytest.raises(ValueError, match=r"c\.npz: expected codes \(shapes, 2\)"):
        DeepSDF(str(file), str(tmp_path / "c.npz"))
