"""From one picture to a shape: an encoder and a decoder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from warpdvr.fields.bounds import Bounds
from warpdvr.fields.conditional import ConditionalOccupancy, Shapes
from warpdvr.fields.resnet import ImageEncoder
from warpdvr.fitting import checkpoint
from warpdvr.singleview.shape_bank import ShapeBank


class ReconstructorOptions(TypedDict):
    """The arguments of a `Reconstructor`."""

    code: int
    encoder: int
    width: int
    blocks: int
    frequencies: int
    radius: float
    steepness: float
    bounds: Bounds
    symmetric: int | None


class Reconstructor(nn.Module):
    """Single-view reconstruction after DVR (Niemeyer et al. 2020, section 4.1): ResNet-18 to a code, a code to a shape.

    Args:
        code: length of a latent code.
        encoder: channels of the encoder's first stage; 64 is ResNet-18.
        width, blocks, frequencies, radius, steepness, symmetric: of the decoder, see `ConditionalOccupancy`.
        bounds: the box that all shapes lie in, two corners [scene unit].
    """

    def __init__(
        self,
        code: int = 256,
        encoder: int = 32,
        width: int = 64,
        blocks: int = 5,
        frequencies: int = 4,
        radius: float = 0.25,
        steepness: float = 50.0,
        bounds: Bounds = 1.0,
        symmetric: int | None = None,
    ):
        super().__init__()
        self.options: ReconstructorOptions = {
            "code": code,
            "encoder": encoder,
            "width": width,
            "blocks": blocks,
            "frequencies": frequencies,
            "radius": radius,
            "steepness": steepness,
            "bounds": cast(Bounds, torch.as_tensor(bounds).tolist()),
            "symmetric": symmetric,
        }
        self.encode = ImageEncoder(code, encoder)
        shape = code, width, blocks, frequencies, radius, steepness
        self.decode = ConditionalOccupancy(*shape, bounds=bounds, symmetric=symmetric)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def forward(self, pictures: Float[Tensor, "b 3 h w"]) -> Shapes:
        """Return the shapes that pictures show, as one field."""
        return Shapes(self.decode, self.encode(pictures))


@dataclass(frozen=True)
class CategoryHeader(checkpoint.Header):
    """What the checkpoint of a category holds besides tensors, see `CategoryCheckpoint`."""

    category: str
    held_out: Sequence[str]
    options: ReconstructorOptions


@dataclass(frozen=True)
class CategoryCheckpoint:
    """A reconstructor with the data that its refinement and training need."""

    model: Reconstructor
    folder: str
    """The folder of the category that it learnt from."""
    held_out: tuple[str, ...]
    """Names of the objects that it did not see."""
    shape_bank: ShapeBank
    """The shapes that it learnt from."""
    training: dict[str, Tensor]
    """`Trainer.state()`."""

    @property
    def device(self) -> torch.device:
        """Where the reconstructor and the shape bank are."""
        return self.model.device

    def to(self, device: torch.device | str) -> "CategoryCheckpoint":
        """Move the reconstructor to a device, and return the checkpoint with the shape bank there."""
        return replace(self, model=self.model.to(device), shape_bank=self.shape_bank.to(device))

    def save(self, path: Path) -> None:
        """Write the checkpoint; a file of that name is replaced at once or not at all."""
        header = CategoryHeader(self.folder, self.held_out, self.model.options)
        weights = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        shape_bank = {f"shape_bank.{k}": v for k, v in self.shape_bank.tensors().items()}
        training = {f"training.{k}": v for k, v in self.training.items()}
        checkpoint.write(path, header, weights | shape_bank | training)


def load(path: Path) -> CategoryCheckpoint:
    """Read what `CategoryCheckpoint.save` wrote.

    Raises:
        ValueError: if there is nothing at `path`, or it is damaged or of another kind.
    """
    with checkpoint.reading(path, CategoryHeader) as (header, tensors):
        model = Reconstructor(**header.options)
        try:
            model.load_state_dict(checkpoint.below("model.", tensors))
        except RuntimeError as error:
            raise ValueError(" ".join(str(error).split())) from None
        shape_bank = ShapeBank.from_tensors(checkpoint.below("shape_bank.", tensors))
        training = checkpoint.below("training.", tensors)
        return CategoryCheckpoint(model.eval(), header.category, tuple(header.held_out), shape_bank, training)
