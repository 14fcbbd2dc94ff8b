"""The progress bar of all commands that take long."""

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol, runtime_checkable

from tqdm import tqdm

from warpdvr.datasets.views import Views
from warpdvr.fitting.loop import Step
from warpdvr.runs.scene import Scene

FORMAT = "{percentage:3.0f}%|{bar:24}| {elapsed}<{remaining}{postfix}"


@runtime_checkable
class Job(Protocol):
    """A fit or a training that is done in steps."""

    @property
    def progress(self) -> float: ...

    @property
    def iteration(self) -> int: ...

    @property
    def evaluations(self) -> int: ...

    @property
    def seconds(self) -> float: ...


@contextmanager
def progress_bar(start: float = 0.0, *, delay: float = 0.0) -> Iterator[Callable[[float, str], None]]:
    """Show a bar; yield a function that updates it, called with the progress from 0 to 1 and a text beside the bar.

    With a delay, work that ends before it [s] shows none.
    """
    pause = 0.5 if sys.stderr.isatty() else 15.0  # seconds
    with tqdm(total=100, initial=100 * start, bar_format=FORMAT, mininterval=pause, delay=delay) as bar:

        def show(progress: float, text: str) -> None:
            bar.n = round(100 * progress, 1)
            bar.set_postfix_str(text, refresh=False)
            bar.update(0)

        yield show


def load_views(scene: Scene) -> Views:
    """Return the views of a scene; show how many photographs are read, and say before if they have no masks."""
    if "folder" not in scene.views:
        return scene.load_views()
    with progress_bar(delay=1.0) as show:
        return scene.load_views(progress=show, notice=partial(print, flush=True))


def follow(steps: Iterator[tuple[Step, str]], job: Job, work: str = "fitting") -> None:
    """Take all steps of a job and show its progress; the steps are closed even if the job is interrupted.

    Args:
        steps: the steps, each with a note.
        job: what takes the steps.
        work: what the seconds were spent on; the clock of the bar also counts the time between steps.
    """
    try:
        with progress_bar(job.progress) as show:
            for step, note in steps:
                show(step.progress, f"step {step.iteration}  loss {step.losses['total']:.4f}  {note}".rstrip())
    finally:
        if isinstance(steps, Generator):
            steps.close()
    evaluations = f"{job.evaluations / 1e6:.0f} million field evaluations"
    print(f"{job.iteration} steps, {evaluations}, {job.seconds:.0f} s of {work}")
