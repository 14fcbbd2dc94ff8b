"""The tables of a scene file as frozen dataclasses, which the command line uses as well."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, make_dataclass
from functools import cache
from itertools import pairwise
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from warpdvr.fitting.recipe import RECIPES, Recipe
from warpdvr.runtime.validate import convert, is_plain, suggest

Table = dict[str, Any]
"""A table of a TOML file."""

O = TypeVar("O", bound="Options")


@dataclass(frozen=True, eq=False, kw_only=True)
class Options(Mapping[str, Any]):
    """Options by name; None means not chosen. As a mapping, it holds the options that were chosen."""

    def __getitem__(self, key: str) -> Any:
        value = getattr(self, key) if any(key == f.name for f in fields(self)) else None
        if value is None:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[str]:
        return (f.name for f in fields(self) if getattr(self, f.name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self) == dict(other)

    def __or__(self, other: Mapping[str, object]) -> Table:
        return {**self, **other}

    def __ror__(self, other: Mapping[str, object]) -> Table:
        return {**other, **self}

    @classmethod
    def from_table(cls: type[O], name: str, table: object) -> O:
        """Return the options in a table of a scene file; its name is used in messages.

        Raises:
            ValueError: if an option is unknown or its value has the wrong type; the message says what is expected.
            TypeError: if the table is not a mapping.
        """
        if not isinstance(table, Mapping):
            raise TypeError(f"[{name}] must be a table, got {table!r}")
        options = {f.name: f for f in fields(cls)}
        values: Table = {}
        for key, value in table.items():
            if key not in options:
                names = ", ".join(sorted(options))
                raise ValueError(f"scene: [{name}] has no option {key!r}; known are {names}{suggest(key, options)}")
            try:
                values[key] = convert(value, option_type(cls, options[key]))
            except TypeError as error:
                raise ValueError(f"scene: [{name}] {key} {error}") from None
        return cls(**values)


@dataclass(frozen=True, eq=False, kw_only=True)
class FolderOptions(Options):
    """How photographs in a folder are read, see `warpdvr.datasets.load.load`."""

    max_pixels: int | None = field(
        default=None, metadata={"metavar": "N", "usual": "none is, or that of the scene file"}
    )
    """Scale pictures of more pixels down to at most so many, with their masks and cameras."""
    depth_scale: float | None = field(default=None, metadata={"metavar": "X", "usual": "1, or that of the scene file"})
    """Factor from the unit of the depth maps to that of the cameras' positions."""
    turntable: float | None = field(
        default=None, metadata={"metavar": "DEGREES", "usual": "none: the cameras have poses of their own"}
    )
    """Photographs of one camera that stands still: by how much the object turned from each picture to the next,
    anticlockwise seen from above [degree]."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LoadOptions(FolderOptions):
    """How photographs are read and split, see `warpdvr.datasets.load.load`."""

    hold_out: int | None = field(default=None, metadata={"metavar": "N", "usual": "that of the scene file, else 8"})
    """Hold out views 0, hold_out, 2 hold_out, ... from training; 0: none."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PhotographOptions(LoadOptions):
    """[views]: photographs in a folder, see `warpdvr.datasets.load.load`."""

    folder: str | None = None
    """Folder of the data set."""
    normalise: bool | None = None
    """Move and scale the object into the unit sphere; false: keep the frame of the data."""
    cameras: str | None = None
    """Name of the camera file in the folder, where it holds several."""
    follow_links: bool | None = None
    """Let symbolic links in the folder lead to pictures elsewhere."""
    train: int | None = None
    """Fit so many of the views, evenly chosen, and leave out the others; held-out views stay."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SyntheticOptions(Options):
    """[views]: pictures that are rendered from a mesh, see `warpdvr.datasets.synthetic.mesh_views`."""

    mesh: str | None = None
    """Mesh file, "warp:NAME" for an asset that comes with Warp, or "solid:NAME" for a solid of ours."""
    normalise: bool | None = None
    """Move and scale the object into the unit sphere; false: keep the frame of the data."""
    count: int | None = None
    """Number of views to fit."""
    test: int | None = None
    """Number of held-out views."""
    size: int | None = None
    """Width and height of the images [pixel]."""
    fov: float | None = None
    """Field of view [degree]."""
    distance: float | None = None
    """Distance of the cameras from the origin [scene unit]."""
    lowest: float | None = None
    """Elevation below which no camera stands [degree]."""
    up: str | None = None
    """Axis of the mesh that points up, "y" or "z"."""
    seed: int | None = None
    """Seed of the small displacements of the cameras."""
    depth: bool | None = None
    """Render depth maps too."""
    points: int | None = None
    """Number of random points of each view whose depth is known."""
    train: int | None = None
    """Fit so many of the views, evenly chosen, and leave out the others; held-out views stay."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MeshOptions(Options):
    """[mesh]: options of `warpdvr.geometry.isosurface.extract`."""

    resolution: int | None = field(default=None, metadata={"metavar": "N"})
    """Cells along the longest side of the bounds."""
    project: int | None = None
    """Number of Newton steps that pull each vertex onto the surface."""
    colors: bool | None = None
    """Give the vertices the colours of the field."""
    largest: bool | None = None
    """Keep only the largest connected piece."""
    cavities: bool | None = None
    """Keep the walls of closed cavities."""
    smallest: float | None = field(default=None, metadata={"metavar": "SHARE", "usual": "0.005"})
    """Leave out pieces that enclose at most this share of the largest one's volume."""
    grid: bool | None = None
    """Skip boxes in which bounds of the field exclude the surface."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Duration(Options):
    """The duration and the seed of a fit."""

    minutes: float | None = field(
        default=None,
        metadata={
            "metavar": "M",
            "exclusive": "duration",
            "usual": "that of the scene file, else 5; fit-code: none, it counts steps",
        },
    )
    """Fit for M minutes [min]."""
    iterations: int | None = field(
        default=None,
        metadata={
            "metavar": "N",
            "exclusive": "duration",
            "usual": "that of the scene file, else none, it counts minutes; fit-code: 300",
        },
    )
    """Fit for N steps."""
    seed: int | None = field(default=None, metadata={"metavar": "S", "usual": "0"})
    """Seed of the first weights and of the rays."""


def _weights() -> type[Options]:
    """Return a dataclass with the names, types and docstrings of a recipe, whose values are None unless chosen."""
    hints, documentation = get_type_hints(Recipe), field_documentation(Recipe)
    options = []
    for f in fields(Recipe):
        kind = f.metadata.get("type", hints[f.name])
        if not is_plain(kind):
            continue
        about = {"type": kind, "documentation": documentation.get(f.name, ""), "usual": _usual(f.name)}
        options.append((f.name, kind | None, field(default=None, metadata=about)))
    about_class = {"__module__": __name__, "__doc__": "Values that replace those of a recipe."}
    return make_dataclass(
        "Weights", options, bases=(Options,), frozen=True, eq=False, kw_only=True, namespace=about_class
    )


def _usual(name: str) -> str:
    """Return the default of an option of a recipe in words, and its values in recipes where they differ."""

    def written(value: object) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, tuple):
            return " ".join(map(written, value)) or "none"
        return f"{value:g}" if isinstance(value, float) else str(value).replace("None", "that of the field")

    values = {recipe: written(getattr(r, name)) for recipe, r in RECIPES.items()}
    usual, *_ = values.values()
    return "; ".join([usual, *(f"{recipe}: {value}" for recipe, value in values.items() if value != usual)])


def option_type(cls: type, option: "Field[object]") -> object:
    """Return the type that the value of an option must have: its annotation without None."""
    if "type" in option.metadata:
        return option.metadata["type"]
    return without_none(get_type_hints(cls)[option.name])


def without_none(hint: object) -> object:
    """Return a type without the None of its union."""
    if get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint):
        return Union[tuple(part for part in get_args(hint) if part is not NoneType)]  # noqa: UP007 (only known at run time)
    return hint


@cache
def field_documentation(cls: type) -> dict[str, str]:
    """Return the docstrings below the fields of a dataclass and of its bases, each on one line."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not hasattr(base, "__dataclass_fields__"):
            continue
        try:
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError):  # a class made at run time
            continue
        lines = definition.body if isinstance(definition, ast.ClassDef) else []
        for line, below in pairwise(lines):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(below, ast.Expr):
                text = ast.literal_eval(below.value)
                texts[line.target.id] = " ".join(text.split())
    return texts | {f.name: f.metadata["documentation"] for f in fields(cls) if "documentation" in f.metadata}


if TYPE_CHECKING:

    class Weights(Options):
        """Values that replace those of a recipe."""

else:
    Weights = _weights()


@dataclass(frozen=True, eq=False, kw_only=True)
class FitOptions(Weights, Duration):
    """[fit]: a recipe by name, values that replace its own, and the duration."""

    recipe: str | None = None
    """A key of `warpdvr.fitting.recipe.RECIPES`; by default "quick"."""
    shape: str | None = None
    """For a field of kind `repaint`: the run whose surface it has."""
