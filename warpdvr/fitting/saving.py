"""Save a training as it goes on, so that it can be continued whatever ends it."""

import math
import os
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from pathlib import Path

from warpdvr.fitting.checkpoint import is_complete
from warpdvr.fitting.loop import Step, TrainingLoop
from warpdvr.fitting.run_folder import RunFolder
from warpdvr.runtime.files import make_folder, sweep, temporary_path
from warpdvr.runtime.signals import shielded

SAVE = 20.0
"""Time after which a training is saved again by default [s]."""

PATIENCE = 5.0
"""Time that a step may take after an interruption, before another one breaks it off [s]."""


def check_interval(seconds: float, name: str = "save_every") -> None:
    """Check the time between two checkpoints.

    Raises:
        ValueError: if it is not positive and finite.
    """
    if not 0 < seconds < math.inf:
        raise ValueError(f"{name} must be positive, got {seconds:g}")


def saved_steps(
    folder: RunFolder, loop: TrainingLoop, write: Callable[[Path], None], *, every: float = SAVE
) -> Generator[Step, None, None]:
    """Train and yield each step; save at the start, every so often and at the end, however the training ends.

    A state is saved only if it is finite and still sees something. An interruption takes effect between two steps, with
    all that is done after a step, so that a training that is continued equals one that was never interrupted; it never
    breaks off a save.

    Args:
        folder: the run; its checkpoint and the one before are kept, and only the last one once the training has ended.
        loop: the training.
        write: writes a checkpoint of the loop to a path.
        every: time between two checkpoints [s].

    Raises:
        ValueError: if the time is not positive and finite.
        RuntimeError: if the training fails, or weights are no longer finite; the message says which step is saved.
        OSError: if nothing can be written.
    """
    check_interval(every)
    sweep(folder.folder)
    saver = _Saver(folder, loop, write)
    try:
        saver.save()
        saved = time.monotonic()
        with closing(_shielded_steps(loop)) as steps:
            for step in steps:
                yield step
                if time.monotonic() - saved >= every and saver.save():
                    saved = time.monotonic()
        if not saver.save():
            raise RuntimeError(f"{loop.command}: at the end no ray hits the level set any more")
    except (GeneratorExit, KeyboardInterrupt):
        saver.save()
        raise
    except RuntimeError as error:
        with suppress(_NotFinite):
            if saver.saved is None or saver.saved[0] != loop.iteration:
                saver.save()
        if saver.step == loop.iteration or type(error) not in (RuntimeError, _NotFinite):
            raise
        raise RuntimeError(f"{error}; step {saver.step} is the last one that was saved") from None
    except Exception:
        saver.save()
        raise
    folder.previous.unlink(missing_ok=True)


def _shielded_steps(loop: TrainingLoop) -> Generator[Step, None, None]:
    """Yield the steps of a loop; interruptions wait until what is done with a step is done too."""
    while True:
        with shielded(patience=PATIENCE):
            step = next(loop, None)
            if step is None:
                return
            yield step


class _NotFinite(RuntimeError):
    """Weights are no longer finite."""


class _Saver:
    """Writes the checkpoints of a training."""

    def __init__(self, folder: RunFolder, loop: TrainingLoop, write: Callable[[Path], None]):
        self.folder, self.loop, self.write = folder, loop, write
        self.step = loop.iteration
        """The step that was saved last; that of the checkpoint from which the training is continued."""
        self.saved: tuple[int, int] | None = None
        """Steps and evaluations of what this process saved last."""

    def save(self) -> bool:
        """Save the present state and return True, unless the training no longer sees anything: it may recover.

        Raises:
            RuntimeError: if it is not finite.
            OSError: if it cannot be written.
        """
        now = self.loop.iteration, self.loop.evaluations
        if now == self.saved:
            return True
        if self.loop.collapsed:
            return False
        if not self.loop.is_finite():
            raise _NotFinite(f"{self.loop.command}: weights are no longer finite after step {self.loop.iteration}")
        with shielded():
            make_folder(self.folder.folder)
            _keep_previous(self.folder)
            self.write(self.folder.checkpoint)
        self.step, self.saved = self.loop.iteration, now
        return True


def _keep_previous(folder: RunFolder) -> None:
    """Give the last checkpoint a second name, under which it stays when it is replaced; unless it is damaged."""
    if not is_complete(folder.checkpoint):
        return
    second = temporary_path(folder.previous)
    try:
        second.unlink(missing_ok=True)
        os.link(folder.checkpoint, second)
        os.replace(second, folder.previous)
        second.unlink(missing_ok=True)  # it stays where both were names of one file already
    except OSError:  # a file system without hard links
        with suppress(OSError):
            second.unlink(missing_ok=True)
        os.replace(folder.checkpoint, folder.previous)
