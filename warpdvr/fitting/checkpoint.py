"""Checkpoints: safetensors with JSON in the header. Nothing is ever unpickled."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.projection import projection_of
from warpdvr.cameras.transform import SceneTransform
from warpdvr.fields.base import Field
from warpdvr.fields.decoderfile import no_files
from warpdvr.fields.registry import make
from warpdvr.runtime.files import replacing
from warpdvr.runtime.parsing import check_regular, parsing

KEY = "warpdvr"
"""The key in the header of the file under which everything that is not a tensor is stored."""

NOT_FINITE = "are not finite, so nothing can be made of them; fit again"


@dataclass(frozen=True)
class Header:
    """A base of dataclasses of plain values, as JSON has them."""


H = TypeVar("H", bound=Header)


class CameraTable(TypedDict):
    """A camera in the header of a checkpoint."""

    K: list[list[float]]
    pose: list[list[float]]
    width: int
    height: int
    projection: dict[str, object]


@dataclass(frozen=True)
class CheckpointHeader(Header):
    """What a checkpoint holds besides tensors, see `Checkpoint`."""

    kind: str | None
    options: Mapping[str, object]
    transform: list[list[float]]
    up: Sequence[float]
    cameras: list[CameraTable]


@dataclass(frozen=True)
class Checkpoint:
    """A field with everything that is needed to use it, or to continue its fit."""

    kind: str | None
    """Name of the field in the registry; None for a module that was passed in."""
    options: Mapping[str, object]
    """Options that `make` took to make the field."""
    weights: dict[str, Tensor]
    """The field's state dict."""
    transform: SceneTransform
    """From the scene back to the data's own units."""
    up: tuple[float, float, float]
    """The direction that is up in the scene."""
    cameras: tuple[Camera, ...]
    """The cameras of the views that were fitted or held out, in the scene."""
    fit: dict[str, Tensor]
    """`Fit.state()`; empty if the fit is not to be continued."""

    def field(self, module: Field | None = None) -> Field:
        """Return the field with its weights; pass `module` if it was not made by name. No other file is read.

        Raises:
            ValueError: if the weights do not fit or are not finite, or the options name a file.
        """
        if module is None:
            if self.kind is None:
                raise ValueError("checkpoint: this field was not made by name; pass the module that it belongs to")
            with no_files():
                module = make(self.kind, **self.options)
        try:
            module.load_state_dict(self.weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"checkpoint: the weights do not fit the field {self.kind}: {reason}") from None
        if wrong := [name for name, p in module.named_parameters() if not bool(p.isfinite().all())]:
            raise ValueError(f"checkpoint: the weights {wrong[0]} {NOT_FINITE}")
        return module

    def save(self, path: Path) -> None:
        """Write the checkpoint; a file of that name is replaced at once or not at all."""
        header = CheckpointHeader(
            kind=self.kind,
            options=self.options,
            transform=self.transform.matrix.tolist(),
            up=self.up,
            cameras=[
                {
                    "K": c.K.tolist(),
                    "pose": c.pose.tolist(),
                    "width": c.width,
                    "height": c.height,
                    "projection": c.projection.describe(),
                }
                for c in self.cameras
            ],
        )
        tensors = {f"field.{k}": v for k, v in self.weights.items()} | {f"fit.{k}": v for k, v in self.fit.items()}
        write(path, header, tensors)


def write(path: Path, header: Header, tensors: dict[str, Tensor]) -> None:
    """Write tensors with a header; a file of that name is replaced at once or not at all."""
    with replacing(path) as unfinished:
        copies = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        metadata = {KEY: json.dumps(asdict(header))}
        unfinished.write_bytes(save(copies, metadata=metadata))  # `save_file` makes it unreadable for other users


@contextmanager
def reading(path: Path, header_type: type[H]) -> Iterator[tuple[H, dict[str, Tensor]]]:
    """Yield the header and the tensors of a file that `write` wrote.

    Args:
        path: the file.
        header_type: the dataclass of its header.

    Raises:
        ValueError: if there is no file at `path`, it is damaged, its header is of another type, or the code in the
            `with` block fails on its content.
    """
    check_regular(path, "a checkpoint")
    with parsing(path, "a checkpoint of warpdvr"):
        with safe_open(path, "pt") as file:
            header = header_type(**json.loads((file.metadata() or {})[KEY]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        yield header, tensors


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ValueError: if there is none at `path`, it is damaged or was written by another program, or a weight is NaN.
    """
    with reading(path, CheckpointHeader) as (header, tensors):
        x, y, z = header.up
        found = Checkpoint(
            kind=header.kind,
            options=header.options,
            weights=below("field.", tensors),
            transform=SceneTransform(torch.tensor(header.transform, dtype=torch.float64)),
            up=(x, y, z),
            cameras=tuple(_camera(c) for c in header.cameras),
            fit=below("fit.", tensors),
        )
    check_finite(path, found.weights)
    return found


def is_complete(path: Path) -> bool:
    """Return whether there is a checkpoint at `path` that was not cut off; its numbers are not read."""
    try:
        with safe_open(path, "pt") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def check_finite(what: object, weights: Mapping[str, Tensor]) -> None:
    """Check that no weight is NaN; infinity may be meant, such as in the buffers of a field.

    Raises:
        ValueError: if one is; the message begins with `what`.
    """
    if wrong := [name for name, w in weights.items() if w.is_floating_point() and bool(w.isnan().any())]:
        raise ValueError(f"{what}: the weights {wrong[0]} {NOT_FINITE}")


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _camera(c: CameraTable) -> Camera:
    K, pose = (torch.tensor(matrix, dtype=torch.float64) for matrix in (c["K"], c["pose"]))
    return Camera(K, pose, c["width"], c["height"], projection_of(c["projection"]))
