"""The documentation: its code runs, every page and package is in it, and its links lead somewhere."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from test_house import PROJECT, ROOT, blocks

import warpdvr

DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.glob("**/*.md") if not page.is_symlink() and "api" not in page.parts)
CODE = [page for page in PAGES if blocks(page.read_text())]


def outline() -> list[str]:
    """Return the pages in the navigation of the site."""
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    return re.findall(r"([\w/-]+\.md)$", navigation, re.MULTILINE)


@pytest.mark.parametrize("page", CODE, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page, as one program; a traceback shows the line of the page."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "docs"}
    for block in blocks(page.read_text()):
        exec(compile(block, str(page), "exec"), names)


def test_most_pages_of_the_guide_have_code() -> None:
    assert {page.stem for page in CODE} >= {"index", "quickstart", "fields", "cameras", "solvers", "fitting", "usd"}


def test_every_page_is_in_the_navigation() -> None:
    assert sorted(set(outline())) == sorted(outline())
    written = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    written |= {f"benchmarks/{page.name}" for page in (ROOT / "benchmarks").glob("*.md")}
    assert set(outline()) == written


def test_every_package_has_a_page() -> None:
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        if package != "warpdvr":
            page = DOCS / "api" / f"{package.removeprefix('warpdvr.')}.md"
            assert f"::: {package}\n" in page.read_text()


def test_every_public_name_is_listed_where_it_is_defined() -> None:
    listed = re.findall(r"\[`warpdvr\.(\w+)`\]\[([\w.]+)\]", (DOCS / "api/index.md").read_text())
    assert sorted(name for name, _ in listed) == sorted(warpdvr.__all__)
    for name, path in listed:
        member = getattr(warpdvr, name)
        assert f"{member.__module__}.{member.__qualname__}" == path


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|<img src=\"([^\":]+)\"", text):
        assert (page.parent / (link[0] or link[1])).exists(), f"{page}: {link}"
    for script in re.findall(r"python ((?:examples|benchmarks)/\w+\.py)|pytest ((?:tests/\w+\.py ?)+)", text):
        for name in " ".join(script).split():
            assert (ROOT / name).exists(), f"{page}: {name}"


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 110
    assert len(re.findall(r"<img |!\[", text)) == 3
    first = ast.parse(blocks(text)[0])
    assert len(first.body) > 2


def test_the_architecture_page_names_every_module() -> None:
    """Each in the row of its package, and no other ones."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (`.*) \|$", text, re.MULTILINE)
    listed = {package: set(re.findall(r"`(\w+)`", modules)) for package, modules in rows}
    folders = [path.parent for path in (ROOT / "warpdvr").glob("*/__init__.py")]
    assert listed == {f.name: {m.stem for m in f.glob("*.py")} - {"__init__"} for f in folders}
