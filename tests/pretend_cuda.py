"""A GPU that is none: find tensors that are on the wrong device, and count launches, without one.

    with pretend_cuda.active():                 # from Python
        render(field.to("cuda"), camera)
    pytest --device pretend-cuda                # every test with the fixture `device`

Inside, Torch and Warp find one GPU. Its tensors are those of `pretend_tensor`: what Python decides by the device is
decided as for CUDA, and what a GPU refuses is refused (tensors of both devices in one operation, generators, NumPy).
Kernels run on the CPU, in one part. What cannot be seen: whether kernels are right on a GPU (races, atomics, the order
of sums), streams and lifetimes, memory, speed, types that single CUDA kernels lack. `Module.to` makes new parameters.
"""

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch._dynamo  # imported by optimisers, and stumbles over what is replaced here
import warp as wp
from pretend_counts import note, note_copy
from pretend_tensor import Births, Pretend, is_gpu, making, moved, plain, pretend, received, to
from torch import Tensor
from torch.utils._device import DeviceContext

MAKERS = (
    *("zeros", "ones", "empty", "full", "arange", "linspace", "logspace", "eye", "empty_strided", "scalar_tensor"),
    *("rand", "randn", "randint", "randperm", "tensor", "as_tensor", "asarray", "triu_indices", "tril_indices"),
    *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like"),
)
METHODS = "new_tensor", "new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided"
COPYING = "tensor", "as_tensor", "asarray", "new_tensor"
"""Those that copy from the CPU."""

STREAM = object()
"""Stands for the stream on the GPU, that of Torch and that of Warp."""


@contextmanager
def active() -> Iterator[None]:
    """Let Torch and Warp find a GPU, in the whole process; for tests only."""
    with ExitStack() as stack:

        def replace(place: Any, name: str, value: Any) -> None:
            own, before = name in vars(place), getattr(place, name)
            setattr(place, name, value)
            stack.callback(lambda: setattr(place, name, before) if own else delattr(place, name))

        _replace_torch(replace)
        _replace_warp(replace)
        stack.enter_context(Births())
        yield


def _replace_torch(replace: Any) -> None:
    for place, names in ((torch, MAKERS), (Tensor, METHODS)):
        for name in names:
            replace(place, name, _maker(name, getattr(place, name)))
    replace(torch.cuda, "current_stream", lambda device=None: STREAM)
    replace(Tensor, "to", to)
    replace(Tensor, "cpu", lambda x, *_, **__: moved(x, False))
    replace(Tensor, "cuda", lambda x, *_, **__: moved(x, True))
    replace(torch.cuda, "is_available", lambda: True)
    replace(torch.cuda, "device_count", lambda: 1)
    replace(torch.cuda, "current_device", lambda: 0)
    replace(torch.cuda, "mem_get_info", lambda device=None: (8 << 30, 16 << 30))
    replace(torch.cuda, "synchronize", lambda device=None: note("sync", "torch.cuda.synchronize"))
    node = torch.autograd.function.BackwardCFunction
    backward = node.apply
    replace(node, "apply", lambda self, *grads: backward(self, *received(self, grads)))
    fork, alike = torch.random.fork_rng, torch._has_compatible_shallow_copy_type
    replace(torch.random, "fork_rng", lambda devices=(), **options: fork(devices=devices, **options))
    both = "_has_compatible_shallow_copy_type"  # asked by Module.to
    replace(torch, both, lambda a, b: not isinstance(a, Pretend) and not isinstance(b, Pretend) and alike(a, b))


def _maker(name: str, original: Any) -> Any:
    """Return a function that makes tensors on either device."""
    as_given = name.startswith("new_") or name.endswith("_like") or name in COPYING

    @functools.wraps(original)
    def make(*args: Any, device: Any = None, requires_grad: bool = False, **options: Any) -> Any:
        source = args[0] if args and isinstance(args[0], Tensor) else None
        if device is None and as_given and source is not None:
            on_gpu = isinstance(source, Pretend)
        else:
            on_gpu = is_gpu(_default() if device is None else device)
        if on_gpu and options.get("generator") is not None:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if source is not None and name in ("as_tensor", "asarray"):
            return to(source, "cuda" if on_gpu else "cpu", options.get("dtype", source.dtype))
        if not on_gpu:
            options |= {} if device is None else {"device": device}
            with making():
                return original(*plain(args), **options, **({"requires_grad": True} if requires_grad else {}))
        if name in COPYING:
            note_copy("to gpu", name)
        elif "empty" not in name:
            note("torch", name)
        with making():
            made = original(*plain(args), **plain(options), **({} if name == "asarray" else {"device": "cpu"}))
        return Pretend(made).requires_grad_(requires_grad)

    return make


def _default() -> torch.device | None:
    """Return the device of `with torch.device(...)`; Torch's own function makes a tensor for that."""
    modes = reversed(torch.overrides._get_current_function_mode_stack())
    return next((mode.device for mode in modes if isinstance(mode, DeviceContext)), None)


def _replace_warp(replace: Any) -> None:
    """Warp keeps its one device, the CPU; the stream says which launches are for the GPU, and `scopes` those inside."""
    scopes: list[object] = []
    from_torch, to_torch, launch, device_from_torch = wp.from_torch, wp.to_torch, wp.launch, wp.device_from_torch
    scoped_stream = wp.ScopedStream

    def described(tensor: Tensor, *args: Any, **options: Any) -> Any:
        if scopes and not isinstance(tensor, Pretend):
            raise RuntimeError(f"expected a tensor on the GPU, got {tuple(tensor.shape)} on {tensor.device}")
        if tensor.requires_grad and options.get("requires_grad") is None:
            note("sync", "wp.from_torch")  # it makes a gradient, and fills it
        return from_torch(plain(tensor), *args, **options)

    def launched(kernel: Any, *args: Any, **options: Any) -> Any:
        if options.get("stream") is STREAM or scopes:
            note("warp", kernel.key.removeprefix("kernels__locals__"))
        if options.get("stream") is STREAM:
            options["stream"] = None
        return launch(kernel, *args, **options)

    @contextmanager
    def scope(stream: Any, *args: Any, **options: Any) -> Iterator[Any]:
        if stream is not STREAM:
            with scoped_stream(stream, *args, **options) as result:
                yield result
            return
        note("warp", "launches of Warp's own")
        note("sync", "launches of Warp's own")
        scopes.append(stream)
        try:
            yield stream
        finally:
            scopes.pop()

    replace(wp, "from_torch", described)
    replace(wp, "to_torch", lambda *args, **options: (pretend if scopes else plain)(to_torch(*args, **options)))
    replace(wp, "launch", launched)
    replace(wp, "ScopedStream", scope)
    replace(
        wp, "device_from_torch", lambda device: device_from_torch(torch.device("cpu") if is_gpu(device) else device)
    )
    replace(wp, "stream_from_torch", lambda stream=None: STREAM if stream is STREAM else None)
    replace(wp, "get_cuda_device_count", lambda: 1)
