"""Several shapes in one field, each with its latent code."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from warpdvr.fields.base import Decoder, Field, Kind
from warpdvr.fields.bounds import Bounds
from warpdvr.fields.logit import ball, logit
from warpdvr.fields.mlp import PositionalEncoding
from warpdvr.runtime.arguments import check_counts, check_device, check_positive
from warpdvr.runtime.inference_mode import ordinary, outside_inference
from warpdvr.runtime.validate import refuse_class


class ConditionalOccupancy(Decoder):
    """Occupancy and colour of any shape of a category, given its latent code: DVR's decoder.

    A residual network; each of its blocks adds a linear map of the code (Niemeyer et al. 2020, supplement; Mescheder et
    al., "Occupancy Networks", 2019). As in `Occupancy` it adds to the logit of a sphere, from which it starts. It is
    not yet a field; `Shapes(decoder, codes)` is one.

    Args:
        code: length of a latent code.
        width: of the residual blocks.
        blocks: how many there are.
        frequencies: octaves of a positional encoding; DVR has none.
        radius: of the sphere that it starts from [scene unit].
        steepness: slope of that sphere's logit, and factor of what is added [1 / scene unit]; thin parts need more.
        level: the occupancy probability on the surface.
        bounds: see `Field`.
        symmetric: axis (0, 1, 2 for x, y, z) along which all shapes are their own mirror image about the origin, so
            that only one half must be learnt and a picture of one side shows the other, colours included; shapes that
            are not symmetric cannot be represented. None: no symmetry is assumed.
    """

    kind: Kind = "occupancy"

    def __init__(
        self,
        code: int = 256,
        width: int = 128,
        blocks: int = 5,
        frequencies: int = 0,
        radius: float = 0.5,
        steepness: float = 10.0,
        level: float = 0.5,
        bounds: Bounds = 1.0,
        symmetric: int | None = None,
    ):
        super().__init__()
        if symmetric not in (None, 0, 1, 2):
            raise ValueError(f"conditional occupancy: symmetric must be an axis 0, 1 or 2, or None, got {symmetric}")
        if min(code, width, blocks) < 1:
            raise ValueError(
                f"conditional occupancy: needs code, width and blocks >= 1, got {code}, {width} and {blocks}"
            )
        check_counts("conditional occupancy", least=0, frequencies=frequencies)
        check_positive("conditional occupancy", radius=radius, steepness=steepness)
        self.code, self.bounds, self.symmetric = code, bounds, symmetric
        self.radius, self.steepness, self.offset = radius, steepness, logit("conditional occupancy", level)
        self.encode = PositionalEncoding(frequencies)
        self.first = nn.Linear(self.encode.width, width)
        self.shift = nn.Linear(code, blocks * width)
        self.inner = cast("Sequence[nn.Linear]", nn.ModuleList(nn.Linear(width, width) for _ in range(blocks)))
        outer = [nn.Linear(width, width) for _ in range(blocks)]
        self.outer = cast("Sequence[nn.Linear]", nn.ModuleList(outer))
        self.last = nn.Linear(width, 4)
        with torch.no_grad():
            for layer in outer:
                nn.init.zeros_(layer.weight)
            self.last.weight[0] = 0.0
            self.last.bias[0] = 0.0

    def prepared(self, codes: Float[Tensor, "s code"]) -> Sequence[Float[Tensor, "s _"]]:
        """Return what the codes add in front of each block."""
        return self.shift(codes).view(len(codes), len(self.inner), -1).unbind(1)

    def geometry(
        self, x: Float[Tensor, "n 3"], shifts: Sequence[Float[Tensor, "s _"]], shape_index: Int[Tensor, " n"] | None
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"]]:
        """Return the value and 3 features at points of the shapes `shape_index`, or of the only one."""
        h = self.first(self.encode(self._folded(x)))
        for shift, inner, outer in zip(shifts, self.inner, self.outer, strict=True):
            h = h + (shift if shape_index is None else shift[shape_index])
            h = h + outer(torch.relu(inner(torch.relu(h))))
        out = self.last(torch.relu(h))
        return self.offset + ball(x, self.radius, self.steepness) - self.steepness * out[:, 0], out[:, 1:]

    def _folded(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Return points with those on the far side of the plane of symmetry replaced by their mirror images."""
        if self.symmetric is None:
            return x
        return torch.stack([p.abs() if i == self.symmetric else p for i, p in enumerate(x.unbind(-1))], -1)

    def color(self, feature: Float[Tensor, "n k"]) -> Float[Tensor, "n 3"]:
        """Return colours from the features of the geometry; they do not depend on the direction."""
        return torch.sigmoid(feature)


class Shapes(Field):
    """The shapes of a decoder that belong to latent codes.

    With one code it is a field like any other: it can be rendered, meshed and viewed. With several, each ray names its
    shape (`Rays.shape_index`), and the renderer calls `select(shape_index)`. Differentiable with respect to points,
    codes (and so whatever computed them: an encoder, or a table of free codes), stretch and the decoder's weights.

    Args:
        decoder: `ConditionalOccupancy`, or another `Decoder`.
        codes: one row for each shape, (s, code); not copied.
        stretch: factors by which each shape is stretched along each axis from the origin, (s, 3); None: not at all.

    Raises:
        ValueError: if the codes do not have the decoder's length or there are none, or `stretch` has another shape; if
            codes and decoder are on different devices.
    """

    @outside_inference
    def __init__(self, decoder: Decoder, codes: Float[Tensor, "..."], stretch: Float[Tensor, "..."] | None = None):
        refuse_class("shapes", decoder)
        if not isinstance(decoder, Decoder):
            raise ValueError(f"shapes: expected a Decoder (warpdvr.fields.base), got {type(decoder).__name__}")
        super().__init__(decoder.bounds)
        if codes.ndim != 2 or codes.shape[1] != decoder.code or len(codes) < 1:
            raise ValueError(
                f"shapes: expected codes of shape (number of shapes, {decoder.code}), got {tuple(codes.shape)}"
            )
        if stretch is not None and stretch.shape != (len(codes), 3):
            raise ValueError(f"shapes: expected a stretch of shape ({len(codes)}, 3), got {tuple(stretch.shape)}")
        check_device("shapes", codes.device, "codes", stretch=stretch)
        if (weight := next(decoder.parameters(), None)) is not None:
            check_device("shapes", weight.device, "the decoder", codes=codes)
        codes, stretch = ordinary(codes), None if stretch is None else ordinary(stretch)
        self.decoder, self.codes, self.stretch = decoder, codes, stretch
        self.bounds = self.bounds.to(codes) * (1 if stretch is None else stretch.detach().amax(0))
        self.shape_index: Int[Tensor, " n"] | None = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Shapes":
        """Move the codes too, which are no parameter if something else computed them."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.codes = self.codes if isinstance(self.codes, nn.Parameter) else fn(self.codes)
        self.stretch = None if self.stretch is None else fn(self.stretch)
        return self

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        return self.decoder.kind

    def select(self, shape_index: Int[Tensor, " n"]) -> "Shapes":
        """Return the field for n points of the shapes `shape_index`.

        Raises:
            ValueError: if there is no code for one of them.
        """
        if len(shape_index) and int(shape_index.max()) >= len(self.codes):
            raise ValueError(
                f"shapes: rays ask for shape {int(shape_index.max())}, but there are {len(self.codes)} codes"
            )
        selected = object.__new__(Shapes)
        selected.__dict__ = {**self.__dict__, "shape_index": shape_index}
        return selected

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        return self.geometry(x)[0]

    def geometry(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"]]:
        if self.shape_index is None and len(self.codes) > 1:
            raise ValueError(f"shapes: holds {len(self.codes)} shapes, but no ray says which one it looks at")
        if self.stretch is not None:
            x = x / (self.stretch if self.shape_index is None else self.stretch[self.shape_index])
        # prepared each time, which costs little, because the weights may have changed since the last
        return self.decoder.geometry(x, self.decoder.prepared(self.codes), self.shape_index)

    def color(
        self,
        x: Float[Tensor, "n 3"],
        normal: Float[Tensor, "n 3"],
        direction: Float[Tensor, "n 3"],
        feature: Float[Tensor, "n k"] | None,
    ) -> Float[Tensor, "n 3"]:
        if feature is None:
            raise ValueError("shapes: color needs the features that geometry returns")
        return self.decoder.color(feature)
