"""Where an imported bundle may be written: never over anything but an older one of itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from edgekd.bundle import is_bundle, read_manifest
from edgekd.errors import BundleError
from edgekd.rundir import RunDir


def check_place(folder: Path, name: str) -> None:
    """Raise BundleError if `folder` holds anything but an imported bundle of this name."""
    hint = "choose another place: --out FOLDER or --name NAME"
    run = RunDir(folder.parent)
    if folder == run.bundle and run.recipe.is_file():
        raise BundleError(f"{run.root} is the run of a recipe, {folder} its own bundle", hint=hint)
    if folder.exists() and not folder.is_dir():
        raise BundleError(f"--out {folder} is a file, expected a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not is_bundle(folder):
        raise BundleError(f"{folder} is there already and is not a bundle", hint=hint)
    try:
        there = read_manifest(folder)
    except BundleError as error:
        raise BundleError(error.message, hint=f"remove it, or {hint}") from None
    if there.name != name or not there.model.arch.startswith("onnx:"):
        raise BundleError(f"{folder} is the bundle '{there.name}' of {there.model.arch}", hint=hint)


@contextlib.contextmanager
def leaving_nothing(folder: Path) -> Iterator[None]:
    """Where it fails, the parent folders that were made for it are taken away again."""
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        yield
    except BaseException:
        for parent in made:  # the innermost first
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise
