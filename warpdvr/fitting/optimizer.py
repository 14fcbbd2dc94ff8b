"""The state of an optimizer, as tensors that a checkpoint can hold."""

import torch
from torch import Tensor


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
