"""The value of a field as a Warp function, so that kernels need not wait for Torch to evaluate it."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from warpdvr.kernels import fused as _fused
from warpdvr.runtime.launch import Packed, launch_parts


@dataclass(frozen=True)
class WarpValue:
    """What `Field.warp_value` returns: a function, and the parameters that it is called with."""

    function: Any
    """A `wp.func` of a point, `wp.vec3`, and a `wp.struct`; it returns the value, a float."""
    parameters: Packed
    """That struct, filled with the present weights. Arrays are the field's own tensors, without a copy."""

    @property
    def kernels(self) -> Any:
        """The kernels of the function, see kernels/fused.py."""
        return _fused.kernels(self.function, self.parameters.kind)

    def __call__(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Return the values at points (n, 3), float32, on the device of the field; not differentiable."""
        y = x.new_empty(len(x))
        launch_parts(self.kernels.evaluate, (len(x),), [self.parameters, x.detach().contiguous()], [y], 0)
        return y
