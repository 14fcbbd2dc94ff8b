"""The value of a perceptron on a hash encoding at a point, the function of `hashgrid`.

The layers are written in C++: their loops become vector instructions there, which those of Warp do not, because sums
keep their order.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

import warp as wp

from warpdvr.kernels.corners import corners, strides
from warpdvr.kernels.trilinear import cells_per_unit, locate, weights

vec8 = wp.types.vector(8, wp.float32)

ANY_ORDER = """
#if defined(__clang__)
#pragma clang fp reassociate(on) contract(fast)
#endif
"""


@cache
def hash_perceptron(levels: int, features: int, width: int) -> SimpleNamespace:
    """Return the function `value` and its struct `Parameters`, for a hash encoding and a width of hidden layers.

    The activation is squareplus (Barron 2021), 0.5 (x + sqrt(x^2 + b)).
    """
    n = 3 + levels * features
    row_vec = wp.types.vector(features, wp.float32)
    inputs_vec: Any = wp.types.vector(n, wp.float32)

    @wp.struct
    class Parameters:
        table: wp.array[row_vec]
        bounds: wp.array[wp.vec3]
        weight: wp.array[float]  # of each level
        levels: wp.array2d[wp.int32]  # see kernels/encode.py
        first: wp.array2d[float]  # weights of the first layer, a row for each input
        hidden: wp.array2d[float]  # of the other hidden layers, one after the other, a row for each input
        bias: wp.array2d[float]  # of all of them, a row for each
        last: wp.array2d[float]  # the row of the last layer
        last_bias: wp.array[float]
        b: float  # of squareplus

    @wp.func
    def inputs(x: wp.vec3, p: Parameters) -> inputs_vec:
        y = inputs_vec()
        for a in range(3):
            y[a] = x[a]
        low = p.bounds[0]
        for l in range(p.levels.shape[0]):
            w = p.weight[l]
            if w != 0.0:
                r = p.levels[l, 0]
                cell, at, _slope = locate(x, low, cells_per_unit(r, p.bounds), r)
                row = corners(cell, strides(l, p.levels))
                part = weights(w, at, vec8())
                sum = row_vec()
                for k in range(8):
                    sum += part[k] * p.table[row[k]]
                for f in range(wp.static(features)):
                    y[3 + l * wp.static(features) + f] = sum[f]
        return y

    @wp.func_native(
        ANY_ORDER
        + f"""
        float h[{width}], g[{width}];
        for (int k = 0; k < {width}; ++k) h[k] = bias.data[k];
        for (int j = 0; j < {n}; ++j)
            for (int k = 0; k < {width}; ++k) h[k] += first.data[{width} * j + k] * y[j];
        for (int l = 0; l < layers; ++l) {{
            for (int k = 0; k < {width}; ++k) g[k] = bias.data[{width} * (l + 1) + k];
            for (int j = 0; j < {width}; ++j) {{
                float a = 0.5f * (h[j] + sqrtf(h[j] * h[j] + b));
                for (int k = 0; k < {width}; ++k) g[k] += hidden.data[{width} * ({width} * l + j) + k] * a;
            }}
            for (int k = 0; k < {width}; ++k) h[k] = g[k];
        }}
        float sum = 0.0f;
        for (int k = 0; k < {width}; ++k) sum += 0.5f * (h[k] + sqrtf(h[k] * h[k] + b)) * last.data[k];
        return sum;
        """
    )
    def output(  # type: ignore[empty-body]
        y: inputs_vec,
        first: wp.array2d[float],
        hidden: wp.array2d[float],
        bias: wp.array2d[float],
        last: wp.array2d[float],
        layers: int,
        b: float,
    ) -> float: ...

    @wp.func(name=f"hash_perceptron_{levels}_{features}_{width}")
    def value(x: wp.vec3, p: Parameters) -> float:
        layers = p.bias.shape[0] - 1
        return output(inputs(x, p), p.first, p.hidden, p.bias, p.last, layers, p.b) + p.last_bias[0]

    return SimpleNamespace(value=value, Parameters=Parameters)
