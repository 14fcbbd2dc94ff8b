"""Parse the options of a command with tyro; a mistake is explained in one sentence."""

import inspect
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import EllipsisType
from typing import Annotated, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from warpdvr.cli.arguments import OnDevice
from warpdvr.runs.options import field_documentation, option_type, without_none
from warpdvr.runtime.validate import suggest

T = TypeVar("T")


class UsageError(Exception):
    """A mistake on the command line, in one sentence."""


def parse(options: type[T], command: str, words: Sequence[str]) -> T:
    """Return the options of a command from the words after its name.

    Raises:
        UsageError: if an option is unknown or missing, or its value has the wrong type.
        SystemExit: after the help was printed.
    """
    registry, messages = ConstructorRegistry(), io.StringIO()
    registry.struct_rule(_arguments)
    settings = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
    try:
        with registry, redirect_stderr(messages):
            parsed = tyro.cli(
                options, prog=f"warpdvr {command}", description=inspect.getdoc(options), args=words, config=settings
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise UsageError(_explain(options, command, words, messages.getvalue())) from None
    _check_exclusive(parsed)
    if isinstance(parsed, OnDevice):
        try:
            _ = parsed.torch_device
        except ValueError as error:
            raise UsageError(f"--device: {error}") from None
    return parsed


def option_names(parsed: object) -> list[str]:
    """Return the names of all options of a command, as they are typed."""
    return [name for name, _, _ in _options(type(parsed), parsed)]


def name_options(message: str, parsed: object) -> str:
    """Return an error message that calls options as they were typed: `--depth` for `fit: depth` or `[fit] depth`.

    Args:
        message: begins with a command or a table, and the name of a value.
        parsed: the options of the command; other names than those of its chosen options are left as they are.
    """
    typed = {f.name: name for name, f, value in _options(type(parsed), parsed) if value not in (None, f.default)}
    match = re.match(r"(?:[\w-]+: )?(?:\[\w+\] )?(unknown )?(\w+) ", message)
    if match is None or match[2] not in typed:
        return message
    rest = message[match.end(2) :]
    return f"{typed[match[2]]}: {match[1]}{match[2]}{rest}" if match[1] else f"{typed[match[2]]}{rest}"


def _check_exclusive(parsed: object) -> None:
    """Refuse two options that exclude each other."""
    groups: dict[str, str] = {}
    for name, f, value in _options(type(parsed), parsed):
        if (group := f.metadata.get("exclusive")) and value != f.default:
            if group in groups:
                raise UsageError(f"{groups[group]} and {name} contradict each other; give one of them")
            groups[group] = name


def _explain(options: type, command: str, words: Sequence[str], box: str) -> str:
    """Return one sentence for the message that tyro shows in a box; it suggests the name of a misspelt option."""
    names = ["--help", *(name for name, _, _ in _options(options))]
    help_ = f"`warpdvr {command} --help` lists all options"
    for word in words:
        name = word.split("=")[0].replace("_", "-")
        if name.startswith("--") and name not in names:
            return f"{command} has no option {name}{suggest(name, names) or '; ' + help_}"
    text = _first_part(box)
    if text.startswith("Missing from "):
        needed = " and ".join(label for label in _required(options) if label in text)
        return f"{command} needs {needed}; {help_}"
    if match := re.match(r"Unrecognized options: (.*)", text):
        return f"{command} takes no further argument, got {match[1]}; {help_}"
    if match := re.match(r"Missing value for argument '(.*)'. Expected (\d+) values", text):
        return f"{match[1]} needs {'a value' if match[2] == '1' else match[2] + ' values'}; {help_}"
    return f"{text.rstrip('.!')}; {help_}"


def _first_part(box: str) -> str:
    """Return the text between the title of a box and its first rule, on one line; its frame may be ASCII."""
    lines = [line.strip("│ ") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    rules = [i for i, line in enumerate(lines) if i > 1 and re.fullmatch("[─-]{5,}|╰.*", line)]
    text = [line for line in lines[1 : rules[0] if rules else None] if not re.fullmatch("[─-]*", line)]
    return " ".join(text)


def _options(options: type, parsed: object = None) -> Iterator[tuple[str, "Field[object]", object]]:
    """Yield the names of all options as they are typed, with their fields and values."""
    hints = get_type_hints(options)
    for f in fields(options):
        value = getattr(parsed, f.name, None)
        if is_dataclass(hints[f.name]):
            yield from _options(hints[f.name], value)
        elif "positional" not in f.metadata:
            yield _written(f), f, value


def _required(options: type) -> Iterator[str]:
    """Yield the required arguments, as the help writes them."""
    for f in fields(options):
        if f.default is MISSING and "metavar" in f.metadata:
            metavar = f.metadata["metavar"]
            yield metavar if "positional" in f.metadata else f"{_written(f)} {metavar}"


def _written(f: "Field[object]") -> str:
    """Return the name of an option as it is typed."""
    return "--" + f.name.replace("_", "-")


def _arguments(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Describe the fields of a dataclass of options to tyro."""
    if not is_dataclass(info.type):
        return None
    flat, specs = {}, []
    for f in sorted(fields(info.type), key=lambda f: f.name == "device"):  # last, for all commands
        if "flat" in f.metadata:
            flat[f.name] = get_type_hints(info.type)[f.name]
            specs += [_field(flat[f.name], inner) for inner in fields(flat[f.name])]
        else:
            specs.append(_field(info.type, f))

    def instantiate(**values: object) -> object:
        for name, kind in flat.items():
            values[name] = kind(**{inner.name: values.pop(inner.name) for inner in fields(kind)})
        return info.type(**values)

    return StructConstructorSpec(instantiate=instantiate, fields=tuple(specs))


def _field(options: type, f: "Field[object]") -> StructFieldSpec:
    """Describe a field to tyro: a group of options, a flag, or an argument with a value."""
    hint, marks = get_type_hints(options)[f.name], []
    if hint is bool:
        marks = [tyro.conf.arg(help_behavior_hint="(default: off)")]
    elif not is_dataclass(hint):
        hint, marks = _argument(options, f)
    kind = cast("type[object]", Annotated[(hint, *marks)] if marks else hint)
    default = tyro.MISSING if f.default is MISSING else f.default
    return StructFieldSpec(f.name, kind, default, helptext=field_documentation(options).get(f.name, ""))


def _argument(options: type, f: "Field[object]") -> tuple[object, list[object]]:
    """Return the type of an argument with a value, and how tyro reads and shows it."""
    kind, name = without_none(option_type(options, f)), _written(f)
    positional = "positional" in f.metadata
    metavar = f.metadata.get("metavar") or _metavar(kind)
    item, count = _parts(kind)

    def read(words: list[str]) -> object:
        if item is None:
            return _value(kind, words[0], metavar if positional else name)
        return tuple(_value(item, word, name) for word in words)

    spec = PrimitiveConstructorSpec(
        nargs=count,
        metavar=metavar,
        instance_from_str=read,
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(v) for v in value] if isinstance(value, tuple) else [str(value)],
    )
    usual = f.metadata.get("usual")
    shown = f"(default: {usual})" if usual else "" if f.default is None else None
    marks: list[object] = [spec, tyro.conf.arg(metavar=metavar, help_behavior_hint=shown)]
    return object, [*marks, tyro.conf.Positional] if positional else marks


def _parts(kind: object) -> tuple[object | None, int | Literal["*"]]:
    """Return the type of the items of a tuple and their number; None and 1 for other types."""
    if get_origin(kind) is not tuple:
        return None, 1
    items = get_args(kind)
    return items[0], "*" if isinstance(items[-1], EllipsisType) else len(items)


def _metavar(kind: object) -> str:
    """Return the placeholder of a value of this type."""
    part, count = _parts(kind)
    if part is not None:
        return f"{_metavar(part)} ..." if count == "*" else " ".join([_metavar(part)] * int(count))
    if get_origin(kind) is Literal:
        return "{" + ",".join(get_args(kind)) + "}"
    return "{true,false}" if kind is bool else "N" if kind is int else "TEXT" if kind is str else "X"


def _value(kind: object, word: str, name: str) -> object:
    """Convert a word to a value."""
    if get_origin(kind) is Literal and word not in get_args(kind):
        raise UsageError(f"{name}: expected one of {', '.join(get_args(kind))}, got {word!r}")
    if kind is bool:
        if word.lower() not in ("true", "false"):
            raise UsageError(f"{name}: expected true or false, got {word!r}")
        return word.lower() == "true"
    if kind is Path:
        return Path(word)
    if kind is str or get_origin(kind) is Literal:
        return word
    try:
        return int(word) if kind is int else float(word)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise UsageError(f"{name}: expected {expected}, got {word!r}") from None
