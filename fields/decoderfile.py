"""Trained DeepSDF-style decoders on disk: plain arrays, or a state dict of PyTorch. Nothing in them is ever run."""

import json
import pickle
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

LAYER = re.compile(r"(?:module\.)?(?:lin(\d+)\.(?:parametrizations\.)?(weight|bias)([._]\w+)*|(w|b)(\d+))$")
"""Names of arrays that belong to a layer: those of facebookresearch/DeepSDF, or w0, b0, w1, ..."""

UNREADABLE = pickle.UnpicklingError, SafetensorError, zipfile.BadZipFile
"""What readers raise besides Python's own."""


@dataclass(frozen=True)
class Trained:
    """A decoder's layers, each y = W x + b, with a ReLU after all but the last, and a tanh after that."""

    weights: tuple[Tensor, ...]
    """Shape (outputs, inputs), float32. The first takes code and point, code first; so does a skip, after the rest."""
    biases: tuple[Tensor, ...]
    skips: tuple[int, ...]
    """Layers that are given code and point again."""
    codes: Tensor
    """Latent codes of the shapes that it was trained with, as far as they are known, shape (s, code)."""


def read(path: Path, latents: Path | None = None) -> Trained:
    """Read a decoder (Park et al., "DeepSDF", 2019).

    .npz and .safetensors hold arrays `w0`, `b0`, `w1`, ... (or `lin0.weight`, `lin0.bias`, ...) and `codes`. Names may
    be told in an architecture: an entry of that name in the metadata of .safetensors, or `architecture.json` beside the
    file, JSON with `layers`, a list of `weight`, `bias`, and what is to be checked: `shape` and `activation`. Anything
    else is read as a state dict of facebookresearch/DeepSDF, bare or below `model_state_dict`, by `torch.load` with
    `weights_only`; weight normalisation is folded. Which layers are skips follows from the shapes.

    Args:
        path: the decoder.
        latents: the codes, if they are in a file of their own: `latent_codes` of facebookresearch/DeepSDF, or `codes`.

    Raises:
        ValueError: if a file is missing, damaged or something else, or layers do not fit together.
    """
    arrays, architecture = _arrays(path)
    weights, biases = _layers(path, arrays, architecture)
    skips = _skips(path, weights, biases)
    code = weights[0].shape[1] - 3
    beside = arrays if latents is None else _arrays(latents)[0]
    codes = _codes(latents or path, beside)
    if codes is None and latents is not None:
        raise ValueError(f"{latents}: expected latent codes (`latent_codes` or `codes`), found {_some(beside)}")
    codes = torch.empty(0, code) if codes is None else codes
    if codes.ndim != 2 or codes.shape[1] != code:
        raise ValueError(f"{latents or path}: expected codes (shapes, {code}), as layer 0 takes, found {_size(codes)}")
    if not all(bool(a.isfinite().all()) for a in (*weights, *biases, codes)):
        raise ValueError(f"{path}: holds a number that is not finite")
    return Trained(weights, biases, skips, codes)


def _arrays(path: Path) -> tuple[dict[str, Any], Any]:
    """Return what a file holds by name, and the architecture that comes with it or None."""
    if not path.is_file():
        raise ValueError(f"{path}: expected the file of a decoder, found {'a folder' if path.is_dir() else 'nothing'}")
    beside = path.with_name("architecture.json")
    arrays: Any
    architecture: Any = (
        beside.read_text(errors="replace") if path.suffix in (".npz", ".safetensors") and beside.is_file() else None
    )
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}
                architecture = (file.metadata() or {}).get("architecture", architecture)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about files that are refused anyway
                arrays = torch.load(path, map_location="cpu", weights_only=True)
        arrays = arrays.get("model_state_dict", arrays) if isinstance(arrays, dict) else {}
        return {str(k): v for k, v in dict(arrays).items()}, None if architecture is None else json.loads(architecture)
    except (*UNREADABLE, OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: expected the tensors of a decoder, found a file that is {_not(error)}") from None


def _not(error: Exception) -> str:
    """Say why a file was refused, without the advice that libraries give: to load it all the same, code and all."""
    reason = " ".join(str(error).split())[:200]
    if isinstance(error, pickle.UnpicklingError | KeyError) or "pickle" in reason:  # text is taken for one, too
        return "none, is damaged, or holds code, which is not run"
    return f"not ({reason})"


def _layers(path: Path, arrays: dict[str, Any], architecture: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return weights and biases of the layers, weight normalisation folded."""
    if any(re.search(r"(^|\.)bn\d+\.", name) for name in arrays):
        raise ValueError(f"{path}: expected a decoder with weight normalisation or none, found layer normalisation")
    if architecture is not None:
        names = _named(path, architecture)
        parts = {(i, what): arrays.get(name) for i, pair in enumerate(names) for what, name in pair.items()}
    else:
        parts = {}
        for name, value in arrays.items():
            if match := LAYER.fullmatch(name):
                number, kind, _, letter, short = match.groups()
                parts[int(number or short), _part(name, kind or {"w": "weight", "b": "bias"}[letter])] = value
    if not parts:
        raise ValueError(
            f"{path}: expected the layers of a decoder (lin0.weight, lin0.bias, ... or w0, b0, ...), found "
            f"{_some(arrays)}"
        )
    n = 1 + max(i for i, _ in parts)
    return tuple(_weight(path, parts, i) for i in range(n)), tuple(_tensor(path, parts, i, "bias", 1) for i in range(n))


def _part(name: str, kind: str) -> str:
    """Return what of a layer an array is: weight, bias, or length ("g") and direction ("v") of the rows of a weight."""
    for ending, part in (("_g", "g"), ("_v", "v"), (".original0", "g"), (".original1", "v")):
        if name.endswith(kind + ending):
            return part
    return kind


def _weight(path: Path, parts: dict[tuple[int, str], Any], i: int) -> Tensor:
    """Return the weight of a layer; g v / |v| per row where it is normalised (Salimans and Kingma 2016, eq. 2)."""
    if (i, "weight") not in parts and (i, "v") in parts and (i, "g") in parts:
        v, g = _tensor(path, parts, i, "v", 2), parts[i, "g"]
        return g.detach().double().reshape(-1, 1).mul(v.double() / v.double().norm(dim=1, keepdim=True)).float()
    return _tensor(path, parts, i, "weight", 2)


def _tensor(path: Path, parts: dict[tuple[int, str], Any], i: int, part: str, ndim: int) -> Tensor:
    value = parts.get((i, part))
    if not isinstance(value, Tensor) or value.ndim != ndim or not value.is_floating_point():
        found = _size(value) if isinstance(value, Tensor) else "none"
        raise ValueError(f"{path}: layer {i} needs a {part} of {ndim} dimension{'s' * (ndim > 1)}, found {found}")
    return value.detach().float()


def _skips(path: Path, weights: tuple[Tensor, ...], biases: tuple[Tensor, ...]) -> tuple[int, ...]:
    """Return which layers are given code and point again; refuse layers that do not fit together."""
    skips, first = [], weights[0].shape[1]
    if first < 4:
        raise ValueError(f"{path}: layer 0 takes {first} numbers, expected at least 4: a code and a point")
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        if len(bias) != len(weight):
            raise ValueError(f"{path}: layer {i} has a weight with {len(weight)} rows, but {len(bias)} biases")
        before = len(weights[i - 1]) if i else first
        if i and weight.shape[1] == before + first:
            skips.append(i)
        elif weight.shape[1] != before:
            raise ValueError(
                f"{path}: layer {i} takes {weight.shape[1]} numbers, expected {before} of the layer before, or "
                f"{before + first} with code and point besides"
            )
    if len(weights[-1]) != 1:
        raise ValueError(f"{path}: the last layer returns {len(weights[-1])} numbers, expected 1, the distance")
    return tuple(skips)


def _named(path: Path, architecture: Any) -> list[dict[str, str]]:
    """Return the names of weight and bias of each layer, as an architecture tells them; refuse other activations."""
    try:
        layers = architecture["layers"]
        for i, layer in enumerate(layers):
            wanted = "relu" if i < len(layers) - 1 else "tanh"
            if layer.get("activation", wanted) != wanted:
                raise ValueError(f"{path}: layer {i} has activation {layer['activation']!r}, expected {wanted!r}")
        return [{"weight": str(layer["weight"]), "bias": str(layer["bias"])} for layer in layers]
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{path}: expected an architecture with `layers`, each with weight and bias") from None


def _codes(path: Path, arrays: dict[str, Any]) -> Tensor | None:
    codes = arrays.get("latent_codes", arrays.get("codes"))
    codes = codes.get("weight") if isinstance(codes, dict) else codes
    if codes is None:
        return None
    if not isinstance(codes, Tensor) or not codes.is_floating_point() or codes.ndim < 2:
        found = _size(codes) if isinstance(codes, Tensor) else type(codes).__name__
        raise ValueError(f"{path}: expected latent codes (shapes, code length), found {found}")
    return codes.detach().float().flatten(1)


def _some(arrays: dict[str, Any]) -> str:
    names = [str(name) for name in arrays]
    return f"{', '.join(names[:4])}{', ...' if len(names) > 4 else ''}" if names else "none"


def _size(x: Tensor) -> str:
    return f"{tuple(x.shape)}"
