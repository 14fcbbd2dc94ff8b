"""Tensors in a CPU's memory that claim to lie on a GPU, and mix with tensors of the CPU as little as those do.

A `Pretend` wraps the tensor that holds its numbers. To Torch's C++ both are on a CPU; every operation comes through
`dispatch`, which looks at Python's types instead. C++ makes some tensors by itself, without an argument that says
where, in the formulas of derivatives as elsewhere. Those are `unsure`: they may be used with either.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pretend_counts import note_copy, note_operation
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda:0")

aten = torch.ops.aten
INDEXING = {aten.index, aten._unsafe_index, aten.index_put, aten.index_put_, aten._index_put_impl_}
WITH_NUMBER = {
    aten.masked_fill,
    aten.masked_fill_,
    aten.fill,
    aten.fill_,
    aten.where,
    aten.index_fill,
    aten.index_fill_,
}
"""Operations that take a number as a CPU tensor without axes, besides all that work element by element."""


_data: Any = Tensor.data


class Pretend(Tensor):
    """A tensor of which Python believes that it is on a GPU."""

    _inner: Tensor
    """What holds its numbers; without autograd, which sees the wrapper alone."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Pretend":
        self: Pretend = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=inner.device,
            requires_grad=inner.requires_grad,
        )
        self._inner = inner.detach() if inner.requires_grad else inner
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return dispatch(func, args, kwargs or {})

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    # `p.data = x` takes the memory of x
    data = property(_data.__get__, lambda self, other: setattr(self, "_inner", other._inner))

    def get_device(self) -> int:
        return 0

    def data_ptr(self) -> int:
        return self._inner.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self._inner.untyped_storage()

    def tolist(self) -> Any:
        note_copy("to cpu", "tolist")
        return self._inner.tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor first")

    __array__ = numpy

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a tensor that pretends to be on a GPU cannot be handed to another library")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise NotImplementedError("a tensor that pretends to be on a GPU cannot be pickled")

    def __deepcopy__(self, memo: dict[int, Any]) -> "Tensor":
        if id(self) not in memo:
            copy: Tensor = Pretend(self._inner.clone()).requires_grad_(self.requires_grad)
            memo[id(self)] = torch.nn.Parameter(copy, copy.requires_grad) if _is_parameter(self) else copy
        result: Tensor = memo[id(self)]
        return result

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{self._inner!r} on {GPU}"

    def __format__(self, form: str) -> str:
        return format(self.item(), form) if self.ndim == 0 else object.__format__(self, form)


Pretend.__name__ = "Tensor"  # as messages call it


def _is_parameter(tensor: Tensor) -> bool:
    return isinstance(tensor, torch.nn.Parameter)


def is_gpu(device: Any) -> bool:
    """Whether a device, by any of its names, is a GPU."""
    return device is not None and torch.device(device).type == "cuda"


def pretend(values: Any) -> Any:
    """Return values with their tensors on the GPU."""
    return _mapped(lambda a: a if isinstance(a, Pretend) else Pretend(a), values)


def plain(values: Any) -> Any:
    """Return values with their tensors as they really are."""
    return _mapped(lambda a: a._inner if isinstance(a, Pretend) else a, values)


def _mapped(change: Callable[[Tensor], Any], values: Any) -> Any:
    """Return values with their tensors changed; Torch's own function takes longer than all the rest of this module."""
    if isinstance(values, Tensor):
        return change(values)
    if type(values) in (list, tuple):
        return type(values)([_mapped(change, value) for value in values])
    if type(values) is dict:
        return {key: _mapped(change, value) for key, value in values.items()}
    return values


def _tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among values."""
    if isinstance(values, Tensor):
        yield values
    elif type(values) in (list, tuple):
        for value in values:
            yield from _tensors(value)


def dispatch(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation with a tensor on the GPU among its arguments.

    Raises:
        RuntimeError: if another argument is on the CPU, where a GPU would refuse that.
    """
    _check_devices(func, args, kwargs)
    if func.namespace not in ("aten", "prim", "prims"):  # ours may decide by the device what they launch
        return torch._library.custom_ops.OPDEFS[func.name().partition(".")[0]]._init_fn(*args, **kwargs)
    if func is torch.ops.prim.device.default:
        return GPU
    if func is aten.copy_.default and isinstance(args[0], Pretend) != isinstance(args[1], Pretend):
        note_copy("to gpu" if isinstance(args[0], Pretend) else "to cpu", "copy_")
        plain(args[0]).copy_(plain(args[1]), *args[2:])
        return args[0]
    result = func(*plain(args), **plain(kwargs))
    if torch.Tag.inplace_view in func.tags:  # the wrapper has the shape as well
        with torch._C._DisableTorchDispatch():
            func(*args, **kwargs)
    note_operation(func, args, _tensors(result))
    given = {id(plain(a)): a for a in _tensors((*args, *kwargs.values()))}
    return _mapped(lambda a: given[id(a)] if id(a) in given else Pretend(a), result)


def _check_devices(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if isinstance(kwargs.get("generator"), torch.Generator):
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    tensors = list(_tensors((*args, *kwargs.values())))
    others = [a for a in tensors if not isinstance(a, Pretend) and not is_unsure(a)]
    if not others or func.overloadpacket in (aten.copy_, aten._to_copy, aten.copy):
        return
    if func.overloadpacket in INDEXING:
        if isinstance(args[0], Pretend):  # a GPU takes indices from the CPU
            indices = [a for a in args[1] if any(a is other for other in others)]
            for _ in indices:
                note_copy("to gpu", "index")
            others = [a for a in others if not any(a is index for index in indices)]
        if all(a.ndim == 0 and a is not args[0] for a in others):
            return
    elif torch.Tag.pointwise in func.tags or func.overloadpacket in WITH_NUMBER:
        if all(a.ndim == 0 for a in others) and not any(a is args[0] for a in others if _writes(func)):
            return
    where = ", ".join(f"{tuple(a.shape)} on {a.device}" for a in tensors)
    raise RuntimeError(f"Expected all tensors to be on the same device, got {where} in {func}")


def _writes(func: Any) -> bool:
    """Whether an operation writes to its first argument."""
    about = func._schema.arguments[0].alias_info
    return about is not None and about.is_write


# Tensors that C++ makes

_python = threading.local()


@contextmanager
def making() -> Iterator[None]:
    """Inside of the block, Python makes a tensor, and knows where."""
    _python.depth = getattr(_python, "depth", 0) + 1
    try:
        yield
    finally:
        _python.depth -= 1


def is_unsure(tensor: Tensor) -> bool:
    """Whether C++ made a tensor, on a device that is not known."""
    return getattr(tensor, "_unsure", False)


class Births(TorchDispatchMode):
    """Mark what C++ makes by itself, and what is computed from nothing else."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = list(_tensors((*args, *kwargs.values())))
        if any(isinstance(a, Pretend) for a in tensors):
            return dispatch(func, args, kwargs)
        out = func(*args, **kwargs)
        if getattr(_python, "depth", 0) == 0 and all(map(is_unsure, tensors)):
            for a in _tensors(out):
                a._unsure = True  # type: ignore[attr-defined]
        return out


def received(node: Any, grads: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return gradients as `backward` of an autograd function gets them: zeros that C++ made are with all the rest."""
    if any(isinstance(a, Tensor) and is_unsure(a) for a in grads):
        if any(isinstance(a, Pretend) for a in (*grads, *node.saved_tensors)):
            return tuple(Pretend(a) if isinstance(a, Tensor) and is_unsure(a) else a for a in grads)
    return grads


# Between the devices


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, to_gpu: bool) -> Tensor:
        ctx.back = isinstance(x, Pretend)
        return _copied(x, to_gpu)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _copied(grad, ctx.back) if isinstance(grad, Pretend) != ctx.back else grad, None


def moved(x: Tensor, to_gpu: bool) -> Tensor:
    """Return a tensor on the GPU or the CPU; itself, if it is there."""
    if isinstance(x, Pretend) == to_gpu:
        return x
    if x.requires_grad and torch.is_grad_enabled():
        result: Tensor = _Move.apply(x, to_gpu)
        return result
    return _copied(x, to_gpu)


def _copied(x: Tensor, to_gpu: bool) -> Tensor:
    direction: Literal["to gpu", "to cpu"] = "to gpu" if to_gpu else "to cpu"
    note_copy(direction, "to")
    copy: Tensor = plain(x).detach().clone()
    return Pretend(copy) if to_gpu else copy


_to = Tensor.to


@functools.wraps(_to)
def to(x: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
    """Stand for `Tensor.to`."""
    other = kwargs.pop("other", args[0] if args and isinstance(args[0], Tensor) else None)
    if other is not None:
        to_gpu, dtype, layout = isinstance(other, Pretend), other.dtype, None
    else:
        device, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None and device.type not in ("cpu", "cuda"):
            return _to(plain(x), *args, **kwargs)
        to_gpu = isinstance(x, Pretend) if device is None else device.type == "cuda"
    there = moved(x, to_gpu)
    return _to(there, dtype=dtype or x.dtype, copy=copy and there is x, memory_format=layout or torch.preserve_format)
