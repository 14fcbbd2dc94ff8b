"""Scene files: what they may hold, and one sentence for what they may not."""

from dataclasses import FrozenInstanceError, fields, replace
from inspect import signature
from pathlib import Path
from typing import Literal, get_args, get_type_hints

import pytest
import tomli_w

from warpdvr import Fit
from warpdvr.datasets.load import load
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.fields.hashgrid import HashGrid
from warpdvr.fields.occupancy import Occupancy
from warpdvr.fields.sdf import SDF
from warpdvr.fitting.recipe import RECIPES, Recipe
from warpdvr.geometry.isosurface import extract
from warpdvr.runs import scene
from warpdvr.runs.options import (
    FitOptions,
    MeshOptions,
    PhotographOptions,
    SyntheticOptions,
    field_documentation,
    option_type,
)
from warpdvr.runs.scene import Scene
from warpdvr.runtime.validate import convert

FULL = """
[views]
mesh = "warp:bunny"
count = 3
test = 1
size = 12
fov = 35

[field]
kind = "sdf"
width = 16
depth = 1

[fit]
iterations = 7
seed = 3
rate = 0.01
sharpness = [20, 200.0]

[mesh]
resolution = 40
largest = true
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "scene.toml"
    path.write_text(text)
    return path


def test_every_table_arrives(tmp_path):
    given = scene.read(write(tmp_path, FULL))
    field = given.make_field()
    assert isinstance(field, SDF) and field.distance.layers[0].out_features == 16
    assert given.recipe == Recipe(rate=0.01, sharpness=(20, 200.0))
    assert given.fit["iterations"] == 7 and given.mesh == {"resolution": 40, "largest": True}
    views = given.load_views()
    assert len(views.train) == 3 and len(views.test) == 1 and views.images[0].shape == (12, 12, 3)


def test_tables_survive_a_file(tmp_path):
    given = scene.read(write(tmp_path, FULL))
    assert scene.read(write(tmp_path, tomli_w.dumps(given.tables()))) == given
    alone = Scene()
    assert scene.read(write(tmp_path, tomli_w.dumps(alone.tables()))) == alone


def test_what_is_left_out_has_a_default(tmp_path):
    given = scene.read(write(tmp_path, ""))
    assert given == Scene() and given.recipe == Recipe() and isinstance(given.make_field(), HashGrid)
    other = Scene(field={"kind": "occupancy", "width": 8})
    assert isinstance(other.make_field(), Occupancy) and other.options == {"width": 8}
    with pytest.raises(ValueError, match=r"there is no \[views\] table"):
        given.load_views()


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "scenes").glob("*.toml")), ids=lambda p: p.stem)
def test_the_scenes_that_come_with_us_can_be_fitted(path):
    given = scene.read(path)
    assert isinstance(given.recipe, Recipe) and given.make_field() is not None
    if "views" in given.tables():
        views = Scene(given.views | {"count": 2, "test": 0, "size": 24}, given.field, given.fit).load_views()
        assert next(Fit(given.make_field(), views, iterations=1, recipe=given.recipe)).iteration == 1


def test_a_recipe_is_taken_by_name_and_changed(tmp_path):
    given = scene.read(write(tmp_path, '[fit]\nrecipe = "dvr"\ndepth = 10\nsamples = [8, 8, 9, 9]'))
    assert given.recipe == replace(RECIPES["dvr"], depth=10, samples=(8, 8, 9, 9))
    with pytest.raises(ValueError, match="unknown recipe 'best'; known are quick, dvr"):
        _ = scene.read(write(tmp_path, '[fit]\nrecipe = "best"')).recipe


def test_folder_is_a_scene(tmp_path):
    given = scene.read(tmp_path)
    assert given == Scene(views={"folder": str(tmp_path.resolve())})


def test_relative_paths_start_at_the_scene_file(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    path = write(tmp_path / "deep", '[views]\nfolder = "../photos"\nhold_out = 4')
    monkeypatch.chdir(tmp_path)
    for name in (path, Path("deep/scene.toml")):
        assert scene.read(name).views == {"folder": str((tmp_path / "photos").resolve()), "hold_out": 4}
    mesh = write(tmp_path / "deep", '[views]\nmesh = "a.ply"')
    assert scene.read(mesh).views["mesh"] == str((tmp_path / "deep" / "a.ply").resolve())
    asset = write(tmp_path / "deep", '[views]\nmesh = "warp:bunny"')
    assert scene.read(asset).views["mesh"] == "warp:bunny"
    far = write(tmp_path / "deep", tomli_w.dumps({"views": {"folder": str(tmp_path / "x")}}))
    assert scene.read(far).views["folder"] == str((tmp_path / "x").resolve())


WRONG = {
    "no TOML": ("[views\n", "expected a scene file in TOML"),
    "unknown table": ("[viewz]\na = 1", "expected the tables views, field, fit and mesh, found viewz"),
    "a table called format": ("[format]\na = 1", "expected the tables views, field, fit and mesh, found format"),
    "no table": ("fit = 3", "expected the tables views, field, fit and mesh, found fit"),
    "option of fit": ("[fit]\nspeed = 1", r"\[fit\] has no option 'speed'; known are .*cells, color, depth, eikonal"),
    "option of mesh": (
        "[mesh]\nsize = 1",
        r"\[mesh\] has no option 'size'; known are cavities, colors, grid, largest, project, resolution, smallest$",
    ),
    "option of views": ('[views]\nmesh = "a"\nhold_out = 3', r"\[views\] has no option 'hold_out'; known are count"),
    "option of a folder": ('[views]\nfolder = "a"\ncount = 3', r"\[views\] has no option 'count'; known are cameras"),
    "folder and mesh": ('[views]\nfolder = "a"\nmesh = "b"', "a folder of photographs or a mesh to render, one of"),
    "neither": ("[views]\ncount = 3", "a folder of photographs or a mesh to render, one of them"),
    "no kind": ("[field]\nwidth = 3", r"\[field\] has no kind"),
    "text for a number": ('[fit]\niterations = "60"', r"\[fit\] iterations must be of type int, got '60'"),
    "fraction for a count": ("[fit]\nrays = 10.5", r"\[fit\] rays must be of type int, got 10.5"),
    "truth for a number": ("[fit]\nrate = true", r"\[fit\] rate must be of type float \| None, got True"),
    "number for truth": ("[mesh]\nlargest = 1", r"\[mesh\] largest must be of type bool, got 1"),
    "number for a pair": ("[fit]\nsharpness = 3", r"\[fit\] sharpness must be of type .*tuple.*, got 3"),
    "three for a pair": ("[fit]\nsharpness = [1, 2, 3]", r"\[fit\] sharpness must be .*, got \[1, 2, 3\]"),
    "number for a path": ("[views]\nmesh = 3", r"\[views\] mesh must be of type str, got 3"),
    "size of text": ('[views]\nmesh = "warp:bunny"\nsize = "4"', r"\[views\] size must be of type int, got '4'"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_mistakes_are_named(tmp_path, kind):
    text, said = WRONG[kind]
    with pytest.raises(ValueError, match=said) as caught:
        scene.read(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_file_that_is_missing_or_no_text(tmp_path):
    with pytest.raises(ValueError, match=r"expected a scene file \(.toml\) or a folder of photographs, found nothing"):
        scene.read(tmp_path / "none.toml")
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ValueError, match="expected a scene file in TOML"):
        scene.read(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ({"kind": "cube"}, r"unknown field 'cube'; known are .*\bbox\b.*\bsdf\b"),
        ({"kind": "sdf", "girth": 3}, "field 'sdf' has no option 'girth'; its options are width, depth"),
        ({"kind": "sdf", "width": "a"}, r"\[field\] holds a value of another type than expected"),
        ({"kind": "sdf", "bounds": -1.0}, "bounds must be a positive number"),
        ({"kind": "sdf", "frequencies": -1}, "sdf: frequencies must be a whole number, at least 0, got -1"),
    ],
)
def test_field_that_cannot_be_made(field, said):
    with pytest.raises(ValueError, match=said) as caught:
        Scene(field=field).make_field()
    assert "\n" not in str(caught.value)


def test_every_option_of_a_recipe_can_be_told():
    told = {f.name: getattr(Recipe(), f.name) for f in fields(Recipe)}
    assert Scene(fit=told).recipe == Recipe()


def test_scenes_that_come_with_warpdvr_can_be_read():
    found = sorted((Path(__file__).parents[1] / "scenes").glob("*.toml"))
    assert found
    for path in found:
        scene.read(path).make_field()


@pytest.mark.parametrize(
    ("options", "function", "more"),
    [
        (PhotographOptions, load, {"folder", "progress", "notice", "train"}),
        (SyntheticOptions, mesh_views, {"source", "normalise", "train"}),
        (MeshOptions, extract, {"field"}),
    ],
)
def test_tables_have_the_options_of_the_functions_that_they_are_for(options, function, more):
    """Of the same types, so that what one takes the other does not refuse."""
    hints = get_type_hints(function)
    parameters = {name for name in signature(function).parameters if name not in more}
    assert parameters == {f.name for f in fields(options)} - more - {"mesh"}
    for f in fields(options):
        if f.name in parameters and f.name != "grid":
            assert option_type(options, f) in (hints[f.name], *get_args(hints[f.name]))
    assert {f.name for f in fields(options)} == set(field_documentation(options))


def test_tables_hold_what_was_chosen_only():
    options = FitOptions.from_table("fit", {"iterations": 3, "learn_background": False, "color": 0.0})
    assert options == {"iterations": 3, "learn_background": False, "color": 0.0} and len(options) == 3
    assert "minutes" not in options and "speed" not in options and options.get("depth", 7) == 7
    assert options | {"iterations": 4} == {"iterations": 4, "learn_background": False, "color": 0.0}
    assert {"iterations": 4, "seed": 2} | options == {"seed": 2, **options}
    with pytest.raises(FrozenInstanceError):
        options.iterations = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[fit]\ncolour = 1", r"scene.toml: \[fit\] has no option 'colour'; known are .*; did you mean color\?$"),
        ('[field]\nkind = "hashgird"', r"scene.toml: unknown field 'hashgird'; known are .*; did you mean hashgrid\?$"),
        ('[field]\nkind = "sdf"\nwidht = 3', r"scene.toml: field 'sdf' has no option 'widht'.*; did you mean width\?$"),
        ('[field]\nkind = "sdf"\nwidth = 2.5', r"\[field\] .*: width of sdf must be of type int, got 2.5$"),
        ('[field]\nkind = "scale"\npart = {kind = "box", x = 1}', r"field 'box' has no option 'x'"),
        (
            '[field]\nkind = "union"\nparts = [{kind = "sphere", radius = "1"}]',
            "radius of sphere must be of type float",
        ),
        ("[field]\nkind = 3", r"\[field\] has no kind"),
        ('[fit]\nrecipe = "dvt"', r"scene.toml: \[fit\] unknown recipe 'dvt'; known are quick, .*did you mean dvr\?$"),
        ("[fit]\ndepth = -1.0", "scene.toml: fit: depth must be finite and not negative, got -1.0"),
    ],
)
def test_the_file_the_table_and_the_nearest_name_are_told(tmp_path, text, said):
    with pytest.raises(ValueError, match=said) as caught:
        scene.read(write(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, float, 3.0),
        ([1, 2.5], tuple[float, float], (1.0, 2.5)),
        ([8, 9], tuple[int, ...], (8, 9)),
        ("x", Literal["x", "y"], "x"),
        ({"a": 1}, Recipe, {"a": 1}),  # no plain type: not looked at
    ],
)
def test_plain_values_are_converted_where_nothing_is_lost(value, hint, expected):
    converted = convert(value, hint)
    assert converted == expected and type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("3", int),
        (3.0, int),
        (True, int),
        (True, float),
        (1, bool),
        (3, str),
        ([1], tuple[int, int]),
        ("z", Literal["x"]),
    ],
)
def test_nothing_else_is_converted(value, hint):
    with pytest.raises(TypeError, match=r"^must be of type .*, got "):
        convert(value, hint)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[feild]\na = 1", r"scene.toml: expected the tables .*, found feild; did you mean field\?$"),
        ("[mesh]\nresolution = 4000", r"scene.toml: \[mesh\] resolution must be at most 2048, .* got 4000$"),
        ("[fit]\nminutes = -1", r"scene.toml: \[fit\] minutes must be positive, got -1"),
        ("[fit]\niterations = 0", r"scene.toml: \[fit\] iterations must be positive, got 0$"),
    ],
)
def test_tables_and_durations_that_make_no_sense_name_the_file(tmp_path, text, said):
    with pytest.raises(ValueError, match=said):
        scene.read(write(tmp_path, text))
