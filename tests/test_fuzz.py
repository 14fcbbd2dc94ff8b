"""Every parser on damaged files: read, or refused in one sentence that names a file; benchmarks/fuzz.md has more.

WARPDVR_FUZZ_SECONDS sets how long all of it takes, 15 by default.
"""

import os
import time
from pathlib import Path

import fuzz
import pytest
from PIL import Image

SECONDS = float(os.environ.get("WARPDVR_FUZZ_SECONDS", "15"))


@pytest.mark.parametrize("parser", fuzz.PARSERS, ids=lambda parser: parser.name)
def test_damaged_files_are_read_or_refused_in_a_sentence(parser, tmp_path):
    Image.init()  # Pillow opens its decoders when it first needs them
    folder = tmp_path / "input"
    sound = list(fuzz.cases(parser, folder, 0, 0))
    assert sound == [] and fuzz.judge(parser, folder) == ("read", "")
    faults, counts, end = [], {"read": 0, "refused": 0}, time.monotonic() + SECONDS / len(fuzz.PARSERS)
    for i, what in fuzz.cases(parser, folder, 0, 10**9):
        with fuzz.limits():
            kind, message = fuzz.judge(parser, folder)
        if kind == "fault":
            faults.append((i, what, message))
        else:
            counts[kind] += 1
        if time.monotonic() > end:
            break
    assert faults == []
    assert counts["refused"] > 0


def broken(error):
    def read(folder):
        raise error(folder)

    return fuzz.Parser("broken", lambda folder: (folder / "a.bin").write_bytes(b"abc"), read)


@pytest.mark.parametrize(
    "error",
    [
        lambda folder: KeyError("a"),
        lambda folder: MemoryError(),
        lambda folder: ValueError("it is bad"),
        lambda folder: ValueError(f"{folder}: two\nlines"),
        lambda folder: ValueError(f"{folder}: it asks for more memory than there is"),
        lambda folder: UnicodeDecodeError("utf-8", b"", 0, 1, str(folder)),
    ],
)
def test_what_is_no_sentence_is_a_fault(error, tmp_path):
    parser = broken(error)
    assert list(fuzz.cases(parser, tmp_path / "x", 0, 0)) == []
    assert fuzz.judge(parser, tmp_path / "x")[0] == "fault"
    assert fuzz.judge(broken(lambda folder: OSError(f"{folder}/a.bin: gone")), tmp_path / "x")[0] == "refused"


def test_a_file_outside_and_a_program_are_faults(tmp_path):
    (tmp_path / "secret").write_text("x")
    parser = fuzz.Parser("curious", lambda folder: None, lambda folder: (folder / "../secret").read_text())
    assert list(fuzz.cases(parser, tmp_path / "x", 0, 0)) == []
    assert fuzz.judge(parser, tmp_path / "x") == ("fault", f"opened {Path(tmp_path / 'secret').resolve()}")
    runner = fuzz.Parser("runner", lambda folder: None, lambda folder: os.system("true"))
    assert fuzz.judge(runner, tmp_path / "x")[0] == "fault"
    assert fuzz.judge(broken(lambda folder: ValueError(f"{folder}: no")), tmp_path / "x")[0] == "refused"


def test_inputs_are_spoilt_and_repaired(tmp_path):
    parser = next(p for p in fuzz.PARSERS if p.name == "idr")
    folder = tmp_path / "x"
    list(fuzz.cases(parser, folder, 0, 0))

    def content():
        files = [f for f in sorted(folder.rglob("*")) if not f.is_dir()]
        return [(f.name, f.is_file() and not f.is_symlink() and f.read_bytes()) for f in files]

    sound, spoilt = content(), 0
    for i, _ in fuzz.cases(parser, folder, 0, 60):
        spoilt += content() != sound
        assert i < 60
    assert content() == sound and spoilt > 50
