"""The lock of a run: one process at a time writes into its folder."""

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from warpdvr.runtime.files import is_alive, start_of

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
"""Name of the lock's file in the folder of a run."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder inside the block.

    The operating system frees it when the process that holds it ends, however that happens; then the next one takes it
    over. On file systems without locks, the process that the file names decides: it is dead if no process of this host
    has its number and its start.

    Raises:
        ValueError: if another process writes the run; the message names it.
        OSError: if the folder cannot be written.
    """
    path = folder / NAME
    file = _acquire(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder may be gone
            path.unlink(missing_ok=True)  # before the lock is freed, or it might be another's
        os.close(file)


def _acquire(path: Path) -> int:
    """Return the open file of the lock, which holds it."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"{path}: the lock of the run could not be written: {reason}") from None
        try:
            if not _take(file):
                raise ValueError(_refusal(path, os.pread(file, 10_000, 0)))
            if _is_at(file, path):  # else the process that held it has just deleted it
                os.ftruncate(file, 0)
                os.pwrite(file, _description(), 0)
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _take(file: int) -> bool:
    """Lock the file, unless another process has locked it."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            pass
    holder = _holder(os.pread(file, 10_000, 0))
    return not holder or (holder["host"] == platform.node() and not is_alive(holder["pid"], holder["start"]))


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _description() -> bytes:
    pid = os.getpid()
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return json.dumps({"pid": pid, "host": platform.node(), "start": start_of(pid), "since": since}).encode()


def _holder(content: bytes) -> dict[str, object] | None:
    """Return what `_description` wrote, or None."""
    try:
        holder = json.loads(content)
    except ValueError:
        return None
    known = isinstance(holder, dict) and {"pid", "host", "start", "since"} <= set(holder)
    return holder if known and isinstance(holder["pid"], int) else None


def _refusal(path: Path, content: bytes) -> str:
    holder = _holder(content)
    who = "another process" if not holder else f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    return f"{path.parent}: the run is being written by {who}; wait until it has ended, or choose another folder"
