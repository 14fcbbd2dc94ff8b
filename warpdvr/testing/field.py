"""Check a field against the contract of `warpdvr.Field`."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.fields.adapter import adapt, warp_value_of
from warpdvr.fields.base import Field, FieldLike, check_answer
from warpdvr.intersection.diagnosis import check_signs
from warpdvr.runtime.inference_mode import outside_inference
from warpdvr.shading.shade import SurfacePoints, shade

POINTS = 64
"""Points at which a field is evaluated."""


@outside_inference
@torch.enable_grad()
def check_field(module: FieldLike) -> None:
    """Check that a module keeps the contract of `warpdvr.Field`, on copies of it: `module` stays unchanged.

    Random points inside of the bounds are drawn from a fixed seed. Slopes are compared with finite differences, in
    float64 where the field can be converted; a quarter of the points may lie on kinks.

    Example:
        >>> from warpdvr.fields.analytic import Sphere
        >>> check_field(Sphere(0.5))

    Raises:
        ValueError: in one sentence that names the broken clause, what was found and what was expected.
    """
    field = adapt(module)
    name = field.name
    _check_bounds(name, field.bounds)
    field = _precise(name, field)
    low, high = field.bounds
    generator = torch.Generator().manual_seed(0)
    x = low + (high - low) * torch.rand(POINTS, 3, generator=generator, device="cpu").to(low)
    value = _check_value(name, field, x)
    _check_batches(name, field, x, value)
    _check_geometry(name, field, x, value)
    slope = _check_slope(name, field, x)
    _check_lipschitz(name, field, x)
    _check_color(name, field, x, slope)
    _check_weights(name, field, x, slope)
    check_signs(f"{name}.value", field)
    _check_warp_value(name, adapt(module))


def _check_bounds(name: str, bounds: object) -> None:
    message = f"{name}.bounds: expected a floating point tensor of shape (2, 3), got {_shape(bounds)}"
    if not isinstance(bounds, Tensor):
        raise ValueError(message)
    _require(tuple(bounds.shape) == (2, 3) and bounds.is_floating_point(), message)
    ordered = bool((bounds[0] < bounds[1]).all() and bounds.isfinite().all())
    _require(ordered, f"{name}.bounds: expected finite corners with low < high, got {bounds.tolist()}")


def _precise(name: str, field: Field) -> Field:
    """Return a copy in float64 if the field can be evaluated there, else a plain copy."""
    precise = copy.deepcopy(field).double()
    _require(
        precise.bounds.dtype == torch.float64,
        f"{name}.bounds stays {precise.bounds.dtype} under .double(): register it as a buffer, so that it moves along",
    )
    try:
        probe: object = precise.value(precise.bounds)
    except RuntimeError:
        return copy.deepcopy(field)
    except ValueError:  # another shape, which `_check_value` reports
        return precise
    single = isinstance(probe, Tensor) and probe.dtype != torch.float64
    return copy.deepcopy(field) if single else precise


def _check_value(name: str, field: Field, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    for points in (x[:0], x[:1], x):
        value = check_answer(field, points, field.value(points))
        _require(bool(value.isfinite().all()), f"{name}.value: a value inside of the bounds is not finite")
    return value.detach()


def _check_batches(name: str, field: Field, x: Float[Tensor, "n 3"], value: Float[Tensor, " n"]) -> None:
    alone = torch.cat([field.value(part) for part in (x[:1], x[1:8], x[8:])])
    twice = field.value(x)
    _require(_close(twice, value), f"{name}.value: the same points have other values when asked again")
    _require(_close(alone, value), f"{name}.value: the value at a point depends on the other points of its batch")


def _check_geometry(name: str, field: Field, x: Float[Tensor, "n 3"], value: Float[Tensor, " n"]) -> None:
    pair = field.geometry(x)
    fits = isinstance(pair, tuple) and len(pair) == 2
    _require(fits, f"{name}.geometry: expected (value, feature), got {type(pair).__name__}")
    first, feature = pair
    same = isinstance(first, Tensor) and first.shape == value.shape and _close(first, value)
    _require(same, f"{name}.geometry: its first part differs from value()")
    fits = feature is None or (feature.ndim == 2 and len(feature) == len(x))
    _require(fits, f"{name}.geometry: expected features of shape ({len(x)}, k) or None")


def _check_slope(name: str, field: Field, x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Return the gradient of the value with respect to x."""
    x = x.clone().requires_grad_()
    value = field.value(x)
    _require(value.requires_grad, f"{name}.value is not differentiable with respect to x")
    (slope,) = torch.autograd.grad(value.sum(), x, allow_unused=True)
    _require(slope is not None, f"{name}.value is not differentiable with respect to x")
    size = (field.bounds[1] - field.bounds[0]).amin()
    h = size * (1e-4 if x.dtype == torch.float64 else 1e-3)
    steps = h * torch.eye(3).to(x)
    with torch.no_grad():
        expected = torch.stack([(field.value(x + s) - field.value(x - s)) / (2 * h) for s in steps], -1)
    error = (slope - expected).norm(dim=-1) / expected.norm(dim=-1).quantile(0.5).clamp_min(1e-12)
    _require(
        float(error.quantile(0.75)) < 1e-2,
        f"{name}.value: its gradient with respect to x disagrees with finite differences, by "
        f"{error.quantile(0.75):.1e} of its usual size",
    )
    return slope.detach()


@torch.no_grad()
def _check_lipschitz(name: str, field: Field, x: Float[Tensor, "n 3"]) -> None:
    bound = field.lipschitz
    if bound is None:
        return
    low, high = field.bounds
    near = torch.minimum(torch.maximum(x + 1e-2 * (high - low) * (x.flip(0) - x).sign(), low), high)
    for neighbour in (x.roll(1, 0), near):
        distance = (neighbour - x).norm(dim=-1)
        steepest = float(((field.value(neighbour) - field.value(x)).abs() / distance.clamp_min(1e-12)).max())
        _require(
            steepest <= bound * (1 + 1e-3), f"{name}.lipschitz is {bound}, but a slope of {steepest:.4g} was found"
        )


@torch.no_grad()
def _check_warp_value(name: str, field: Field) -> None:
    """Compare the Warp function, if there is one, with `value`, within 1e-4 of the range of values."""
    function = warp_value_of(field)
    if function is None:
        return
    low, high = field.bounds
    x = low + (high - low) * torch.rand(POINTS, 3, generator=torch.Generator().manual_seed(1)).to(low)
    expected = field.value(x)
    off = (function(x) - expected).abs().max() / (expected.max() - expected.min()).clamp_min(1e-12)
    _require(float(off) < 1e-4, f"{name}.warp_value: differs from value() by up to {float(off):.1e} of its range")


def _check_color(name: str, field: Field, x: Float[Tensor, "n 3"], slope: Float[Tensor, "n 3"]) -> None:
    for n in (0, 1, len(x)):
        color = _color(field, x[:n], slope[:n])
        inside = bool(((color >= 0) & (color <= 1)).all())
        _require(inside, f"{name}.color: expected colours in [0, 1]")


def _check_weights(name: str, field: Field, x: Float[Tensor, "n 3"], slope: Float[Tensor, "n 3"]) -> None:
    weights = {key.removeprefix("module."): p for key, p in field.named_parameters() if p.requires_grad}
    if not weights:
        return
    outcome = field.value(x).sum() + _color(field, x, slope).sum()
    _require(outcome.requires_grad, f"{name}: no weight gets a gradient from value() or color()")
    gradients = torch.autograd.grad(outcome, list(weights.values()), allow_unused=True)
    idle = [key for key, g in zip(weights, gradients, strict=True) if g is None]
    _require(not idle, f"{name}: these weights get no gradient from value() or color(): {', '.join(idle)}")


def _color(field: Field, x: Float[Tensor, "n 3"], slope: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Return the colours, whose shape `shade` checks."""
    normal = torch.nn.functional.normalize(slope, dim=-1)
    return shade(SurfacePoints(field, x, normal, -normal.roll(1, -1), field.geometry(x)[1]))


def _close(a: Float[Tensor, "..."], b: Float[Tensor, "..."]) -> bool:
    margin = 1e-9 if a.dtype == torch.float64 else 1e-4
    return bool(((a - b).abs() <= margin * (1 + b.abs())).all())


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
