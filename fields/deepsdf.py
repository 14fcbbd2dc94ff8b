"""Signed distances of any shape of a trained category, told by a latent code (Park et al., "DeepSDF", 2019)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast

import torch
from torch import Tensor, nn

from warpdvr.fields import decoderfile
from warpdvr.fields.base import Bounds, Decoder, Plain
from warpdvr.fields.slope import MeasuredSlope


class Architecture(TypedDict):
    """What a checkpoint knows of a decoder whose file may be gone: the arguments of `DeepSDFDecoder`."""

    code: int
    outputs: Sequence[int]
    skips: Sequence[int]


class DeepSDFDecoder(Decoder):
    """The decoder: value(code, point). It is no field yet: `DeepSDF` is one, and so is `Shapes(decoder, codes)`.

    A perceptron with ReLUs and a tanh at the end; some of its layers are given code and point again. What codes add to
    those and to the first layer is worked out once for all points (`prepared`).

    Args:
        code: length of a latent code.
        outputs: of each layer, the last of them 1.
        skips: indices of the layers that are given code and point again, after what the layer before returns.
        bounds: see `Field`; in the frame that it was trained in, where shapes lie in the unit sphere.
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
    def read(cls, path: Path, latents: Path | None = None, bounds: Bounds = 1.0) -> tuple["DeepSDFDecoder", Tensor]:
        """Return a trained decoder and the codes that came with it, (s, code); `decoderfile.read` says which files.

        Raises:
            ValueError: if it cannot be read.
        """
        trained = decoderfile.read(path, latents)
        weights = trained.weights
        made = cls(weights[0].shape[1] - 3, [len(w) for w in weights], trained.skips, bounds)
        with torch.no_grad():
            for layer, weight, bias in zip(made.layers, weights, trained.biases, strict=True):
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)
        return made, trained.codes

    def prepared(self, codes: Tensor) -> list[Tensor]:
        """Return what codes (s, code) add in the layers that are given them, each (s, outputs of that layer)."""
        given = [self.layers[i] for i in (0, *self.skips)]
        return [nn.functional.linear(codes, g.weight[:, -self.code - 3 : -3], g.bias) for g in given]

    def geometry(self, x: Tensor, shifts: Sequence[Tensor], shape_index: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return value (n,) and no features (n, 0) at points (n, 3) of the shapes `shape_index` (n,), or the only
        one."""
        later = iter(shifts)
        h = x
        for i, layer in enumerate(self.layers):
            if i == 0 or i in self.skips:
                shift = next(later)
                own = torch.addmm(shift if shape_index is None else shift[shape_index], x, layer.weight[:, -3:].T)
                h = own if i == 0 else torch.addmm(own, h, layer.weight[:, : -self.code - 3].T)
            else:
                h = layer(h)
            h = torch.relu(h) if i < len(self.layers) - 1 else torch.tanh(h)
        return h[:, 0], h[:, 1:]

    def color(self, feature: Tensor) -> Tensor:
        """Return grey (n, 3): it knows of no colours."""
        return feature.new_full((len(feature), 3), 0.7)


class DeepSDF(MeasuredSlope):
    """One shape of a trained decoder; what can be fitted is its latent code. Grey clay: there are no colours.

    Its frame is that of the decoder. Decoders are trained with clamped distances, and a tanh ends them: far from the
    surface values are smaller than distances, which costs steps but is safe.

    Args:
        decoder: file of the decoder, see `warpdvr.fields.decoderfile.read`.
        latents: file of the codes of known shapes, where they are in one of their own.
        index: which known shape to start from; None is the mean of all codes, or zeros where none are known.
        prior: weight of `prior()`.
        frozen: keep the decoder as it was trained, and fit the code alone.
        architecture: what a checkpoint knows instead of a file (`options`): code, outputs and skips of the decoder.
        bounds: see `Field`.
    """

    rates: Mapping[str, float] = {"": 5e-3, "weight": 1e-5, "bias": 1e-5}
    """Of the code, and of a decoder that is not frozen."""

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
            raise ValueError("deepsdf: needs the file of a decoder, or the architecture of one, one of them")
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
        centre, spread = _around(codes, self.decoder.code)
        self.register_buffer("centre", centre)
        self.register_buffer("spread", spread)
        self.code = nn.Parameter((centre if index is None else codes[index]).clone())
        self.bound_slope()

    def value(self, x: Tensor) -> Tensor:
        return self.geometry(x)[0]

    def geometry(self, x: Tensor) -> tuple[Tensor, None]:
        return self.decoder.geometry(x, self.decoder.prepared(self.code[None]), None)[0], None

    def prior(self) -> Tensor:
        """Return how far the code is from the mean of the known ones, squared, in units of their mean square.

        DeepSDF and DIST take the squared length of the code (Park et al. 2019, eq. 10; Liu et al. 2020, section 4);
        their codes lie around 0, and in a space of unit size. With few known codes neither needs to hold.
        """
        return self.prior_weight * ((self.code - self.centre) / self.spread).square().sum()


def _decoder(
    file: str, latents: str, architecture: Architecture | None, bounds: Bounds
) -> tuple[DeepSDFDecoder, Tensor]:
    """Return the decoder of a file with its codes, or an untrained one that waits for the weights of a checkpoint."""
    if file:
        return DeepSDFDecoder.read(Path(file), Path(latents) if latents else None, bounds)
    if architecture is None:
        raise ValueError("deepsdf: needs the file of a decoder, or the architecture of one")
    try:
        code, outputs, skips = architecture["code"], architecture["outputs"], architecture["skips"]
    except (KeyError, TypeError):
        raise ValueError(f"deepsdf: architecture must hold code, outputs and skips, got {architecture!r}") from None
    return DeepSDFDecoder(code, outputs, skips, bounds), torch.empty(0, code)


def _around(codes: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return the mean of known codes (length,), and the root of the mean squared distance from it.

    Of a decoder without known codes nothing but its training is known: theirs lie around 0, at distances of about 1
    (facebookresearch/DeepSDF draws them with a standard deviation of 1 / sqrt(length)).
    """
    if len(codes) == 0:
        return torch.zeros(length), torch.tensor(1.0)
    centre = codes.mean(0)
    spread = (codes - centre).square().sum(1).mean().sqrt()
    return centre, spread if float(spread) > 0 else torch.tensor(1.0)
