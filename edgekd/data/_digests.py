"""Hashes of image files, remembered: a data set is read once, not by every command.

What is remembered goes by a file's path, size and time of change; the hash itself is of its bytes
alone, so a copy of a data set is the same data set.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgekd.errors import DataError

BLOCK = 1 << 20
THREADS = 8  # hashing and reading release the interpreter
TABLE = "CREATE TABLE IF NOT EXISTS files (key BLOB PRIMARY KEY, digest BLOB) WITHOUT ROWID"
PLACE = "EDGEKD_CACHE"  # an environment variable: the folder to remember them in
AT_ONCE = 500  # SQLite takes so many parameters everywhere


def digests_of(paths: Sequence[Path]) -> list[bytes]:
    """The sha256 of every file's bytes. Raises DataError for one that cannot be read."""
    folders: dict[Path, str] = {}  # each is resolved once
    keys = [_key(path, folders) for path in paths]
    known: dict[bytes, bytes] = {}
    with _memory() as memory:
        if memory is not None:
            with contextlib.suppress(sqlite3.Error):  # damaged: everything is read again
                for start in range(0, len(keys), AT_ONCE):
                    some = keys[start : start + AT_ONCE]
                    marks = ",".join("?" * len(some))
                    query = f"SELECT key, digest FROM files WHERE key IN ({marks})"
                    known.update(memory.execute(query, some))
        new = {key: path for key, path in zip(keys, paths, strict=True) if key not in known}
        with ThreadPoolExecutor(THREADS) as pool:
            found = dict(zip(new, pool.map(_digest, new.values()), strict=True))
        if memory is not None and found:
            with contextlib.suppress(sqlite3.Error):  # a full disk: it is hashed again next time
                memory.executemany("INSERT OR REPLACE INTO files VALUES (?, ?)", found.items())
                memory.commit()
    known.update(found)
    return [known[key] for key in keys]


def _key(path: Path, folders: dict[Path, str]) -> bytes:
    """What a file is known by: a hash, so that no patient's name stands in the memory."""
    folder = path.parent
    if folder not in folders:
        folders[folder] = str(folder.resolve())
    try:
        facts = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    known = (facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)
    text = "\0".join([folders[folder], path.name, *map(str, known)])
    return hashlib.sha256(os.fsencode(text)).digest()


def _digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    return digest.digest()


@contextlib.contextmanager
def _memory() -> Iterator[sqlite3.Connection | None]:
    """The user's own cache; None where there can be none (a read-only or damaged one)."""
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        path = Path(os.environ.get(PLACE) or Path(cache) / "edgekd") / "digests.sqlite"
        path.parent.mkdir(parents=True, exist_ok=True)
        memory = sqlite3.connect(path, timeout=30)
        memory.execute(TABLE)
    except (OSError, RuntimeError, sqlite3.Error):  # RuntimeError: no home
        yield None
        return
    with contextlib.closing(memory):
        yield memory
