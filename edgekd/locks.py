"""File locks between processes. The kernel drops one when its process dies, however it dies.

On a system without such locks everything goes through unlocked: two commands on one folder are then
the user's to avoid.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from edgekd.errors import EdgekdError
from edgekd.log import say


def has_locks() -> bool:
    """Does this system have file locks?"""
    try:
        import fcntl  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def lock(descriptor: int, *, wait: bool = False, shared: bool = False) -> bool:
    """Lock an open file; False where another process holds it and this one does not wait.

    A shared lock goes together with other shared ones.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        return True
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """Open and lock a file; its descriptor, or None where another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if lock(descriptor, shared=shared):
        return descriptor
    os.close(descriptor)
    return None


@contextlib.contextmanager
def held(
    path: Path, *, waiting: str | None = None, refusal: str | None = None
) -> Iterator[IO[str]]:
    """Hold a lock file, whose text stays and may be read and written inside.

    While another process holds it: raises EdgekdError with `refusal` if that is given, else says
    `waiting` if that is given, and waits.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        if not lock(file.fileno()):
            if refusal is not None:
                raise EdgekdError(refusal)
            if waiting is not None:
                say(waiting)
            lock(file.fileno(), wait=True)
        file.seek(0)
        yield file
