"""Interruptions: signals as exceptions, and blocks of code that they cannot break off."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What asks a program to end: Ctrl-C, a batch system, a terminal that is closed."""

PATIENCE = 5.0
"""Time after an interruption during which another one is taken for the same [s]."""


class Interrupted(KeyboardInterrupt):
    """A signal that asked the program to end; it passes through whatever lets Ctrl-C pass."""

    def __init__(self, number: int):
        super().__init__(f"signal {number}")
        self.status = 128 + number
        """The exit status by which shells know the signal."""


def exit_status(interruption: KeyboardInterrupt) -> int:
    """Return the exit status after an interruption: 130, 143 or 129 after SIGINT, SIGTERM or SIGHUP."""
    return interruption.status if isinstance(interruption, Interrupted) else 128 + signal.SIGINT


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` inside the block at the first of `SIGNALS`; those that are ignored (`nohup`) stay so.

    Within `PATIENCE` of it others are ignored, so that an impatient second Ctrl-C does not break off what the first
    one started: what has been done is being saved. Outside of the main thread, nothing happens.
    """
    last = -PATIENCE

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal last
        if time.monotonic() - last < PATIENCE:
            return
        last = time.monotonic()
        raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.getsignal(n) for n in SIGNALS}
    caught = [n for n in SIGNALS if before[n] not in (signal.SIG_IGN, None)]
    for number in caught:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])


@contextmanager
def shielded(*, patience: float | None = None) -> Iterator[None]:
    """Put off interruptions until the end of the block, where the first of them is handled as it would have been.

    Only signals that Python handles are put off. Outside of the main thread, nothing happens.

    Args:
        patience: after an interruption that was put off for this long, another one breaks off the block [s]; None:
            none ever does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: handler for n in SIGNALS if callable(handler := signal.getsignal(n))}
    pending: list[tuple[int, float]] = []

    def put_off(number: int, frame: FrameType | None) -> None:
        if pending and patience is not None and time.monotonic() - pending[0][1] > patience:
            before[number](number, frame)
        pending.append((number, time.monotonic()))

    for number in before:
        signal.signal(number, put_off)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if pending:
            before[pending[0][0]](pending[0][0], None)
