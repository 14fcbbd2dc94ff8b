"""The terms of a fit's loss: objects with a name and a weight, called with the rays of a step and what they see."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Protocol, TypeVar, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from warpdvr.datasets.pixels import OBJECT, UNKNOWN, PixelBatch, Pixels
from warpdvr.fields.base import Field
from warpdvr.fields.gradient import evaluations_per_gradient
from warpdvr.intersection.base import Solver
from warpdvr.rendering.surface import Surface

T = TypeVar("T")


@dataclass(frozen=True)
class TermContext:
    """The rays of a step of a fit, and what they see. All terms of the step are called with the same context."""

    field: Field
    """The field that is fitted."""
    pixels: Pixels
    """All pixels of the training views."""
    batch: PixelBatch
    """n rays and what the photographs say about them; in blocks of 2 x 2 pixels if `Recipe.blocks`."""
    surface: Surface
    """What k of these rays see; differentiable with respect to the field and, through the rays, to the cameras."""
    solver: Solver
    """The solver that found the surface."""
    progress: float
    """Progress of the fit, from 0 to 1."""
    generator: torch.Generator
    """Source of all random numbers."""
    sharpened: float | None = None
    """How far soft masks are sharpened, see `Recipe.sharp`; None: as far as the fit has come."""
    _samples: dict[object, object] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @property
    def sharpening(self) -> float:
        """How far soft masks are sharpened: from 0 to 1, or farther where a surface is refined."""
        return self.progress if self.sharpened is None else self.sharpened

    def sample(self, sampler: Callable[["TermContext"], tuple[T, int]]) -> tuple[T, int]:
        """Return the sample of a sampler and its field evaluations, which are 0 if it was called before.

        Terms that need the same values share them in this way.

        Args:
            sampler: called with this context, once for all samplers that are equal.
        """
        if sampler in self._samples:
            return cast(T, self._samples[sampler]), 0
        value, evaluations = sampler(self)
        self._samples[sampler] = value
        return value, evaluations

    def object_hits(self) -> Bool[Tensor, " k"]:
        """Return which hits show the object, by the mask of the view or, if it has none, by those of the others."""
        return object_hits(self.pixels, self.batch, self.surface.hit.ray, self.surface.x.detach())

    def masked(self) -> Bool[Tensor, " n"]:
        """Return which rays meet the bounds and have a mask."""
        return (self.batch.label != UNKNOWN) & ~self.surface.hit.nearest.isnan()

    def unsettled(self) -> Bool[Tensor, " n"]:
        """Return which rays have a mask, but do not hit the object where the mask has it."""
        label, ray = self.batch.label, self.surface.hit.ray
        settled = torch.zeros_like(label, dtype=torch.bool).index_copy(0, ray, label[ray] == OBJECT)
        return (label != UNKNOWN) & ~settled


def object_hits(
    pixels: Pixels, batch: PixelBatch, ray: Int[Tensor, " k"], x: Float[Tensor, "k 3"]
) -> Bool[Tensor, " k"]:
    """Return which hits, of rays of a batch at places x, show the object: see `TermContext.object_hits`."""
    label = batch.label[ray]
    on_object = label == OBJECT
    unmasked = torch.nonzero(label == UNKNOWN)[:, 0]
    if len(unmasked):
        on_object[unmasked] = pixels.inside(x[unmasked].float(), batch.pose)
    return on_object


@runtime_checkable
class Term(Protocol):
    """A term of the loss. `Fit(field, views, terms=[...])` adds your own to those of the recipe."""

    @property
    def name(self) -> str:
        """Its key in `Step.losses`; no other term of the fit has this name."""

    @property
    def weight(self) -> float:
        """Its factor in the sum; finite, not negative."""

    def __call__(self, context: TermContext) -> tuple[Tensor, int]:
        """Return the term before its weight, a differentiable scalar, and the number of field evaluations [point]."""


def check_terms(terms: object, taken_names: Sequence[str]) -> list[Term]:
    """Return the terms that a user has written, checked.

    Args:
        terms: the user's terms, in a list.
        taken_names: names of other terms.

    Raises:
        ValueError: if there is no list, one is not a term, its weight makes no sense, or its name is in use.
    """
    if isinstance(terms, Term) or not isinstance(terms, Iterable):
        name = terms.__name__ if isinstance(terms, type) else type(terms).__name__
        raise ValueError(f"fit: terms must be a list of terms, such as terms=[term], got {name} alone")
    checked: list[Term] = []
    names = set(taken_names)
    for term in terms:
        if isinstance(term, type):
            raise ValueError(f"fit: a term must be an object, got the class {term.__name__}; call it to make one")
        if not isinstance(term, Term):
            missing = [name for name in ("name", "weight", "__call__") if not hasattr(term, name)]
            raise ValueError(
                f"fit: a term needs name, weight and __call__(context), but {type(term).__name__} has no "
                f"{' and no '.join(missing)}"
            )
        if not isinstance(term.name, str):
            raise ValueError(
                f"fit: the name of a term must be text, but that of {type(term).__name__} is {term.name!r}"
            )
        if not _is_number(term.weight):
            raise ValueError(f"fit: the weight of the term {term.name!r} must be a number, got {term.weight!r}")
        if not 0 <= term.weight < math.inf:
            raise ValueError(
                f"fit: the weight of the term {term.name!r} must be finite and not negative, got {term.weight}"
            )
        if term.name in names:
            raise ValueError(f"fit: there is more than one term named {term.name!r}; give yours another name")
        names.add(term.name)
        checked.append(term)
    return checked


def evaluate_terms(terms: Sequence[Term], context: TermContext) -> tuple[dict[str, Tensor], int]:
    """Return the terms by name, before their weights, and the number of field evaluations, shading included.

    Terms of weight 0 are left out, without evaluating the field.
    """
    losses: dict[str, Tensor] = {}
    evaluations = (1 + evaluations_per_gradient(context.field)) * len(context.surface.hit.ray)
    for term in terms:
        if term.weight > 0:
            losses[term.name], count = _check_answer(term.name, term(context))
            evaluations += count
    return losses, evaluations


def _check_answer(name: str, answer: object) -> tuple[Tensor, int]:
    """Return what a term returned, if it is a scalar tensor and a number of field evaluations.

    Raises:
        ValueError: if it is anything else.
    """
    parts = answer if isinstance(answer, tuple | list) else (answer,)
    if len(parts) != 2 or not isinstance(parts[0], Tensor) or not isinstance(parts[1], Integral):
        found = " and ".join(type(part).__name__ for part in parts) or "nothing"
        raise ValueError(
            f"fit: the term {name!r} must return a scalar tensor and the number of its field evaluations, "
            f"such as `return loss, len(x)`, got {found}"
        )
    loss, count = parts
    if loss.shape:
        raise ValueError(f"fit: the term {name!r} must return a scalar, got a tensor of shape {tuple(loss.shape)}")
    return loss, int(count)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1)
