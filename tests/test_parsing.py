"""The boundary of parsers: one sentence for every failure, and nothing opened that is not a regular file."""

import os
import struct
import zlib
from pathlib import Path

import pytest

from warpdvr.runtime.parsing import check_regular, parsing, read_bytes, read_json, read_text

ERRORS = [
    MemoryError(),
    RecursionError("maximum recursion depth exceeded"),
    OverflowError("int too large to convert to float"),
    struct.error("unpack requires a buffer of 4 bytes"),
    zlib.error("Error -3 while decompressing data"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    KeyError("world_mat_0"),
    AttributeError("no such thing"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ValueError("a\nnumber"),
    OSError(5, "Input/output error"),
    AssertionError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_failure_is_one_sentence_that_names_the_file(error):
    with pytest.raises(ValueError) as found, parsing(Path("a/cameras.npz"), "an npz file"):
        raise error
    message = str(found.value)
    assert message.startswith("a/cameras.npz: expected an npz file, found a file that cannot be read (")
    assert message.endswith(")") and "()" not in message and "\n" not in message
    assert found.value.__cause__ is error


def test_a_sentence_that_already_names_a_file_passes_as_it_is():
    for name in ("a/x.json", "a/y.png"):
        with pytest.raises(ValueError, match=f"^{name}: not good$"), parsing(Path("a/x.json"), "JSON"):
            raise ValueError(f"{name}: not good")


def test_an_interrupt_and_a_warning_pass():
    for error in (KeyboardInterrupt(), SystemExit(3), UserWarning("look")):
        with pytest.raises(type(error)), parsing(Path("x"), "a file"):
            raise error


def test_long_reasons_are_cut():
    with pytest.raises(ValueError) as found, parsing(Path("x"), "a file"):
        raise ValueError("9" * 10000)
    assert len(str(found.value)) < 300


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    for name, said in (
        ("pipe", "a pipe or a device, not a file"),
        ("device", "a pipe or a device, not a file"),
        ("loop", "a link that leads in a circle"),
        ("folder", "a folder"),
        ("none", "nothing"),
        ("file/below", "nothing"),
        ("n" * 300, "File name too long"),
        ("zero\0", "embedded null byte"),
    ):
        with pytest.raises(ValueError) as found:
            read_bytes(tmp_path / name, "a picture")
        assert str(found.value).startswith(f"{tmp_path / name}: expected a picture, found {said}")
    assert check_regular(tmp_path / "link", "a picture") == 3
    assert read_bytes(tmp_path / "link", "a picture", 3) == b"abc"
    with pytest.raises(ValueError, match="file: expected a picture, found a file of 3 bytes, more than the 2 that are"):
        read_bytes(tmp_path / "file", "a picture", 2)


def test_text_and_json_take_a_byte_order_mark_and_any_line_ends(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"\xef\xbb\xbf[1,\r\n2,\r3]")
    assert read_text(path, "text") == "[1,\n2,\n3]"
    assert read_json(path, "JSON") == [1, 2, 3]
    for content, said in ((b"\xff", "it is not text in UTF-8"), (b"[" * 100000, "it is nested too deeply"), (b"{", "")):
        path.write_bytes(content)
        with pytest.raises(ValueError) as found:
            read_json(path, "JSON")
        assert str(found.value).startswith(f"{path}: expected JSON, found a file that cannot be read ({said}")
