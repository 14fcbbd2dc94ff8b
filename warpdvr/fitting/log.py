"""A log of what was done step by step: JSON, a line for each row."""

import json
import math
from pathlib import Path

from warpdvr.runtime.files import replacing


def truncate(log: Path, iteration: int) -> None:
    """Drop the rows of a log behind the step from which a fit goes on, and those that were left unfinished."""
    if log.is_file():
        rows = [row for row in log.read_text().splitlines() if _iteration(row) <= iteration]
        with replacing(log) as unfinished:
            unfinished.write_text("".join(f"{row}\n" for row in rows))


def _iteration(row: str) -> float:
    """Return the step of a row; infinity for one that is no row."""
    try:
        return float(json.loads(row)["iteration"])
    except (ValueError, KeyError, TypeError):
        return math.inf
