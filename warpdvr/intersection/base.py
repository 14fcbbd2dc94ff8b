"""The contract of solvers, which find hits: a frozen configuration, and a separate object for remembered values."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field
from warpdvr.fields.version import Memory
from warpdvr.intersection.hit import Hit
from warpdvr.runtime.validate import refuse_class

EARLY = (5, 10, 20, 35, 50, 75)
"""Additional steps of a fit at which remembered values are refreshed, because the field changes fast at first."""


class Solver(ABC, Memory):
    """Finds hits. A subclass is a frozen dataclass that holds its configuration.

    Values of a field are remembered in a separate solver, which `prepare` returns; only that one overrides `refresh`,
    `state` and `resume`, or forwards them to the object that holds the values.
    """

    @property
    @abstractmethod
    def points_per_ray(self) -> int:
        """Number of points of one ray that are evaluated together; decides how many rays fit into memory."""

    @abstractmethod
    def __call__(self, field: Field, rays: Rays) -> Hit:
        """Find the first crossing from outside to inside on each ray, within the field's bounds.

        Directions may have any length, and it is the unit of the ray lengths found, so that `rays.at` is on the
        surface. Solvers give up rays of which a number is not finite, or the direction 0.
        """

    def prepare(self, field: Field) -> "Solver":
        """Return a solver for many calls with one field, which may remember its values; the default is this solver.

        The field is not evaluated before the first call or `refresh`.
        """
        return self

    def refresh(self, field: Field, iteration: int | None = None) -> int:
        """Update remembered values after the field's weights changed, and return the number of evaluations.

        Args:
            field: the field that the solver was prepared for.
            iteration: of a fit that calls this before every step, so that each solver updates at its own intervals;
                None to update everything now.
        """
        return 0

    def state(self) -> dict[str, Tensor]:
        """Return the remembered values for a checkpoint; `resume` takes them."""
        return {}

    def resume(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned; entries of other solvers and of other parts of a fit are ignored.

        Raises:
            ValueError: if the state comes from a solver of another configuration.
        """


@dataclass(frozen=True)
class _CallableSolver(Solver):
    """A solver that was written as a plain callable."""

    intersect: Callable[[Field, Rays], Hit]

    @property
    def points_per_ray(self) -> int:
        return int(getattr(self.intersect, "points_per_ray", 1))

    def __call__(self, field: Field, rays: Rays) -> Hit:
        hit: object = self.intersect(field, rays)
        if not isinstance(hit, Hit):
            raise ValueError(
                f"intersect: {_name(self.intersect)} must return a warpdvr.intersection.hit.Hit, got {hit!r}"
            )
        return hit


SolverLike = Solver | Callable[[Field, Rays], Hit]
"""What `as_solver` makes a solver of: a `Solver`, or any callable that finds hits as `Solver.__call__` does. A callable
may have an attribute `points_per_ray`, see `Solver.points_per_ray`; by default it is 1."""


def as_solver(intersect: SolverLike | object) -> Solver:
    """Return a `Solver` unchanged, and make one of any other callable.

    Raises:
        ValueError: if it is neither; the solver made of a callable raises one if that returns no `Hit`.
    """
    if isinstance(intersect, Solver):
        return intersect
    refuse_class("intersect", intersect)
    if not callable(intersect):
        raise ValueError(
            f"intersect: expected a solver such as DenseMarch(), or a function of a field and rays, got {intersect!r}"
        )
    return _CallableSolver(intersect)


def _name(function: object) -> str:
    return getattr(function, "__name__", type(function).__name__)
