"""Signed distances of any shape of a trained category, given its latent code (Park et al., "DeepSDF", 2019)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from warpdvr.fields import decoderfile
from warpdvr.fields.base import Decoder, Plain
from warpdvr.fields.bounds import Bounds
from warpdvr.fields.slope import MeasuredSlope


class Architecture(TypedDict):
    """The arguments of `DeepSDFDecoder`, kept in a checkpoint because the decoder's file may be gone."""

    code: int
    outputs: Sequence[int]
    skips: Sequence[int]


class DeepSDFDecoder(Decoder):
    """The decoder: value(code, point). It is not yet a field; `DeepSDF` and `Shapes(decoder, codes)` are.

    A perceptron with ReLUs and a tanh at the end; some of its layers take code and point again. What codes add to
    those and to the first layer is computed once for all points (`prepared`).

    Args:
        code: length of a latent code.
        outputs: of each layer, the last of them 1.
        skips: indices of the layers that take code and point again, after the outputs of the previous layer.
        bounds: see `Field`; in the frame of its training, where shapes lie in the unit sphere.
    """

    def __init__(self, code: int, outputs: Sequence[int], skips: Sequence[int] = (), bounds: Bounds = 1.0):
        super().__init__()
        if code < 1 or len(outputs) < 2 or outputs[-1] != 1 or not all(0 < i < len(outputs) for i in skips):
            raise ValueError(
                f"deepsdf: needs code >= 1, at least 2 layers, the last with 1 output, and skips among the later ones, "
                f"got {code}, {list(outputs)} and {list(skips)}"
            )
        self.code, self.outputs, self.skips, self.bounds = code, tuple(outputs), tuple(skips), bounds
        inputs = [code + 3, *outputs[:-1]]
        sizes = enumerate(zip(inputs, outputs, strict=True))
        layers = [nn.Linear(n + (code + 3) * (i in self.skips), m) for i, (n, m) in sizes]
        self.layers = cast("Sequence[nn.Linear]", nn.ModuleList(layers))

    @classmethod
    def read(
        cls, path: Path, latents: Path | None = None, bounds: Bounds = 1.0
    ) -> tuple["DeepSDFDecoder", Float[Tensor, "s code"]]:
        """Return a trained decoder and the codes that came with it, (s, code); `decoderfile.read` says which files.

        Raises:
            ValueError: if it cannot be read.
        """
        trained = decoderfile.read(path, latents)
        weights = trained.weights
        decoder = cls(weights[0].shape[1] - 3, [len(w) for w in weights], trained.skips, bounds)
        with torch.no_grad():
            for layer, weight, bias in zip(decoder.layers, weights, trained.biases, strict=True):
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)
        return decoder, trained.codes

    def prepared(self, codes: Float[Tensor, "s code"]) -> list[Float[Tensor, "s _"]]:
        """Return what the codes add in each layer that takes them, with that layer's number of outputs."""
        layers = [self.layers[i] for i in (0, *self.skips)]
        return [nn.functional.linear(codes, layer.weight[:, -self.code - 3 : -3], layer.bias) for layer in layers]

    def geometry(
        self, x: Float[Tensor, "n 3"], shifts: Sequence[Float[Tensor, "s _"]], shape_index: Int[Tensor, " n"] | None
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"]]:
        """Return the value and no features (k = 0) at points of the shapes `shape_index`, or of the only one."""
        later = iter(shifts)
        h = x
        for i, layer in enumerate(self.layers):
            if i == 0 or i in self.skips:
                shift = next(later)
                from_point = torch.addmm(
                    shift if shape_index is None else shift[shape_index], x, layer.weight[:, -3:].T
                )
                h = from_point if i == 0 else torch.addmm(from_point, h, layer.weight[:, : -self.code - 3].T)
            else:
                h = layer(h)
            h = torch.relu(h) if i < len(self.layers) - 1 else torch.tanh(h)
        return h[:, 0], h[:, 1:]

    def color(self, feature: Float[Tensor, "n k"]) -> Float[Tensor, "n 3"]:
        """Return grey: a DeepSDF decoder has no colours."""
        return feature.new_full((len(feature), 3), 0.7)


class DeepSDF(MeasuredSlope):
    """One shape of a trained decoder, whose latent code can be fitted. It looks like grey clay: there are no colours.

    Its frame is that of the decoder. Decoders are trained with clamped distances and end in a tanh: far from the
    surface, values are smaller than distances, which costs steps but is safe.

    Args:
        decoder: file of the decoder, see `warpdvr.fields.decoderfile.read`.
        latents: file of the codes of known shapes, if it is a separate one.
        index: which known shape to start from; None is the mean of all codes, or zeros where none are known.
        prior: weight of `prior()`.
        frozen: keep the decoder as it was trained, and fit the code alone.
        architecture: code, outputs and skips of the decoder, which a checkpoint has instead of a file (`options`).
        bounds: see `Field`.
    """

    rates: Mapping[str, float] = {"": 5e-3, "weight": 1e-5, "bias": 1e-5}
    """Learning rates of the code, and of a decoder that is not frozen."""

    slope_points = 4096
    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        decoder: str = "",
        latents: str = "",
        index: int | None = None,
        prior: float = 1e-4,
        frozen: bool = True,
        architecture: Architecture | None = None,
        bounds: Bounds = 1.0,
    ):
        super().__init__(bounds)
        if not 0 <= prior < float("inf"):
            raise ValueError(f"deepsdf: prior must be a number and not negative, got {prior}")
        if (decoder == "") == (architecture is None):
            raise ValueError("deepsdf: needs the file of a decoder, or the architecture of one, but not both")
        self.decoder, codes = _decoder(decoder, latents, architecture, bounds)
        self.decoder.requires_grad_(not frozen)
        if index is not None and not 0 <= index < len(codes):
            raise ValueError(f"deepsdf: index must be that of one of {len(codes)} known shapes, from 0 on, got {index}")
        self.prior_weight = prior
        self.options: Mapping[str, Plain] = {
            "prior": prior,
            "frozen": frozen,
            "architecture": {
                "code": self.decoder.code,
                "outputs": list(self.decoder.outputs),
                "skips": list(self.decoder.skips),
            },
            "bounds": self.bounds.tolist(),
        }
        centre, spread = _mean_and_spread(codes, self.decoder.code)
        self.register_buffer("centre", centre)
        self.register_buffer("spread", spread)
        self.code = nn.Parameter((centre if index is None else codes[index]).clone())
        self.bound_slope()

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        return self.geometry(x)[0]

    def geometry(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], None]:
        return self.decoder.geometry(x, self.decoder.prepared(self.code[None]), None)[0], None

    def prior(self) -> Float[Tensor, ""]:
        """Return the squared distance of the code from the mean of the known ones, in units of their mean square.

        DeepSDF and DIST take the squared length of the code (Park et al. 2019, eq. 10; Liu et al. 2020, section 4);
        their codes lie around 0, and in a space of unit size. With few known codes neither needs to hold.
        """
        return self.prior_weight * ((self.code - self.centre) / self.spread).square().sum()


def _decoder(
    file: str, latents: str, architecture: Architecture | None, bounds: Bounds
) -> tuple[DeepSDFDecoder, Tensor]:
    """Return the decoder of a file with its codes, or an untrained one for the weights of a checkpoint."""
    if file:
        return DeepSDFDecoder.read(Path(file), Path(latents) if latents else None, bounds)
    if architecture is None:
        raise ValueError("deepsdf: needs the file of a decoder, or the architecture of one")
    try:
        code, outputs, skips = architecture["code"], architecture["outputs"], architecture["skips"]
    except (KeyError, TypeError):
        raise ValueError(f"deepsdf: architecture must hold code, outputs and skips, got {architecture!r}") from None
    return DeepSDFDecoder(code, outputs, skips, bounds), torch.empty(0, code)


def _mean_and_spread(codes: Float[Tensor, "s code"], length: int) -> tuple[Float[Tensor, " code"], Float[Tensor, ""]]:
    """Return the mean of known codes (length,), and the root of the mean squared distance from it.

    A decoder without known codes gets those of its training: they lie around 0, at distances of about 1
    (facebookresearch/DeepSDF draws them with a standard deviation of 1 / sqrt(length)).
    """
    if len(codes) == 0:
        return torch.zeros(length), torch.tensor(1.0)
    centre = codes.mean(0)
    spread = (codes - centre).square().sum(1).mean().sqrt()
    return centre, spread if float(spread) > 0 else torch.tensor(1.0)
