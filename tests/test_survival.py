"""Runs survive: a kill at any moment, signals, numbers that are none, a second process, a full disk, closed pipes."""

import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from short_fit import short_fit

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.cli import fit as fit_command
from warpdvr.cli.failures import sentence
from warpdvr.cli.main import main
from warpdvr.datasets.views import Views
from warpdvr.fields.analytic import Sphere
from warpdvr.fields.deepsdf import DeepSDF
from warpdvr.fields.registry import make, portable
from warpdvr.fitting.checkpoint import Checkpoint, load
from warpdvr.fitting.fit import Fit
from warpdvr.fitting.recipe import Recipe
from warpdvr.rendering.render import render
from warpdvr.runs import run
from warpdvr.runs.run import Run
from warpdvr.runs.scene import Scene
from warpdvr.runtime.files import replacing, sweep
from warpdvr.runtime.signals import Interrupted, interruptible, shielded

ITERATIONS = 240
SCENE = short_fit(ITERATIONS)

DEAD = 2**22 + 1
"""A number that no process has: the largest that Linux allows is 2^22."""

UP = (0.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def scene_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "ball.toml"
    path.write_text(SCENE)
    return path


@pytest.fixture(scope="module")
def straight(scene_file, tmp_path_factory) -> Path:
    """A run that was never interrupted; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "straight"
    assert main(["fit", str(scene_file), "--out", str(out)]) == 0
    return out


def ball() -> Views:
    """Two grey pictures of a ball."""
    cameras = tuple(Camera.look_at(eye, up=UP, width=24, height=24) for eye in ((3.0, 0.0, 0.5), (0.0, 3.0, 0.5)))
    with torch.no_grad():
        images = [render(Sphere(0.6), camera) for camera in cameras]
    colours = tuple((255 * image.rgb).round().to(torch.uint8) for image in images)
    return Views(
        colours, tuple(i.mask for i in images), cameras, ("a", "b"), (0, 1), (), SceneTransform.identity(), "a ball"
    )


@pytest.fixture(scope="module")
def views() -> Views:
    return ball()


@pytest.fixture
def held(tmp_path) -> Run:
    return Run.create(tmp_path / "run", Scene(field={"kind": "sphere"}))


def follow(held: Run, views: Views, field: Sphere, job: Fit, *, save_every: float = 1e-9) -> int:
    """Run a fit, saved after each step; return the number of steps."""
    return sum(1 for _ in run.fit(held, held.scene(), views, field, job, save_every=save_every))


def step_of(path: Path) -> int:
    return int(load(path).fit["counts"][0])


class Breaks(Sphere):
    """A ball that is NaN, or nowhere, from a step on."""

    at, how, done = 10**9, "nan", 0

    def anneal(self, progress):  # called once in a step
        self.done += 1
        if self.done > self.at and self.how == "nowhere":
            self.radius.data.fill_(-0.5)

    def color(self, x, normal, direction, feature):
        wrong = self.done > self.at and self.how == "nan"
        return super().color(x, normal, direction, feature) * (math.nan if wrong else 1.0)


def program(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "warpdvr.cli.main", *map(str, arguments)]


def fork(said: Path, *arguments: object) -> int:
    """Run a command in a copy of this process, which has imported everything; return its number."""
    child = os.fork()
    if child:
        return child
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in what a shell runs in the background
    with said.open("w") as sys.stderr, Path(os.devnull).open("w") as sys.stdout:
        status = main([str(a) for a in arguments])
    os._exit(status)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.is_file() and time.monotonic() < deadline:
        time.sleep(0.005)


def test_killed_at_random_moments_it_goes_on_as_if_it_never_was(scene_file, straight, tmp_path):
    out = tmp_path / "run"
    generator = torch.Generator().manual_seed(0)
    arguments: list[object] = ["fit", scene_file, "--out", out, "--save-every", "0.3"]
    kills = 0
    for _ in range(5):
        child = fork(tmp_path / "said.txt", *arguments)
        wait_for(out / "checkpoint.safetensors")
        time.sleep(0.8 * float(torch.rand(1, generator=generator)))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += os.WIFSIGNALED(status)
        step_of(out / "checkpoint.safetensors")
        arguments = ["fit", "--resume", "--out", out, "--save-every", "0.3"]
    assert kills >= 2
    assert main([str(a) for a in arguments]) == 0
    a, b = (load(folder / "checkpoint.safetensors") for folder in (straight, out))
    assert all(torch.equal(a.weights[k], b.weights[k]) for k in a.weights)
    assert all(torch.equal(a.fit[k], b.fit[k]) for k in a.fit if k != "counts")
    assert torch.equal(a.fit["counts"][:2], b.fit["counts"][:2])  # the third is a time
    assert {f.name for f in out.iterdir()} == {f.name for f in straight.iterdir()}
    rows = [
        [json.loads(row)["iteration"] for row in (f / "log.jsonl").read_text().splitlines()] for f in (straight, out)
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_signals_save_what_is_done(scene_file, straight, tmp_path, number, status):
    out = tmp_path / "run"
    words = "fit", scene_file, "--out", out, "--iterations", "100000", "--save-every", "1000"
    child = fork(tmp_path / "said.txt", *words)
    wait_for(out / "checkpoint.safetensors")
    assert step_of(out / "checkpoint.safetensors") == 0  # written at once
    time.sleep(0.5)
    for _ in range(2):
        os.kill(child, number)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == status
    assert (tmp_path / "said.txt").read_text().rstrip().endswith(f"go on with: warpdvr fit --out {out} --resume")
    assert step_of(out / "checkpoint.safetensors") > 0 and not (out / ".lock").exists()


def test_a_second_interruption_does_not_break_off_a_save():
    done: list[int] = []
    with pytest.raises(Interrupted) as caught, interruptible():
        with shielded():
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                done.append(len(done))
        done.append(-1)
    assert done == [0, 1] and caught.value.status == 130
    with pytest.raises(Interrupted), interruptible():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGINT)  # within PATIENCE: what saves is not broken off
            done.append(2)
    assert done == [0, 1, 2]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("at", [1, 7, 30])
def test_a_number_that_is_none_keeps_the_last_good_state(held, views, at):
    field = Breaks(0.5)
    field.at = at
    with pytest.raises(RuntimeError, match=f"the loss color is nan at step {at + 1}"):
        follow(held, views, field, Fit(field, views, iterations=60, recipe=Recipe(rays=32)))
    assert step_of(held.checkpoint) == at and step_of(held.previous) == at - 1
    whole, again = Sphere(0.5), Sphere(0.5)
    follow(held2 := Run.create(held.folder.with_name("whole"), held.scene()), views, whole, fit_of(whole, views))
    last = held.load()
    last.field(again)
    job = fit_of(again, views)
    job.resume(last.fit)
    assert follow(held, views, again, job) == 60 - at
    assert (
        abs(again.radius.item() - whole.radius.item()) < 0.02
        and not held.previous.exists()
        and step_of(held2.checkpoint) == 60
    )


def fit_of(field: Sphere, views: Views) -> Fit:
    return Fit(field, views, iterations=60, recipe=Recipe(rays=32))


def test_weights_that_become_infinite_in_a_step_are_not_saved(held, views):
    field = Sphere(0.5)
    steps = run.fit(held, held.scene(), views, field, fit_of(field, views), save_every=1e-9)
    list(islice(steps, 5))
    field.radius.data.fill_(math.inf)
    with pytest.raises(RuntimeError, match="weights are no longer finite after step 5; step 4 is the last one"):
        next(steps)
    assert step_of(held.checkpoint) == 4 and float(held.load().weights["radius"]) < 1


def test_a_surface_that_vanishes_keeps_the_last_good_state(held, views):
    field = Breaks(0.5)
    field.at, field.how = 5, "nowhere"
    with pytest.raises(RuntimeError, match=r"no ray has hit it for 50 steps .*; step 5 is the last one that was"):
        follow(held, views, field, Fit(field, views, iterations=400, recipe=Recipe(rays=32)))
    last = held.load()
    assert int(last.fit["counts"][0]) == 5 and float(last.weights["radius"]) > 0.3
    assert last.fit["without_hit"].tolist() == [0, 1]


def test_a_surface_that_has_vanished_at_the_end_is_no_success(held, views):
    field = Breaks(0.5)
    field.at, field.how = 50, "nowhere"
    with pytest.raises(RuntimeError, match="at the end no ray hits the level set any more; step 50 is the last one"):
        follow(held, views, field, fit_of(field, views))
    assert step_of(held.checkpoint) == 50


def test_steps_without_a_hit_are_counted_across_sessions(views):
    field = Breaks(0.5)
    field.at, field.how = 2, "nowhere"
    job = fit_of(field, views)
    list(islice(job, 12))
    again = fit_of(Sphere(0.5), views)
    again.resume(job.state())
    assert again.without_hit == job.without_hit == 10


def test_nan_in_the_command_ends_with_2_and_resume_goes_on(scene_file, tmp_path, monkeypatch, capsys):
    class Spoilt(Fit):
        def losses(self, progress):
            terms, weights = super().losses(progress)
            wrong = math.nan if self.iteration == 23 else 1.0
            return {name: term * wrong for name, term in terms.items()}, weights

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(fit_command, "Fit", Spoilt)
        assert main(["fit", str(scene_file), "--out", str(out)]) == 2
    assert "is nan at step 24" in capsys.readouterr().err.splitlines()[-1]
    assert step_of(out / "checkpoint.safetensors") == 23
    assert main(["fit", "--resume", "--out", str(out)]) == 0
    assert step_of(out / "checkpoint.safetensors") == ITERATIONS


def save(held: Run, radius: float, step: int = 3, path: Path | None = None) -> None:
    counts = {"counts": torch.tensor([step, 10.0, 1.0], dtype=torch.float64)}
    weights = Sphere().state_dict() | {"radius": torch.tensor(radius)}
    camera = (Camera.look_at((3.0, 0.0, 0.5), up=UP, width=24, height=24),)
    Checkpoint("sphere", {}, weights, SceneTransform.identity(), UP, camera, counts).save(path or held.checkpoint)


@pytest.mark.parametrize("command", ["render", "mesh", "usd", "view"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_are_none_are_not_exported(held, capsys, command, number):
    save(held, number)
    more = ["--screenshot", str(held.folder / "a.png")] if command == "view" else []
    assert main([command, str(held.folder), *more]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "the weights radius are not finite, so nothing can be made of them" in said[0]


@pytest.mark.parametrize("damage", ["cut", "nan", "gone"])
def test_the_checkpoint_before_is_used_where_the_last_is_damaged(held, damage):
    save(held, 0.25, step=1, path=held.previous)
    save(held, math.nan if damage == "nan" else 0.5)
    if damage == "cut":
        held.checkpoint.write_bytes(held.checkpoint.read_bytes()[:-2])
    if damage == "gone":
        held.checkpoint.unlink()
    held.check_resumable()
    with pytest.warns(UserWarning, match=r"the checkpoint before it is used: .*checkpoint\.previous\.safetensors"):
        assert float(held.load().weights["radius"]) == 0.25
    held.previous.write_bytes(b"")
    with pytest.raises(ValueError, match="^" + str(held.checkpoint)):
        held.load()


def test_a_damaged_checkpoint_does_not_take_the_place_of_a_good_one(held, views):
    save(held, 0.25, path=held.previous)
    held.checkpoint.write_bytes(b"damaged")
    field = Sphere(0.5)
    steps = run.fit(held, held.scene(), views, field, fit_of(field, views))
    next(iter(steps))
    assert float(load(held.previous).weights["radius"]) == 0.25 and step_of(held.checkpoint) >= 0


@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
def test_a_run_that_is_being_written_is_refused(straight, scene_file, capsys, option):
    before = {f.name: f.read_bytes() for f in straight.iterdir() if f.is_file()}
    code = (
        "import sys, pathlib; from warpdvr.runs.run import Run\n"
        f"with Run(pathlib.Path({str(straight)!r})).locked(): print(flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdin is not None and other.stdout is not None
    other.stdout.readline()
    words = ["fit", *([] if option == "--resume" else [str(scene_file)]), "--out", str(straight), option]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert f"the run is being written by process {other.pid} on {platform.node()}, since 20" in said
    other.kill()
    other.wait()
    other.stdin.close()
    other.stdout.close()
    assert (straight / ".lock").exists()
    with Run(straight).locked():  # that of a dead process is taken over
        assert json.loads((straight / ".lock").read_text())["pid"] == os.getpid()
    assert {f.name: f.read_bytes() for f in straight.iterdir() if f.is_file()} == before


def test_without_locks_of_the_system_the_named_process_decides(held, monkeypatch):
    monkeypatch.setattr("warpdvr.fitting.run_lock.fcntl", None)
    with held.locked():
        with pytest.raises(ValueError, match=f"process {os.getpid()} on"), held.locked():
            pass
        lock = json.loads((held.folder / ".lock").read_text())
    for change in ({"pid": DEAD}, {"start": 1}):  # gone, or another process that got its number
        (held.folder / ".lock").write_text(json.dumps(lock | change))
        with held.locked():
            pass
    (held.folder / ".lock").write_text(json.dumps(lock | {"host": "elsewhere"}))
    with pytest.raises(ValueError, match="on elsewhere"), held.locked():
        pass


def test_temporary_files_of_dead_processes_are_swept(held, views):
    dead = held.folder / f".checkpoint.{DEAD}@{platform.node()}.safetensors"
    others = [f".checkpoint.{os.getppid()}@{platform.node()}.safetensors", f".a.{DEAD}@elsewhere.ply", ".b.7.ply"]
    for path in (dead, *(held.folder / name for name in others)):
        path.touch()
    field = Sphere(0.5)
    next(iter(run.fit(held, held.scene(), views, field, fit_of(field, views))))
    assert not dead.exists() and all((held.folder / name).exists() for name in others)
    alone = held.folder.with_name("alone")
    alone.mkdir()
    (alone / dead.name).touch()
    Run.create(alone, held.scene())  # is as good as empty
    assert not (alone / dead.name).exists()
    with replacing(alone / "a.ply") as unfinished:
        sweep(alone)
        assert unfinished.exists()


def test_a_file_is_on_the_disk_before_it_replaces_another(tmp_path, monkeypatch):
    calls: list[str] = []

    def noted(name):
        real = getattr(os, name)

        def call(*arguments):
            calls.append(name)
            return real(*arguments)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noted(name))
    with replacing(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("a")
    assert calls == ["fsync", "replace", "fsync"]  # the file, then its name in the folder


def test_the_last_two_are_kept(held, views):
    field = Sphere(0.5)
    steps = run.fit(held, held.scene(), views, field, fit_of(field, views), save_every=1e-9)
    list(islice(steps, 9))
    assert (step_of(held.previous), step_of(held.checkpoint)) == (7, 8)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_save_every_must_make_sense(scene_file, tmp_path, capsys, seconds):
    assert main(["fit", str(scene_file), "--out", str(tmp_path / "run"), f"--save-every={seconds}"]) == 2
    assert "--save-every must be positive" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_folder_that_was_removed_is_made_again(straight, capsys):
    for file in (straight / "images").iterdir():
        file.unlink()
    (straight / "images").rmdir()
    assert main(["fit", "--resume", "--out", str(straight)]) == 0
    assert (straight / "images" / "view_rgb.png").is_file()


def test_fewer_steps_than_are_done_are_refused(straight, capsys):
    before = (straight / "config.toml").read_text()
    assert main(["fit", "--resume", "--out", str(straight), "--iterations", "30"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("warpdvr: --iterations 30: the run in") and f"has done {ITERATIONS} steps already" in said
    assert (straight / "config.toml").read_text() == before


def test_a_full_disk_names_the_file_and_what_to_do(straight, scene_file, tmp_path):
    out = tmp_path / "run"
    limited = ["bash", "-c", 'ulimit -f 1; exec "$@"', "bash", *program("fit", scene_file, "--out", out)]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)  # no file above 1 KiB
    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"warpdvr: {out / 'checkpoint.safetensors'}: the file could not be written: File too large;")
    assert "free some space" in said and not list(out.glob(".*"))


def test_kernels_that_cannot_be_kept_say_what_to_set(straight, tmp_path):
    (tmp_path / "file").touch()
    environment = {**os.environ, "WARP_CACHE_PATH": str(tmp_path / "file")}
    done = subprocess.run(program("mesh", straight), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert str(tmp_path / "file") in done.stderr and "set WARP_CACHE_PATH to a folder" in done.stderr


def test_a_closed_pipe_does_not_end_a_command(straight, tmp_path):
    out, err = os.pipe(), os.pipe()
    for end in (out[0], err[0]):
        os.close(end)
    done = subprocess.run(program("fit", "--resume", "--out", straight), stdout=out[1], stderr=err[1], check=False)
    os.close(out[1])
    os.close(err[1])
    assert done.returncode == 0 and (straight / "eval.json").is_file()


@pytest.mark.parametrize(
    ("error", "size"),
    [
        (MemoryError(), ""),
        (MemoryError("Unable to allocate 4.00 GiB for an array"), " (4.00 GiB more were asked for)"),
        (RuntimeError("can't allocate memory: you tried to allocate 64 bytes."), " (64 bytes more were asked for)"),
    ],
)
def test_a_lack_of_memory_is_one_sentence(error, size, monkeypatch, capsys, held):
    assert sentence(error).startswith(f"out of memory{size}: give the program more")

    def fail(_: Run) -> None:
        raise error

    monkeypatch.setattr(Run, "load", fail)
    assert main(["mesh", str(held.folder)]) == 2
    assert capsys.readouterr().err.startswith("warpdvr: out of memory") and sentence(ValueError("a\nb")) == "a b"


def test_a_checkpoint_names_no_other_file(tmp_path):
    import numpy as np

    torch.manual_seed(0)
    sizes = [(4, 5), (1, 4)]
    arrays: dict[str, Any] = {
        f"w{i}": np.random.default_rng(i).normal(size=s).astype("f4") for i, s in enumerate(sizes)
    }
    arrays |= {f"b{i}": np.zeros(s[0], "f4") for i, s in enumerate(sizes)}
    np.savez(tmp_path / "decoder.npz", **arrays)
    file = {"kind": "deepsdf", "decoder": str(tmp_path / "decoder.npz")}
    for kind, options in (
        ("deepsdf", {"decoder": file["decoder"]}),
        ("translate", {"part": file, "offset": [0.1, 0.0, 0.0]}),
        ("union", {"parts": [{"kind": "sphere"}, file]}),
        ("repaint", {"shape": {"kind": "translate", "part": file, "offset": [0.1, 0.0, 0.0]}, "levels": 2}),
    ):
        field, identity = make(kind, **options), SceneTransform.identity()
        rest: tuple[Any, ...] = field.state_dict(), identity, UP, (), {}
        Checkpoint(kind, options, *rest).save(tmp_path / "a.safetensors")
        with pytest.raises(ValueError, match=r"decoder\.npz: a checkpoint names this file of a decoder, .* not read"):
            load(tmp_path / "a.safetensors").field()
        Checkpoint(kind, portable(field, options), *rest).save(tmp_path / "a.safetensors")
        x = torch.rand(9, 3)
        assert torch.equal(load(tmp_path / "a.safetensors").field().value(x), field.value(x))
    assert isinstance(make("deepsdf", decoder=file["decoder"]), DeepSDF)  # a scene file may name it still
