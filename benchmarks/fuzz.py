"""Damaged files for every parser, many of them: `python benchmarks/fuzz.py --total 100000 --workers 2`.

Each worker is a process of its own that may grow by 2 GiB and is ended when one input takes 10 s; what ended it is
noted and the next input goes on. The table that is printed is that of fuzz.md. With faults the exit status is 1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import fuzz  # noqa: E402  (found by the line above)

BATCH = 500
"""Inputs per process."""


def run(name: str, first: int, last: int) -> dict[str, Any]:
    """Check a range of inputs of a parser; a process that dies is a fault at the input that it had begun."""
    found: dict[str, Any] = {"read": 0, "refused": 0, "faults": []}
    with tempfile.TemporaryDirectory() as scratch:
        while first < last:
            folder = Path(scratch).resolve() / "input"
            command = [sys.executable, str(ROOT / "tests/fuzz.py"), name, str(first), str(last), str(folder)]
            process = subprocess.run(command, capture_output=True, text=True)
            lines = process.stdout.splitlines()
            if process.returncode == 0 and lines:
                part = json.loads(lines[-1])
                for key in found:
                    found[key] += part[key]
                break
            at = folder.with_suffix(".at")
            i = int.from_bytes(at.read_bytes(), "little") if at.is_file() else first
            message = " ".join(process.stderr.split())[-300:]
            found["faults"].append([i, "", f"the process ended with {process.returncode}: {message}"])
            found["unknown"] = found.get("unknown", 0) + i - first
            first = i + 1
    return found


def main() -> None:
    """Check all parsers and print a table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--total", type=int, default=100_000, help="inputs over all parsers")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--only", nargs="*", default=[], help="names of parsers")
    chosen = options.parse_args()
    names = [parser.name for parser in fuzz.PARSERS if not chosen.only or parser.name in chosen.only]
    each = -(-chosen.total // len(names))
    jobs = [(name, first, min(first + BATCH, each)) for first in range(0, each, BATCH) for name in names]
    table = {name: {"read": 0, "refused": 0, "faults": list[Any]()} for name in names}
    with ThreadPoolExecutor(chosen.workers) as pool:
        for (name, _, _), found in zip(jobs, pool.map(lambda job: run(*job), jobs), strict=True):
            for key in table[name]:
                table[name][key] += found[key]  # type: ignore[operator]
    print("| parser | inputs | read | refused | faults |\n|---|---|---|---|---|")
    for name, row in table.items():
        print(f"| {name} | {each} | {row['read']} | {row['refused']} | {len(row['faults'])} |")  # type: ignore[arg-type]
    faults = [(name, *fault) for name, row in table.items() for fault in row["faults"]]  # type: ignore[union-attr]
    for fault in faults:
        print(*fault)
    print(f"{each * len(names)} inputs, {len(faults)} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
