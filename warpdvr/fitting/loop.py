"""The training loop: schedule, loss, gradient and optimizer step, for a number of minutes or iterations."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from warpdvr.fitting.optimizer import pack, unpack
from warpdvr.fitting.recipe import schedule
from warpdvr.runtime.arguments import plain
from warpdvr.runtime.memory import out_of_memory
from warpdvr.runtime.threads import one_thread

LONGEST_GRADIENT = 1.0
"""Longer gradients are scaled down to this length."""


@dataclass(frozen=True)
class Step:
    """One step of a training loop, as it is reported."""

    iteration: int
    """Counted from 1."""
    progress: float
    """From 0 to 1: of the iterations or the minutes, whichever was given."""
    seconds: float
    """Time spent training [s], earlier sessions included, without the time between steps."""
    losses: dict[str, float]
    """The terms of the loss by name before their weights, and the weighted sum as `total`."""
    evaluations: int
    """Field evaluations so far, counted in points."""


class TrainingLoop(ABC):
    """Something that is trained: `for step in loop` does it, and between two steps its state can be saved.

    The time between steps is not counted. A subclass makes the `optimizer`, whose groups hold their highest learning
    rate as `rate`, and defines the loss.
    """

    optimizer: torch.optim.Optimizer
    clipped: Sequence[Tensor]
    """Parameters whose joint gradient is clipped to `LONGEST_GRADIENT`; the gradients of all others are not."""
    smaller: ClassVar[str]
    """What to lower where a device has too little memory for a step."""

    def __init__(
        self,
        command: str,
        *,
        minutes: float | object | None,
        iterations: float | object | None,
        seed: int | object,
        single_thread: bool,
    ):
        """Prepare to train.

        Args:
            command: the name that error messages begin with.
            minutes, iterations: the duration; give exactly one of them, iterations as a whole number.
            seed: seed of `generator`.
            single_thread: whether a step is computed on one thread of Torch, which is faster for small batches.

        Raises:
            ValueError: if not exactly one positive duration is given, or there is a fraction of an iteration.
        """
        if (minutes is None) == (iterations is None):
            raise ValueError(f"{command}: give minutes or iterations, one of them; got {minutes} and {iterations}")
        name, given = ("minutes", minutes) if iterations is None else ("iterations", iterations)
        duration = plain(given)
        if duration is None or not 0 < duration < math.inf:
            raise ValueError(f"{command}: {name} must be positive, got {given!r}")
        if name == "iterations" and duration != int(duration):
            raise ValueError(f"{command}: iterations must be a whole number, got {given}")
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            raise ValueError(f"{command}: seed must be a whole number from 0 to 2^63 - 1, got {seed!r}")
        self.command, self.single_thread = command, single_thread
        self.minutes = duration if iterations is None else None
        self.iterations = None if iterations is None else int(duration)
        self.generator = torch.Generator().manual_seed(seed)
        self.iteration, self.evaluations, self.seconds = 0, 0, 0.0

    def __iter__(self) -> "TrainingLoop":
        return self

    def __next__(self) -> Step:
        """Take one step.

        Raises:
            StopIteration: at the end.
            RuntimeError: if the loss or its gradient is not a number; the last weights are kept.
            torch.OutOfMemoryError: if the device has too little memory; the message says what to lower.
        """
        progress = self.progress
        if progress >= 1:
            self.finish()
            raise StopIteration
        start = time.perf_counter()
        threads = one_thread() if self.single_thread else nullcontext()
        drawn = self.generator.get_state()
        try:
            with threads, torch.inference_mode(False), torch.enable_grad():  # whatever surrounds the loop
                with out_of_memory(self.command, self.smaller):
                    losses = self._step(progress)
        except RuntimeError:
            self.generator.set_state(drawn)  # so that a state that is saved now is that of the step before
            raise
        self.iteration += 1
        self.seconds += time.perf_counter() - start
        return Step(self.iteration, self.progress, self.seconds, losses, self.evaluations)

    @property
    def progress(self) -> float:
        """How much of the training is done, from 0 to 1."""
        if self.iterations is not None:
            return min(self.iteration / self.iterations, 1.0)
        return min(self.seconds / (60 * (self.minutes or 1)), 1.0)

    @abstractmethod
    def losses(self, progress: float) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Return the terms of the loss by name, and their weights; add the field evaluations to `evaluations`."""

    @abstractmethod
    def phase(self, progress: float) -> float:
        """Return how much of the present cycle of the learning rate is done, from 0 to 1."""

    @abstractmethod
    def finish(self) -> None:
        """Do what remains after the last step."""

    @property
    def collapsed(self) -> bool:
        """Whether the last step saw nothing any more, though an earlier one did: such a state is not worth saving."""
        return False

    def is_finite(self) -> bool:
        """Return whether all parameters and what the optimizer remembers of them are finite."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        return all(bool(x.isfinite().all()) for x in (*parameters, *pack(self.optimizer).values()))

    def state(self) -> dict[str, Tensor]:
        """Return everything that a later session needs besides the weights, as tensors."""
        counts = torch.tensor([self.iteration, self.evaluations, self.seconds], dtype=torch.float64)
        return {**pack(self.optimizer), "counts": counts, "generator": self.generator.get_state()}

    def _resume_counts(self, state: dict[str, Tensor]) -> None:
        """Take the counts and the random numbers from a `state`.

        Raises:
            ValueError: if it has none.
        """
        if not {"counts", "generator"} <= set(state):
            raise ValueError(
                f"{self.command}: expected a state as `state` returns it, got something else: nothing to go on from"
            )
        self.iteration, self.evaluations = int(state["counts"][0]), int(state["counts"][1])
        self.seconds = float(state["counts"][2])
        self.generator.set_state(state["generator"].cpu())

    def _resume_optimizer(self, state: dict[str, Tensor]) -> None:
        unpack(self.optimizer, state)

    def _step(self, progress: float) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * schedule(self.phase(progress))
        terms, weights = self.losses(progress)
        losses = {name: float(term.detach()) for name, term in terms.items()}
        if wrong := [name for name, value in losses.items() if not math.isfinite(value)]:
            raise RuntimeError(
                f"{self.command}: the loss {' and '.join(wrong)} is {losses[wrong[0]]} at step {self.iteration + 1}; "
                "the weights of the step before are kept, try a smaller rate"
            )
        first, *rest = [weights[name] * term for name, term in terms.items()]
        total = sum(rest, first)
        self._descend(total)
        return losses | {"total": float(total.detach())}

    def _descend(self, total: Tensor) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]
        self.optimizer.zero_grad()
        total.backward(inputs=parameters)  # not with respect to the points, which nothing needs
        norm = torch.nn.utils.clip_grad_norm_(self.clipped, LONGEST_GRADIENT)
        others = {*parameters} - {*self.clipped}
        if not bool(norm.isfinite()) or not all(bool(p.grad.isfinite().all()) for p in others if p.grad is not None):
            raise RuntimeError(
                f"{self.command}: the gradient is not finite at step {self.iteration + 1}; the weights of the step "
                "before are kept, try a smaller rate"
            )
        self.optimizer.step()
