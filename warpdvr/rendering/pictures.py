"""Many pictures of a field that does not change."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from warpdvr.fields.base import Field
from warpdvr.intersection.base import SolverLike
from warpdvr.intersection.sphere_trace import SphereTrace
from warpdvr.runtime.threads import in_order, one_thread, workers

T = TypeVar("T")
R = TypeVar("R")


def each_picture(
    render: Callable[[T], R], views: Sequence[T], field: Field, solver: SolverLike | object
) -> Iterator[R]:
    """Yield render(view) for all views in their order, without gradients; on a CPU several at once, where they may be.

    `workers` threads take a picture each, on one thread of Torch; the first one alone, which compiles what the others
    need. They may where the solver remembers nothing, and the field is a Warp function (`Field.warp_value`).
    """

    def task(view: T) -> R:
        with torch.no_grad():
            return render(view)

    if workers() == 1 or field.bounds.device.type != "cpu" or not _shares_nothing(field, solver):
        yield from map(task, views)
        return
    with one_thread():
        yield from map(task, views[:1])
        yield from in_order(task, views[1:])


def _shares_nothing(field: Field, solver: SolverLike | object) -> bool:
    """Return whether pictures can be rendered side by side."""
    return isinstance(solver, SphereTrace) and solver.grid is None and field.has_warp_value
