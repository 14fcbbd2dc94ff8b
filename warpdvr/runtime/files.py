"""Replace files atomically, make folders, and keep paths inside a folder."""

import errno
import os
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

_LINKS: ContextVar[bool] = ContextVar("links", default=False)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which replaces `path` at the end of the block, or is removed on an error.

    What was written is on the disk before it replaces anything, so that neither a killed process nor a power failure
    leaves half a file. A killed process leaves its temporary file, see `sweep`.

    Raises:
        ValueError: if the folder of `path` does not exist, or `path` is a folder.
        OSError: if it cannot be written; the message names `path`, not the temporary path.
    """
    _check_folder(path)
    unfinished = temporary_path(path)
    try:
        unfinished.touch()  # fails here, with the system's own reason, whatever writes the file
        if path.is_dir():
            raise ValueError(f"{path}: expected the path of a file to write, found a folder")
        yield unfinished
        _flush(unfinished)
        os.replace(unfinished, path)
        with suppress(OSError):  # some file systems have no folders to flush
            _flush(path.parent)
    except OSError as error:
        if error.filename not in (None, str(unfinished), unfinished):
            raise
        raise OSError(f"{path}: the file could not be written: {write_failure(error)}") from None
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Return a path beside another one that this process may use, and that `sweep` removes if it is killed."""
    return path.with_name(f".{path.stem}.{os.getpid()}@{platform.node()}{path.suffix}")


def write_failure(error: OSError) -> str:
    """Return why nothing could be written, and what to do about a full disk."""
    reason = str(error.strerror or error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{reason}; free some space, or write to a folder on another disk"
    return reason


def _flush(path: Path) -> None:
    """Wait until a file or the names in a folder are on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


UNFINISHED = re.compile(rf"\..*\.(\d+)@{re.escape(platform.node())}(\.[^.]*)?")
"""Names of the temporary files of this host, see `temporary_path`."""


def is_abandoned(path: Path) -> bool:
    """Return whether a path is a temporary file of a process of this host that has ended."""
    match = UNFINISHED.fullmatch(path.name)
    return match is not None and not is_alive(int(match[1]))


def sweep(folder: Path) -> None:
    """Remove the temporary files in a folder that killed processes left."""
    for path in folder.iterdir():
        if is_abandoned(path):
            with suppress(OSError):
                path.unlink()


def start_of(pid: int) -> int | None:
    """Return when a process of this host began, in clock ticks since the host did; None if there is none, or Linux
    is not the system."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])  # field 22, see man proc
    except (OSError, ValueError, IndexError):
        return None


def is_alive(pid: object, start: object = None) -> bool:
    """Return whether this host has a process of that number that began at `start` (`start_of`; None: at any time)."""
    if not isinstance(pid, int) or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    return start is None or start_of(pid) in (None, start)


def check_file(path: Path, suffixes: Sequence[str] = (), what: str = "a file") -> None:
    """Check that a file can be written to a path, before the work whose result it is to hold.

    Args:
        path: the file; one that exists may be replaced.
        suffixes: those that are known, in lower case; none: any suffix will do.
        what: is written, for the message.

    Raises:
        ValueError: if the suffix is unknown, the folder does not exist or is read-only, or the path is a folder.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        known = " or ".join([", ".join(suffixes[:-1]), suffixes[-1]] if len(suffixes) > 1 else suffixes)
        raise ValueError(f"{path}: {what} is written as {known}, not as {path.suffix or 'a file without suffix'}")
    _check_folder(path)
    if os.path.isdir(path):  # which is False where the name is too long, as `replacing` then says
        raise ValueError(f"{path}: expected the path of a file to write, found a folder")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path}: nothing can be written to the folder {path.parent}, it is read-only")


def check_parents(path: Path) -> None:
    """Check that no parent of a path to write is a file.

    Raises:
        ValueError: if one is.
    """
    for parent in path.parents:
        if parent.is_file():
            raise ValueError(f"{path}: {parent} is a file, not a folder")


def _check_folder(path: Path) -> None:
    check_parents(path)
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")


def make_folder(path: Path) -> None:
    """Make a folder and its parents, unless they exist.

    Raises:
        ValueError: if the path or a parent is a file.
        OSError: if the folder cannot be made; the message names `path`.
    """
    check_parents(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path}: expected a folder, found a file")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{path}: the folder could not be made: {write_failure(error)}") from None


@contextmanager
def following_links(allowed: bool = True) -> Iterator[None]:
    """Let symbolic links lead out of the folder of `path_inside` while the block runs, if that is allowed."""
    token = _LINKS.set(allowed)
    try:
        yield
    finally:
        _LINKS.reset(token)


def links_allowed() -> bool:
    """Return whether symbolic links may lead out of a folder, see `following_links`."""
    return _LINKS.get()


def path_inside(folder: Path, path: str | Path) -> Path:
    """Return folder / path.

    Raises:
        ValueError: if it leads outside the folder, through an absolute path, `..` or a symbolic link, unless
            `following_links` allows the latter.
    """
    full = folder / path
    if _resolves_inside(folder, full):
        return full
    named_inside = Path(os.path.normpath(os.path.abspath(full))).is_relative_to(os.path.abspath(folder))
    if named_inside and ".." not in Path(path).parts:
        if links_allowed():
            return full
        raise ValueError(
            f"{folder}: {str(path)!r} leads outside of the data folder through a symbolic link, which is not allowed; "
            "if the link is your own, allow it with follow_links=True (--follow-links)"
        )
    raise ValueError(f"{folder}: {str(path)!r} leads outside of the data folder, which is not allowed")


def _resolves_inside(folder: Path, full: Path) -> bool:
    try:
        return full.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links that go round in circles, names with zeros
        return False
