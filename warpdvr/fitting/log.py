"""The log of a training: a JSON object per line."""

import json
import math
from pathlib import Path
from typing import TextIO

from warpdvr.fitting.loop import Step
from warpdvr.runtime.files import replacing, write_failure


def append(log: TextIO, step: Step, **scores: float) -> None:
    """Write the row of a step; numbers that are not finite are left out.

    Raises:
        OSError: if it cannot be written; the message names the file.
    """
    row = {"iteration": step.iteration, "progress": step.progress, "seconds": step.seconds} | step.losses | scores
    try:
        log.write(json.dumps({k: round(v, 6) for k, v in row.items() if math.isfinite(v)}) + "\n")
        log.flush()
    except OSError as error:
        raise OSError(f"{log.name}: the log could not be written: {write_failure(error)}") from None


def truncate(log: Path, iteration: int) -> None:
    """Drop the rows of a log after the step from which a training is continued, and rows that are incomplete."""
    if log.is_file():
        rows = [row for row in log.read_bytes().splitlines() if _iteration(row) <= iteration]  # of any bytes
        with replacing(log) as unfinished:
            unfinished.write_bytes(b"".join(row + b"\n" for row in rows))


def _iteration(row: bytes) -> float:
    """Return the step of a row; infinity if it cannot be read."""
    try:
        return float(json.loads(row)["iteration"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf
