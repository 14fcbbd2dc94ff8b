"""Checkpoints: what goes in comes out, and nothing else gets in."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.fields.analytic import Sphere
from warpdvr.fields.registry import make
from warpdvr.fitting import checkpoint
from warpdvr.fitting.checkpoint import Checkpoint, load

OPTIONS = {"width": 16, "depth": 1, "bounds": 1.1}


def example(kind: str | None = "sdf", seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    field = make("sdf", **OPTIONS)
    K = torch.tensor([[700.25, 0.5, 301.0], [0, 690.125, 255.5], [0, 0, 1]], dtype=torch.float64)
    cameras = (Camera.look_at((3.0, 0.1, 1 / 3), fov=41.3), Camera(K, Camera.look_at((0, 2, 1)).pose, 640, 480))
    transform = SceneTransform.around(torch.tensor([0.1, 1e3, -1 / 3]), 123.456)
    fit = {"counts": torch.tensor([3.0, 1e9 + 1, 0.1], dtype=torch.float64), "0.exp_avg": torch.rand(3)}
    return Checkpoint(kind, OPTIONS, field.state_dict(), transform, (0.6, 0.0, -0.8), cameras, fit)


@pytest.fixture
def path(tmp_path):
    example().save(tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def test_all_comes_back_exactly(path):
    given, held = example(), load(path)
    assert same(held.weights, given.weights) and same(held.fit, given.fit)
    assert (held.kind, held.options, held.up) == (given.kind, given.options, given.up)
    assert torch.equal(held.transform.matrix, given.transform.matrix)
    assert len(held.cameras) == 2
    for a, b in zip(held.cameras, given.cameras, strict=True):
        assert torch.equal(a.K, b.K) and torch.equal(a.pose, b.pose) and a.K.dtype == torch.float64
        assert (a.width, a.height, a.projection) == (b.width, b.height, b.projection)


def test_field_comes_back_with_its_weights(path):
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    first = make("sdf", **OPTIONS)
    torch.manual_seed(7)
    field = load(path).field()
    assert torch.equal(field.value(x), first.value(x))
    assert field.lipschitz == first.lipschitz and torch.equal(field.bounds, first.bounds)


def test_field_that_has_no_name_is_put_into_its_module(tmp_path):
    example(kind=None).save(tmp_path / "a.safetensors")
    held = load(tmp_path / "a.safetensors")
    module = make("sdf", **OPTIONS)
    assert held.field(module) is module and same(module.state_dict(), held.weights)
    with pytest.raises(ValueError, match="pass the module that it belongs to"):
        held.field()


def test_weights_of_another_field_are_refused(path):
    with pytest.raises(ValueError, match="the weights do not fit the field sdf") as caught:
        load(path).field(Sphere())
    assert "\n" not in str(caught.value)


def edit_header(path, change):
    """Write the file again with another header, or none."""
    held = load(path)
    tensors = {f"field.{name}": value for name, value in held.weights.items()}
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[checkpoint.KEY])
    header = change(header)
    save_file(tensors, path, metadata=None if header is None else {checkpoint.KEY: json.dumps(header)})


DAMAGE = {
    "missing": lambda p: p.unlink(),
    "empty": lambda p: p.write_bytes(b""),
    "cut in the header": lambda p: p.write_bytes(p.read_bytes()[:200]),
    "cut in the numbers": lambda p: p.write_bytes(p.read_bytes()[:-100]),
    "noise": lambda p: p.write_bytes(bytes(range(256)) * 10),
    "a text": lambda p: p.write_text("a text that is no checkpoint at all"),
    "a pickle": lambda p: torch.save({"field.a": torch.ones(3)}, p),
    "another program's": lambda p: save_file({"a": torch.ones(3)}, p),
    "no header": lambda p: edit_header(p, lambda header: None),
    "a header that is a list": lambda p: edit_header(p, lambda header: [1, 2]),
    "no cameras": lambda p: edit_header(p, lambda header: {k: v for k, v in header.items() if k != "cameras"}),
    "cameras of another form": lambda p: edit_header(p, lambda header: header | {"cameras": [3]}),
    "a singular transform": lambda p: edit_header(p, lambda header: header | {"transform": [[0.0] * 4] * 4}),
    "a camera without a focal length": lambda p: edit_header(
        p, lambda header: header | {"cameras": [{**header["cameras"][0], "K": [[0.0] * 3] * 3}]}
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_anything_else_is_refused_in_one_sentence(path, kind):
    DAMAGE[kind](path)
    with pytest.raises(ValueError, match="expected") as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: expected a checkpoint") and "\n" not in message


def test_nothing_is_unpickled(path):
    class Bomb:
        def __reduce__(self):
            return open, (path.with_name("exploded"), "w")

    torch.save(Bomb(), path)
    with pytest.raises(ValueError, match="expected a checkpoint of warpdvr"):
        load(path)
    assert not path.with_name("exploded").exists()


def test_write_that_fails_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def full_disk(to, data):
        with open(to, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space left"):
        example(seed=1).save(path)
    assert path.read_bytes() == before and [f.name for f in path.parent.iterdir()] == [path.name]
    monkeypatch.undo()
    example(seed=1).save(path)
    assert same(load(path).weights, example(seed=1).weights)


def test_others_may_read_a_checkpoint_as_they_may_any_new_file(path, tmp_path):
    (tmp_path / "new").touch()
    assert path.stat().st_mode == (tmp_path / "new").stat().st_mode


def test_weights_that_share_memory_or_lie_across_are_written(tmp_path):
    shared = torch.rand(4, 3)
    weights = {"a": shared, "b": shared, "c": shared.T, "d": shared[:, 1]}
    view = SceneTransform.identity()
    Checkpoint(None, {}, weights, view, (0, 0, 1), (), {}).save(tmp_path / "a.safetensors")
    assert same(load(tmp_path / "a.safetensors").weights, weights)
