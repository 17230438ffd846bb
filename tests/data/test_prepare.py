"""Writing a prepared copy: nothing half-written, nothing of anybody else's touched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.cli import main
from edgekd.data.prepare import default_folder, prepare_images
from edgekd.data.prepared import PIXELS, RECORD, open_prepared
from edgekd.data.read import open_source
from edgekd.errors import DataError, MissingOnHost
from edgekd.recipe_data import DataSpec, InputSpec
from tests.data.copies import listing, prepared, recipe_of, spec_of
from tests.data.plain import Plain


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError(28, "No space left")])
def test_nothing_is_left_of_an_interrupted_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: BaseException
) -> None:
    copy, source, spec = prepared(tmp_path)
    before = (copy.path / RECORD).read_bytes()
    original, calls = type(source).__getitem__, []

    def fails_late(self: Any, index: int) -> Any:
        calls.append(index)
        if len(calls) > 9:
            assert list(tmp_path.glob(".*.tmp/pixels.bin"))
            raise interruption
        return original(self, index)

    monkeypatch.setattr(type(source), "__getitem__", fails_late)
    for place, wanted in ((copy.path, InputSpec(size=20)), (tmp_path / "new", spec.input)):
        calls.clear()
        other = spec.model_copy(update={"input": wanted})
        with pytest.raises((KeyboardInterrupt, OSError)):
            prepare_images(place, source, np.arange(16), other)
    assert listing(tmp_path) == ["copy", "images"]
    assert (copy.path / RECORD).read_bytes() == before


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(
    tmp_path: Path,
) -> None:
    from edgekd.data.prepare import OWNED

    for name in (".copy.dead.tmp", ".copy.busy.tmp", ".other.dead.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / OWNED).touch()
    code = ("import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); "
            "print('held', flush=True); sys.stdin.read()")  # fmt: skip
    busy = str(tmp_path / ".copy.busy.tmp" / OWNED)
    with subprocess.Popen([sys.executable, "-c", code, busy], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as other:  # fmt: skip
        assert other.stdout is not None
        other.stdout.readline()
        prepared(tmp_path)
        other.communicate()
    assert listing(tmp_path) == [".copy.busy.tmp", ".other.dead.tmp", "copy", "images"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    spec = spec_of("folder", tmp_path)
    source = open_source(spec)
    (tmp_path / "file").write_text("mine")
    for place, match in (("images", "not a prepared copy: it holds 'benign'"), ("file", "a file")):
        with pytest.raises(DataError, match=match) as caught:
            prepare_images(tmp_path / place, source, np.arange(16), spec)
        assert "--out FOLDER" in (caught.value.hint or "")
    copy, *_ = prepare_images(tmp_path / "copy", source, np.arange(16), spec)
    (copy.path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"it holds 'notes\.txt'"):
        prepare_images(copy.path, source, np.arange(16), spec)
    (copy.path / "notes.txt").unlink()
    chance = tmp_path / "chance"
    chance.mkdir()
    (chance / PIXELS).write_text("mine")
    with pytest.raises(DataError, match=r"it holds 'pixels\.bin'"):
        prepare_images(chance, source, np.arange(16), spec)
    with pytest.raises(DataError, match=r"not a prepared copy: no prepared\.json"):
        open_prepared(chance, source, spec)
    moved = spec.model_copy(update={"root": str(shutil.copytree(tmp_path / "images",
                                                                tmp_path / "others"))})  # fmt: skip
    with pytest.raises(DataError, match=r"the copy of other data: 'folder' in .*/images"):
        prepare_images(copy.path, open_source(moved), np.arange(16), moved)
    assert len(open_prepared(copy.path, open_source(moved), moved)) == 16  # a true copy to read


def test_a_link_to_another_disk_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "copy").symlink_to(tmp_path / "disk" / "copy")
    prepared(tmp_path)
    assert (tmp_path / "copy").is_symlink()
    assert (tmp_path / "disk" / "copy" / PIXELS).is_file()


def test_a_full_disk_is_noticed_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 10**4, 10**4))
    with pytest.raises(MissingOnHost, match=r"needs 0\.0\d* MB, 0\.0 MB are free"):
        prepared(tmp_path)
    assert listing(tmp_path) == ["images"]


def test_an_unreadable_image_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    for workers in (0, 2):
        spec = spec_of("folder", tmp_path / str(workers), workers=workers)
        source = open_source(spec)
        (tmp_path / str(workers) / "images" / "benign" / "5.png").write_bytes(b"nothing")
        with pytest.raises(DataError, match=r"5\.png: cannot be read as an image"):
            prepare_images(tmp_path / "copy", source, np.arange(16), spec)
    assert listing(tmp_path) == ["0", "2"]


def test_an_image_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    source = Plain([0, 1], images=[np.zeros((16, 16, 3), dtype=np.float32)] * 2)  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"'i0' is float32 \(16, 16, 3\), expected uint8"):
        prepare_images(tmp_path / "x", source, np.arange(2), spec_of("synthetic", tmp_path))


def test_the_default_folder_says_data_and_size(tmp_path: Path) -> None:
    spec = spec_of("synthetic", tmp_path, input={"size": 16, "resize": 20})
    assert default_folder(spec) == Path("prepared/synthetic-20")
    own = DataSpec(name="mine.data:Source", input={"size": 16})  # type: ignore[arg-type]
    assert default_folder(own) == Path("prepared/mine.data-Source-16")


def test_the_command_says_where_and_how(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(recipe_of(tmp_path))
    assert main(["data", "prepare", path]) == 0
    out, err = capsys.readouterr()
    assert out == "prepared/synthetic-16\n"
    assert "written, 60 images" in err
    assert "to use it: data.prepared=prepared/synthetic-16" in err
    assert main(["data", "prepare", path, "data.prepared=prepared/synthetic-16", "--json"]) == 0
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert (answer["folder"], answer["written"], answer["images"]) == (
        "prepared/synthetic-16", False, 60
    )  # fmt: skip
    assert "up to date" in err
    assert "to use it" not in err
    assert main(["data", "prepare", path, "data.prepared=there"]) == 0  # not there yet
    assert main(["data", "prepare", path, "data.prepared=there", "--out", "with space"]) == 0
    out, err = capsys.readouterr()
    assert "to use it: 'data.prepared=with space'" in err
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == [
        "prepared", "there", "with space"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["data.rot=x"], 2, "unknown key"),
        (["--ou", "x"], 2, "No such option"),
        (["--variant", "none"], 2, "there is no variant 'none'"),
        (["data.name=folder", "data.params={}", "data.root=nowhere"], 2, "no such file or folder"),
        (["--out", "tiny.yaml"], 2, "is a file"),
        (["--out", "."], 2, "not a prepared copy"),
    ],
)
def test_a_wrong_word_is_one_clear_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "prepare", str(recipe_of(tmp_path)), *arguments]) == code
    assert message in capsys.readouterr().err
    assert listing(tmp_path) == ["nets.py", "tiny.yaml"]


def test_ctrl_c_says_that_nothing_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgekd.data.prepare._write", interrupt)
    out = tmp_path / "copy"
    assert main(["data", "prepare", str(recipe_of(tmp_path)), "--out", str(out)]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert listing(tmp_path) == ["nets.py", "tiny.yaml"]


def test_sigterm_leaves_nothing_either(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(folder: Path, *_: object) -> None:
        (folder / PIXELS).write_bytes(b"pixels")
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("edgekd.data.prepare._write", end)
    out = tmp_path / "copy"
    assert main(["data", "prepare", str(recipe_of(tmp_path)), "--out", str(out)]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert listing(tmp_path) == ["nets.py", "tiny.yaml"]
    assert signal.getsignal(signal.SIGTERM) == before
