"""The losses of a fit.

Each is a mean over a set that its docstring states, so that no weight depends on the number of pixels. Over an empty
set it is 0, with a gradient of 0.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.datasets.pixels import BACKGROUND, UNKNOWN, PixelBatch, Pixels
from warpdvr.fields.base import Field

MARGIN = 1e-4
"""What `hinge` leaves between the smallest value on a ray and 0 [field value]: more than the error of a crossing. Terms
of a fit scale it with the bounds where values are lengths; it is that for bounds of half side 1."""


def photometric(color: Float[Tensor, "k 3"], target: Float[Tensor, "k 3"], square: float = 0.0) -> Float[Tensor, ""]:
    """Return the mean absolute difference of sRGB colours over k pixels.

    With `square`, differences d below it count as d^2 / (2 square) and others as |d| - square / 2 (Huber 1964), so that
    where photographs contradict one another, colours become their mean and not their median.

    Args:
        color, target: in [0, 1], of pixels where the surface is seen and should be, or of all pixels.
        square: the difference below which squares count.
    """
    difference = (color - target).abs()
    if square > 0:
        squared = difference.square() / (2 * square)
        difference = torch.where(difference < square, squared, difference - square / 2)
    return _mean(difference.mean(-1))


def silhouette(
    soft: Float[Tensor, " k"], target: Bool[Tensor, " k"], n: int, entered: Bool[Tensor, " k"] | None = None
) -> Float[Tensor, ""]:
    """Return the mean binary cross entropy of the soft mask, over the n rays of known mask (Yariv et al. 2020, eq. 7).

    Args:
        soft: logits of the soft mask, -sharpness * value at the smallest value on the ray, of all n rays, or of
            those that do not hit the object where the mask has it. The others then count as 0: their value at the hit
            is 0 by construction, and their colour teaches more. Without them outlines come out too small, by about
            log(2) / sharpness; masks that extend over their object make up for that.
        target: True where the mask has the object.
        n: number of rays whose mask is known.
        entered: rays that hit, whose logit is 0 though they go deeper. Those that should not have hit count twice: the
            slope of their entropy is 1/2 at the hit and nearly 1 where a sharp mask is wrong by more than its width, as
            it is for rays that should have hit. Without this a sharp mask and a noisy surface come out too large.
    """
    weight = None if entered is None else 1.0 + (entered & ~target).to(soft)
    return _entropy(soft, target.to(soft), n, weight)


def hinge(value: Float[Tensor, " k"], target: Bool[Tensor, " k"], n: int, margin: float = MARGIN) -> Float[Tensor, ""]:
    """Return how far the smallest value on a ray is on the wrong side, the mean over the n rays whose mask is known.

    relu(value - margin) where the mask has the object, relu(margin - value) where it has background (Liu et al. 2020,
    "DIST", the silhouette loss of its code, where the margin is the threshold of convergence, 5e-5). DIST takes means
    over the wrong rays alone, so that one wrong ray pulls as hard as a thousand; here wrong rays pull each alike.

    Args:
        value: smallest value on the ray, or that at its hit, for those of the n rays that do not hit the object where
            the mask has it. The others count as 0.
        target: True where the mask has the object.
        n: number of rays whose mask is known.
        margin: in the unit of the value.
    """
    return torch.relu(torch.where(target, value - margin, margin - value)).sum() / max(n, 1)


def depth(z: Float[Tensor, " k"], target: Float[Tensor, " k"]) -> Float[Tensor, ""]:
    """Return the mean absolute difference of depths over k pixels of known depth that hit the object.

    It serves a full depth map as well as a few sparse points (Niemeyer et al. 2020, "L_depth").

    Args:
        z, target: depth along the optical axis [scene unit].
    """
    return _mean((z - target).abs())


def image_gradient(color: Float[Tensor, "k 2 2 3"], target: Float[Tensor, "k 2 2 3"]) -> Float[Tensor, ""]:
    """Return the mean length of the difference of the image gradients, over k patches of 2 x 2 pixels and 3 channels.

    A channel's gradient is two differences in the patch: of the first pixel and the next one in its row, and of the
    first pixel and the next one in its column (Niemeyer et al. 2020, supplement, and `image_gradient_loss` of its code,
    which sums where this takes the mean). The fourth pixel only has to be seen. With sums over patches and over pixels
    a patch counts once and its pixels four times: a weight w beside theirs of the color is w / 4 beside `photometric`.

    Args:
        color, target: patch, row, column and channel, in [0, 1]; all four pixels are seen and on the object.
    """
    difference = color - target
    along = difference[:, 0, 0, None] - torch.stack([difference[:, 0, 1], difference[:, 1, 0]], 1)
    return _mean(torch.linalg.vector_norm(along, dim=1).mean(-1))  # of equal gradients Torch's slope is 0, not NaN


def freespace(logit: Float[Tensor, " k"], n: int) -> Float[Tensor, ""]:
    """Return the mean binary cross entropy of empty space, over the n rays of known mask (Niemeyer et al. 2020).

    Args:
        logit: logit of the occupancy less that of the level, so -value of an occupancy field, at one point of each of
            those of the n rays that pass beside the object (the mask has background). The others count as 0, so that
            this term, `occupancy` and `silhouette` are in proportion to the rays that they concern.
        n: number of rays whose mask is known.
    """
    return _entropy(logit, torch.zeros_like(logit), n)


def occupancy(logit: Float[Tensor, " k"], n: int) -> Float[Tensor, ""]:
    """Return the mean binary cross entropy of occupied space, over the n rays of known mask (Niemeyer et al. 2020).

    Args:
        logit: as in `freespace`, at one point of each of those of the n rays that do not hit the object where the mask
            has it. The others count as 0.
        n: number of rays whose mask is known.
    """
    return _entropy(logit, torch.ones_like(logit), n)


def eikonal(slope: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Return the mean squared deviation of |grad value| from 1, over n points (Gropp et al. 2020).

    Args:
        slope: |grad value|.
    """
    return _mean((slope - 1).square())


def smoothness(normal: Float[Tensor, "k 3"], neighbour: Float[Tensor, "k 3"]) -> Float[Tensor, ""]:
    """Return the mean distance of the normals of neighbouring points, over k pairs (Niemeyer et al. 2020, supplement).

    Args:
        normal, neighbour: unit normals.
    """
    return _mean((normal - neighbour).square().sum(-1).clamp_min(1e-12).sqrt())


def on_surface(field: Field, batch: PixelBatch, pixels: Pixels) -> tuple[Float[Tensor, ""], int]:
    """Return the mean |value| at the points of the object that rays of known depth see, and how many points there are.

    For a distance, that is how far from them the surface passes (Park et al., "DeepSDF", 2019, eq. 9 and section 4.3).
    A difference of depths exists only where a ray hits, and its slope grows without bound where the ray grazes the
    surface. This term has neither problem, so it also pulls a surface from afar to a few points. 0 if no depth is
    known.

    Args:
        field: a `Field`.
        batch: rays of the training views, and what the photographs say about them.
        pixels: all pixels: where a view has no mask, the masks of the others say whether a point is on the object.
    """
    right = ~batch.depth.isnan() & (batch.label != BACKGROUND)
    x = batch.rays.at(torch.where(right, batch.depth / batch.forward, 0.0)).detach()
    if len(unmasked := torch.nonzero(right & (batch.label == UNKNOWN))[:, 0]):
        right[unmasked] = pixels.inside(x[unmasked], batch.pose)
    low, high = field.bounds
    x = x.to(low)
    right &= ((low <= x) & (x <= high)).all(1)
    return field.value(x[right]).abs().sum() / max(int(right.sum()), 1), int(right.sum())


def _mean(x: Float[Tensor, "k ..."]) -> Float[Tensor, ""]:
    return x.sum() / max(len(x), 1)


def _entropy(
    logit: Float[Tensor, " k"], target: Float[Tensor, " k"], n: int, weight: Float[Tensor, " k"] | None = None
) -> Float[Tensor, ""]:
    return torch.nn.functional.binary_cross_entropy_with_logits(logit, target, weight, reduction="sum") / max(n, 1)
