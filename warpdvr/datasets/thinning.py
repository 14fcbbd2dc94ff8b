"""Leave out views: to find out how few are enough, or to see only those that are fitted."""

from dataclasses import replace
from typing import Any

from warpdvr.datasets.views import Views


def thinned(views: Views, n: int) -> Views:
    """Return views with `n` of those to fit, evenly chosen in their order, and with all that are held out.

    Raises:
        ValueError: if there are not as many views to fit, or `n` is less than 1.
    """
    m = len(views.train)
    if not 1 <= n <= m:
        raise ValueError(f"views: expected a number from 1 to {m}, as many as there are to fit, got {n}")
    train = [views.train[int((i + 0.5) * m / n)] for i in range(n)]
    few = _chosen(views, sorted([*train, *views.test]), set(train))
    summary = f"{views.summary} Of the {m} views to fit, {n} are used, evenly chosen: "
    return replace(few, summary=f"{summary}{', '.join(views.names[i] for i in train)}.", unthinned=views)


def without_held_out(views: Views) -> Views:
    """Return the views to fit alone."""
    return _chosen(views, sorted(views.train), set(views.train))


def _chosen(views: Views, kept: list[int], train: set[int]) -> Views:
    """Return the views `kept`, of which `train` are to be fitted; indices are those of `views`."""
    per_view = ("images", "masks", "cameras", "names", "depths", "points", "stored_sizes")
    arrays: dict[str, Any] = {
        name: tuple(getattr(views, name)[i] for i in kept) for name in per_view if getattr(views, name)
    }
    split = [tuple(k for k, i in enumerate(kept) if (i in train) == wanted) for wanted in (True, False)]
    listed = tuple((views.listed or range(len(views)))[i] for i in kept)
    return replace(views, **arrays, train=split[0], test=split[1], listed=listed)
