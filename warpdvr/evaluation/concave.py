"""Score the part of a surface that no silhouette shows: what lies deep inside the visual hull of the masks.

The hull is what silhouettes alone can tell of a shape (Laurentini 1994). A method that learns nothing from colours
fills concavities up to it, and its Chamfer distance may still be small; the distance measured here is not.
"""

import math
from dataclasses import dataclass

from warpdvr.datasets.hull import inside_hull
from warpdvr.datasets.views import Views
from warpdvr.evaluation.surfaces import sample
from warpdvr.geometry.distance import surface_distance
from warpdvr.geometry.mesh import Mesh

MARGIN = 0.01
"""Distance from the surface of the hull beyond which a point is concave, as a share of the extent of the mesh."""


@dataclass(frozen=True)
class ConcaveScores:
    """The distance of the true surface where no silhouette shows it."""

    concave_l1: float | None
    """Mean distance from the concave part of the true surface to the predicted one [unit of the meshes]; None without a
    mask, or if there is no such part."""
    concave_share: float | None
    """Share of the true area that is concave, in [0, 1]; None without a mask."""


def concave_distance(
    predicted: Mesh, truth: Mesh, views: Views, *, samples: int = 100_000, seed: int = 0, margin: float = MARGIN
) -> ConcaveScores:
    """Measure the distance from what no silhouette shows of the true surface to the predicted one.

    A point of the true surface belongs to it if a ball around it lies inside the visual hull of all masks: in every
    view, held out or left out by `thinned` or not, the image of the ball is inside of the mask. So fits to few and to
    many views are scored at the same points. No grid is carved. A flat side that no camera sees edge-on belongs to it,
    too, as far as the hull bulges there by more than the margin.

    Args:
        predicted, truth: two meshes in the frame and the unit of the data.
        views: masks and cameras.
        samples: number of points, spread evenly over the area of the true mesh.
        seed: seed of the random points; the same seed gives the same points on every device.
        margin: radius of the ball, as a share of the extent of the true mesh.

    Raises:
        ValueError: if a mesh has no area, there are no samples, or the margin is not positive.
    """
    if not 0 < margin < math.inf:
        raise ValueError(f"concave_distance: the margin must be positive, got {margin}")
    views, point = views.unthinned or views, sample(truth, samples, seed=seed)
    if all(mask is None for mask in views.masks):
        return ConcaveScores(None, None)
    extent = float((truth.vertices.amax(0) - truth.vertices.amin(0)).max())
    scene = views.transform.inverse().apply(point.double().cpu())
    concave = inside_hull(scene, views, radius=margin * extent / views.transform.scale)
    share = float(concave.double().mean())
    if not concave.any():
        return ConcaveScores(None, share)
    return ConcaveScores(float(surface_distance(point[concave.to(point.device)], predicted).double().mean()), share)
