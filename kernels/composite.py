"""Composite the samples of each ray front to back, and the derivatives of that, written by hand.

With opacities a and T_i = (1 - a_0) ... (1 - a_(i-1)), the transmittance in front of sample i, its weight is
w_i = T_i a_i (Max 1995, "Optical Models for Direct Volume Rendering"). A ray's result is the sum of
w_i value_i, and what is left of the light behind it is T after its last sample.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

import warp as wp


@cache
def kernels(scalar: Any) -> SimpleNamespace:
    """Return the kernels for a type, `wp.float32` or `wp.float64`; each is compiled when first launched."""
    zero, one = wp.constant(scalar(0.0)), wp.constant(scalar(1.0))

    @wp.kernel(enable_backward=False, module="unique")
    def forward(
        first: wp.array[wp.int64],
        opacity: wp.array[scalar],
        value: wp.array2d[scalar],
        # outputs, of which the first at the samples of the ray
        weight: wp.array[scalar],
        sum: wp.array2d[scalar],
        left: wp.array[scalar],
    ):
        """Samples `first[r]` to `first[r + 1]` belong to ray r, from near to far."""
        r = wp.tid()
        through = scalar(1.0)
        for k in range(value.shape[1]):
            sum[r, k] = zero
        for s in range(int(first[r]), int(first[r + 1])):
            w = through * opacity[s]
            weight[s] = w
            for k in range(value.shape[1]):
                sum[r, k] += w * value[s, k]
            through *= one - opacity[s]
        left[r] = through

    @wp.kernel(enable_backward=False, module="unique")
    def backward(
        first: wp.array[wp.int64],
        opacity: wp.array[scalar],
        value: wp.array2d[scalar],
        grad_weight: wp.array[scalar],
        grad_sum: wp.array2d[scalar],
        grad_left: wp.array[scalar],
        # outputs, at the samples of the ray
        grad_opacity: wp.array[scalar],
        grad_value: wp.array2d[scalar],
    ):
        """With g_i the derivative by w_i, that by a_i is T_i (g_i - b_i), where b_i = a_(i+1) g_(i+1) + (1 - a_(i+1))
        b_(i+1) is what the light from behind is worth, and b of the last sample the derivative by what is left.

        No division by 1 - a, so an opacity of 1 is nothing special.
        """
        r = wp.tid()
        through = scalar(1.0)
        for s in range(int(first[r]), int(first[r + 1])):
            grad_opacity[s] = through
            for k in range(value.shape[1]):
                grad_value[s, k] = through * opacity[s] * grad_sum[r, k]
            through *= one - opacity[s]
        behind = grad_left[r]
        count = int(first[r + 1] - first[r])
        for i in range(count):
            s = int(first[r]) + count - 1 - i
            own = grad_weight[s]
            for k in range(value.shape[1]):
                own += grad_sum[r, k] * value[s, k]
            grad_opacity[s] = grad_opacity[s] * (own - behind)
            behind = opacity[s] * own + (one - opacity[s]) * behind

    return SimpleNamespace(forward=forward, backward=backward)
