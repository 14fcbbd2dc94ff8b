"""The command line: photographs in; a field, pictures, a mesh and USD out."""

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NoReturn, get_type_hints

from warpdvr import __version__
from warpdvr.cli.failures import sentence
from warpdvr.cli.output import lasting_output
from warpdvr.runtime.signals import exit_status, interruptible
from warpdvr.runtime.validate import suggest


@dataclass(frozen=True)
class Command:
    """A command, whose module is imported when it is run."""

    name: str
    text: str
    function: str
    """Module and function, of one argument: a dataclass of options."""


COMMANDS = {
    "Fit a surface to photographs": (
        Command("fit", "fit a field to photographs, and write a run", "fit:fit"),
        Command("hull", "carve the visual hull of the masks, and write it as a mesh", "hull:hull"),
        Command("refine-cameras", "refine cameras against the surface of a run", "cameras:refine_cameras"),
        Command("export-cameras", "write the cameras of a run or of photographs in another format", "cameras:export"),
    ),
    "Check a data set before it is fitted": (
        Command(
            "check-data",
            "find out whether photographs, masks and cameras agree, and what would fit better",
            "check_data:check",
        ),
    ),
    "Use the surface of a run": (
        Command("view", "show a run or a scene in a window", "view:view"),
        Command("render", "render a turntable: pictures and an animated GIF", "products:render"),
        Command("mesh", "extract the surface as a mesh, in the units of the data", "products:mesh"),
        Command("usd", "write the mesh and the cameras as USD", "products:usd"),
        Command("eval", "score against held-out photographs and a true mesh", "products:evaluate"),
    ),
    "Fit a shape of a trained decoder": (
        Command("fit-code", "fit a latent code to views, and write a run", "fit:fit_code"),
    ),
    "Reconstruct a shape from one picture": (
        Command("render-category", "render a data set of posed pictures from many meshes", "singleview:render"),
        Command("train-category", "train a network to reconstruct shapes from one picture", "singleview:train"),
        Command(
            "reconstruct-image", "reconstruct the shape in a picture by a trained network", "singleview:reconstruct"
        ),
        Command("eval-category", "score a trained network on held-out objects", "singleview:evaluate"),
    ),
}
"""All commands, as the help lists them."""

FOOTER = (
    "A first fit:       warpdvr fit PHOTOGRAPHS --out RUN --minutes 5",
    "Help on a command: warpdvr COMMAND --help",
    "Version:           warpdvr --version",
)
"""The last lines of the help."""

RESUMABLE = "fit", "fit-code", "train-category"
"""Commands that can be continued after an interruption."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status.

    0, or what the command returns (1 to 3, see `fit` and `check-data`); 2 after a mistake in the input, 128 + n after
    signal n. Signals that ask it to end (130: SIGINT, 143: SIGTERM, 129: SIGHUP) let it save its work first.

    Raises:
        SystemExit: with 2 after a mistake on the command line, with 0 after the help or the version.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with lasting_output():
        try:
            with interruptible():
                return _run(_command_name(words), words[1:])
        except KeyboardInterrupt as interruption:  # also while modules are imported, which takes seconds
            print("warpdvr: interrupted", file=sys.stderr)
            return exit_status(interruption)


def _run(name: str, words: Sequence[str]) -> int:
    """Run a command with the words after its name; return its exit status."""
    module, function = _find(name).function.split(":")
    run = getattr(import_module(f"warpdvr.cli.{module}"), function)
    from warpdvr.cli.arguments import OnDevice  # with Torch, which takes a second
    from warpdvr.cli.parser import UsageError, name_options, option_names, parse

    try:
        options = parse(get_type_hints(run)["options"], name, words)
    except UsageError as error:
        _exit(str(error))
    checkpoint = options.out / "checkpoint.safetensors" if name in RESUMABLE else None
    before = _version(checkpoint)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warning_printer()
            if isinstance(options, OnDevice):
                options.announce()
            status: int | None = run(options)
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        print(f"warpdvr: {name_options(sentence(error, option_names(options)), options)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        if _version(checkpoint) is None or (_version(checkpoint) == before and not options.resume):
            raise  # no checkpoint, or that of an earlier run
        print(f"warpdvr: interrupted; go on with: warpdvr {name} --out {options.out} --resume", file=sys.stderr)
        return exit_status(interruption)
    return status or 0


def _warning_printer() -> Callable[..., None]:
    """Return a function that prints each warning once as a sentence, without the line of code that it comes from."""
    printed = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        sentence = " ".join(str(message).split())
        if sentence not in printed:
            print(f"warpdvr: {sentence}", file=sys.stderr)
        printed.add(sentence)

    return show


def _version(path: Path | None) -> tuple[int, int] | None:
    """Return what changes whenever a file is replaced, or None if there is no file."""
    if path is None or not path.is_file():
        return None
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _command_name(words: Sequence[str]) -> str:
    """Return the name of the command; without one, print the help or the version and exit."""
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
    commands = {command.name: command for group in COMMANDS.values() for command in group}
    if name not in commands:
        hint = suggest(name, commands) or f"; known are {', '.join(commands)}"
        _exit(f"there is no command {name!r}{hint}")
    return commands[name]


def _overview() -> str:
    """Return the help: all commands, by what they are for."""
    lines = [
        "usage: warpdvr COMMAND [OPTIONS]",
        "",
        "Fit implicit surfaces to photographs, and render, mesh and view them.",
    ]
    width = max(len(command.name) for group in COMMANDS.values() for command in group)
    for title, group in COMMANDS.items():
        lines += ["", title]
        lines += [f"    {command.name:{width}}  {command.text}" for command in group]
    return "\n".join([*lines, "", *FOOTER])


def _exit(message: str) -> NoReturn:
    print(f"warpdvr: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    sys.exit(main())
