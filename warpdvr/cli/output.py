"""What commands print: it may end up nowhere, such as in a pipe that is closed, and never ends a command."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any

GONE = errno.EPIPE, errno.EIO, errno.ENXIO
"""Errors of a pipe whose reader has ended, as in `warpdvr fit ... | head -1`, and of a terminal that was closed."""


class _Lasting(io.TextIOBase):
    """A stream whose text is dropped once nobody reads it any more; a heading comes before the first text."""

    def __init__(self, stream: Any):  # a text file, or what stands in for one
        self.stream, self.heading = stream, ""

    def write(self, text: str) -> int:
        heading, self.heading = self.heading, ""
        try:
            self.stream.write(heading + text)
            if "\n" in text:
                self.stream.flush()  # so that a line is seen when it is printed, or is known not to be seen
        except OSError as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self._drop(error)

    def isatty(self) -> bool:
        return bool(self.stream.isatty())

    def fileno(self) -> int:
        return int(self.stream.fileno())

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return str(self.stream.encoding or "utf-8")

    def _drop(self, error: OSError) -> None:
        """Send what follows to nowhere, from libraries and at the exit too; other errors are raised."""
        if error.errno not in GONE:
            raise error
        with suppress(OSError, ValueError):  # a stream that is no file
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Inside the block, printing to a pipe or a terminal that was closed does nothing."""
    with ExitStack() as stack:
        for stream, redirect in ((sys.stdout, redirect_stdout), (sys.stderr, redirect_stderr)):
            if stream is not None:
                stack.enter_context(redirect(_Lasting(stream)))
        yield


def set_heading(line: str) -> None:
    """Print a line before whatever a command prints first, within `lasting_output`; nothing if it prints nothing."""
    if isinstance(sys.stdout, _Lasting):
        sys.stdout.heading = f"{line}\n"
