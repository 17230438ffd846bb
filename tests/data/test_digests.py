"""A data set is known by its bytes, and its files are read once."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from edgekd.data import _digests
from edgekd.data._digests import digests_of
from edgekd.data.folder import Folder
from edgekd.errors import DataError
from tests.data.copies import draw_folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """The files that were really read, with a memory that is empty at first."""
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    seen: list[Path] = []
    original = _digests._digest

    def digest(path: Path) -> bytes:
        seen.append(path)
        return original(path)

    monkeypatch.setattr(_digests, "_digest", digest)
    return seen


def files(folder: Path, count: int = 3) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{index}.bin" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(index.to_bytes(2, "big") * 2500)
    return paths


def test_it_is_the_sha256_of_the_bytes(tmp_path: Path, read: list[Path]) -> None:
    paths = files(tmp_path / "a")
    assert digests_of(paths) == [hashlib.sha256(path.read_bytes()).digest() for path in paths]


def test_a_file_is_read_once(tmp_path: Path, read: list[Path]) -> None:
    paths = files(tmp_path / "a", count=1200)
    first = digests_of(paths)
    assert len(read) == 1200
    assert digests_of(paths) == first
    assert len(read) == 1200


def test_a_changed_file_is_read_again(tmp_path: Path, read: list[Path]) -> None:
    paths = files(tmp_path / "a")
    before = digests_of(paths)
    paths[1].write_bytes(b"x" * 5000)
    os.utime(paths[1], ns=(1, 1))
    after = digests_of(paths)
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]
    assert read[3:] == [paths[1]]


def test_no_path_stands_in_the_memory(tmp_path: Path, read: list[Path]) -> None:
    digests_of(files(tmp_path / "mrs-smith"))
    assert b"smith" not in (tmp_path / "cache" / "digests.sqlite").read_bytes()


@pytest.mark.parametrize("damage", ["no folder", "no database"])
def test_a_memory_that_cannot_be_used_is_done_without(
    tmp_path: Path, read: list[Path], damage: str
) -> None:
    cache = tmp_path / "cache"
    if damage == "no folder":
        cache.write_bytes(b"a file")
    else:
        cache.mkdir()
        (cache / "digests.sqlite").write_bytes(b"not a database" * 100)
    paths = files(tmp_path / "a")
    assert digests_of(paths) == digests_of(paths)
    assert len(read) == 6


def test_a_memory_that_is_damaged_later_is_done_without(tmp_path: Path, read: list[Path]) -> None:
    paths = files(tmp_path / "a", count=600)
    before = digests_of(paths)
    path = tmp_path / "cache" / "digests.sqlite"
    path.write_bytes(path.read_bytes()[:4096] + b"\x7f" * (path.stat().st_size - 4096))
    assert digests_of(paths) == before


def test_a_change_that_hides_its_time_is_seen(tmp_path: Path, read: list[Path]) -> None:
    (path,) = files(tmp_path / "a", count=1)
    before, facts = digests_of([path]), path.stat()
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert digests_of([path]) != before


def test_a_missing_file_is_named(tmp_path: Path, read: list[Path]) -> None:
    with pytest.raises(DataError, match=r"gone\.png: No such file"):
        digests_of([tmp_path / "gone.png"])


def test_a_copy_of_a_data_set_is_the_same_data_set(tmp_path: Path, read: list[Path]) -> None:
    root = draw_folder(tmp_path / "images")
    copy = Path(shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copy))
    assert Folder(root=root).fingerprint() == Folder(root=copy).fingerprint()
    picture = next(iter(Folder(root=copy).files() or []))
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert Folder(root=root).fingerprint() != Folder(root=copy).fingerprint()
