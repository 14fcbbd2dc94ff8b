"""Numbers of tensors that seldom change, fetched from a GPU once."""

from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_fetched = WeakTensorKeyDictionary()
"""The version of a tensor, and its numbers then."""


def numbers(tensor: Tensor) -> Any:
    """Return `tensor.tolist()`: a number, or a list of them. The CPU waits for a GPU only after a change in place.

    For bounds, slopes and the like, which are asked for in every step: a wait takes longer than a small kernel. The
    result is shared, and not to be changed. On a GPU, a change through `.data` is not seen.
    """
    if tensor.device.type == "cpu" or tensor.is_inference():  # Torch does not say whether that has changed
        return tensor.tolist()
    version, known = _fetched.get(tensor, (-1, None))
    if version != tensor._version:
        known = tensor.detach().tolist()
        _fetched[tensor] = tensor._version, known
    return known
