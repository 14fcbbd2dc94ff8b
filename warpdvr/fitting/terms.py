"""The terms of a fit's loss: objects with a name and a weight, called on what a step has drawn and what it has seen."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor

from warpdvr.datasets.pixels import OBJECT, UNKNOWN, PixelBatch, Pixels
from warpdvr.fields.base import Field
from warpdvr.fields.gradient import evaluations_per_gradient
from warpdvr.intersection.base import Solver
from warpdvr.rendering.surface import Surface

T = TypeVar("T")


@dataclass(frozen=True)
class TermContext:
    """What a step of a fit has drawn and seen. All terms of the step are given the same one."""

    field: Field
    """What is fitted."""
    pixels: Pixels
    """All pixels of the training views."""
    batch: PixelBatch
    """n rays, and what the photographs say about them; in blocks of 2 x 2 pixels if `Recipe.blocks`."""
    surface: Surface
    """What k of these rays see; differentiable with respect to the field and, through the rays, to the cameras."""
    solver: Solver
    """How the surface was found."""
    progress: float
    """Of the fit, from 0 to 1."""
    generator: torch.Generator
    """Of all that is left to chance."""
    _samples: dict[object, object] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def sample(self, sampler: Callable[["TermContext"], tuple[T, int]]) -> tuple[T, int]:
        """Return what a sampler takes from this step, and its field evaluations: none if it was asked before.

        So terms that need the same values share them.

        Args:
            sampler: called with this; equal samplers take the same sample.
        """
        if sampler in self._samples:
            return cast(T, self._samples[sampler]), 0
        value, evaluations = sampler(self)
        self._samples[sampler] = value
        return value, evaluations

    def object_hits(self) -> Tensor:
        """Return which hits show the object, (k,): the mask says so or, in a view without one, those of the others."""
        label = self.batch.label[self.surface.hit.ray]
        on_object = label == OBJECT
        unmasked = torch.nonzero(label == UNKNOWN)[:, 0]
        if len(unmasked):
            x = self.surface.x.detach()[unmasked].float()
            on_object[unmasked] = self.pixels.inside(x, self.batch.pose)
        return on_object

    def masked(self) -> Tensor:
        """Return which rays meet the bounds and have a mask, (n,)."""
        return (self.batch.label != UNKNOWN) & ~self.surface.hit.nearest.isnan()

    def unsettled(self) -> Tensor:
        """Return which rays have a mask, but do not hit the object where the mask has it, (n,)."""
        label, ray = self.batch.label, self.surface.hit.ray
        settled = torch.zeros_like(label, dtype=torch.bool).index_copy(0, ray, label[ray] == OBJECT)
        return (label != UNKNOWN) & ~settled


@runtime_checkable
class Term(Protocol):
    """A term of the loss. `Fit(field, views, terms=[...])` adds your own to those of the recipe."""

    @property
    def name(self) -> str:
        """How it is called in `Step.losses`; no other term of the fit has this name."""

    @property
    def weight(self) -> float:
        """What it is multiplied by in the sum; finite, not negative."""

    def __call__(self, context: TermContext) -> tuple[Tensor, int]:
        """Return the term before its weight, a differentiable scalar, and how many points the field was asked at."""


def check_terms(terms: Sequence[Term], taken: Sequence[str]) -> None:
    """Check terms that a user has written.

    Args:
        terms: the user's terms.
        taken: names of other terms.

    Raises:
        ValueError: if something is no term, its weight makes no sense, or its name is in use.
    """
    names = set(taken)
    for term in terms:
        if not isinstance(term, Term):
            missing = [name for name in ("name", "weight", "__call__") if not hasattr(term, name)]
            raise ValueError(
                f"fit: a term needs name, weight and __call__(context), but {type(term).__name__} has no "
                f"{' and no '.join(missing)}"
            )
        if not 0 <= term.weight < math.inf:
            raise ValueError(
                f"fit: the weight of the term {term.name!r} must be finite and not negative, got {term.weight}"
            )
        if term.name in names:
            raise ValueError(f"fit: there is more than one term named {term.name!r}; give yours another name")
        names.add(term.name)


def evaluate_terms(terms: Sequence[Term], context: TermContext) -> tuple[dict[str, Tensor], int]:
    """Return the terms by name, before their weights, and how many points the field was asked at, shading included.

    The field is not asked anything for terms of weight 0, which are left out.
    """
    losses: dict[str, Tensor] = {}
    evaluations = (1 + evaluations_per_gradient(context.field)) * len(context.surface.hit.ray)
    for term in terms:
        if term.weight > 0:
            losses[term.name], count = term(context)
            if losses[term.name].shape:
                shape = tuple(losses[term.name].shape)
                raise ValueError(f"fit: the term {term.name!r} must return a scalar, got a tensor of shape {shape}")
            evaluations += count
    return losses, evaluations
