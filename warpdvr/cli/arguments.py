"""How the options of a command are declared: as the fields of a frozen dataclass, each with a docstring below it."""

from dataclasses import dataclass, field

import torch

from warpdvr.runtime.device import find_device


def positional(metavar: str) -> dict[str, object]:
    """Return the metadata of a field that has no name on the command line; it stands before or after the others."""
    return {"metavar": metavar, "positional": True}


def named(metavar: str = "", *, exclusive: str = "", usual: str = "", documentation: str = "") -> dict[str, object]:
    """Return the metadata of a field that is an option by its name.

    Args:
        metavar: what stands for its value in the help.
        exclusive: a name that options have in common of which only one may be chosen.
        usual: what it is if it is not chosen, where that is not its default.
        documentation: what it means, where that is not known before; usually, a docstring below the field says so.
    """
    about = {"metavar": metavar, "exclusive": exclusive, "usual": usual, "documentation": documentation}
    return {key: value for key, value in about.items() if value}


@dataclass(frozen=True, kw_only=True)
class OnDevice:
    """The option of commands that work on a field."""

    device: str | None = field(default=None, metadata=named("DEVICE", usual="cuda where there is a GPU, else cpu"))
    """cpu or cuda."""

    @property
    def torch_device(self) -> torch.device:
        return find_device(self.device)
