"""The value of a perceptron on an encoding of a point: the functions of `hashgrid` and of `sdf`.

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
def perceptron(n: int, width: int) -> Any:
    """Return the first output of a perceptron as a function of its n inputs, its weights and the b of squareplus.

    The activation is squareplus (Barron 2021), 0.5 (x + sqrt(x^2 + b)). A weight matrix has a row for each input;
    `hidden` holds those of all hidden layers but the first, `bias` a row for each hidden layer.
    """
    inputs_vec: Any = wp.types.vector(n, wp.float32)

    @wp.func_native(
        ANY_ORDER
        + f"""
        float h[{width}], g[{width}];
        for (int k = 0; k < {width}; ++k) h[k] = bias.data[k];
        for (int j = 0; j < {n}; ++j)
            for (int k = 0; k < {width}; ++k) h[k] += first.data[{width} * j + k] * y[j];
        for (int l = 0; l < bias.shape[0] - 1; ++l) {{
            for (int k = 0; k < {width}; ++k) g[k] = bias.data[{width} * (l + 1) + k];
            for (int j = 0; j < {width}; ++j) {{
                float a = 0.5f * (h[j] + sqrtf(h[j] * h[j] + b));
                for (int k = 0; k < {width}; ++k) g[k] += hidden.data[{width} * ({width} * l + j) + k] * a;
            }}
            for (int k = 0; k < {width}; ++k) h[k] = g[k];
        }}
        float sum = last_bias.data[0];
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
        last_bias: wp.array[float],
        b: float,
    ) -> float: ...

    return output


@cache
def fourier_perceptron(frequencies: int, width: int) -> SimpleNamespace:
    """Return the function `value` and its struct `Parameters`, for a positional encoding and a width of hidden layers.

    The inputs are x, sin(2^k x) and cos(2^k x), as of `warpdvr.fields.mlp.PositionalEncoding`.
    """
    n = 3 + 6 * frequencies
    inputs_vec: Any = wp.types.vector(n, wp.float32)
    output = perceptron(n, width)

    @wp.struct
    class Parameters:
        first: wp.array2d[float]
        hidden: wp.array2d[float]
        bias: wp.array2d[float]
        last: wp.array2d[float]
        last_bias: wp.array[float]
        b: float

    @wp.func(name=f"fourier_perceptron_{frequencies}_{width}")
    def value(x: wp.vec3, p: Parameters) -> float:
        y = inputs_vec()
        for a in range(3):
            y[a] = x[a]
            s = wp.sin(x[a])
            c = wp.cos(x[a])
            for k in range(wp.static(frequencies)):
                y[3 + 3 * k + a] = s
                y[3 + 3 * (wp.static(frequencies) + k) + a] = c
                double = 2.0 * s * c  # of twice the angle; the rounding error doubles as well
                c = 1.0 - 2.0 * s * s
                s = double
        return output(y, p.first, p.hidden, p.bias, p.last, p.last_bias, p.b)

    return SimpleNamespace(value=value, Parameters=Parameters)


@cache
def hash_perceptron(levels: int, features: int, width: int) -> SimpleNamespace:
    """Return the function `value` and its struct `Parameters`, for a hash encoding and a width of hidden layers."""
    n = 3 + levels * features
    row_vec = wp.types.vector(features, wp.float32)
    inputs_vec: Any = wp.types.vector(n, wp.float32)
    output = perceptron(n, width)

    @wp.struct
    class Parameters:
        table: wp.array[row_vec]
        bounds: wp.array[wp.vec3]
        weight: wp.array[float]  # of each level
        levels: wp.array2d[wp.int32]  # see kernels/encode.py
        first: wp.array2d[float]  # this and all below: see `perceptron`
        hidden: wp.array2d[float]
        bias: wp.array2d[float]
        last: wp.array2d[float]
        last_bias: wp.array[float]
        b: float

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

    @wp.func(name=f"hash_perceptron_{levels}_{features}_{width}")
    def value(x: wp.vec3, p: Parameters) -> float:
        return output(inputs(x, p), p.first, p.hidden, p.bias, p.last, p.last_bias, p.b)

    return SimpleNamespace(value=value, Parameters=Parameters)
