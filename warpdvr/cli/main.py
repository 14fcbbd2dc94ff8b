"""The command line: photographs in; a field, pictures, a mesh and USD out."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import NoReturn, get_type_hints

from warpdvr import __version__
from warpdvr.runtime.validate import suggest


@dataclass(frozen=True)
class Command:
    """A command; its module is imported when it is run."""

    name: str
    text: str
    function: str
    """Module and function, of one argument: a dataclass of options."""


COMMANDS = {
    "From photographs to a surface": (
        Command("fit", "fit a field to photographs; writes a run", "fit:fit"),
        Command("render", "render a turntable: pictures and an animated file", "products:render"),
        Command("mesh", "extract the surface as a mesh, in the data's own units", "products:mesh"),
        Command("usd", "write mesh and cameras as USD", "products:usd"),
        Command("eval", "compare with the held-out photographs and a true mesh", "products:evaluate"),
        Command("view", "look at a field in a window", "view:view"),
        Command("refine-cameras", "refine cameras against the shape of a run, which is kept", "cameras:refine_cameras"),
    ),
    "From a trained decoder": (
        Command("fit-code", "fit the latent code of a trained decoder; writes a run", "fit:fit_code"),
    ),
    "From one picture": (
        Command("render-category", "render textured meshes into a category of posed pictures", "singleview:render"),
        Command("train-category", "learn to reconstruct shapes of a category from one picture", "singleview:train"),
        Command(
            "reconstruct-image",
            "reconstruct a shape from one picture, with a trained category",
            "singleview:reconstruct",
        ),
        Command(
            "eval-category", "compare reconstructions of held-out objects with their true meshes", "singleview:evaluate"
        ),
    ),
}
"""All commands, as the help lists them."""

RESUMABLE = "fit", "fit-code", "train-category"
"""Commands that can go on where they were interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status: 0, 2 after a mistake in what was given, 130 when interrupted.

    Raises:
        SystemExit: with 2 after a mistake in the command line itself, with 0 after the help or the version.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = _command_name(words)
    module, function = _find(name).function.split(":")
    run = getattr(import_module(f"warpdvr.cli.{module}"), function)
    from warpdvr.cli.parser import UsageError, parse

    try:
        options = parse(get_type_hints(run)["options"], name, words[1:])
    except UsageError as error:
        _exit(str(error))
    try:
        run(options)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"warpdvr: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        begun = name in RESUMABLE and (options.out / "checkpoint.safetensors").is_file()
        hint = f"; go on with: warpdvr {name} --out {options.out} --resume" if begun else ""
        print(f"warpdvr: interrupted{hint}", file=sys.stderr)
        return 130
    return 0


def _command_name(words: Sequence[str]) -> str:
    """Return the name of the command; print what is asked for where there is none."""
    if not words:
        _exit("expected a command, such as fit; `warpdvr --help` lists all commands")
    if words[0] in ("-h", "--help"):
        print(_overview())
        sys.exit(0)
    if words[0] == "--version":
        print(f"warpdvr {__version__}")
        sys.exit(0)
    if words[0].startswith("-"):
        _exit(f"expected a command first, got {words[0]}; `warpdvr --help` lists all commands")
    return words[0]


def _find(name: str) -> Command:
    """Return a command by name."""
    known = {command.name: command for group in COMMANDS.values() for command in group}
    if name not in known:
        hint = suggest(name, known) or f"; known are {', '.join(known)}"
        _exit(f"there is no command {name!r}{hint}")
    return known[name]


def _overview() -> str:
    lines = ["usage: warpdvr COMMAND [OPTIONS]", "", "See, differentiate and fit implicit surfaces."]
    width = max(len(command.name) for group in COMMANDS.values() for command in group)
    for title, group in COMMANDS.items():
        lines += ["", title]
        lines += [f"    {command.name:{width}}  {command.text}" for command in group]
    return "\n".join([*lines, "", "`warpdvr COMMAND --help` lists the options of a command; --version is ours."])


def _exit(message: str) -> NoReturn:
    print(f"warpdvr: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    sys.exit(main())
