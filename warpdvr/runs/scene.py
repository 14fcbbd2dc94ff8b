"""Scene files: where views come from, which field, how to fit it, what to export."""

import dataclasses
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields
from inspect import signature
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from torch import nn

from warpdvr.fields.base import Field
from warpdvr.fields.registry import make
from warpdvr.geometry.isosurface import extract
from warpdvr.fitting.recipe import RECIPES, Recipe
from warpdvr.datasets.load import load
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.datasets.views import Views

Table = dict[str, Any]

DEFAULT_FIELD: Table = {"kind": "hashgrid", "bounds": 1.1}
"""What is fitted if nothing else is asked for. A little larger than the unit sphere: hulls of masks are not exact."""


VIEWS = {"folder": str, "mesh": str, "normalise": bool}
"""Options of [views] beside those of the function that it is for."""

FIT = {"minutes": float, "iterations": int, "seed": int, "recipe": str, "shape": str}
"""Options of [fit] beside those of a recipe."""


@dataclass(frozen=True)
class Scene:
    """The four tables of a scene file; each may be left out.

    Raises:
        ValueError: if an option is unknown; the sentence names those that are known.
    """

    views: Table = dataclasses.field(default_factory=dict)
    """`folder` and the options of `warpdvr.datasets.load.load`, or `mesh` and those of `mesh_views`; `normalise` for
    both."""
    field: Table = dataclasses.field(default_factory=lambda: dict(DEFAULT_FIELD))
    """`kind`, the field's name, and its options."""
    fit: Table = dataclasses.field(default_factory=dict)
    """`minutes` or `iterations`, `seed`, `recipe` (a key of `warpdvr.fitting.recipe.RECIPES`; "quick" if there is
    none), and what is to be another way than in that: what a `warpdvr.Recipe` holds; for a field `repaint`, `shape` is
    the run whose surface it has."""
    mesh: Table = dataclasses.field(default_factory=dict)
    """Options of `warpdvr.geometry.isosurface.extract`."""

    def __post_init__(self) -> None:
        if "kind" not in self.field:
            raise ValueError('scene: [field] has no kind; it is the name of a field, such as kind = "sdf"')
        if self.views and ("folder" in self.views) == ("mesh" in self.views):
            raise ValueError("scene: [views] needs a folder of photographs or a mesh to render, one of them")
        known = {
            "views": _options(mesh_views if "mesh" in self.views else load) | VIEWS,
            "fit": get_type_hints(Recipe) | FIT,
            "mesh": _options(extract),
        }
        for table, kinds in known.items():
            for key, value in getattr(self, table).items():
                if key not in kinds:
                    raise ValueError(f"scene: [{table}] has no option {key!r}; known are {', '.join(sorted(kinds))}")
                if not _fits(value, kinds[key]):
                    kind = getattr(kinds[key], "__name__", kinds[key])
                    raise ValueError(f"scene: [{table}] {key} must be of type {kind}, got {value!r}")
        if self.mesh.get("resolution", 1) < 1:
            raise ValueError(f"scene: [mesh] resolution must be at least 1, got {self.mesh['resolution']}")
        if not 0 <= self.fit.get("seed", 0) < 2**63:
            raise ValueError(f"scene: [fit] seed must lie between 0 and 2^63 - 1, got {self.fit['seed']}")

    def load_views(self) -> Views:
        """Read or render the views.

        Raises:
            ValueError: if the scene has none, or they cannot be read.
        """
        options = {k: v for k, v in self.views.items() if k not in ("folder", "mesh")}
        if "folder" in self.views:
            return load(self.views["folder"], **options)
        if "mesh" in self.views:
            normalise = options.pop("normalise", True)
            views = mesh_views(self.views["mesh"], **options)
            return views if normalise else views.as_given()
        raise ValueError("scene: there is no [views] table, so there are no photographs to work with")

    def make_field(self) -> Field:
        """Make the field, with its first weights."""
        try:
            return make(self.field["kind"], **self.options)
        except TypeError as error:  # what a field takes is its own affair
            raise ValueError(f"scene: [field] holds a value of another type than expected ({error})") from None

    @property
    def options(self) -> Table:
        """The field's options without its kind."""
        return {k: v for k, v in self.field.items() if k != "kind"}

    @property
    def recipe(self) -> Recipe:
        """How to fit."""
        known, name = {f.name for f in fields(Recipe)}, self.fit.get("recipe", "quick")
        if name not in RECIPES:
            raise ValueError(f"scene: [fit] unknown recipe {name!r}; known are {', '.join(RECIPES)}")
        chosen: Table = {k: tuple(v) if isinstance(v, list) else v for k, v in self.fit.items() if k in known}
        return dataclasses.replace(RECIPES[name], **chosen)

    def tables(self) -> Table:
        """Return the scene as it is written to a file."""
        return {name: table for f in fields(self) if (table := getattr(self, (name := f.name)))}


def read(path: Path) -> Scene:
    """Read a scene file; a folder of photographs is a scene with every other choice left open.

    A relative `folder` or `mesh` file in a scene file starts at the scene file.

    Raises:
        ValueError: if there is nothing at `path`, or it is no scene.
    """
    if path.is_dir():
        return Scene(views={"folder": str(path.resolve())})
    if not path.is_file():
        raise ValueError(f"{path}: expected a scene file (.toml) or a folder of photographs, found nothing")
    try:
        tables = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a scene file in TOML, found something else ({error})") from None
    unknown = set(tables) - {f.name for f in fields(Scene)}
    if unknown or not all(isinstance(table, dict) for table in tables.values()):
        raise ValueError(f"{path}: expected the tables views, field, fit and mesh, found {', '.join(sorted(tables))}")
    views = tables.get("views", {})
    for key in ("folder", "mesh"):
        if isinstance(views.get(key), str) and not views[key].startswith("warp:"):
            views[key] = str((path.parent / views[key]).resolve())
    if isinstance(shape := tables.get("fit", {}).get("shape"), str):
        tables["fit"]["shape"] = str((path.parent / shape).resolve())
    return Scene(**tables)


def _options(function: Callable[..., Any]) -> dict[str, Any]:
    """The options of a function by name, with their types."""
    hints = get_type_hints(function)
    return {name: hints[name] for name in list(signature(function).parameters)[1:]}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value from a TOML file is of this type; whole numbers are numbers, lists are tuples."""
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        if parts[-1] is ...:
            return isinstance(value, list | tuple) and all(_fits(item, parts[0]) for item in value)
        return isinstance(value, list | tuple) and len(value) == len(parts) and all(map(_fits, value, parts))
    if get_args(kind):
        return any(_fits(value, one) for one in get_args(kind))
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, (int, float) if kind is float else kind)
