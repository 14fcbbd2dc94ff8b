"""Why a command failed, in one sentence."""

import re
from collections.abc import Collection
from types import TracebackType

CACHE = "set WARP_CACHE_PATH to a folder that can be written, on a disk with space"
"""What to do if the kernels of Warp cannot be kept."""

MEMORY = re.compile(r"not enough memory|can't allocate memory|out of memory|bad_alloc|cannot allocate memory", re.I)
"""How libraries say that there is no memory left."""

LOWERED = "--rays", "--resolution", "--size", "--max-pixels"
"""Options whose numbers decide how much memory is taken."""


def sentence(error: BaseException, options: Collection[str] = ()) -> str:
    """Return the message of an error on one line; what to do about a lack of memory or of a place for kernels.

    Args:
        error: what was raised.
        options: the names of the command's options, as they are typed.
    """
    from warpdvr.runtime.memory import OutOfMemory, lacks_memory  # with Torch, which the overview does without

    reason = " ".join(str(error).split())
    if isinstance(error, OutOfMemory):
        return f"{reason}, or say --device cpu" if "--device" in options else reason
    if lacks_memory(error) or isinstance(error, MemoryError) or MEMORY.search(reason):
        return _out_of_memory(reason, options, on_device=lacks_memory(error))
    if _is_raised_by("warp", error.__traceback__):
        if isinstance(error, OSError):
            return f"the folder for compiled kernels cannot be written ({reason}); {CACHE}"
        if "shared library" in reason:
            return f"Warp cannot be loaded ({reason}), which also happens where memory is limited (`ulimit -v`)"
    return reason


def _out_of_memory(reason: str, options: Collection[str], *, on_device: bool) -> str:
    """Return what to lower where memory ran out, on a GPU or on the computer."""
    asked = re.search(r"tried to allocate ([\d.]+ ?\w*)|Unable to allocate ([\d.]+ \w+)", reason, re.I)
    size = f" ({next(filter(None, asked.groups()))} more were asked for)" if asked else ""
    less = " or ".join(name for name in LOWERED if name in options)
    if on_device:
        return f"out of memory on the device{size}: {f'lower {less}, or ' if less else ''}say --device cpu"
    return (
        f"out of memory{size}: give the program more (`ulimit -v` says whether it is limited), or less to do, such as "
        f"a smaller {less or '--resolution'} or smaller pictures"
    )


def _is_raised_by(package: str, trace: TracebackType | None) -> bool:
    """Return whether code of a package was running when an error was raised."""
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__")).split(".")[0] == package:
            return True
        trace = trace.tb_next
    return False
