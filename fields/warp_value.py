"""The value of a field as a Warp function, so that kernels need not wait for Torch to evaluate it."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from warpdvr.kernels import fused as _fused
from warpdvr.kernels import fused_cached as _fused_cached
from warpdvr.runtime.launch import Packed, launch_parts


class WarpValue:
    """A field's value as a Warp function, with its parameters; what `Field.warp_value` returns.

    Example:
        >>> import torch, warp as wp
        >>> from warpdvr.kernels.voxels import Voxels, voxels
        >>> bounds, table = torch.tensor([[-1.0] * 3, [1.0] * 3]), torch.arange(8.0)
        >>> value = WarpValue(voxels, Voxels, table=table, bounds=bounds, cells=1, sign=1.0, offset=0.0)
        >>> value(torch.zeros(1, 3))
        tensor([3.5000])
    """

    def __init__(self, function: Any, kind: Any, **parameters: object):
        """Take a function and what it is called with.

        Args:
            function: a `wp.func` of a point, `wp.vec3` [scene unit], and a `wp.struct`; it returns the value, a float.
            kind: that struct.
            parameters: its members by name: numbers, and tensors on the device of the field, which are not copied.

        Raises:
            ValueError: if a member is missing or unknown, or a tensor does not fit its array.
        """
        self.function, self.parameters = function, Packed(kind, **parameters)

    @property
    def kernels(self) -> Any:
        """The kernels of the function, see kernels/fused.py."""
        return _fused.kernels(self.function, self.parameters.kind)

    @property
    def cached_kernels(self) -> Any:
        """Those of fits, see kernels/fused_cached.py."""
        return _fused_cached.kernels(self.function, self.parameters.kind)

    def __call__(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Return the values at points (n, 3), float32, on the device of the field; not differentiable."""
        y = x.new_empty(len(x))
        launch_parts(self.kernels.evaluate, (len(x),), [self.parameters, x.detach().contiguous()], [y], 0)
        return y
