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
            changed = _ask(folder, "status", "--porcelain", "--untracked-files=no")
            known = _ask(folder, "ls-files", "--error-unmatch", "--", file.name)
            is_dirty = changed != "" or (of != "working folder" and known is None)
            return {"commit": commit, "is_dirty": is_dirty, "of": of}
    return None


def _ask(folder: Path, *question: str) -> str | None:
    """What git says, stripped; None where it fails. No hook of a stranger's repository is run."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", *question],
            cwd=folder, env={**env, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
