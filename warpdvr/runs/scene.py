"""Scene files: the views, the field, how it is fitted, and how its mesh is extracted."""

import dataclasses
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from warpdvr.datasets.load import load
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.datasets.thinning import thinned
from warpdvr.datasets.views import Views
from warpdvr.fields.base import Field
from warpdvr.fields.registry import check_options, make
from warpdvr.fitting.recipe import Recipe, find_recipe
from warpdvr.geometry.isosurface import check_resolution
from warpdvr.runs.options import FitOptions, MeshOptions, PhotographOptions, SyntheticOptions, Table
from warpdvr.runtime.parsing import check_regular, describe_error, parsing, read_text
from warpdvr.runtime.validate import suggest

DEFAULT_FIELD: Table = {"kind": "hashgrid", "bounds": 1.1}
"""The field that is fitted by default. A little larger than the unit sphere, since hulls of masks are not exact."""


@dataclass(frozen=True, init=False)
class Scene:
    """The four tables of a scene file; each may be left out, and holds only the options that were chosen."""

    views: PhotographOptions | SyntheticOptions
    """Photographs in a `folder`, or a `mesh` to render."""
    field: Table
    """`kind`, the name of the field, and its options."""
    fit: FitOptions
    """A `recipe` by name, values that replace its own, and the duration."""
    mesh: MeshOptions
    """How the surface is extracted."""

    def __init__(
        self,
        views: Mapping[str, object] | None = None,
        field: Mapping[str, object] | None = None,
        fit: Mapping[str, object] | None = None,
        mesh: Mapping[str, object] | None = None,
    ):
        """Check the tables of a scene file, or the options of another scene.

        Raises:
            ValueError: if an option or a name is unknown or a value is wrong; the message lists the known names.
            TypeError: if one of them is not a table.
        """
        views, field = {} if views is None else views, DEFAULT_FIELD if field is None else field
        fit, mesh = {} if fit is None else fit, {} if mesh is None else mesh
        if not all(isinstance(table, Mapping) for table in (views, field, fit, mesh)):
            raise TypeError("views, field, fit and mesh must be tables")
        if "kind" not in field or not isinstance(field["kind"], str):
            raise ValueError('scene: [field] has no kind; it is the name of a field, such as kind = "sdf"')
        if views and ("folder" in views) == ("mesh" in views):
            raise ValueError("scene: [views] needs a folder of photographs or a mesh to render, one of them")
        kind = SyntheticOptions if "mesh" in views else PhotographOptions
        object.__setattr__(self, "views", kind.from_table("views", views))
        object.__setattr__(self, "field", dict(field))
        object.__setattr__(self, "fit", FitOptions.from_table("fit", fit))
        object.__setattr__(self, "mesh", MeshOptions.from_table("mesh", mesh))
        self._check()

    def _check(self) -> None:
        """Refuse values that no fit could use, before anything is loaded."""
        check_resolution(self.mesh.get("resolution", 1), "scene: [mesh] resolution")
        for name in ("minutes", "iterations"):
            if not 0 < self.fit.get(name, 1) < math.inf:
                raise ValueError(f"scene: [fit] {name} must be positive, got {self.fit[name]}")
        if not 0 <= self.fit.get("seed", 0) < 2**63:
            raise ValueError(f"scene: [fit] seed must lie between 0 and 2^63 - 1, got {self.fit.seed}")
        try:
            check_options(self.field["kind"], self.options)
        except TypeError as error:
            raise ValueError(f"scene: [field] holds a value of another type than expected: {error}") from None
        _ = self.recipe

    def load_views(
        self,
        *,
        progress: Callable[[float, str], None] | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> Views:
        """Read or render the views.

        Args:
            progress: called with the share of the photographs that are read, from 0 to 1, and a text.
            notice: called with a sentence before photographs are decoded, if they have no masks.

        Raises:
            ValueError: if the scene has none, or they cannot be read.
        """
        views = self._all_views(progress, notice)
        return thinned(views, self.views["train"]) if "train" in self.views else views

    def _all_views(self, progress: Callable[[float, str], None] | None, notice: Callable[[str], None] | None) -> Views:
        options = {k: v for k, v in self.views.items() if k not in ("folder", "mesh", "train")}
        if "folder" in self.views:
            return load(self.views["folder"], progress=progress, notice=notice, **options)
        if "mesh" in self.views:
            normalise = options.pop("normalise", True)
            views = mesh_views(self.views["mesh"], **options)
            return views if normalise else views.in_data_frame()
        raise ValueError("scene: there is no [views] table, so there are no photographs to work with")

    def make_field(self) -> Field:
        """Make the field with its first weights.

        Raises:
            ValueError: if the value of an option makes no sense.
        """
        try:
            return make(self.field["kind"], **self.options)
        except TypeError as error:  # from an option without a useful annotation
            raise ValueError(f"scene: [field] holds a value of another type than expected ({error})") from None
        except RuntimeError as error:  # of Torch, such as from a negative size
            raise ValueError(f"scene: [field] holds a value of which no field can be made ({error})") from None

    @property
    def options(self) -> Table:
        """The field's options without its kind."""
        return {k: v for k, v in self.field.items() if k != "kind"}

    @property
    def recipe(self) -> Recipe:
        """The recipe of the fit, with the values that replace its own."""
        try:
            recipe = find_recipe(self.fit.get("recipe"))
        except ValueError as error:
            raise ValueError(f"scene: [fit] {str(error).removeprefix('fit: ')}") from None
        values = {f.name: self.fit[f.name] for f in fields(Recipe) if f.name in self.fit}
        return dataclasses.replace(recipe, **values)

    def with_fit(self, fit: Mapping[str, object]) -> "Scene":
        """Return the scene with another table [fit]."""
        return Scene(self.views, self.field, fit, self.mesh)

    def tables(self) -> dict[str, Table]:
        """Return the scene as it is written to a file: only the options that were chosen."""
        return {f.name: dict(table) for f in fields(self) if (table := getattr(self, f.name))}


def read(path: Path) -> Scene:
    """Read a scene file, or make the scene of a folder of photographs, with defaults for everything else.

    A relative path of a `folder`, a `mesh` or a `shape` is relative to the scene file.

    Raises:
        ValueError: if there is nothing at `path`, or it is not a scene; the message names the file.
    """
    if path.is_dir():
        return Scene(views={"folder": str(path.resolve())})
    tables = read_tables(path)
    for table, key in (("views", "folder"), ("views", "mesh"), ("fit", "shape")):
        value = tables.get(table, {}).get(key)
        if isinstance(value, str) and not value.startswith(("warp:", "solid:")):
            with parsing(path, f"the name of a file as {key} in [{table}]"):
                tables[table][key] = str((path.parent / value).resolve())
    return from_tables(path, tables)


def read_tables(path: Path) -> dict[str, Table]:
    """Read the tables of a scene file, without checking their options.

    Raises:
        ValueError: if the file is not TOML, or has anything but tables of a scene; the message names the file.
    """
    check_regular(path, "a scene file (.toml) or a folder of photographs")
    text = read_text(path, "a scene file in TOML", most=2**24)
    with parsing(path, "a scene file in TOML"):
        tables = tomllib.loads(text)
    names = [f.name for f in fields(Scene)]
    unknown = [name for name in tables if name not in names]
    if unknown or not all(isinstance(table, dict) for table in tables.values()):
        hint = next((hint for name in unknown if (hint := suggest(name, names))), "")
        found = ", ".join(sorted(tables))
        raise ValueError(f"{path}: expected the tables views, field, fit and mesh, found {found}{hint}")
    return tables


def from_tables(path: Path, tables: Mapping[str, Table]) -> Scene:
    """Return the scene of the tables of a file.

    Raises:
        ValueError: if an option or a name is unknown or a value is wrong; the message names the file.
    """
    try:
        return Scene(**tables)
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix('scene: ')}") from None
    except (OverflowError, RecursionError, TypeError) as error:  # numbers and nesting that no option can have
        raise ValueError(f"{path}: holds a value that no option can have ({describe_error(error)})") from None
