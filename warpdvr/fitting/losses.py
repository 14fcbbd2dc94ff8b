"""What a fit makes small. Every term is a mean over a set that its docstring states, so that no weight depends on the
number of pixels; over an empty set it is 0, with a gradient of 0."""

import torch
from torch import Tensor

from warpdvr.datasets.pixels import BACKGROUND, UNKNOWN, PixelBatch, Pixels
from warpdvr.fields.base import Field

MARGIN = 1e-4
"""What `hinge` leaves between the smallest value on a ray and 0 [field value]: more than the error of a crossing."""


def photometric(color: Tensor, target: Tensor, square: float = 0.0) -> Tensor:
    """Mean absolute difference of sRGB colours, over k pixels: where the surface is seen and should be, or all.

    With `square`, differences d below it count as d^2 / (2 square) and others as |d| - square / 2 (Huber 1964), so that
    where photographs contradict one another, colours become their mean and not their median.

    Args:
        color, target: shape (k, 3), in [0, 1].
        square: differences up to which squares count.
    """
    difference = (color - target).abs()
    if square > 0:
        squared = difference.square() / (2 * square)
        difference = torch.where(difference < square, squared, difference - square / 2)
    return _mean(difference.mean(-1))


def silhouette(soft: Tensor, target: Tensor, n: int) -> Tensor:
    """Binary cross entropy of the soft mask, mean over the n rays whose mask is known (Yariv et al. 2020, eq. 7).

    Args:
        soft: logits of the soft mask, -sharpness * value at the smallest value on the ray, shape (k,): for all n rays,
            or for those that do not hit the object where the mask has it. The others then count as 0: their value at
            the hit is 0 by construction, and their colour teaches more. Without them outlines come out small, by about
            log(2) / sharpness, which masks that reach over their object make up for.
        target: True where the mask has the object, shape (k,).
        n: number of rays whose mask is known.
    """
    return _entropy(soft, target.to(soft), n)


def hinge(value: Tensor, target: Tensor, n: int, margin: float = MARGIN) -> Tensor:
    """How far the smallest value on a ray is on the wrong side, mean over the n rays whose mask is known.

    relu(value - margin) where the mask has the object, relu(margin - value) where it has background (Liu et al. 2020,
    "DIST", the silhouette loss of its code, where the margin is the threshold of convergence, 5e-5). DIST takes means
    over the wrong rays alone, so that one wrong ray pulls as hard as a thousand; here wrong rays pull each alike.

    Args:
        value: smallest value on the ray, or that at its hit, for those of the n rays that do not hit the object where
            the mask has it, shape (k,). The others count as 0.
        target: True where the mask has the object, shape (k,).
        n: number of rays whose mask is known.
        margin: in the unit of the value.
    """
    return torch.relu(torch.where(target, value - margin, margin - value)).sum() / max(n, 1)


def depth(z: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of depths, over k pixels whose depth is known and that hit where the object is.

    It serves a full depth map as well as a few sparse points (Niemeyer et al. 2020, "L_depth").

    Args:
        z, target: depth along the optical axis, in the unit of the scene, shape (k,).
    """
    return _mean((z - target).abs())


def image_gradient(color: Tensor, target: Tensor) -> Tensor:
    """Mean length of the difference of the image gradients, over k patches of 2 x 2 pixels and the three channels.

    A channel's gradient is two differences in the patch: of the first pixel and the next one in its row, and of the
    first pixel and the next one in its column (Niemeyer et al. 2020, supplement, and `image_gradient_loss` of its code,
    which sums where this takes the mean). The fourth pixel only has to be seen. With sums over patches and over pixels
    a patch counts once and its pixels four times: a weight w beside theirs of the color is w / 4 beside `photometric`.

    Args:
        color, target: all four pixels seen and on the object, in [0, 1], shape (k, 2, 2, 3): patch, row, column.
    """
    difference = color - target
    along = difference[:, 0, 0, None] - torch.stack([difference[:, 0, 1], difference[:, 1, 0]], 1)
    return _mean(torch.linalg.vector_norm(along, dim=1).mean(-1))  # of equal gradients Torch's slope is 0, not NaN


def freespace(logit: Tensor, n: int) -> Tensor:
    """Binary cross entropy of empty space, mean over the n rays whose mask is known (Niemeyer et al. 2020).

    Args:
        logit: logit of the occupancy less that of the level, so -value of an occupancy field, at one point of each of
            those of the n rays that pass beside the object (the mask has background), shape (k,). The others count as
            0, so that this term, `occupancy` and `silhouette` stand in proportion to the rays that they speak of.
        n: number of rays whose mask is known.
    """
    return _entropy(logit, torch.zeros_like(logit), n)


def occupancy(logit: Tensor, n: int) -> Tensor:
    """Binary cross entropy of occupied space, mean over the n rays whose mask is known (Niemeyer et al. 2020).

    Args:
        logit: as in `freespace`, at one point of each of those of the n rays that do not hit the object where the mask
            has it, shape (k,). The others count as 0.
        n: number of rays whose mask is known.
    """
    return _entropy(logit, torch.ones_like(logit), n)


def eikonal(slope: Tensor) -> Tensor:
    """Mean squared deviation of |grad value| from 1, over n points (Gropp et al. 2020).

    Args:
        slope: |grad value|, shape (n,).
    """
    return _mean((slope - 1).square())


def smoothness(normal: Tensor, neighbour: Tensor) -> Tensor:
    """Mean distance between the normals of neighbouring points, over k pairs (Niemeyer et al. 2020, supplement).

    Args:
        normal, neighbour: unit normals, shape (k, 3).
    """
    return _mean((normal - neighbour).square().sum(-1).clamp_min(1e-12).sqrt())


def on_surface(field: Field, batch: PixelBatch, pixels: Pixels) -> tuple[Tensor, int]:
    """Return the mean |value| at the points of the object that are seen by rays of known depth, and how many they are.

    For a distance that is how far the surface passes beside them (Park et al., "DeepSDF", 2019, eq. 9 and section
    4.3). A difference of depths only exists where a ray hits, and its slope grows without bound where the ray grazes;
    this term has neither trouble, so it also draws a surface from afar to a few points. 0 if no depth is known.

    Args:
        field: a `Field`.
        batch: rays of the training views, and what the photographs say.
        pixels: all of them: where no mask says whether a point is one of the object, those of the other views do.
    """
    right = ~batch.depth.isnan() & (batch.label != BACKGROUND)
    x = batch.rays.at(torch.where(right, batch.depth / batch.forward, 0.0)).detach()
    if len(unmasked := torch.nonzero(right & (batch.label == UNKNOWN))[:, 0]):
        right[unmasked] = pixels.inside(x[unmasked], batch.pose)
    low, high = field.bounds
    x = x.to(low)
    right &= ((low <= x) & (x <= high)).all(1)
    return field.value(x[right]).abs().sum() / max(int(right.sum()), 1), int(right.sum())


def _mean(x: Tensor) -> Tensor:
    return x.sum() / max(len(x), 1)


def _entropy(logit: Tensor, target: Tensor, n: int) -> Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(logit, target, reduction="sum") / max(n, 1)
