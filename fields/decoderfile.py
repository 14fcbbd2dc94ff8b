"""Read trained DeepSDF-style decoders: plain arrays, or a state dict of PyTorch. Code in such a file is never run."""

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from warpdvr.runtime.npz import FOREIGN, read_arrays
from warpdvr.runtime.parsing import check_regular, describe_error, parsing, read_json

LAYER_NAME = re.compile(r"(?:module\.)?(?:lin(\d+)\.(?:parametrizations\.)?(weight|bias)([._]\w+)*|(w|b)(\d+))$")
"""Names of arrays that belong to a layer: those of facebookresearch/DeepSDF, or w0, b0, w1, ..."""

Entries = dict[str, object]
"""The content of a file by name; not yet checked, so of any type."""

Weights = tuple[Float[Tensor, "_ _"], ...]
Biases = tuple[Float[Tensor, " _"], ...]

Parts = dict[tuple[int, str], object]
"""The content by layer index and part of the layer: "weight", "bias", or "g" and "v" (see `_part`)."""


@dataclass(frozen=True)
class TrainedDecoder:
    """A decoder's layers, each y = W x + b, with a ReLU after all but the last, and a tanh after that."""

    weights: Weights
    """(outputs, inputs) of each layer, float32. The first takes code and point, code first; a skip takes them last."""
    biases: Biases
    skips: tuple[int, ...]
    """Indices of the layers that take code and point again."""
    codes: Float[Tensor, "s code"]
    """Latent codes of the shapes that it was trained with; s = 0 if they are unknown."""


_allowed = ContextVar("allowed", default=True)
"""Whether `read` may read a file, see `no_files`."""


@contextmanager
def no_files() -> Iterator[None]:
    """Refuse to read any decoder inside the block: a checkpoint comes from anyone, and may not name other files."""
    token = _allowed.set(False)
    try:
        yield
    finally:
        _allowed.reset(token)


def read(path: Path, latents: Path | None = None) -> TrainedDecoder:
    """Read a decoder (Park et al., "DeepSDF", 2019).

    .npz and .safetensors hold arrays `w0`, `b0`, `w1`, ... (or `lin0.weight`, `lin0.bias`, ...) and `codes`. Other
    names may be listed in an architecture: an entry of that name in the metadata of .safetensors, or
    `architecture.json` beside the file, JSON with `layers`, a list of `weight`, `bias` and `activation`, which is
    checked. Anything else is read as a state dict of facebookresearch/DeepSDF, bare or below `model_state_dict`, by
    `torch.load` with `weights_only`; weight normalisation is folded. Which layers are skips follows from the shapes.

    Args:
        path: the decoder.
        latents: the codes, if they are in a separate file: `latent_codes` of facebookresearch/DeepSDF, or `codes`.

    Raises:
        ValueError: if a file is missing, damaged or of another format, layers do not fit together, or no file may be
            read (`no_files`).
    """
    if not _allowed.get():
        raise ValueError(
            f"{path}: a checkpoint names this file of a decoder, which is not read: weights come from the checkpoint "
            "alone; fit again, or write its architecture in place of the file"
        )
    entries, architecture = _read_entries(path)
    with parsing(path, "a decoder"):
        weights, biases = _layers(path, entries, architecture)
    skips = _skips(path, weights, biases)
    length = weights[0].shape[1] - 3
    latent_entries = entries if latents is None else _read_entries(latents)[0]
    codes = _codes(latents or path, latent_entries)
    if codes is None and latents is not None:
        names = _list_names(latent_entries)
        raise ValueError(f"{latents}: expected latent codes (`latent_codes` or `codes`), found {names}")
    codes = torch.empty(0, length) if codes is None else codes
    if codes.ndim != 2 or codes.shape[1] != length:
        raise ValueError(
            f"{latents or path}: expected codes (shapes, {length}), as layer 0 takes, found {_shape(codes)}"
        )
    if not all(bool(a.isfinite().all()) for a in (*weights, *biases, codes)):
        raise ValueError(f"{path}: holds a number that is not finite")
    return TrainedDecoder(weights, biases, skips, codes)


def _read_entries(path: Path) -> tuple[Entries, object]:
    """Return the contents of a file by name, and the architecture that comes with it or None."""
    check_regular(path, "the file of a decoder")
    sidecar = path.with_name("architecture.json")
    has_sidecar = path.suffix in (".npz", ".safetensors") and sidecar.exists()
    architecture = _read_sidecar(path, sidecar) if has_sidecar else None
    content: object
    if path.suffix == ".npz":
        content = {name: torch.from_numpy(array) for name, array in _read_npz(path).items()}
    elif path.suffix == ".safetensors":
        with parsing(path, "the tensors of a decoder"), safe_open(path, "pt") as file:
            content = {name: file.get_tensor(name) for name in file.keys()}
            stored = (file.metadata() or {}).get("architecture")
            architecture = architecture if stored is None else json.loads(stored)
    else:
        content = _read_state(path)
    state = content.get("model_state_dict", content) if isinstance(content, dict) else {}
    if not isinstance(state, dict):
        raise ValueError(f"{path}: expected the tensors of a decoder by name, found {type(state).__name__}")
    for name, value in state.items():
        for tensor in value.values() if isinstance(value, dict) else (value,):
            _check_tensor(path, name, tensor)
    return {str(k): v for k, v in state.items()}, architecture


def _check_tensor(path: Path, name: object, value: object) -> None:
    """Refuse a tensor that is no plain array, or is larger than its file: one number may be spread over any shape."""
    if not isinstance(value, Tensor):
        return
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        raise ValueError(f"{path}: expected {name} to be a plain array, found {value.dtype} as {value.layout}")
    if value.numel() * value.element_size() > path.stat().st_size:
        raise ValueError(f"{path}: {name} has the shape {_shape(value)}, more numbers than the file can hold")


def _read_sidecar(path: Path, sidecar: Path) -> object:
    try:
        return read_json(sidecar, "its architecture in JSON")
    except ValueError as error:
        raise ValueError(f"{path}: expected the tensors of a decoder, but {error}") from None


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of numbers in an npz file that Torch has types for."""
    arrays = read_arrays(path, expected="the tensors of a decoder")
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise ValueError(f"{path}: expected {name} to hold numbers, found {array.dtype}")
    return arrays


def _read_state(path: Path) -> object:
    """Return what a file of PyTorch holds, without running code that it may hold as well."""
    size = check_regular(path, "the file of a decoder")
    try:
        if zipfile.is_zipfile(path):  # PyTorch stores without packing, so that this bounds what is allocated
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > size:
                raise ValueError(f"it unpacks to {unpacked} bytes, more than its own {size}, as PyTorch never writes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers of pickles fail in any way
        raise ValueError(f"{path}: expected the tensors of a decoder, found a file that {_refusal(error)}") from None


def _refusal(error: Exception) -> str:
    """Return why a file was refused, without the libraries' advice to load it anyway, code included."""
    reason = " ".join(str(error).split())[:200]
    if isinstance(error, pickle.UnpicklingError | KeyError) or "pickle" in reason:  # plain text is taken for a pickle
        return FOREIGN
    return f"cannot be read ({describe_error(error)})"


def _layers(path: Path, entries: Entries, architecture: object) -> tuple[Weights, Biases]:
    """Return weights and biases of the layers, weight normalisation folded."""
    if any(re.search(r"(^|\.)bn\d+\.", name) for name in entries):
        raise ValueError(f"{path}: expected a decoder with weight normalisation or none, found layer normalisation")
    parts: Parts = {}
    if architecture is not None:
        for i, names in enumerate(_layer_names(path, architecture)):
            parts |= {(i, part): entries.get(name) for part, name in names.items()}
    else:
        for name, value in entries.items():
            if match := LAYER_NAME.fullmatch(name):
                number, kind, _, letter, short_number = match.groups()
                parts[int(number or short_number), _part(name, kind or {"w": "weight", "b": "bias"}[letter])] = value
    if not parts:
        raise ValueError(
            f"{path}: expected the layers of a decoder (lin0.weight, lin0.bias, ... or w0, b0, ...), found "
            f"{_list_names(entries)}"
        )
    n = 1 + max(i for i, _ in parts)
    return tuple(_weight(path, parts, i) for i in range(n)), tuple(_tensor(path, parts, i, "bias", 1) for i in range(n))


def _part(name: str, kind: str) -> str:
    """Return which part of a layer an array is: weight, bias, or length ("g") or direction ("v") of a weight's rows."""
    for ending, part in (("_g", "g"), ("_v", "v"), (".original0", "g"), (".original1", "v")):
        if name.endswith(kind + ending):
            return part
    return kind


def _weight(path: Path, parts: Parts, i: int) -> Float[Tensor, "outputs inputs"]:
    """Return the weight of a layer; g v / |v| per row where it is normalised (Salimans and Kingma 2016, eq. 2)."""
    g = parts.get((i, "g"))
    if (i, "weight") not in parts and (i, "v") in parts and isinstance(g, Tensor):
        v = _tensor(path, parts, i, "v", 2)
        return g.detach().double().reshape(-1, 1).mul(v.double() / v.double().norm(dim=1, keepdim=True)).float()
    return _tensor(path, parts, i, "weight", 2)


def _tensor(path: Path, parts: Parts, i: int, part: str, ndim: int) -> Tensor:
    value = parts.get((i, part))
    if not isinstance(value, Tensor) or value.ndim != ndim or not value.is_floating_point():
        description = _shape(value) if isinstance(value, Tensor) else "none"
        raise ValueError(f"{path}: layer {i} needs a {part} of {ndim} dimension{'s' * (ndim > 1)}, found {description}")
    return value.detach().float()


def _skips(path: Path, weights: Weights, biases: Biases) -> tuple[int, ...]:
    """Return the layers that take code and point again; refuse layers that do not fit together."""
    skips, first = [], weights[0].shape[1]
    if first < 4:
        raise ValueError(f"{path}: layer 0 takes {first} numbers, expected at least 4: a code and a point")
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if len(bias) != len(weight):
            raise ValueError(f"{path}: layer {i} has a weight with {len(weight)} rows, but {len(bias)} biases")
        previous = len(weights[i - 1]) if i else first
        if i and weight.shape[1] == previous + first:
            skips.append(i)
        elif weight.shape[1] != previous:
            raise ValueError(
                f"{path}: layer {i} takes {weight.shape[1]} numbers, expected {previous} of the layer before, or "
                f"{previous + first} with code and point again"
            )
    if len(weights[-1]) != 1:
        raise ValueError(f"{path}: the last layer returns {len(weights[-1])} numbers, expected 1, the distance")
    return tuple(skips)


def _layer_names(path: Path, architecture: object) -> list[dict[str, str]]:
    """Return the names of weight and bias of each layer in an architecture; refuse other activations."""
    layers = architecture.get("layers") if isinstance(architecture, dict) else None
    if not isinstance(layers, list) or not all(isinstance(x, dict) and {"weight", "bias"} <= x.keys() for x in layers):
        raise ValueError(f"{path}: expected an architecture with `layers`, each with weight and bias")
    for i, layer in enumerate(layers):
        expected = "relu" if i < len(layers) - 1 else "tanh"
        if layer.get("activation", expected) != expected:
            raise ValueError(f"{path}: layer {i} has activation {layer['activation']!r}, expected {expected!r}")
    return [{"weight": str(layer["weight"]), "bias": str(layer["bias"])} for layer in layers]


def _codes(path: Path, entries: Entries) -> Float[Tensor, "s code"] | None:
    """Return the latent codes in a file, or None."""
    codes = entries.get("latent_codes", entries.get("codes"))
    codes = codes.get("weight") if isinstance(codes, dict) else codes
    if codes is None:
        return None
    if not isinstance(codes, Tensor) or not codes.is_floating_point() or codes.ndim < 2:
        description = _shape(codes) if isinstance(codes, Tensor) else type(codes).__name__
        raise ValueError(f"{path}: expected latent codes (shapes, code length), found {description}")
    return codes.detach().float().flatten(1)


def _list_names(entries: Entries) -> str:
    names = list(entries)
    return f"{', '.join(names[:4])}{', ...' if len(names) > 4 else ''}" if names else "none"


def _shape(x: Tensor) -> str:
    return f"{tuple(x.shape)}"
