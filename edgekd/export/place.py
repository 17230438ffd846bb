"""Where an imported bundle may be written: never over anything but an older one of itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd.bundle import Manifest, is_bundle, open_bundle, read_manifest
from edgekd.data.origin import ALL, OTHER, TEST
from edgekd.errors import BundleError
from edgekd.rundir import RunDir

FILE = "imported_sha256"  # in a manifest's provenance: {name: sha256} of the file and its weights


def check_place(
    folder: Path, name: str, file: Mapping[str, str], classes: Sequence[str], *, replaces: bool
) -> None:
    """Raise BundleError if `folder` holds anything but an imported bundle of this name.

    Unless it `replaces`, it must be of the same file (sha256 by name) with the same classes too.
    """
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
    again = "--name NAME for a second bundle, or --replace for this one in its place"
    if not replaces and there.provenance.get(FILE) != dict(file):
        raise BundleError(
            f"{folder} is the bundle of another {there.model.arch.partition(':')[2]}: its contents "
            "were others",
            hint=again,
        )
    if not replaces and there.classes != list(classes):
        raise BundleError(f"{folder} is a bundle with the classes {', '.join(there.classes)}; "
                          f"asked were {', '.join(classes)}", hint=again)  # fmt: skip


def older(folder: Path, file: Mapping[str, str]) -> Manifest | None:
    """The manifest of a whole bundle of the same file, whatever else has changed."""
    if not is_bundle(folder):
        return None
    try:
        there = open_bundle(folder)
    except BundleError:
        return None  # damaged
    return there if there.provenance.get(FILE) == dict(file) else None


def is_same_evidence(old: Manifest, new: Manifest) -> bool:
    """Whether a reason to accept still holds: the same recipe, images and labels.

    Files that were only touched or copied are the same.
    """
    return _evidence(old) == _evidence(new)


def _evidence(manifest: Manifest) -> list[Any]:
    export = {key: value for key, value in manifest.recipe.get("export", {}).items()
              if key != "make"}  # fmt: skip
    digests = [manifest.provenance.get(key) for key in (ALL, TEST, OTHER)]
    task = [manifest.task, manifest.primary, manifest.classes]
    return [{**manifest.recipe, "export": export}, *digests, *task]


@contextlib.contextmanager
def leaving_nothing(folder: Path) -> Iterator[None]:
    """Where it fails, the parent folders that were made for it are taken away again."""
    made = [parent for parent in folder.resolve().parents if not parent.exists()]
    try:
        yield
    except BaseException:
        for parent in made:  # the innermost first
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise
