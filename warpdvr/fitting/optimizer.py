"""The optimizer of a fit, and its state as tensors that a checkpoint can hold."""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def new_optimizer(groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return Adam over parameter groups, each with its highest learning rate as `rate`."""
    return torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.99), eps=1e-15, fused=True)


def only(groups: Sequence[dict[str, Any]], chosen: AbstractSet[Tensor]) -> list[dict[str, Any]]:
    """Return parameter groups without other parameters than the chosen ones."""
    parts = [group | {"params": [p for p in group["params"] if p in chosen]} for group in groups]
    return [part for part in parts if part["params"]]


def slowed(groups: Sequence[dict[str, Any]], slow: AbstractSet[Tensor], factor: float) -> list[dict[str, Any]]:
    """Return parameter groups in which some parameters have the rate of their group times a factor."""
    parts = []
    for group in groups:
        own = [p for p in group["params"] if p in slow], [p for p in group["params"] if p not in slow]
        rates = factor * group["rate"], group["rate"]
        parts += [{"params": part, "rate": rate} for part, rate in zip(own, rates, strict=True) if part]
    return parts


@contextmanager
def frozen(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Require no gradient of parameters for a while."""
    parameters = [p for p in parameters if p.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def pack(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of each parameter as `index.name`, such as `0.exp_avg`."""
    return {
        f"{i}.{name}": torch.as_tensor(value).clone()
        for i, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def unpack(optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """Give an optimizer the state that `pack` returned; entries whose names begin with no number are ignored.

    Raises:
        ValueError: if it has other parameters.
    """
    merged = optimizer.state_dict()
    for key, value in state.items():
        index, _, name = key.partition(".")
        if index.isdigit():
            merged["state"].setdefault(int(index), {})[name] = value.clone()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, moments in merged["state"].items():
        if index >= len(parameters) or moments["exp_avg"].shape != parameters[index].shape:
            raise ValueError("fit: the saved state belongs to a field with other parameters")
    optimizer.load_state_dict(merged)
