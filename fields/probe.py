"""Try the modules and functions of others, and say in one sentence what breaks the contract of a field."""

from collections.abc import Callable
from numbers import Real
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from warpdvr.fields.base import Field, Kind, check_answer
from warpdvr.runtime.validate import suggest

Evaluate = Callable[[Tensor], object]
"""What third-party code returns at points, unchecked."""

EVAL = "call eval() before, or take batch normalisation and dropout out"
TORCH = "write it with Torch, so that gradients pass through it"

ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What third-party code raises at points that it cannot answer."""


def check_members(name: str, kind: object, lipschitz: object, step: object, *, measured: bool = False) -> None:
    """Refuse members without a meaning; None is none. A bound that was measured may be 0 where a field is constant.

    Raises:
        ValueError: if the kind is unknown, or the bound or the step is no positive number.
    """
    kinds = get_args(Kind)
    if kind is not None and kind not in kinds:
        known = " or ".join(repr(known) for known in kinds)
        raise ValueError(f"{name}.kind: must be {known}, got {kind!r}{suggest(str(kind).lower(), kinds)}")
    if lipschitz is not None and not _is_positive(lipschitz, or_zero=measured):
        raise ValueError(
            f"{name}.lipschitz: must be a positive number, an upper bound of |grad value|, or None, got {lipschitz!r}"
        )
    if step is not None and not _is_positive(step):
        raise ValueError(
            f"{name}.step: must be a positive number, the width of central differences [scene unit], or None for exact "
            f"derivatives, got {step!r}"
        )


def _is_positive(number: object, *, or_zero: bool = False) -> bool:
    plain = isinstance(number, Real) or (isinstance(number, Tensor) and number.ndim == 0)
    return plain and not isinstance(number, bool) and (or_zero or float(number) > 0)  # type: ignore[arg-type]


def check_mode(field: Field) -> None:
    """Refuse layers that change or depend on chance while a field is looked at, and weights without gradients.

    Raises:
        ValueError: if a module in training mode is batch normalisation, spectral normalisation or dropout, or a
            parameter or buffer was made in inference mode.
    """
    for module in field.modules():  # names take longer than all the rest, and are needed only for what is wrong
        if module.training and (what := _changing(module)):
            path = next(name for name, other in field.named_modules() if other is module)
            path = path.removeprefix("module").lstrip(".") or "it"
            raise ValueError(f"{field.name}: {path} is {what} in training mode; {EVAL}")
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None and tensor.is_inference():
                named = (*field.named_parameters(), *field.named_buffers())
                weight = next(name for name, other in named if other is tensor).removeprefix("module.")
                raise ValueError(
                    f"{field.name}: {weight} was made in torch.inference_mode(), where nothing can be differentiated; "
                    "make the field outside of it, or take copy.deepcopy(field) outside of it"
                )


def _changing(module: nn.Module) -> str:
    """Return what a module in training mode does, in words, if its values depend on chance or on the last batches."""
    if isinstance(module, _DropoutNd | nn.RReLU):
        still = isinstance(module, _DropoutNd) and module.p == 0
        return "" if still else f"{type(module).__name__}, whose values depend on chance,"
    if isinstance(module, _BatchNorm) or (isinstance(module, _InstanceNorm) and module.track_running_stats):
        return f"{type(module).__name__}, whose statistics every picture would change,"
    hooks = (type(hook).__name__ for hook in module._forward_pre_hooks.values())
    if type(module).__name__ == "_SpectralNorm" or "SpectralNorm" in hooks:
        return "spectrally normalised, and every picture would change its vectors,"
    return ""


@torch.no_grad()
def probe(field: Field, evaluate: Evaluate) -> None:
    """Evaluate at a lattice of 3 x 3 x 3 points and at one of them alone; refuse what breaks the contract.

    Raises:
        ValueError: in one sentence, see `as_field`.
    """
    bounds = field.bounds
    shaped = isinstance(bounds, Tensor) and tuple(bounds.shape) == (2, 3) and bounds.is_floating_point()
    if not shaped or not bool((bounds.isfinite() & (bounds[0] < bounds[1])).all()):
        raise ValueError(f"{field.name}.bounds: expected two finite corners low < high, shape (2, 3), got {bounds}")
    share = torch.cartesian_prod(*[torch.linspace(0, 1, 3)] * 3).to(bounds)
    x = bounds[0] + (bounds[1] - bounds[0]) * share
    before = [(name, id(buffer), buffer._version) for name, buffer in field.named_buffers()]
    values, alone = _answer(field, evaluate, x), _differentiable_answer(field, evaluate, x[:1])
    field.probed = len(x) + 1
    if values.dtype != x.dtype or values.device != x.device:
        raise ValueError(
            f"{field.name}.value: expected {x.dtype} on {x.device}, as the points are, got {values.dtype} on "
            f"{values.device}"
        )
    after = [(name, id(buffer), buffer._version) for name, buffer in field.named_buffers()]
    changed = [name.removeprefix("module.") for name, *_ in sorted(set(after) - set(before))]
    if changed:
        raise ValueError(f"{field.name}.value: changes its buffer {changed[0]} where it is evaluated; {EVAL}")
    if not _same(values[:1], alone):
        chance = not _same(alone, _answer(field, evaluate, x[:1]))
        what = "at a point depends on chance" if chance else "at a point depends on the other points of its batch"
        raise ValueError(f"{field.name}.value: the value {what}; {EVAL}")
    _check_sign(field.name, values)


def _same(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> bool:
    return bool(torch.isclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True).all())


def _check_sign(name: str, values: Float[Tensor, " n"]) -> None:
    middle = len(values) // 2
    if bool(values[middle] > 0) and bool((torch.cat([values[:middle], values[middle + 1 :]]) < 0).all()):
        raise ValueError(
            f"{name}.value: is negative all around and positive in the middle of its bounds, but a value is < 0 "
            "inside and > 0 outside: return its negative; a room that is seen from within is a subclass of "
            "warpdvr.Field"
        )


def _answer(field: Field, evaluate: Evaluate, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Return the value at points x; whatever the module raises becomes one sentence."""
    try:
        value = evaluate(x)
    except ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "numpy" in reason and "ensor" in reason:  # Torch refuses to hand over a tensor that needs a gradient
            raise ValueError(f"{field.name}.value: turns the points into a NumPy array; {TORCH}") from error
        hint = f"; {EVAL}" if "more than 1 value per channel" in reason else ""
        message = f"{field.name}.value: fails for points {tuple(x.shape)} of {x.dtype}: {reason}{hint}"
        raise ValueError(message) from error
    return check_answer(field, x, value)


def _differentiable_answer(field: Field, evaluate: Evaluate, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Return the value at points x, whose gradient must reach them; no gradient is stored anywhere.

    A field whose slopes are differences needs no gradient for pictures.
    """
    if field.step is not None:
        return _answer(field, evaluate, x)
    with torch.enable_grad():
        points = x.detach().clone().requires_grad_()
        value = _answer(field, evaluate, points)
        try:
            (slope,) = torch.autograd.grad(value.sum(), points, allow_unused=True) if value.requires_grad else (None,)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{field.name}.value: its gradient with respect to the points fails: {reason}") from error
    if slope is None:
        raise ValueError(f"{field.name}.value: has no gradient with respect to the points; {TORCH}")
    return value.detach()
