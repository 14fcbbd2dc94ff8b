"""The value of a perceptron on a hash encoding at a point, the function of `hashgrid`.

A hidden layer is one vector, to which each input adds its column of weights: the compiler makes vector instructions of
that, and the inputs are never stored.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

import warp as wp

from warpdvr.kernels.corners import corners, strides
from warpdvr.kernels.trilinear import cells_per_unit, locate, weights

vec8 = wp.types.vector(8, wp.float32)


@cache
def hash_perceptron(features: int, width: int) -> SimpleNamespace:
    """Return the function `value` and its struct `Parameters`, for a number of features and a width of hidden layers.

    Its activation is squareplus (Barron 2021), 0.5 (x + sqrt(x^2 + b)).
    """
    row_vec = wp.types.vector(features, wp.float32)
    layer: Any = wp.types.vector(width, wp.float32)

    @wp.struct
    class Parameters:
        table: wp.array[row_vec]
        bounds: wp.array[wp.vec3]
        weight: wp.array[float]  # of each level
        levels: wp.array2d[wp.int32]  # see kernels/encode.py
        first: wp.array[layer]  # columns of the first layer: those of the position, then those of the features
        hidden: wp.array[layer]  # columns of all others but the last
        bias: wp.array[layer]  # of these layers
        last: wp.array[layer]  # the row of the last layer
        last_bias: wp.array[float]
        b: float  # of squareplus

    @wp.func
    def squareplus(h: layer, b: float) -> layer:
        for k in range(wp.static(width)):
            h[k] = 0.5 * (h[k] + wp.sqrt(h[k] * h[k] + b))
        return h

    @wp.func(name=f"hash_perceptron_{features}_{width}")
    def value(x: wp.vec3, p: Parameters) -> float:
        h = p.bias[0] + p.first[0] * x[0] + p.first[1] * x[1] + p.first[2] * x[2]
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
                    h += p.first[3 + l * wp.static(features) + f] * sum[f]
        h = squareplus(h, p.b)
        for layer_index in range(p.hidden.shape[0] // wp.static(width)):
            h = deeper(h, layer_index, p)
        return wp.dot(h, p.last[0]) + p.last_bias[0]

    @wp.func
    def deeper(h: layer, index: int, p: Parameters) -> layer:
        sum = p.bias[index + 1]
        for j in range(wp.static(width)):
            sum += p.hidden[index * wp.static(width) + j] * h[j]
        return squareplus(sum, p.b)

    return SimpleNamespace(value=value, Parameters=Parameters)
