"""The contract of solvers, which find hits: a configuration and, where there is any, what it remembers apart."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field
from warpdvr.intersection.hit import Hit

EARLY = (5, 10, 20, 35, 50, 75)
"""Steps of a fit at which what is remembered of the field is brought up to date besides: at first it changes fast."""


@runtime_checkable
class Intersect(Protocol):
    """Any callable that finds hits; `as_solver` makes a `Solver` of it."""

    @property
    def points_per_ray(self) -> int:
        """See `Solver.points_per_ray`."""

    def __call__(self, field: Field, rays: Rays) -> Hit:
        """See `Solver.__call__`."""


class Solver(ABC):
    """What finds hits. A subclass is a frozen dataclass that holds its configuration.

    What is remembered of a field is a separate solver, which `prepare` returns; it alone overrides `refresh`, `state`
    and `resume`, or hands them on to the object that remembers.
    """

    @property
    @abstractmethod
    def points_per_ray(self) -> int:
        """How many points of one ray are evaluated together; decides how many rays fit into memory."""

    @abstractmethod
    def __call__(self, field: Field, rays: Rays) -> Hit:
        """Find the first crossing from outside to inside on each ray, inside of the field's bounds."""

    def prepare(self, field: Field) -> "Solver":
        """Return a solver for many calls with one field, which may remember values of it; here nothing is remembered.

        The field is not evaluated before the first call or `refresh`.
        """
        return self

    def refresh(self, field: Field, iteration: int | None = None) -> int:
        """Bring what is remembered up to date after the field's weights moved, and return the number of evaluations.

        Args:
            field: the field that the solver was prepared for.
            iteration: of a fit that calls this before every step, so that each solver keeps its own rhythm; None to
                bring everything up to date now.
        """
        return 0

    def state(self) -> dict[str, Tensor]:
        """Return what is remembered, for a checkpoint; `resume` takes it."""
        return {}

    def resume(self, state: dict[str, Tensor]) -> None:  # noqa: B027 (nothing is remembered here)
        """Remember what `state` returned; entries of other solvers and of other parts of a fit are passed over.

        Raises:
            ValueError: if it was remembered by a solver of another configuration.
        """


@dataclass(frozen=True)
class _CallableSolver(Solver):
    """A solver that was written as a plain callable."""

    intersect: Intersect

    @property
    def points_per_ray(self) -> int:
        return self.intersect.points_per_ray

    def __call__(self, field: Field, rays: Rays) -> Hit:
        return self.intersect(field, rays)


def as_solver(intersect: Intersect) -> Solver:
    """Return a `Solver` as it is, and one made of any other callable that finds hits."""
    return intersect if isinstance(intersect, Solver) else _CallableSolver(intersect)
