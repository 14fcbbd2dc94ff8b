"""The house itself: what is packaged, what imports what, how large things are, and that the README tells the truth."""

import ast
import importlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import warpdvr
from warpdvr.fields.base import Field

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
FIELDS: dict[str, str] = PROJECT["project"]["entry-points"]["warpdvr.fields"]

MODULES = sorted(
    file
    for top in ("warpdvr", "kernels", "fields")
    for file in (ROOT / top).rglob("*.py")
    if not {ROOT / "warpdvr" / "kernels", ROOT / "warpdvr" / "fields"} & set(file.parents)
)
"""Every module of the package, where it really lies."""


def python(code, cwd, **environment):
    """Run code in a fresh interpreter that finds nothing in the current folder unless told to."""
    command, env = [sys.executable, "-W", "error", "-c", code], os.environ | environment
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def test_every_folder_of_modules_is_packaged():
    table = PROJECT["tool"]["setuptools"]
    where = {name: ROOT / table["package-dir"].get(name, name.replace(".", "/")) for name in table["packages"]}
    assert {file.parent for file in MODULES} == set(where.values())


def test_the_wheel_built_from_the_sdist_has_every_module(tmp_path):
    """Built from a copy: setuptools would take old lists of files and old builds beside the sources as they are."""
    source, out = tmp_path / "source", tmp_path / "out"
    for folder in ("warpdvr", "kernels", "fields"):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    with tarfile.open(next(out.glob("*.tar.gz"))) as sdist:
        sdist.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=unpacked, check=True, capture_output=True)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = {file.relative_to(ROOT).as_posix() for file in MODULES} | {"warpdvr/py.typed"}
    assert held == {name if name.startswith("warpdvr/") else f"warpdvr/{name}" for name in expected}


@pytest.mark.parametrize("name", ["kernels", "fields"])
def test_the_folders_at_the_top_are_no_packages_of_their_own(name):
    run = python(f"import {name}", ROOT)
    assert run.stderr.endswith(f"ImportError: {name}/ is not a package of its own: import warpdvr.{name}\n")
    assert (ROOT / "warpdvr" / name).resolve() == ROOT / name


def test_kernels_are_free_of_torch(tmp_path):
    """Every module of kernels/ is imported below an empty `warpdvr`, since the real one imports Torch."""
    code = f"""
import importlib, pkgutil, sys, types
sys.modules["warpdvr"] = types.ModuleType("warpdvr")
sys.modules["warpdvr"].__path__ = [{str(ROOT / "warpdvr")!r}]
import warpdvr.kernels
names = [m.name for m in pkgutil.iter_modules(warpdvr.kernels.__path__, "warpdvr.kernels.")]
assert len(names) > 5, names
for name in names:
    importlib.import_module(name)
print([name for name in sys.modules if name.split(".")[0] == "torch" or name == "warpdvr.runtime.launch"])
"""
    run = python(code, tmp_path)
    assert (run.stdout, run.stderr) == ("[]\n", "")


def test_kernels_whose_sums_have_no_order_are_named():
    """Threads of a GPU add atomically in the order in which they arrive: where, and what follows, is documented."""
    atomic = {f"kernels/{file.name}" for file in MODULES if "atomic_" in file.read_text()}
    page = (ROOT / "docs" / "promises" / "same-kernels.md").read_text()
    assert atomic == set(re.findall(r"`(kernels/\w+\.py)`", page))


def test_the_import_is_quick_and_loads_no_viewer_and_no_usd(tmp_path):
    """With its bytecode at hand, as an installed package has it."""
    code = """
import sys, time
import torch, warp
start = time.perf_counter()
import warpdvr
print(time.perf_counter() - start, [name for name in ("polyscope", "pxr", "scipy", "trimesh") if name in sys.modules])
"""
    seconds, loaded = [], []
    for _ in range(3):
        run = python(code, tmp_path, PYTHONDONTWRITEBYTECODE="", PYTHONPYCACHEPREFIX=str(tmp_path / "bytecode"))
        assert run.stderr == ""
        first, rest = run.stdout.split(" ", 1)
        seconds.append(float(first))
        loaded.append(rest)
        if min(seconds) < 0.3:
            break
    assert loaded == ["[]\n"] * len(loaded)
    assert min(seconds) < 0.3


def test_public_names_are_loaded_when_they_are_used(tmp_path):
    """The bare package loads neither Torch nor Warp, and all of its names neither viewer nor USD."""
    code = """
import sys
import warpdvr
heavy = "torch", "warp", "polyscope", "pxr", "scipy", "trimesh"
before = [name for name in heavy if name in sys.modules], sorted(set(warpdvr.__all__) - set(dir(warpdvr)))
from warpdvr import *
print(before, [name for name in heavy if name in sys.modules])
"""
    run = python(code, tmp_path)
    assert (run.stdout, run.stderr) == ("([], []) ['torch', 'warp']\n", "")


def test_public_names_are_those_that_checkers_see():
    tree = ast.parse((ROOT / "warpdvr/__init__.py").read_text())
    imports = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and str(node.module)[:8] == "warpdvr."
    ]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert sorted(seen) == sorted(warpdvr.__all__) == sorted(set(warpdvr.__all__))
    for name, module in seen.items():
        assert getattr(warpdvr, name) is getattr(importlib.import_module(str(module)), name)
    with pytest.raises(AttributeError, match="module 'warpdvr' has no attribute 'nothing'"):
        _ = warpdvr.nothing


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_named_in_pyproject_is_one(name):
    module, _, member = FIELDS[name].partition(":")
    assert issubclass(getattr(importlib.import_module(module), member), Field)


def test_modules_are_short_and_have_a_topic():
    assert len(MODULES) > 20
    lines = {file.relative_to(ROOT).as_posix(): len(file.read_text().splitlines()) for file in MODULES}
    assert {name: n for name, n in lines.items() if n > 300} == {}
    assert 110 <= statistics.median(n for name, n in lines.items() if not name.endswith("__init__.py")) <= 200
    vague = {"util", "utils", "common", "helper", "helpers", "misc", "config", "warp"}
    assert [file for file in MODULES if {file.stem, file.parent.name} & vague] == []


def test_functions_are_short():
    """Outside of kernels/, whose loops Warp compiles as a whole."""
    long = {}
    for file in MODULES:
        if file.parent.name == "kernels":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and (n := int(node.end_lineno or 0) - node.lineno + 1) > 60:
                long[f"{file.relative_to(ROOT)}:{node.name}"] = n
    assert long == {}


def test_nobody_probes_a_field():
    """Inside of the package a field is a `Field`; `as_field` alone looks at anything else."""
    probe = re.compile(r"hasattr\(field|getattr\(field|field: Any|type\(field\)")
    files = [file for file in MODULES if file.parent.name != "kernels"]
    assert [str(file.relative_to(ROOT)) for file in files if probe.search(file.read_text())] == []


def test_floors_are_few_and_all_packages_are_on_them():
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    floors = next(contract for contract in contracts if contract["name"] == "floors")
    assert floors["exhaustive"] and len(floors["layers"]) <= 9
    listed = [name for line in floors["layers"] for name in re.split(r" [|:] ", line)]
    packages = {name.partition(".")[2] for name in PROJECT["tool"]["setuptools"]["packages"]} - {""}
    assert sorted(listed) == sorted(packages)


def test_the_quick_selection_uses_every_package():
    """`make check` runs these files; each package is imported by one of them."""
    lines = (ROOT / "Makefile").read_text().replace("\\\n", " ").splitlines()
    files = next(line for line in lines if line.startswith("QUICK = ")).split()[2:]
    text = "\n".join((ROOT / file).read_text() for file in files if file != "tests/test_house.py")
    packages = [name for name in PROJECT["tool"]["setuptools"]["packages"] if name != "warpdvr"]
    assert [name for name in packages if not re.search(rf"(from|import) {name}\b", text)] == []


def test_no_file_is_large():
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout: what belongs to the project cannot be told from the rest")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    files = [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    assert len(files) > 20
    assert [file for file in files if file.stat().st_size > 1_000_000] == []


def blocks(text):
    """Return the ```python blocks of a text, each with as many empty lines before it as it has lines above it."""
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return ["\n" * text.count("\n", 0, match.start(1)) + match[1] for match in found]


def test_code_blocks_are_found():
    text = "a\n```python\nx = 1\n```\n```sh\nls\n```\n\n```python\n\nassert x == 1\n```\n"
    assert blocks(text) == ["\n\nx = 1\n", "\n" * 9 + "\nassert x == 1\n"]


def test_the_code_in_the_readme_runs(tmp_path, monkeypatch):
    """All blocks, from the top to the end, as one program; a traceback shows the line of the README."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "readme"}
    for block in blocks((ROOT / "README.md").read_text()):
        exec(compile(block, str(ROOT / "README.md"), "exec"), names)
