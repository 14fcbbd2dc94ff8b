"""Kill a fit at random moments: can it always be loaded, how much is lost, does it end as if it was never killed?

    python benchmarks/survival.py [--kills 100] [--nans 20] > benchmarks/survival.md

Each fit runs in a copy (fork) of this process, which has imported everything already.
"""

import argparse
import math
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from short_fit import short_fit

from warpdvr.cli import fit as fit_command
from warpdvr.cli.main import main
from warpdvr.fitting.checkpoint import load
from warpdvr.fitting.fit import Fit

EVERY = 0.5
"""Time between two checkpoints [s]."""


class Noted(Fit):
    """A fit that notes the time of its training after each step, and may spoil one."""

    note: Path
    spoilt: int | None = None

    def __next__(self):
        step = super().__next__()
        self.note.write_text(str(self.seconds))
        return step

    def losses(self, progress):
        terms, weights = super().losses(progress)
        wrong = math.nan if self.iteration == Noted.spoilt else 1.0
        return {name: term * wrong for name, term in terms.items()}, weights


def fork(*words: object) -> int:
    child = os.fork()
    if child:
        return child
    sys.stdout = sys.stderr = Path(os.devnull).open("w")
    os._exit(main([str(word) for word in words]))


def step_of(run: Path) -> tuple[int, float]:
    counts = load(run / "checkpoint.safetensors").fit["counts"]
    return int(counts[0]), float(counts[2])


def same(a: Path, b: Path) -> bool:
    a, b = (load(run / "checkpoint.safetensors") for run in (a, b))
    state = [k for k in a.fit if k != "counts"]
    return all(torch.equal(a.weights[k], b.weights[k]) for k in a.weights) and all(
        torch.equal(a.fit[k], b.fit[k]) for k in state
    )


def kill_and_resume(folder: Path, scene: Path, kills: int) -> tuple[int, list[float], list[Path]]:
    """Kill fits at random moments, each until it is done; return kills, training time lost [s], and finished runs."""
    done, lost, finished = 0, [], []
    while done < kills:
        run = folder / f"run{len(finished)}"
        words: list[object] = ["fit", scene, "--out", run, "--save-every", EVERY]
        while True:
            child = fork(*words)
            moment, begun = random.uniform(0.0, 3.0), time.monotonic()
            while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
                if done < kills and time.monotonic() - begun > moment and (run / "checkpoint.safetensors").exists():
                    os.kill(child, signal.SIGKILL)
                    ended = os.waitpid(child, 0)
                    break
                time.sleep(0.002)
            if os.WIFEXITED(ended[1]):
                assert os.WEXITSTATUS(ended[1]) == 0, ended
                break
            done += 1
            _, seconds = step_of(run)
            if Noted.note.exists() and (text := Noted.note.read_text()):
                lost.append(float(text) - seconds)
            words = ["fit", "--resume", "--out", run, "--save-every", EVERY]
        finished.append(run)
    return done, lost, finished


def spoil_and_resume(folder: Path, scene: Path, iterations: int, count: int) -> int:
    """Spoil one random step of each of many fits by NaN; return how many kept the step before and went on."""
    good = 0
    for i in range(count):
        run, Noted.spoilt = folder / f"nan{i}", random.randrange(1, iterations)
        words = ["fit", scene, "--out", run, "--save-every", EVERY]
        status = os.waitstatus_to_exitcode(os.waitpid(fork(*words), 0)[1])
        kept, _ = step_of(run)
        finite = all(bool(w.isfinite().all()) for w in load(run / "checkpoint.safetensors").weights.values())
        ended, Noted.spoilt = (status == 2 and kept == Noted.spoilt and finite), None
        status = os.waitstatus_to_exitcode(os.waitpid(fork("fit", "--resume", "--out", run), 0)[1])
        good += ended and status == 0 and step_of(run)[0] == iterations
    return good


def run_all() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("--kills", 100), ("--nans", 20), ("--iterations", 400)):
        parser.add_argument(name, type=int, default=default)
    options = parser.parse_args()
    random.seed(0)
    fit_command.Fit = Noted
    with tempfile.TemporaryDirectory() as name:
        folder, scene = Path(name), Path(name) / "ball.toml"
        Noted.note = folder / "note.txt"
        scene.write_text(short_fit(options.iterations))
        sys.stdout, shown = Path(os.devnull).open("w"), sys.stdout
        assert main(["fit", str(scene), "--out", str(folder / "straight")]) == 0
        kills, lost, runs = kill_and_resume(folder, scene, options.kills)
        equal = sum(same(folder / "straight", run) for run in runs)
        good = spoil_and_resume(folder, scene, options.iterations, options.nans)
        sys.stdout = shown
    print("# Runs that are killed\n")
    print(
        f"`python benchmarks/survival.py --kills {options.kills} --nans {options.nans}`: fits of "
        f"{options.iterations} steps, `--save-every {EVERY}`.\n"
    )
    print("| what | result |\n|---|---|")
    print(f"| kill -9 at random moments | {kills}, each left a checkpoint that could be loaded |")
    print(f"| training time lost by a kill | mean {sum(lost) / len(lost):.2f} s, at most {max(lost):.2f} s |")
    print(f"| runs that were killed and resumed until they were done | {len(runs)} |")
    print(f"| of these equal to a run that was never killed, bit for bit | {equal} |")
    print(f"| NaN at a random step: state before it kept, exit 2, `--resume` goes on | {good} of {options.nans} |")


if __name__ == "__main__":
    run_all()
