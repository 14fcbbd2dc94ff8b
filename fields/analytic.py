"""Exact signed distances: primitives, and operators that combine and move them.

Every size and position is a parameter, so all of them are differentiable. Distances after Quilez, "3D SDFs"
(iquilezles.org/articles/distfunctions); unions of distances stay lower bounds of the distance outside.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from warpdvr.fields.adapter import as_field, warp_value_of
from warpdvr.fields.base import Field, FieldLike, Kind
from warpdvr.fields.bounds import Bounds
from warpdvr.fields.warp_value import WarpValue
from warpdvr.kernels import analytic as _analytic
from warpdvr.runtime.arguments import finite, floating

Vector = Sequence[float] | Float[Tensor, "..."] | object


class _Distance(Field):
    lipschitz = 1.0


class Sphere(_Distance):
    """A ball of `radius` around `center` [scene unit]."""

    sizes = ("radius",)

    def __init__(self, radius: float = 0.5, center: Vector = (0.0, 0.0, 0.0), bounds: Bounds = 1.0):
        super().__init__(bounds)
        self.radius = _parameter("sphere: radius", radius, ())  # a negative one, as a fit may come to, is an empty ball
        self.center = _vector("sphere: center", center)

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        return (x - self.center).norm(dim=-1) - self.radius

    def warp_value(self) -> WarpValue | None:
        return _program((_analytic.SPHERE, self.radius, self.center))


class Box(_Distance):
    """A box with sides of lengths `size` around `center` [scene unit]."""

    def __init__(self, size: Vector = (0.8, 0.8, 0.8), center: Vector = (0.0, 0.0, 0.0), bounds: Bounds = 1.0):
        super().__init__(bounds)
        self.size, self.center = _size("box: size", size, (3,)), _vector("box: center", center)

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        q = (x - self.center).abs() - 0.5 * self.size
        square = q.clamp_min(0).square().sum(-1)
        outside = square > 0  # a norm has no second derivative at 0
        return torch.where(outside, torch.where(outside, square, 1.0).sqrt(), q.amax(-1).clamp_max(0))

    def warp_value(self) -> WarpValue | None:
        return _program((_analytic.BOX, self.size, self.center))


class Torus(_Distance):
    """A torus around the z axis: `major` is the radius of the ring, `minor` that of the tube [scene unit]."""

    def __init__(self, major: float = 0.6, minor: float = 0.25, bounds: Bounds = 1.0):
        super().__init__(bounds)
        self.major, self.minor = _size("torus: major", major), _size("torus: minor", minor)

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        ring = x[:, :2].norm(dim=-1) - self.major
        return torch.stack([ring, x[:, 2]], -1).norm(dim=-1) - self.minor

    def warp_value(self) -> WarpValue | None:
        return _program((_analytic.TORUS, self.major, self.minor))


class Plane(_Distance):
    """The half space below a plane with outward `normal`, at the distance `offset` from the origin [scene unit]."""

    def __init__(self, normal: Vector = (0.0, 0.0, 1.0), offset: float = 0.0, bounds: Bounds = 1.0):
        super().__init__(bounds)
        self.normal, self.offset = _vector("plane: normal", normal), _parameter("plane: offset", offset, ())
        if not bool(self.normal.any()):
            raise ValueError("plane: normal must not be 0")

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        return x @ nn.functional.normalize(self.normal, dim=0) - self.offset

    def warp_value(self) -> WarpValue | None:
        return _program((_analytic.PLANE, self.normal, self.offset))


class Union(Field):
    """All of `parts`: the smallest of their values."""

    def __init__(self, parts: Sequence[FieldLike] | object, bounds: Bounds = 1.0):
        super().__init__(bounds)
        if not isinstance(parts, Sequence) or isinstance(parts, str):
            raise ValueError(f"union: parts must be a list of fields, got {type(parts).__name__}")
        if not parts:
            raise ValueError("union: parts is empty, at least one field is needed")
        fields = [as_field(part) for part in parts]
        self.parts = cast("Sequence[Field]", nn.ModuleList(fields))
        self.kind, self.lipschitz = _common(fields), _largest(field.lipschitz for field in fields)

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        return torch.stack([part.value(x) for part in self.parts]).amin(0)

    def warp_value(self) -> WarpValue | None:
        return _joined(list(self.parts), (_analytic.UNION,))


class SmoothUnion(Union):
    """All of `parts`, blended where they come closer than about `blend` [scene unit].

    -blend log(sum(exp(-value / blend))): at most blend log(n) below the plain union, and no steeper.
    """

    def __init__(self, parts: Sequence[FieldLike] | object, blend: float = 0.05, bounds: Bounds = 1.0):
        super().__init__(parts, bounds)
        self.blend = _size("smooth-union: blend", blend)

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        values = torch.stack([part.value(x) for part in self.parts])
        return -self.blend * torch.logsumexp(-values / self.blend, 0)

    def warp_value(self) -> WarpValue | None:
        return _joined(list(self.parts), (_analytic.SMOOTH_UNION, self.blend))


class Translate(Field):
    """`part`, moved by `offset` [scene unit]."""

    def __init__(self, part: FieldLike, offset: Vector, bounds: Bounds = 1.0):
        super().__init__(bounds)
        self.part, self.offset = as_field(part), _vector("translate: offset", offset)
        self.kind, self.lipschitz = self.part.kind, self.part.lipschitz

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        return self.part.value(x - self.offset)

    def warp_value(self) -> WarpValue | None:
        return _moved(self.part, offset=self.offset)


class Rotate(Field):
    """`part`, turned about the origin by `rotation`, an axis times an angle [radian]."""

    def __init__(self, part: FieldLike, rotation: Vector, bounds: Bounds = 1.0):
        super().__init__(bounds)
        self.part, self.rotation = as_field(part), _vector("rotate: rotation", rotation)
        self.kind, self.lipschitz = self.part.kind, self.part.lipschitz

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        return self.part.value(x @ self._matrix())

    def warp_value(self) -> WarpValue | None:
        return _moved(self.part, matrix=self._matrix().T)

    def _matrix(self) -> Float[Tensor, "3 3"]:
        a, b, c = self.rotation.unbind()
        zero = torch.zeros_like(a)
        skew = torch.stack([zero, -c, b, c, zero, -a, -b, a, zero]).reshape(3, 3)
        matrix: Tensor = torch.linalg.matrix_exp(skew)
        return matrix


class Scale(Field):
    """`part`, made larger by `factor` about the origin; distances stay distances."""

    def __init__(self, part: FieldLike, factor: float, bounds: Bounds = 1.0):
        super().__init__(bounds)
        self.part, self.factor = as_field(part), _size("scale: factor", factor)
        self.kind, self.lipschitz = self.part.kind, self.part.lipschitz

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        return self.part.value(x / self.factor) * self.factor

    def warp_value(self) -> WarpValue | None:
        return _moved(self.part, matrix=torch.eye(3).to(self.factor) / self.factor, factor=self.factor)


def _parameter(where: str, value: float | Vector, shape: tuple[int, ...]) -> nn.Parameter:
    """Return a parameter of finite numbers."""
    number = finite(where, value) if shape == () else value
    return nn.Parameter(floating(where, number, (shape,)).detach().float().clone())


def _vector(where: str, value: Vector) -> nn.Parameter:
    return _parameter(where, value, (3,))


def _size(where: str, value: float | Vector, shape: tuple[int, ...] = ()) -> nn.Parameter:
    """Return a parameter of positive numbers."""
    size = _parameter(where, value, shape)
    if not bool((size > 0).all()):
        raise ValueError(f"{where} must be positive, got {value}")
    return size


def _common(fields: Sequence[Field]) -> Kind:
    """Return the kind of a combination: distances if all parts are distances."""
    return "distance" if all(field.kind == "distance" for field in fields) else "occupancy"


def _largest(bounds: Iterable[float | None]) -> float | None:
    """Return the largest bound, or None if one of them is unknown."""
    slopes = list(bounds)
    proven = [slope for slope in slopes if slope is not None]
    return max(proven) if len(proven) == len(slopes) else None


def _program(*steps: Field | tuple[int, *tuple[Tensor, ...]]) -> WarpValue | None:
    """Return a program (kernels/analytic.py), None if a part has none or the stacks are not deep enough for it.

    Args:
        steps: instructions with their numbers, and fields, whose programs stand in their place.
    """
    code: list[int] = []
    numbers: list[Tensor] = []
    for step in steps:
        if isinstance(step, Field):
            part = warp_value_of(step)
            if part is None or part.function is not _analytic.distance:
                return None
            members = part.parameters.members
            code += [op for op in cast("list[int]", members["code"]) if op != _analytic.END]
            numbers.append(cast("Tensor", members["numbers"]))
        else:
            code.append(step[0])
            numbers += [tensor.detach().reshape(-1) for tensor in step[1:]]
    if not _fits(code):
        return None
    padded = code + [int(_analytic.END)] * (_analytic.MAX_CODE - len(code))
    return WarpValue(_analytic.distance, _analytic.Program, code=padded, numbers=torch.cat(numbers))


def _fits(code: Sequence[int]) -> bool:
    """Return whether a program is short enough, and its stacks are not too deep."""
    unions, moves = (_analytic.UNION, _analytic.SMOOTH_UNION), (_analytic.MOVE, _analytic.BACK)
    distances = accumulate(0 if op in moves else -1 if op in unions else 1 for op in code)
    points = accumulate(1 if op == _analytic.MOVE else -1 if op == _analytic.BACK else 0 for op in code)
    return len(code) < _analytic.MAX_CODE and max(*distances, *points) <= _analytic.MAX_DEPTH


def _joined(parts: Sequence[Field], step: tuple[int, *tuple[Tensor, ...]]) -> WarpValue | None:
    """Return a program that joins the parts one after the other by a step."""
    first, *others = parts
    return _program(first, *(each for other in others for each in (other, step)))


def _moved(
    part: Field,
    *,
    matrix: Float[Tensor, "3 3"] | None = None,
    offset: Float[Tensor, "3"] | None = None,
    factor: Float[Tensor, ""] | None = None,
) -> WarpValue | None:
    """Return the program of factor * part(matrix x - offset)."""
    like = part.bounds
    matrix = torch.eye(3).to(like) if matrix is None else matrix
    offset = like.new_zeros(3) if offset is None else offset
    factor = like.new_ones(1) if factor is None else factor
    return _program((_analytic.MOVE, matrix, offset), part, (_analytic.BACK, factor))
