"""Learning a category: five small solids, against ray casts, Pillow, closed forms and arithmetic by hand."""

import json
import math
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from reference import sphere_t
from safetensors.torch import save_file
from torch import Tensor

from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.images import read_picture
from warpdvr.datasets.views import SparseDepth
from warpdvr.fields.resnet import ImageEncoder
from warpdvr.fitting import checkpoint, loop
from warpdvr.fitting.checkpoint import Checkpoint
from warpdvr.geometry.mesh import Mesh
from warpdvr.geometry.search import first_hit
from warpdvr.singleview import (
    category as objects,
)
from warpdvr.singleview import (
    metrics,
    preprocess,
    report,
    training,
)
from warpdvr.singleview import (
    reconstructor as model,
)
from warpdvr.singleview import (
    run as category_run,
)
from warpdvr.singleview.category import Category, Pool
from warpdvr.singleview.metrics import ShapeScores
from warpdvr.singleview.reconstructor import CategoryCheckpoint, Reconstructor
from warpdvr.singleview.render_category import CategoryMesh, category_meshes, photograph
from warpdvr.singleview.run import CategoryRun, train
from warpdvr.singleview.shape_bank import ShapeBank
from warpdvr.singleview.test_time import Refinement
from warpdvr.singleview.training import Trainer, TrainingConfig

SOLIDS = {
    "ball": (trimesh.creation.icosphere(2), (220, 40, 40)),
    "box": (trimesh.creation.box((1, 1, 1)), (40, 200, 60)),
    "long": (trimesh.creation.box((2, 0.4, 0.5)), (60, 60, 220)),
    "low": (trimesh.creation.box((1, 0.3, 1)), (230, 200, 40)),
    "tall": (trimesh.creation.box((0.4, 1.5, 0.6)), (200, 60, 200)),
}
"""In the order of their names, so that every sixth one from the fourth on is held out: low."""

TINY: dict[str, Any] = {"code": 8, "encoder": 4, "width": 16, "blocks": 2, "frequencies": 2}


def solid(file: Path, shape: trimesh.Trimesh, color: tuple[int, int, int]) -> None:
    colors = np.tile(np.array([*color, 255], np.uint8), (len(shape.vertices), 1))
    trimesh.Trimesh(shape.vertices, shape.faces, vertex_colors=colors, process=False).export(file)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the meshes in in/ and their pictures in out/; not to be changed."""
    folder = tmp_path_factory.mktemp("category")
    (folder / "in").mkdir()
    for name, (shape, color) in SOLIDS.items():
        solid(folder / f"in/{name}.ply", shape, color)
    assert photograph(folder / "in", folder / "out", views=6, size=24, samples=2) == []
    return folder


@pytest.fixture(scope="module")
def category(home: Path) -> Category:
    return objects.read(home / "out")


@pytest.fixture(scope="module")
def true(home: Path) -> dict[str, CategoryMesh]:
    return category_meshes(home / "in", list(SOLIDS))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every step of a training take one second."""
    ticks = iter(range(10**6))

    class Clock:
        perf_counter = staticmethod(lambda: float(next(ticks)))

    monkeypatch.setattr(loop, "time", Clock)


def tiny(**options: Any) -> Reconstructor:
    torch.manual_seed(0)
    return Reconstructor(**TINY | options)


def learning(category: Category, *, seconds: float = 1000, seed: int = 0, **options: Any) -> Trainer:
    return Trainer(tiny(), category, minutes=seconds / 60, config=config(**options), seed=seed)


def untaught(category: Category, **options: Any) -> CategoryCheckpoint:
    """Return a network that has learnt nothing yet."""
    codes = torch.randn(len(category.train), TINY["code"], generator=torch.Generator().manual_seed(1))
    return CategoryCheckpoint(
        tiny(**options), "", (), ShapeBank.of(codes, [category.views[i] for i in category.train]), {}
    )


def config(**options: Any) -> TrainingConfig:
    return TrainingConfig(**{"objects": 4, "rays": 32, "samples": 16, "decoder": 1.0} | options)


NOTHING = ShapeBank(
    torch.zeros(1, 8),
    torch.zeros(1, dtype=torch.long),
    torch.zeros(1, 32, 32, dtype=torch.uint8),
    torch.eye(4)[None],
    torch.eye(3)[None],
)


# Objects


def test_objects_are_split_in_the_same_way_every_time(home: Path, category: Category) -> None:
    assert category.names == tuple(SOLIDS) and len(category) == 5
    assert category.train == (0, 1, 2, 4) and category.test == (3,)
    again = objects.read(home / "out", every=2)
    assert again.train == (0, 2, 4) and again.test == (1, 3)
    assert all(not views.test and len(views.train) == 6 for views in category.views)


@pytest.mark.parametrize("every", [1, 0, -3])
def test_a_split_without_objects_to_learn_from_is_refused(home: Path, every: int) -> None:
    with pytest.raises(ValueError, match=f"every.*{every}"):
        objects.read(home / "out", every=every)


def test_a_batch_of_rays_belongs_to_its_objects(category: Category, true: dict[str, CategoryMesh]) -> None:
    chosen = torch.tensor([4, 1, 0])
    rays, color, label, t = Pool(category.views).draw(chosen, 40, torch.Generator().manual_seed(0))
    assert rays.shape_index is not None and rays.shape_index.tolist() == [0] * 40 + [1] * 40 + [2] * 40
    assert label.any() and not label.all() and t.isnan().any()
    for k, i in enumerate(chosen.tolist()):
        views, own = category.views[i], rays.shape_index == k
        centres = torch.stack([camera.centre for camera in views.cameras]).float()
        apart, view = (rays.origin[own, None] - centres).norm(dim=-1).min(1)
        assert apart.max() < 1e-5
        for ray, v in zip(torch.nonzero(own)[:, 0].tolist(), view.tolist(), strict=True):
            (uv,), _ = views.cameras[v].project(rays.at(torch.full((len(rays),), 2.0))[ray : ray + 1])
            assert (uv % 1 - 0.5).abs().max() < 1e-3
            column, row = uv.long().tolist()
            assert torch.equal(color[ray], views.images[v][row, column].float() / 255)
            mask = views.masks[v]
            assert mask is not None and bool(label[ray]) == bool(mask[row, column])
        face, far, _ = first_hit(true[category.names[i]].studio.tree, rays.origin[own], rays.direction[own])
        assert torch.equal(face >= 0, ~t[own].isnan())
        assert torch.allclose(far[face >= 0], t[own][face >= 0], atol=1e-4)


def test_points_of_the_hull_are_inside_and_outside_of_their_own_solid(category: Category) -> None:
    chosen, box = torch.tensor([4, 0]), torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
    pool = Pool(category.views, box)
    x, shape_index, inside = pool.points(chosen, 600, torch.Generator().manual_seed(0))
    assert shape_index.tolist() == [0] * 600 + [1] * 600
    half = torch.tensor([0.4, 1.5, 0.6]) * 0.9 / torch.tensor([0.4, 1.5, 0.6]).norm()  # tall, its corners at 0.9
    beyond = x[shape_index == 0].abs() - half
    to_box = beyond.clamp_min(0).norm(dim=1) + beyond.amax(1).clamp_max(0)
    for k, distance in enumerate((to_box, x[shape_index == 1].norm(dim=1) - 0.9)):
        label, far = inside[shape_index == k], distance > 0.35
        assert label[distance < -0.06].all() and (distance < -0.06).sum() > 50  # a pixel is 0.09
        assert label[far].float().mean() < 0.05 and far.sum() > 20  # with six views corners of the hull stand out
        assert (distance[~label].abs() < 0.1).sum() > 10  # and there are points close to it


def test_rays_through_sparse_points_belong_to_their_object_too(category: Category) -> None:
    known = torch.tensor([[0.0, 0.0, 0.9], [0.9, 0.0, 0.0]], dtype=torch.float64)
    points = tuple(SparseDepth(*camera.project(known)) for camera in category.views[0].cameras)
    mixed = [replace(category.views[0], points=points), category.views[1]]
    rays, color, label, t = Pool(mixed).draw(torch.tensor([1, 0]), 16, torch.Generator().manual_seed(0))
    assert (
        rays.shape_index is not None and len(rays) == len(rays.shape_index) == len(color) == len(label) == len(t) == 34
    )
    assert (rays.shape_index == 1).sum() == 18
    for k, views in ((0, mixed[1]), (1, mixed[0])):
        centres = torch.stack([camera.centre for camera in views.cameras]).float()
        assert (rays.origin[rays.shape_index == k, None] - centres).norm(dim=-1).min(1).values.max() < 1e-5


def test_bounds_contain_the_objects_and_little_else(category: Category, true: dict[str, CategoryMesh]) -> None:
    for i, name in enumerate(category.names):
        low, high = objects.bounds([category.views[i]])
        vertices = true[name].mesh.vertices
        assert (low < vertices.amin(0)).all() and (high > vertices.amax(0)).all()
    box = objects.bounds(category.views)
    assert box.abs().max() < 1.1
    ball = objects.bounds([category.views[0]])
    assert 0.9 < ball.abs().min() and ball.abs().max() < 1.1


def test_bounds_contain_thin_objects(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, size in {"x": (2, 0.09, 0.09), "y": (0.09, 2, 0.09), "z": (0.09, 0.09, 2)}.items():
        solid(tmp_path / f"in/{name}.ply", trimesh.creation.box(size), (200, 0, 0))
    photograph(tmp_path / "in", tmp_path / "out", views=8, size=48, samples=2)
    thin, true = objects.read(tmp_path / "out"), category_meshes(tmp_path / "in", ["x", "y", "z"])
    for views, name in zip(thin.views, thin.names, strict=True):
        low, high = objects.bounds([views])
        vertices = true[name].mesh.vertices
        assert (low < vertices.amin(0)).all() and (high > vertices.amax(0)).all()
        assert (high - low - (vertices.amax(0) - vertices.amin(0))).max() < 0.5


def test_masks_without_a_common_place_are_told(category: Category) -> None:
    views = category.views[1]
    nothing = replace(views, masks=tuple(torch.zeros_like(mask) for mask in views.masks if mask is not None))
    with pytest.raises(ValueError, match="no place in common"):
        objects.bounds([nothing])


def linked(home: Path, folder: Path, names: list[str]) -> Path:
    """Return a category of some of the objects, to be changed."""
    folder.mkdir()
    for name in names:
        shutil.copytree(home / "out" / name, folder / name)
    return folder


def without_cameras(folder: Path) -> Path:
    (folder / "box/cameras.npz").unlink()
    return folder / "box"


def without_masks(folder: Path) -> Path:
    for f in (folder / "box/mask").iterdir():
        f.unlink()
    (folder / "box/mask").rmdir()
    return folder / "box"


def without_two(folder: Path) -> Path:
    (folder / "box").rename(folder / ".box")
    (folder / "tall").rename(folder / ".tall")
    return folder


@pytest.mark.parametrize("harm", [without_cameras, without_masks, without_two])
def test_an_unfit_category_is_refused_by_name(home: Path, tmp_path: Path, harm: Callable[[Path], Path]) -> None:
    folder = linked(home, tmp_path / "few", ["ball", "box", "tall"])
    (folder / "render.json").write_text("{}")
    assert len(objects.read(folder)) == 3
    guilty = harm(folder)
    with pytest.raises(ValueError) as told:
        objects.read(folder)
    assert str(told.value).startswith(str(guilty)) and "\n" not in str(told.value)


def test_a_category_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name in ("none", "file", "empty"):
        with pytest.raises(ValueError, match=str(tmp_path / name)):
            objects.read(tmp_path / name)


# CategoryMesh


def painted(width: int, height: int, mode: str) -> Image.Image:
    random = np.random.default_rng(width * height)
    coarse = random.integers(0, 256, (4, 4, {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]), dtype=np.uint8)
    return Image.fromarray(coarse.squeeze(-1) if mode == "L" else coarse, mode).resize(
        (width, height), Image.Resampling.BICUBIC
    )


def expected(image: Image.Image) -> Tensor:
    """Return the picture over white, in a square of 64, as Pillow makes it."""
    side = max(image.size)
    square = Image.new("RGBA", (side, side), "white")
    corner = (side - image.width) // 2, (side - image.height) // 2
    square.alpha_composite(image.convert("RGBA"), corner)
    small = square.convert("RGB").resize((64, 64), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)[None] / 255


SIZES = [(64, 64), (100, 40), (31, 90), (20, 24), (1, 1), (200, 200)]


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_a_picture_is_what_pillow_makes_of_it(tmp_path: Path, size: tuple[int, int], mode: str) -> None:
    image = painted(*size, mode)
    image.save(tmp_path / "a.png")
    found = preprocess.read_input_picture(tmp_path / "a.png").small
    assert found.shape == (1, 3, 64, 64) and found.dtype == torch.float32
    assert (found - expected(image)).abs().max() < 1.6 / 255


def test_sixteen_bits_are_read_as_eight(tmp_path: Path) -> None:
    grey = np.arange(60, dtype=np.uint16).reshape(6, 10) * 4
    Image.fromarray(grey * 257).save(tmp_path / "deep.png")
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "flat.png")
    deep, flat = (preprocess.read_input_picture(tmp_path / f"{name}.png") for name in ("deep", "flat"))
    assert torch.equal(deep.small, flat.small) and torch.equal(deep.image, flat.image)


def test_a_photograph_is_turned_as_its_exif_data_say(tmp_path: Path) -> None:
    upright, exif = painted(60, 40, "RGB"), Image.Exif()
    exif[274] = 6  # shown a quarter turn clockwise
    upright.save(tmp_path / "upright.png")
    upright.rotate(90, expand=True).save(tmp_path / "stored.png", exif=exif)
    found, wanted = (preprocess.read_input_picture(tmp_path / f"{name}.png") for name in ("stored", "upright"))
    assert torch.equal(found.image, wanted.image)
    assert read_picture(tmp_path / "stored.png")[0].shape == (60, 40, 3)  # cameras are calibrated for what is stored


def test_a_mask_cuts_a_picture_out() -> None:
    image = torch.full((64, 64, 3), 51, dtype=torch.uint8)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[10:20, 30:50] = True
    assert torch.equal(preprocess.square_picture(image, mask), torch.where(mask, 0.2, 1.0).expand(3, 64, 64))


def test_a_network_moves_with_its_shape_bank() -> None:
    there = CategoryCheckpoint(tiny(), "", (), NOTHING, {}).to("meta")
    assert there.device == there.model.device == torch.device("meta")
    assert {tensor.device for tensor in there.shape_bank.tensors().values()} == {torch.device("meta")}
    picture = preprocess.input_picture(torch.zeros(8, 8, 3, dtype=torch.uint8), None).to("meta")
    assert {part.device for part in vars(picture).values()} == {torch.device("meta")}


def test_a_network_comes_back_from_disk(tmp_path: Path) -> None:
    made = tiny(bounds=[[-0.5, -0.6, -0.7], [0.5, 0.6, 0.8]], radius=0.3)
    shown = torch.rand(3, 3, 64, 64)
    kept = {"counts": torch.tensor([1.0, 2.0])}
    CategoryCheckpoint(made, "/planes", ("a", "b"), NOTHING, kept).save(tmp_path / "c.safetensors")
    back = model.load(tmp_path / "c.safetensors")
    assert back.folder == "/planes" and back.held_out == ("a", "b") and not back.model.training
    assert back.training.keys() == {"counts"} and back.training["counts"].tolist() == [1, 2]
    x, shape_index = torch.rand(6, 3) - 0.5, torch.arange(3).repeat(2)
    with torch.no_grad():
        one, other = made.eval()(shown), back.model(shown)
        assert torch.equal(one.codes, other.codes) and one.codes.std(0).min() > 0
        assert torch.equal(one.select(shape_index).value(x), other.select(shape_index).value(x))
    assert torch.equal(one.bounds, other.bounds) and float(one.bounds[1, 2]) == pytest.approx(0.8)


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def harmed(kind: str, path: Path) -> None:
    CategoryCheckpoint(tiny(), "/planes", ("a",), NOTHING, {}).save(path)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "noise":
        path.write_bytes(b"\x07" * 500)
    elif kind == "other program":
        path.unlink()
        save_file({"a": torch.zeros(3)}, path)
    elif kind == "fit":
        one = Checkpoint("sphere", {"radius": 0.5}, {}, SceneTransform.identity(), (0, 0, 1), (), {})
        one.save(path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb(path.with_name("bang"))))
    elif kind == "other weights":
        with checkpoint.reading(path, model.CategoryHeader) as (header, tensors):
            other = replace(header, options={**header.options, "width": 12})
        checkpoint.write(path, other, tensors)
    else:
        path.unlink()


KINDS = ["cut", "noise", "other program", "fit", "pickle", "other weights", "nothing"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_network_is_refused_in_a_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "checkpoint.safetensors"
    harmed(kind, path)
    with pytest.raises(ValueError) as told:
        model.load(path)
    assert str(told.value).startswith(f"{path}: expected a checkpoint") and "\n" not in str(told.value)
    assert not (tmp_path / "bang").exists()


def test_a_network_is_no_checkpoint_of_a_fit(tmp_path: Path) -> None:
    CategoryCheckpoint(tiny(), "/planes", ("a",), NOTHING, {}).save(tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match="expected a checkpoint") as told:
        checkpoint.load(tmp_path / "c.safetensors")
    assert "\n" not in str(told.value)


# Encoder


def test_the_encoder_has_the_layout_of_resnet_18() -> None:
    """He et al. 2016, table 1, by hand; torchvision's resnet18 has 11,176,512 parameters without its classifier."""
    encoder = ImageEncoder(code=5)
    convolutions = 3 * 64 * 7 * 7 + 4 * 64 * 64 * 9
    norms = 2 * (64 + 4 * 64)
    for before, after in ((64, 128), (128, 256), (256, 512)):
        convolutions += before * after * 9 + 3 * after * after * 9 + before * after
        norms += 2 * (4 * after + after)
    assert (convolutions, norms) == (11_166_912, 9_600)
    kinds = [p.ndim for p in encoder.layers.parameters()]
    sizes = [p.numel() for p in encoder.layers.parameters()]
    assert sum(s for s, k in zip(sizes, kinds, strict=True) if k == 4) == convolutions
    assert sum(sizes) == convolutions + norms == 11_176_512
    assert sum(p.numel() for p in encoder.last.parameters()) == 5 * 512 + 5
    h = torch.rand(1, 3, 64, 64)
    sides = [(h := layer(h)).shape[1:] for layer in encoder.eval().layers]
    assert sides[0] == (64, 32, 32) and sides[3] == (64, 16, 16)
    assert [s[0] for s in sides[5::2]] == [64, 128, 256, 512] and [s[1] for s in sides[5::2]] == [16, 8, 4, 2]


def test_every_pixel_has_a_say_in_the_code() -> None:
    torch.manual_seed(0)
    shown = torch.rand(2, 3, 40, 48, requires_grad=True)
    code = ImageEncoder(code=7, width=4).eval()(shown)
    assert code.shape == (2, 7)
    (slope,) = torch.autograd.grad(code[0].square().sum(), shown)
    assert (slope[0] != 0).float().mean() > 0.9 and not slope[1].any()


def test_the_code_is_linear_in_the_mean_over_the_picture() -> None:
    encoder = ImageEncoder(code=7, width=4)
    encoder.layers = torch.nn.Sequential()
    shown = torch.rand(2, 32, 3, 5)
    mean = (2 * shown - 1).flatten(2).sum(2) / 15
    assert torch.allclose(encoder(shown), mean @ encoder.last.weight.T + encoder.last.bias, atol=1e-6)


# Learning


def test_losses_fall_within_the_time_given(category: Category, clock: None) -> None:
    job = learning(category, seconds=40, rate=1e-2)
    totals = [step.losses["total"] for step in job]
    assert len(totals) == job.iteration == 40 and job.progress == 1 and not job.model.training
    assert sum(totals[-5:]) < 0.6 * sum(totals[:5])


def test_a_seed_says_all(category: Category, clock: None) -> None:
    first, again, other = (
        [step.losses["total"] for step in learning(category, seconds=4, seed=seed)] for seed in (0, 0, 1)
    )
    assert first == again and first[0] != other[0]


def test_a_learning_that_was_stopped_goes_on_as_if_it_was_not(category: Category, clock: None, tmp_path: Path) -> None:
    whole = list(learning(category, seconds=8))
    first = learning(category, seconds=8)
    parts = [next(first) for _ in range(4)]
    CategoryCheckpoint(first.model, "", (), first.shape_bank(), first.state()).save(tmp_path / "c.safetensors")
    held = model.load(tmp_path / "c.safetensors")
    second = Trainer(held.model, category, minutes=8 / 60, config=config(), seed=0)
    second.resume(held.training)
    assert (second.iteration, second.seconds) == (4, 4.0) and second.evaluations == first.evaluations > 0
    assert parts + list(second) == whole


def test_held_out_objects_are_not_looked_at(category: Category, clock: None) -> None:
    blind = replace(category.views[3], images=tuple(torch.zeros_like(i) for i in category.views[3].images))
    other = replace(category, views=(*category.views[:3], blind, category.views[4]))
    assert list(learning(category, seconds=2)) == list(learning(other, seconds=2))


def test_decoder_and_encoder_learn_one_after_the_other(category: Category, clock: None) -> None:
    job = learning(category, seconds=10, decoder=0.6, pictures=8)

    def weights() -> list[list[Tensor]]:
        parts = job.model.encode.parameters(), job.model.decode.parameters(), [job.codes]
        return [[p.detach().clone() for p in part] for part in parts]

    def moved(steps: int) -> tuple[set[str], list[bool]]:
        before, losses = weights(), [next(job).losses for _ in range(steps)]
        pairs = zip(before, weights(), strict=True)
        changed = [any(not torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in pairs]
        return {name for one in losses for name in one}, changed

    shown = {"color", "mask", "hull", "total"}
    assert moved(6) == (shown, [False, True, True])
    assert moved(4) == ({"code", "total"}, [True, False, False])


def test_what_was_rendered_outlives_a_stop(
    category: Category, clock: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The outlines of known shapes are kept as long as the decoder is, and not made twice."""
    monkeypatch.setattr(training, "PAUSE", 1)
    first = learning(category, seconds=10, decoder=0.4, pictures=8)
    photographs = len(first.shape_bank().shape_index)
    for _ in range(8):
        next(first)
    known = first.shape_bank()
    assert len(known.shape_index) > photographs
    CategoryCheckpoint(first.model, "", (), known, first.state()).save(tmp_path / "c.safetensors")

    def resumed(seconds: float) -> Trainer:
        held = model.load(tmp_path / "c.safetensors")
        job = Trainer(held.model, category, minutes=seconds / 60, config=first.config, seed=0)
        job.resume(held.training, held.shape_bank)
        return job

    for seconds in (8, 10):
        job = resumed(seconds)
        kept = job.shape_bank()
        assert all(torch.equal(a, kept.tensors()[name]) for name, a in known.tensors().items())
    assert len(list(job)) == 2 and len(job.shape_bank().shape_index) == len(known.shape_index)
    assert len(resumed(100).shape_bank().shape_index) == photographs  # the decoder goes on to learn


def test_the_encoder_learns_to_guess_free_codes(category: Category, clock: None) -> None:
    job = learning(category, seconds=1000, decoder=1e-9, pictures=40, rate=1e-9, rendered=0.0)
    next(job)
    first = next(job).losses
    guessed = [job.model.encode(some.float() / 255).mean(0) for some in job.pictures]
    assert first["total"] == pytest.approx(first["code"]) and first["code"] > 0
    with torch.no_grad():
        job.codes[:] = torch.stack(guessed)
    assert next(job).losses["code"] < 0.5 * first["code"]


def test_terms_of_a_ball_are_those_of_its_closed_form(category: Category, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network begins with a ball, whatever it is shown."""
    job = Trainer(
        tiny(radius=0.5), category, minutes=1, config=config(rays=100, samples=400, depth=10.0, mask=0.5, color=2.0)
    )
    drawn: list[Any] = []
    draw = job.pool.draw

    def listen(*arguments: Any) -> Any:
        drawn.extend(draw(*arguments))
        return tuple(drawn)

    monkeypatch.setattr(job.pool, "draw", listen)
    losses = next(job).losses
    rays, _, label, t = drawn
    o, d = rays.origin.double(), rays.direction.double()
    own = sphere_t(o, d, 0.5)
    both = label & ~own.isnan() & ~t.isnan()
    assert both.sum() > 50
    assert losses["depth"] == pytest.approx(float((own - t)[both].abs().mean()), rel=1e-3)
    least = (o - (o * d).sum(1, keepdim=True) * d).norm(dim=1)
    behind = own[:, None] + training.MAX_DEPTH * torch.linspace(0, 1, training.DEPTHS + 1, dtype=torch.float64) ** 2
    deepest = (o[:, None] + behind[..., None] * d[:, None]).norm(dim=2).amin(1)  # the box ends farther behind
    logit = 50 * (0.5 - torch.where(own.isnan(), least, deepest))
    asked = crosses_the_box(o, d)
    term = torch.nn.functional.binary_cross_entropy_with_logits(logit, label.double(), reduction="none")
    assert losses["mask"] == pytest.approx(float(term[asked].sum() / asked.sum()), rel=0.01)
    terms = 2.0 * losses["color"] + 0.5 * losses["mask"] + 10 * losses["depth"] + losses["hull"]
    assert losses["total"] == pytest.approx(terms, rel=1e-5)


def crosses_the_box(o: Tensor, d: Tensor) -> Tensor:
    ends = torch.stack([(-1 - o) / d, (1 - o) / d])
    return ends.amin(0).amax(1) < ends.amax(0).amin(1)


def test_depth_is_learnt_from_where_there_is_some(category: Category) -> None:
    assert "depth" not in next(learning(category)).losses
    without = replace(category.views[2], depths=())
    other = replace(category, views=(*category.views[:2], without, *category.views[3:]))
    with pytest.raises(ValueError, match="long has none"):
        learning(other, depth=1.0)
    next(learning(other))


def test_a_loss_that_is_no_number_is_named(category: Category) -> None:
    job = learning(category)
    next(job)
    with torch.no_grad():
        job.model.decode.last.bias[1:] = math.nan
    with pytest.raises(RuntimeError, match="color is nan at step 2"):
        next(job)


@pytest.mark.parametrize("axis", [None, 2])
def test_pictures_are_mirrored_only_where_shapes_are_symmetric(
    category: Category, clock: None, axis: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []

    def listen(pictures: Tensor, generator: torch.Generator, *, zoom: float, tint: float, mirrored: bool) -> Tensor:
        told.append(mirrored)
        return pictures.float() / 255

    monkeypatch.setattr(training, "jitter", listen)
    settings = config(decoder=1e-9)
    job = Trainer(tiny(symmetric=axis), category, minutes=1, config=settings)
    next(job)  # of the decoder
    next(job)
    assert told == [axis is not None]


@pytest.mark.parametrize(
    ("share", "shapes", "pictures"),
    [(0.0, 0, [40] * 9), (0.5, 3, [38] * 4 + [36] * 4 + [34]), (0.1, 3, [38] * 4 + [36] * 5)],
)
def test_a_share_of_the_pictures_is_rendered_and_now_and_then_one_more_shape(
    category: Category, clock: None, share: float, shapes: int, pictures: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = learning(category, seconds=1000, decoder=1e-9, pictures=40, rendered=share)
    next(job)  # of the decoder
    drawn: list[int] = []
    draw = job._photographs

    def listen(objects: Tensor) -> Tensor:
        drawn.append(len(objects))
        return draw(objects)

    monkeypatch.setattr(job, "_photographs", listen)
    for _ in range(9):
        assert next(job).losses["code"] > 0
    assert drawn == pictures
    assert (len(job._augmentation.codes) if job._augmentation else 0) == shapes


def test_where_nothing_can_be_rendered_all_pictures_are_real(category: Category, clock: None) -> None:
    job = learning(category, seconds=1000, decoder=1e-9, pictures=8, rendered=1.0)
    next(job)
    with torch.no_grad():
        job.model.decode.last.bias[0] = -50.0  # nothing is inside
    assert next(job).losses["code"] > 0
    assert job._augmentation is not None and job._augmentation.codes == []
    assert torch.equal(job.shape_bank().outline, job._shape_bank.outline)


def test_rendered_outlines_are_known_afterwards(category: Category, clock: None) -> None:
    job = learning(category, seconds=1000, decoder=1e-9, pictures=8, rendered=0.5)
    next(job)
    before = job.shape_bank()
    for _ in range(training.PAUSE + 1):
        next(job)
    after = job.shape_bank()
    assert torch.equal(after.outline[: len(before.outline)], before.outline)
    assert len(after.shape_index[len(before.shape_index) :].unique()) == 2


def test_a_reconstruction_is_told_of_the_present_codes(category: Category, clock: None) -> None:
    job = learning(category, seconds=10)
    first = job.shape_bank()
    next(job)
    second = job.shape_bank()
    assert not torch.equal(first.codes, second.codes) and torch.equal(second.codes, job.codes)
    assert torch.equal(first.outline, second.outline) and len(first.outline) == 24


@pytest.mark.parametrize("share", [0.0, 1.5, math.nan])
def test_the_share_of_the_decoder_must_make_sense(share: float) -> None:
    with pytest.raises(ValueError, match="decoder must be a share"):
        TrainingConfig(decoder=share)


@pytest.mark.parametrize("minutes", [0.0, -1.0, math.inf, math.nan])
def test_a_duration_must_make_sense(category: Category, minutes: float) -> None:
    with pytest.raises(ValueError, match="minutes must be positive"):
        Trainer(tiny(), category, minutes=minutes)


# Run


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let category runs learn with small networks."""
    monkeypatch.setattr(category_run, "Reconstructor", tiny)


def begun(home: Path, folder: Path, *, seconds: float = 25, overwrite: bool = False) -> CategoryRun:
    made = CategoryRun(folder, home / "out", seconds / 60, config(depth=0.5), seed=3, every=2, symmetric="y")
    made.create(overwrite=overwrite)
    return made


def test_a_category_run_is_read_as_it_was_written(home: Path, tmp_path: Path) -> None:
    made = begun(home, tmp_path / "deep/run")
    assert CategoryRun.open(tmp_path / "deep/run") == made
    assert made.objects().test == (1, 3)


def test_the_bounds_are_those_of_the_objects_to_learn_from(
    home: Path, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    box = torch.tensor([[-0.7, -0.8, -0.9], [0.6, 0.7, 0.8]])

    def listen(some: list[Any], *, device: object) -> torch.Tensor:
        asked.extend(some)
        return box

    monkeypatch.setattr(objects, "bounds", listen)
    held = begun(home, tmp_path / "run")
    category = held.objects()
    assert torch.equal(held.trainer(category).model.decode.bounds, box)  # type: ignore[arg-type]
    assert len(asked) == 3 and all(a is category.views[i] for a, i in zip(asked, (0, 2, 4), strict=True))


def test_a_category_run_keeps_a_log_and_what_was_learnt(home: Path, tmp_path: Path, small: None, clock: None) -> None:
    held = begun(home, tmp_path / "run")
    category = held.objects()
    job = held.trainer(category)
    means = list(train(held, category, job))
    rows = [json.loads(row) for row in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [10, 20] and len(means) == 2
    assert [row["seconds"] for row in rows] == [10, 20]
    assert rows[1]["mask"] == pytest.approx(means[1][0].losses["mask"], abs=1e-6) and "depth" in rows[0]
    learnt = model.load(held.checkpoint)
    assert learnt.held_out == ("box", "low") and learnt.folder == str(home / "out")
    assert {f.name for f in held.folder.iterdir()} == {"category.toml", "checkpoint.safetensors", "log.jsonl"}
    more = replace(held, minutes=40 / 60).trainer(category, resume=True)
    assert more.iteration == 25 and len(list(more)) == 15


def test_a_category_run_that_is_interrupted_keeps_what_was_learnt(home: Path, tmp_path: Path, small: None) -> None:
    held = begun(home, tmp_path / "run", seconds=600)
    category = held.objects()
    job = held.trainer(category)
    steps: Any = train(held, category, job)
    next(steps)
    steps.close()
    again = held.trainer(category, resume=True)
    assert again.iteration == job.iteration == 10
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), job.model.parameters(), strict=True))


def test_a_folder_with_other_things_is_left_alone(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/note.txt").write_text("mine")
    for name, overwrite in (("file", False), ("other", False), ("other", True)):
        with pytest.raises(ValueError, match=name):
            begun(home, tmp_path / name, overwrite=overwrite)
    begun(home, tmp_path / "run")
    with pytest.raises(ValueError, match="already holds a run"):
        begun(home, tmp_path / "run")
    (tmp_path / "run/checkpoint.safetensors").write_text("old")
    assert not begun(home, tmp_path / "run", overwrite=True).checkpoint.exists()
    assert sorted(f.name for f in tmp_path.rglob("*") if f.is_file()) == ["category.toml", "file", "note.txt"]


@pytest.mark.parametrize("text", ["", "training = 3", "[training]\nspeed = 1", "\x00", 'minutes = "two"'])
def test_a_category_run_file_that_makes_no_sense_is_refused(tmp_path: Path, home: Path, text: str) -> None:
    held = begun(home, tmp_path / "run")
    if text.startswith("minutes"):
        whole = (held.folder / "category.toml").read_text()
        text = "\n".join(text if row.startswith("minutes") else row for row in whole.splitlines())
    (held.folder / "category.toml").write_text(text)
    with pytest.raises(ValueError, match=r"category\.toml: expected what train-category wrote"):
        CategoryRun.open(held.folder)


def test_a_category_run_tells_the_network_of_the_symmetry(home: Path, tmp_path: Path, small: None) -> None:
    held = begun(home, tmp_path / "run")
    assert CategoryRun.open(held.folder).symmetric == "y"
    assert held.trainer(held.objects()).model.decode.symmetric == 1
    plain = replace(held, symmetric="")
    assert plain.trainer(plain.objects()).model.decode.symmetric is None


# Judge and page


def ball(radius: float, center: tuple[float, float, float] = (0, 0, 0)) -> Mesh:
    made = trimesh.creation.icosphere(4, radius=radius)
    vertices = torch.from_numpy(np.array(made.vertices)).float() + torch.tensor(center)
    return Mesh(vertices, torch.from_numpy(np.array(made.faces)).long())


def test_a_mesh_agrees_with_itself(true: dict[str, CategoryMesh]) -> None:
    found = metrics.shape_scores(true["long"].mesh, true["long"].mesh)
    assert found.chamfer_l1 < 1e-6 and found.f_score == 1 and found.iou == 1


def test_concentric_balls_are_judged_as_by_hand() -> None:
    found = metrics.shape_scores(ball(0.7), ball(0.8))
    assert found.chamfer_l1 == pytest.approx(0.1 / 1.6, rel=0.01) and found.f_score == 0
    assert found.iou == pytest.approx(disc(0.7) / disc(0.8), rel=0.01)
    assert metrics.shape_scores(ball(0.8), ball(0.7)).iou == found.iou
    near = metrics.shape_scores(ball(0.79), ball(0.8))
    assert near.f_score == 1


def test_only_the_visible_part_counts_for_distances() -> None:
    outer, inner = ball(0.8), ball(0.2)
    both = Mesh(
        torch.cat([outer.vertices, inner.vertices]), torch.cat([outer.faces, inner.faces + len(outer.vertices)])
    )
    assert metrics.shape_scores(outer, both).chamfer_l1 > 0.01
    assert metrics.shape_scores(outer, both, visible=outer).chamfer_l1 < 1e-6


def disc(radius: float) -> float:
    """Return how many pixels see a ball from a distance of 3, 128 pixels for 40 degrees: the cone that touches it."""
    slope = radius / math.sqrt(3**2 - radius**2)
    return math.pi * (64 / math.tan(math.radians(20)) * slope) ** 2


def test_the_silhouette_of_a_ball_is_a_disc() -> None:
    masks = metrics.silhouettes(ball(0.6))
    assert masks.shape == (8, 128, 128)
    assert masks.sum((1, 2)).tolist() == pytest.approx([disc(0.6)] * 8, rel=0.01)


def test_silhouettes_are_compared_from_where_no_picture_was_taken(category: Category) -> None:
    eyes = torch.stack([camera.centre for camera in metrics.score_cameras(8, 16)])
    taken = torch.stack([camera.centre for views in category.views for camera in views.cameras])
    assert eyes.norm(dim=1).tolist() == pytest.approx([3.0] * 8)
    cosine = torch.nn.functional.normalize(eyes, dim=1) @ torch.nn.functional.normalize(taken, dim=1).T
    assert math.degrees(math.acos(float(cosine.max()))) > 1
    among = torch.nn.functional.normalize(eyes, dim=1)
    assert (among @ among.T - 2 * torch.eye(8)).max() < math.cos(math.radians(25))


def test_the_nearest_shape_is_the_one_that_is_alike(true: dict[str, CategoryMesh]) -> None:
    known = [true[name].mesh for name in SOLIDS]
    for i, mesh in enumerate(known):
        assert metrics.nearest_shape(mesh, known) == i
    assert metrics.nearest_shape(ball(0.85), known) == 0


def test_means_are_those_of_each_figure() -> None:
    assert metrics.mean_scores([ShapeScores(0.1, 0.5, 1.0), ShapeScores(0.3, 0.7, 0.0)]) == ShapeScores(0.2, 0.6, 0.5)


def test_a_page_shows_what_was_seen_and_what_is_true(home: Path, tmp_path: Path, category: Category) -> None:
    held = untaught(category, radius=0.5)
    scores = report.compare(held, category, home / "in", tmp_path / "page.png", refinement=Refinement(3, stretch=0.0))
    assert list(scores) == ["reconstruction", "without refinement", "mean shape", "nearest shape"]
    assert all(len(some) == 1 and some[0].chamfer_l1 > 0.01 for some in scores.values())
    beginning = scores["mean shape"]  # of an untrained network: a ball
    assert scores["reconstruction"] == scores["without refinement"] == beginning
    with Image.open(tmp_path / "page.png") as image:
        assert image.format == "PNG" and image.size == (5 * 128, 128)
        tiles = torch.from_numpy(np.array(image)).float().unflatten(1, (5, 128)).unbind(1)
    shown = preprocess.first_picture(category.views[3]).image.permute(1, 2, 0)
    assert torch.equal(tiles[0].byte(), (255 * shown).round().byte())
    for tile in tiles:
        assert (tile[0] == 255).all() and (tile < 250).any()
    yellow = [tile[(tile < 250).any(-1)].mean(0) for tile in tiles]
    for color in (yellow[0], yellow[3], yellow[4]):
        assert color[0] > color[1] > 2 * color[2]
    area = [int((tile < 250).any(-1).sum()) for tile in tiles]
    focal, far = 64 / math.tan(math.radians(19)), [math.dist(side, (0, 0, 0)) for side in report.SIDES]
    for found, away in zip(area[1:3], far, strict=True):
        assert found == pytest.approx(math.pi * (focal * 0.5) ** 2 / (away**2 - 0.25), rel=0.02)


def test_meshes_that_are_missing_are_named(home: Path, tmp_path: Path, category: Category) -> None:
    (tmp_path / "in").mkdir()
    solid(tmp_path / "in/ball.ply", *SOLIDS["ball"])
    with pytest.raises(ValueError, match=r"mesh of box.*4 are missing"):
        report.compare(untaught(category), category, tmp_path / "in", tmp_path / "page.png")
    assert not (tmp_path / "page.png").exists()


def test_a_held_out_object_is_compared_with_its_masks(category: Category) -> None:
    network, views = tiny(radius=0.5), category.views[3]
    rays, mask = views.cameras[1].rays(), views.masks[1]
    inside = ~sphere_t(rays.origin.double(), rays.direction.double(), 0.5).isnan().view(24, 24)
    assert mask is not None
    iou = float((inside & mask).sum() / (inside | mask).sum())
    assert metrics.held_out_iou(network, category) == pytest.approx(iou, abs=0.01)
