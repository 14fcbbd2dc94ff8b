"""Copy modules that hold tensors with a graph, which Torch refuses to copy."""

import copy
from collections.abc import Iterable, Mapping
from typing import TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def copied(module: M, memo: dict[int, object]) -> M:
    """Return a deep copy of a module; for its `__deepcopy__`.

    Tensors that were computed (by `torch.nn.utils.weight_norm`, an encoder, or a forward pass that remembers something)
    are constants in the copy, until they are computed again.

    Args:
        module: what is copied; its submodules may hold such tensors, also in lists, tuples and tables.
        memo: what was copied so far, see `copy.deepcopy`.
    """
    for part in module.modules():
        for member in vars(part).values():
            for tensor in _items(member):
                if isinstance(tensor, Tensor) and not tensor.is_leaf:
                    memo[id(tensor)] = tensor.detach().clone()
    twin = object.__new__(type(module))
    memo[id(module)] = twin
    twin.__dict__.update(copy.deepcopy(module.__dict__, memo))
    return twin


def _items(member: object) -> Iterable[object]:
    """Return the parts of a list, tuple or table, or the only one."""
    if isinstance(member, Mapping):
        return member.values()
    return member if isinstance(member, list | tuple) else (member,)
