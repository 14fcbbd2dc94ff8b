"""Fields on disk: safetensors with JSON in the header. Nothing is ever unpickled."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.projection import projection_of
from warpdvr.cameras.transform import SceneTransform
from warpdvr.fields.base import Field
from warpdvr.fields.registry import make
from warpdvr.runtime.files import replacing

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

KEY = "warpdvr"
"""Under this key the header holds what is not a tensor."""


Header = TypeVar("Header", bound="DataclassInstance")
"""A dataclass of plain values, as JSON has them."""


class CameraTable(TypedDict):
    """A camera in the header of a checkpoint."""

    K: list[list[float]]
    pose: list[list[float]]
    width: int
    height: int
    projection: dict[str, object]


@dataclass(frozen=True)
class CheckpointHeader:
    """What a checkpoint holds beside tensors, see `Checkpoint`."""

    kind: str | None
    options: Mapping[str, object]
    transform: list[list[float]]
    up: tuple[float, float, float]
    cameras: list[CameraTable]


@dataclass(frozen=True)
class Checkpoint:
    """A field with all that is needed to use it, or to go on fitting it."""

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
    """`Fit.state()`, empty if the field is not to be fitted on."""

    def field(self, module: Field | None = None) -> Field:
        """Return the field with its weights; pass `module` if it was not made by name.

        Raises:
            ValueError: if the weights do not fit.
        """
        if module is None:
            if self.kind is None:
                raise ValueError("checkpoint: this field was not made by name; pass the module that it belongs to")
            module = make(self.kind, **self.options)
        try:
            module.load_state_dict(self.weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"checkpoint: the weights do not fit the field {self.kind}: {reason}") from None
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


def write(path: Path, header: "DataclassInstance", tensors: dict[str, Tensor]) -> None:
    """Write tensors with a header; a file of that name is replaced at once or not at all."""
    with replacing(path) as unfinished:
        copies = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        metadata = {KEY: json.dumps(asdict(header))}
        unfinished.write_bytes(save(copies, metadata=metadata))  # `save_file` hides it from other users


@contextmanager
def reading(path: Path, header_type: type[Header]) -> Iterator[tuple[Header, dict[str, Tensor]]]:
    """Yield the header and the tensors of a file that `write` wrote.

    Args:
        path: of the file.
        header_type: the dataclass of its header.

    Raises:
        ValueError: if there is none at `path`, it is damaged, its header is of another type, or what is done with it
            inside of the block fails.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected a checkpoint, found nothing")
    try:
        with safe_open(path, "pt") as file:
            header = header_type(**json.loads((file.metadata() or {})[KEY]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        yield header, tensors
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        message = f"a file that is damaged or another program's ({type(error).__name__}: {error})"
        raise ValueError(f"{path}: expected a checkpoint of warpdvr, found {message}") from None


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ValueError: if there is none at `path`, or it is damaged or of another program.
    """
    with reading(path, CheckpointHeader) as (header, tensors):
        x, y, z = header.up
        return Checkpoint(
            kind=header.kind,
            options=header.options,
            weights=below("field.", tensors),
            transform=SceneTransform(torch.tensor(header.transform, dtype=torch.float64)),
            up=(x, y, z),
            cameras=tuple(_camera(c) for c in header.cameras),
            fit=below("fit.", tensors),
        )


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _camera(c: CameraTable) -> Camera:
    K, pose = (torch.tensor(matrix, dtype=torch.float64) for matrix in (c["K"], c["pose"]))
    return Camera(K, pose, c["width"], c["height"], projection_of(c["projection"]))
