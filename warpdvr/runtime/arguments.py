"""Read arguments: whole numbers, positive ones, switches, and matrices from lists or NumPy; or say what is wrong."""

import math
from dataclasses import fields
from numbers import Real
from types import NoneType
from typing import get_args, get_type_hints

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from warpdvr.runtime.inference_mode import ordinary
from warpdvr.runtime.validate import refuse_class


def whole(where: str, value: object, least: int | None = 1) -> int:
    """Return a whole number, which may be written as 32.0 or be a number of NumPy or Torch.

    Raises:
        ValueError: if it is none, or smaller than `least`.
    """
    number = plain(value)
    low = -math.inf if least is None else least
    if number is None or not math.isfinite(number) or number != int(number) or number < low:
        raise ValueError(
            f"{where} must be a whole number{'' if least is None else f', at least {least}'}, got {value!r}"
        )
    return int(number)


def positive(where: str, value: object) -> float:
    """Return a finite positive number.

    Raises:
        ValueError: if it is none.
    """
    number = plain(value)
    if number is None or not 0 < number < math.inf:
        raise ValueError(f"{where} must be positive, got {value!r}")
    return number


def check_counts(where: str, least: int = 1, **counts: object) -> None:
    """Check whole numbers, by the names of the arguments.

    Raises:
        ValueError: if one is none, or smaller than `least`.
    """
    for name, count in counts.items():
        if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < least:
            raise ValueError(f"{where}: {name} must be a whole number, at least {least}, got {count!r}")


def check_positive(where: str, **numbers: object) -> None:
    """Check finite positive numbers, by the names of the arguments.

    Raises:
        ValueError: if one is none.
    """
    for name, number in numbers.items():
        if not 0 < (plain(number) or 0) < math.inf:
            raise ValueError(f"{where}: {name} must be positive, got {number!r}")


def finite(where: str, value: object) -> float:
    """Return a finite number.

    Raises:
        ValueError: if it is none.
    """
    number = plain(value)
    if number is None or not math.isfinite(number):
        raise ValueError(f"{where} must be a finite number, got {value!r}")
    return number


def check_switches(where: str, **switches: object) -> None:
    """Check truth values, by the names of the arguments.

    Raises:
        ValueError: if one is none.
    """
    for name, switch in switches.items():
        if not isinstance(switch, bool):
            raise ValueError(f"{where}: {name} must be True or False, got {switch!r}")


def check_fields(settings: object) -> None:
    """Check the values of a dataclass of settings against their annotations; for its `__post_init__`.

    A whole number may be written as 64.0; no number may be negative, and none may be NaN.

    Raises:
        ValueError: if a value is of another type.
    """
    owner, hints = type(settings).__name__, get_type_hints(type(settings))
    for f in fields(settings):  # type: ignore[arg-type]
        value, kinds = getattr(settings, f.name), get_args(hints[f.name]) or (hints[f.name],)
        where = f"{owner}: {f.name}"
        if value is None and NoneType in kinds:
            continue
        if bool in kinds:
            if not isinstance(value, bool):
                raise ValueError(f"{where} must be True or False, got {value!r}")
        elif int in kinds:
            object.__setattr__(settings, f.name, whole(where, value, least=None))
        elif float in kinds:
            number = plain(value)
            if number is None or not number >= 0:
                raise ValueError(f"{owner}: needs a number {f.name} >= 0, got {value!r}")
        elif isinstance(kind := kinds[0], type) and not isinstance(value, kind):
            refuse_class(where, value)
            raise ValueError(f"{where} must be a {kind.__name__}, got {type(value).__name__}")


def plain(value: object) -> float | None:
    """Return a number, or None: text and truth values are none."""
    if isinstance(value, Tensor) and value.ndim == 0 and value.dtype != torch.bool and not value.is_complex():
        value = value.item()
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf if value >= type(value)() else -math.inf


def floating(where: str, value: object, shapes: tuple[tuple[int, ...], ...]) -> Float[Tensor, "..."]:
    """Return a tensor of floating point numbers in one of some shapes; lists and whole numbers become float64.

    A tensor of float32 or float64 is returned as it is, one of half precision as float32; differentiable.

    Raises:
        ValueError: if it is anything else, or a number is not finite.
    """
    expected = " or ".join(map(str, shapes))
    try:
        tensor = value if isinstance(value, Tensor) else _from_list(value)
    except (RuntimeError, TypeError, ValueError):  # text, or rows of different lengths
        raise ValueError(f"{where} must be a tensor of shape {expected}, got {value!r}") from None
    if tensor.dtype == torch.bool or tensor.is_complex():
        raise ValueError(f"{where} must hold real numbers, got {tensor.dtype}")
    if tuple(tensor.shape) not in shapes:
        raise ValueError(f"{where} must have shape {expected}, got {tuple(tensor.shape)}")
    if not tensor.is_floating_point():
        tensor = tensor.double()
    tensor = ordinary(tensor.float() if tensor.element_size() < 4 else tensor)
    if not bool(tensor.detach().isfinite().all()):
        raise ValueError(f"{where} holds a number that is not finite")
    return tensor


def check_device(where: str, device: torch.device, of: str = "the field", **arguments: Tensor | None) -> None:
    """Check that tensors lie on one device, by the names of the arguments; None is no tensor.

    Args:
        where: the function that needs them.
        device: where all of them should be.
        of: what else is there.
        arguments: the tensors; of an object that holds several, one of them under its name.

    Raises:
        ValueError: if one is elsewhere; it says where, and how it is moved.
    """
    for name, tensor in arguments.items():
        if tensor is not None and tensor.device != device:
            raise ValueError(
                f"{where}: {name} on {tensor.device}, but {of} on {device}; move one to the other, such as by "
                f"{name}.to({str(device)!r})"
            )


def rows(where: str, value: object, width: int) -> Shaped[Tensor, "n _"]:
    """Return a tensor with rows of some width; lists and arrays of NumPy become one.

    Raises:
        ValueError: if it is anything else.
    """
    try:
        tensor = value if isinstance(value, Tensor) else _from_list(value)
    except (RuntimeError, TypeError, ValueError):
        raise ValueError(f"{where} must be a tensor of shape (n, {width}), got {value!r}") from None
    if tensor.ndim != 2 or tensor.shape[1] != width:
        raise ValueError(f"{where} must have shape (n, {width}), got {tuple(tensor.shape)}")
    return ordinary(tensor)


def _from_list(value: object) -> Shaped[Tensor, "..."]:
    """Return a copy of an array as it is typed, and lists as float64."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return torch.as_tensor(value, dtype=torch.float64)
