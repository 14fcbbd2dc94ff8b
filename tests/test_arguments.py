"""What may be typed: options before or after, every weight by its name, and one sentence for what makes no sense."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from test_cli import write_idr
from test_house import ROOT, python

from warpdvr.cli.fit import FitArguments
from warpdvr.cli.main import COMMANDS, main
from warpdvr.cli.parser import UsageError, parse
from warpdvr.fitting.recipe import Recipe
from warpdvr.runs import scene as scene_files
from warpdvr.runs.options import field_documentation
from warpdvr.runs.run import Run


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    write_idr(tmp_path / "data")
    return tmp_path / "data"


NEWCOMER: dict[str, tuple[list[str], str]] = {
    "missing folder": (["fit", "FOLDER/none", "--out", "RUN"], "none: expected a scene file (.toml) or a folder"),
    "misspelt command": (["rendr", "RUN"], "there is no command 'rendr'; did you mean render?"),
    "option without a command": (["--out", "RUN", "fit"], "expected a command first, got --out"),
    "misspelt option": (["fit", "FOLDER", "--out", "RUN", "--iteration", "9"], "did you mean --iterations?"),
    "misspelt weight": (["fit", "FOLDER", "--colour=3", "--out", "RUN"], "no option --colour; did you mean --color?"),
    "misspelt option with an underscore": (["eval", "RUN", "--mesh_tg", "a.ply"], "did you mean --mesh-gt?"),
    "option that is far from all": (["mesh", "RUN", "--xyzzy"], "mesh has no option --xyzzy; `warpdvr mesh --help`"),
    "text for a number": (["fit", "FOLDER", "--out", "RUN", "--depth", "a"], "--depth: expected a number, got 'a'"),
    "fraction for a count": (["render", "RUN", "--frames", "2.5"], "--frames: expected a whole number, got '2.5'"),
    "one number for two": (["fit", "FOLDER", "--out", "RUN", "--sharpness", "3"], "--sharpness needs 2 values"),
    "no value": (["fit", "FOLDER", "--out", "RUN", "--minutes"], "--minutes needs a value"),
    "word for true": (
        ["fit", "FOLDER", "--out", "RUN", "--learn-background", "no"],
        "expected true or false, got 'no'",
    ),
    "value for a flag": (["fit", "FOLDER", "more", "--out", "RUN"], "fit takes no further argument, got more"),
    "negative weight": (["fit", "FOLDER", "--out", "RUN", "--depth", "-1"], "depth must be finite and not negative"),
    "another device": (["fit", "FOLDER", "--out", "RUN", "--device", "gpu"], "expected cpu or cuda, got 'gpu'"),
    "empty scene file": (["fit", "EMPTY", "--out", "RUN"], "empty.toml: there is no [views] table"),
    "picture as a scene file": (["fit", "FOLDER/image/0.png", "--out", "RUN"], "0.png: expected a scene file in TOML"),
    "unknown recipe": (
        ["fit", "FOLDER", "--out", "RUN", "--recipe", "dvt"],
        "unknown recipe 'dvt'; known are quick, dvr",
    ),
    "unknown field": (["fit", "FOLDER", "--out", "RUN", "--field", "hashgird"], "did you mean hashgrid?"),
    "option of a field": (["fit", "FIELD", "--out", "RUN"], "field 'sdf' has no option 'widht'; its options are"),
    "type of a field's option": (["fit", "TYPE", "--out", "RUN"], "width of sdf must be of type int, got '64'"),
    "folder of no run": (["view", "FOLDER"], "expected the folder of a run, found a folder without config.toml"),
    "no axis": (["train-category", "FOLDER", "--out", "RUN", "--symmetric", "w"], "expected one of x, y, z, got 'w'"),
}
"""What someone who has never seen it types, and what the one sentence must say."""


@pytest.mark.parametrize("kind", NEWCOMER)
def test_newcomers_are_told_in_one_sentence_before_anything_is_loaded(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    def loaded(*arguments: object, **options: object) -> None:
        raise AssertionError("data was loaded")

    monkeypatch.setattr(scene_files, "load", loaded)
    home = photographs.parent
    views = '[views]\nfolder = "data"\n[field]\nkind = "sdf"\n'
    for name, text in {"empty": "", "field": f"{views}widht = 3", "type": f'{views}width = "64"'}.items():
        (home / f"{name}.toml").write_text(text)
    places = {"FOLDER": str(photographs), "RUN": str(home / "run")}
    places |= {name.upper(): str(home / f"{name}.toml") for name in ("empty", "field", "type")}
    words, sentence = NEWCOMER[kind]
    for place, path in places.items():
        words = [word.replace(place, path) for word in words]
    try:
        status = main(words)
    except SystemExit as ended:
        status = int(str(ended.code))
    captured = capsys.readouterr()
    assert status == 2 and captured.out == "" and captured.err.startswith("warpdvr: ")
    assert sentence in captured.err and captured.err.count("\n") == 1 and not (home / "run").exists()


TYPED: dict[str, tuple[list[str], str]] = {
    "weight": (["--depth", "-1"], "--depth must be finite and not negative, got -1.0"),
    "option with a dash": (["--learn-background", "true", "--depth", "-1"], "--depth must be finite"),
    "seed": (["--seed", "-1"], "--seed must lie between 0 and 2^63 - 1, got -1"),
    "recipe": (["--recipe", "dvt"], "--recipe: unknown recipe 'dvt'; known are quick, dvr"),
    "field": (["--field", "hashgird"], "--field: unknown field 'hashgird'; known are"),
}


@pytest.mark.parametrize("kind", TYPED)
def test_mistakes_are_called_as_they_were_typed(
    photographs: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    words, sentence = TYPED[kind]
    assert main(["fit", str(photographs), "--out", str(photographs.parent / "run"), *words]) == 2
    assert capsys.readouterr().err.startswith(f"warpdvr: {sentence}")


def test_mistakes_in_a_file_are_not_called_options(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = photographs.parent / "a.toml"
    file.write_text('[views]\nfolder = "data"\n[fit]\ndepth = -1\n')
    assert main(["fit", str(file), "--out", str(photographs.parent / "run"), "--mask", "2"]) == 2
    assert capsys.readouterr().err.startswith(f"warpdvr: {file}: fit: depth must be finite")


def parsed(*words: str) -> FitArguments:
    return parse(FitArguments, "fit", words)


def test_options_stand_before_or_after_what_they_apply_to() -> None:
    places = [
        parsed("data", "--out", "run", "--depth", "10", "--samples", "8", "9", "--resume"),
        parsed("--samples", "8", "9", "--out", "run", "--resume", "--depth=10", "data"),
        parsed("--out", "run", "data", "--resume", "--depth", "10", "--samples", "8", "9"),
    ]
    assert places[0] == places[1] == places[2]
    assert places[0].scene == Path("data") and places[0].resume and not places[0].overwrite
    assert places[0].weights == {"depth": 10.0, "samples": (8, 9)} and places[0].duration == {}


def test_every_weight_of_a_recipe_is_an_option_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    shown = capsys.readouterr().out
    words = " ".join(line.strip("│ ") for line in shown.splitlines())
    meaning = field_documentation(Recipe)
    for f in fields(Recipe):
        assert f"--{f.name.replace('_', '-')} " in words and len(meaning[f.name]) > 10
        assert " ".join(meaning[f.name].split()[:6]) in " ".join(words.split())
    assert "[1 / scene unit]" in words and "(default: 6; dvr: 3; code: 0)" in words


def test_weights_on_the_command_line_are_those_of_a_scene_file(tmp_path: Path) -> None:
    scene = tmp_path / "bunny.toml"
    scene.write_text('[views]\nmesh = "warp:bunny"\ncount = 3\ntest = 0\nsize = 16\n[mesh]\nresolution = 16\n')
    options = ["--iterations", "1", "--smooth", "0.5", "--sharpness", "20", "30", "--learn-background", "false"]
    assert main(["fit", *options, str(scene), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 0
    chosen = Run.open(tmp_path / "run").scene()
    assert chosen.fit == {"iterations": 1, "smooth": 0.5, "sharpness": (20.0, 30.0), "learn_background": False}
    assert chosen.recipe == Recipe(smooth=0.5, sharpness=(20.0, 30.0), learn_background=False)
    resumed = ["fit", "--resume", "--out", str(tmp_path / "run"), "--smooth", "0.1"]
    assert main(resumed) == 2 and Run.open(tmp_path / "run").scene() == chosen


@pytest.mark.parametrize("there", [False, True])
def test_the_gpu_is_the_default_where_there_is_one(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(there))
    monkeypatch.setattr("warpdvr.runtime.device.count_cuda_devices", lambda: int(there))
    assert parsed("data", "--out", "run").torch_device == torch.device("cuda" if there else "cpu")
    assert parsed("data", "--out", "run", "--device", "cpu").torch_device == torch.device("cpu")
    with pytest.raises(UsageError, match=r"there is no device cuda:1|Torch finds no CUDA device here"):
        parsed("data", "--out", "run", "--device", "cuda:1")


def test_every_command_says_the_same_in_the_overview_and_in_its_own_help(capsys: pytest.CaptureFixture[str]) -> None:
    for group in COMMANDS.values():
        for command in group:
            with pytest.raises(SystemExit) as ended:
                main([command.name, "--help"])
            assert ended.value.code == 0
            first = capsys.readouterr().out.split("\n\n")[1].splitlines()[0]
            assert first.rstrip(".").lower() == command.text.lower()


COMMAND_NAMES = [command.name for group in COMMANDS.values() for command in group]


@pytest.mark.parametrize("name", COMMAND_NAMES)
def test_every_option_says_what_it_means_and_its_default(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line that begins with an option or a positional argument, and those below it, up to the next."""
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit):
        main([name, "--help"])
    lines = [re.sub("[│╭╰╮╯─]", " ", line).strip() for line in capsys.readouterr().out.splitlines()]
    entries: list[str] = []
    box = next(i for i, line in enumerate(lines) if line.startswith("positional arguments"))
    for line in lines[box:]:
        if entries and entries[-1].count("(") > entries[-1].count(")"):
            entries[-1] += " " + line
        elif re.match("-h|--[a-z]|[A-Z_]{3,} ", line + " "):
            entries.append(line)
        elif entries and re.search("[a-z]", line) and not re.match(r"(weights )?options( -+)?$", line):
            entries[-1] += " " + line
    entries = [re.sub("(Values that replace .*)?-{9,}", "", entry) for entry in entries if not entry.startswith("-h")]
    assert entries
    for entry in entries:
        option = entry.split()[0]
        text = re.sub(r"\((default: .+|required)\)", "", entry.removeprefix(option)).strip()
        assert "(default: " in entry or "(required)" in entry, entry
        assert len(text) > 10 and text.endswith("."), entry


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("refine-cameras", "--by KIND ... What is compared: color, mask, depth. (default: color mask depth)"),
        ("fit", "--recipe NAME Set of weights and schedules: quick, dvr, code. (default: quick)"),
        ("fit", "--minutes M Fit for M minutes [min]. (default: that of the scene file, else 5;"),
        ("mesh", "--resolution N Cells along the longest side of the bounds. (default: that of the run's scene, else"),
        ("mesh", "--largest Keep only the largest connected piece. (default: off)"),
        (
            "fit-code",
            "--prior W Weight of the squared distance of the code from the mean of the known ones. (default:",
        ),
        ("view", "--screenshot FILE.png Write a picture instead of opening a window. (default: none: a window opens)"),
    ],
)
def test_help_names_kinds_defaults_and_units(
    name: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert words in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_the_overview_loads_neither_torch_nor_warp_nor_the_commands(tmp_path: Path) -> None:
    """In a fresh interpreter, below an empty `warpdvr` with a version."""
    code = f"""
import sys, types
package = sys.modules["warpdvr"] = types.ModuleType("warpdvr")
package.__path__, package.__version__ = [{str(ROOT / "warpdvr")!r}], "1"
from warpdvr.cli.main import main
try:
    main(["--help"])
finally:
    print([name for name in ("torch", "warp", "tyro", "msgspec", "warpdvr.cli.fit") if name in sys.modules])
"""
    done = python(code, tmp_path)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]" and "fit-code" in done.stdout


def test_the_help_of_a_fit_has_no_names_of_python(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the recipe, whose docstrings are the help of its options."""
    for text in field_documentation(Recipe).values():
        assert "`" not in text and "_" not in text
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    assert "`" not in capsys.readouterr().out
