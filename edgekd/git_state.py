"""Which version of the user's own files a model was made with."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

SECONDS = 20  # for one question; a work tree on a slow network disk is not waited for


def git_state(file: Path) -> dict[str, Any] | None:
    """The commit around a recipe or a model file, and whether what lies there differs from it.

    Where no repository holds the file, that of the working folder is taken, and `of` says so. None
    without git or a commit. No path, remote address, branch or person is recorded.
    """
    for folder, of in ((file.resolve().parent, "its file's folder"), (Path(), "working folder")):
        commit = _ask(folder, "rev-parse", "--verify", "HEAD")
        if commit is not None:
            changed = _changes(folder)
            known = _ask(folder, "ls-files", "--error-unmatch", "--", file.name)
            is_dirty = changed != "" or (of != "working folder" and known is None)
            return {"commit": commit, "is_dirty": is_dirty, "of": of}
    return None


def _changes(folder: Path) -> str | None:
    """What `git status` lists; None where that cannot be asked without running a command.

    To compare a file git would run the filters that the repository's configuration names. They are
    switched off, so a file that takes one (Git LFS) counts as changed once it was touched. Nor is
    git started in submodules, which have a configuration of their own: only their commits count.
    """
    done = _git(folder, "config", "-z", "--name-only", "--get-regexp", r"^filter\.")
    if done is None or done.returncode not in (0, 1):  # 1: there are none
        return None
    off: list[str] = []
    for key in done.stdout.split("\0"):
        name = key.rpartition(".")[0]
        # `-c` takes what stands before a "=" for the key; other letters may not be told as they are
        if "=" in name or not (name.isascii() and name.isprintable()):
            return None
        if name.startswith("filter."):
            for setting in ("clean=", "process=", "required=false"):
                off += ["-c", f"{name}.{setting}"]
    return _ask(folder, *off, "status", "--porcelain", "--untracked-files=no",
                "--ignore-submodules=dirty")  # fmt: skip


def _ask(folder: Path, *question: str) -> str | None:
    """What git says, stripped; None where it fails."""
    done = _git(folder, *question)
    return done.stdout.strip() if done is not None and done.returncode == 0 else None


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str] | None:
    """None where git is not here or too slow. No hook of a stranger's repository is run."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        return subprocess.run(
            ["git", "-c", "core.fsmonitor=false", *words],
            cwd=folder,
            env={**env, "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
