"""Damaged files for every parser, many of them: `python benchmarks/fuzz.py --total 100000 --results fuzz.jsonl`.

Each range of inputs is checked by a forked process that may grow by 2 GiB and is ended when one input takes 10 s of
the processor or 30 s by the clock; what ended it is a fault, and the next input goes on. A run that was stopped goes
on where it was if given the same file of results. The table that is printed is that of fuzz.md. With faults the exit
status is 1.
"""

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import fuzz  # noqa: E402  (found by the line above)

BATCH = 100
"""Inputs per process."""


@dataclass
class Job:
    """A range of inputs of one parser, and where its process writes."""

    parser: fuzz.Parser
    first: int
    last: int
    home: str = ""
    """The folder, made when it starts."""
    began: float = 0.0
    """When it started [s]."""

    def start(self) -> int:
        """Fork a process that checks the inputs; return its number."""
        self.home, self.began = tempfile.mkdtemp(), time.monotonic()
        if process := os.fork():
            return process
        try:
            folder = Path(self.home).resolve()
            errors = os.open(folder / "errors", os.O_CREAT | os.O_WRONLY)
            os.dup2(errors, 1)
            os.dup2(errors, 2)
            found = fuzz.check(self.parser, self.first, self.last, folder / "input")
            (folder / "found").write_text(json.dumps(found))
            os._exit(0)
        finally:
            os._exit(1)

    def end(self, status: int) -> dict[str, Any]:
        """Return what was found: all that the process wrote, or else the input that ended it, and none before it."""
        row = {"parser": self.parser.name, "first": self.first, "last": self.last}
        row["seconds"] = round(time.monotonic() - self.began, 2)
        folder = Path(self.home)
        if status == 0:
            return row | json.loads((folder / "found").read_text())
        at = folder / "input.at"
        i = int.from_bytes(at.read_bytes(), "little") if at.is_file() else self.first
        message = " ".join((folder / "errors").read_text(errors="replace").split())[-300:]
        reason = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"
        return row | {"ended": i, "faults": [[i, "", f"the process ended with {reason}: {message}"]]}


def run(jobs: list[Job], workers: int, results: Path) -> None:
    """Check ranges of inputs, some at a time, and append a line to the results for each.

    A range whose process ended is checked again before and after the input that ended it.
    """
    living = dict[int, Job]()
    jobs.reverse()
    while jobs or living:
        while jobs and len(living) < workers:
            job = jobs.pop()
            living[job.start()] = job
        process, status = os.wait()
        job = living.pop(process)
        row = job.end(status)
        if "ended" in row:
            i = row["ended"]
            jobs += [Job(job.parser, a, b) for a, b in ((i + 1, job.last), (job.first, i)) if a < b]
            row |= {"first": i, "last": i + 1, "read": 0, "refused": 0}
        with results.open("a") as rows:
            rows.write(json.dumps(row) + "\n")
        shutil.rmtree(job.home, ignore_errors=True)


def summarise(results: Path) -> int:
    """Print the table of the results, and the faults; return how many there are."""
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    print("| parser | inputs | read | refused | faults | inputs per second |\n|---|---|---|---|---|---|")
    sums = dict[str, list[float]]()
    for row in rows:
        numbers = row["last"] - row["first"], row["read"], row["refused"], len(row["faults"]), row["seconds"]
        sums[row["parser"]] = [a + b for a, b in zip(sums.get(row["parser"], [0] * 5), numbers, strict=True)]
    for name, (*counts, seconds) in sums.items():
        print(f"| {name} | {' | '.join(map(str, counts))} | {counts[0] / max(seconds, 0.01):.0f} |")
    for row in rows:
        for fault in row["faults"]:
            print(row["parser"], *fault)
    inputs, read, refused, faults, seconds = (sum(column) for column in zip(*sums.values(), strict=True))
    print(
        f"{inputs} inputs over {len(sums)} parsers in {seconds:.0f} s: {read} read, {refused} refused, {faults} faults"
    )
    return int(faults)


def main() -> None:
    """Check all parsers and print a table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--total", type=int, default=100_000, help="inputs over all parsers")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--only", nargs="*", default=[], help="names of parsers")
    options.add_argument("--results", type=Path, default=Path("fuzz.jsonl"), help="file of results, to be continued")
    chosen = options.parse_args()
    parsers = [parser for parser in fuzz.PARSERS if not chosen.only or parser.name in chosen.only]
    each = math.ceil(chosen.total / sum(1 / parser.cost for parser in parsers))
    chosen.results.touch()
    rows = [json.loads(line) for line in chosen.results.read_text().splitlines()]
    done = {(row["parser"], i) for row in rows for i in range(row["first"], row["last"])}
    jobs = []
    for first in range(0, each, BATCH):
        for parser in parsers:
            last = min(first + BATCH, -(-each // parser.cost))
            todo = [i for i in range(first, last) if (parser.name, i) not in done]
            jobs += [Job(parser, todo[0], todo[-1] + 1)] if todo else []
    fuzz.hurry()
    fuzz.warm()
    run(jobs, chosen.workers, chosen.results)
    sys.exit(1 if summarise(chosen.results) else 0)


if __name__ == "__main__":
    main()
