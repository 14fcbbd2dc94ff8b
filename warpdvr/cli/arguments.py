"""Declare the options of a command: the fields of a frozen dataclass, each with a docstring below it."""

from dataclasses import dataclass, field

import torch

from warpdvr.cli.output import set_heading
from warpdvr.runs.options import FolderOptions, Table
from warpdvr.runtime.device import find_device


def positional(metavar: str) -> dict[str, object]:
    """Return the metadata of a field that is a positional argument, before or after the options."""
    return {"metavar": metavar, "positional": True}


def named(metavar: str = "", *, exclusive: str = "", usual: str = "", documentation: str = "") -> dict[str, object]:
    """Return the metadata of a field that is an option.

    Args:
        metavar: placeholder of its value in the help.
        exclusive: name of a group of options of which only one may be chosen.
        usual: the default in words, where it is not that of the field.
        documentation: its meaning, where that is computed; otherwise it is the docstring below the field.
    """
    about = {"metavar": metavar, "exclusive": exclusive, "usual": usual, "documentation": documentation}
    return {key: value for key, value in about.items() if value}


RESUMED: dict[str, object] = {"usual": "that of the run, with --resume"}
"""Metadata of a positional argument that only a resumed run may leave out."""


@dataclass(frozen=True, kw_only=True)
class OnDevice:
    """The option of all commands that compute with Torch and Warp."""

    device: str | None = field(default=None, metadata=named("DEVICE", usual="cuda where there is a GPU, else cpu"))
    """Where it is computed: cpu, cuda, or cuda:1 for the second GPU."""

    @property
    def torch_device(self) -> torch.device:
        """The device that was chosen, or the default one.

        Raises:
            ValueError: if there is no such device here, or Warp cannot use it.
        """
        return find_device(self.device)

    def announce(self) -> None:
        """Let the device be the first line of what the command prints.

        Raises:
            ValueError: see `torch_device`.
        """
        set_heading(f"device     {self.torch_device}")


@dataclass(frozen=True, kw_only=True)
class FromFolder:
    """The options of all commands that read photographs in a folder."""

    photographs: FolderOptions = field(metadata={"flat": True})
    follow_links: bool = False
    """Let symbolic links in the folder of the photographs lead elsewhere."""

    @property
    def reading(self) -> Table:
        """The options that were chosen, as `warpdvr.datasets.load.load` takes them."""
        return dict(self.photographs) | ({"follow_links": True} if self.follow_links else {})

    def refuse_reading(self, why: str) -> None:
        """Refuse all of these options.

        Raises:
            ValueError: if one is chosen; it is named, with the reason.
        """
        if name := next(iter(self.reading), None):
            raise ValueError(f"--{name.replace('_', '-')}: {why}")
