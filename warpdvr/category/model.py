"""From one picture to a shape: an encoder, a decoder, and what a picture must look like."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from warpdvr import checkpoint
from warpdvr.fields.conditional import ConditionalOccupancy, Shapes
from warpdvr.fields.resnet import ImageEncoder
from warpdvr.views import files

SIZE = 64
"""Width and height of the pictures that the encoder sees [pixel]."""


class Reconstructor(nn.Module):
    """Single-view reconstruction after DVR (Niemeyer et al. 2020, section 4.1): ResNet-18 to a code, a code to a shape.

    Args:
        code: length of a latent code.
        encoder: channels of the encoder's first stage; 64 is ResNet-18.
        width, blocks, frequencies, radius, steepness: of the decoder, see `ConditionalOccupancy`.
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
        bounds: Any = 1.0,
    ):
        super().__init__()
        self.options = {
            "code": code,
            "encoder": encoder,
            "width": width,
            "blocks": blocks,
            "frequencies": frequencies,
            "radius": radius,
            "steepness": steepness,
            "bounds": torch.as_tensor(bounds).tolist(),
        }
        self.encode = ImageEncoder(code, encoder)
        self.decode = ConditionalOccupancy(code, width, blocks, frequencies, radius, steepness, bounds=bounds)

    def forward(self, pictures: Tensor) -> Shapes:
        """Return the shapes that pictures (b, 3, SIZE, SIZE) show, as one field."""
        return Shapes(self.decode, self.encode(pictures))


@dataclass(frozen=True)
class Learnt:
    """A reconstructor on disk, with what belongs to it."""

    model: Reconstructor
    folder: str
    """The category that it learnt from."""
    held_out: tuple[str, ...]
    """Names of the objects that it did not see."""
    learning: dict[str, Tensor]
    """`Learning.state()`."""

    def save(self, path: Path) -> None:
        """Write it; a file of that name is replaced at once or not at all."""
        header = {"category": self.folder, "held_out": self.held_out, "options": self.model.options}
        weights = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        checkpoint.write(path, header, weights | {f"learning.{k}": v for k, v in self.learning.items()})


def load(path: Path) -> Learnt:
    """Read what `Learnt.save` wrote.

    Raises:
        ValueError: if there is nothing at `path`, or it is damaged or of another kind.
    """
    with checkpoint.reading(path) as (header, tensors):
        model = Reconstructor(**header["options"])
        try:
            model.load_state_dict(checkpoint.below("model.", tensors))
        except RuntimeError as error:
            raise ValueError(" ".join(str(error).split())) from None
        learning = checkpoint.below("learning.", tensors)
        return Learnt(model.eval(), header["category"], tuple(header["held_out"]), learning)


def picture(path: Path) -> Tensor:
    """Read a picture of any size, with or without an alpha channel, as the encoder wants it: (1, 3, SIZE, SIZE).

    Without alpha the background should be white.
    """
    image, alpha = files.picture(path)
    return prepared(image, torch.full_like(image[..., 0], 255) if alpha is None else alpha)[None]


def prepared(image: Tensor, alpha: Tensor) -> Tensor:
    """Return an image (h, w, 3) uint8 over white, in the middle of a square of SIZE, shape (3, SIZE, SIZE) in [0, 1].

    Args:
        image: straight sRGB colours.
        alpha: coverage (h, w), uint8, or a mask, bool.
    """
    part = alpha.float()[..., None] / (1 if alpha.dtype == torch.bool else 255)
    over = (part * image.float() / 255 + (1 - part)).permute(2, 0, 1)
    height, width = over.shape[1:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = torch.nn.functional.pad(over, (left, side - width - left, top, side - height - top), value=1.0)
    if side == SIZE:
        return square
    return torch.nn.functional.interpolate(square[None], size=(SIZE, SIZE), mode="bilinear", antialias=True)[0]
