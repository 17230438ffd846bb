"""Where a run keeps its things, and how files are written so that nothing is half-written.

runs/<name>/
  recipe.yaml            the resolved recipe
  run.json               versions, host, costs of the models, what was scored
  split.csv              id, target, group, part: of the exported model
  split.<subset>.csv     of models that are for another part of the data
  stages/<stage>/        metrics.jsonl, last/ (for resuming), done.json, <model>.safetensors
  models/                <model>.safetensors: the weights after the last stage
  predictions/           <model>.test.npz, <artifact>.test.npz
  scores.json            per model and part
  analysis/              cka.<first>.<second>.json: how alike the layers of two models are
  bundle/                the student: the only thing that goes to a device
  also/<model>/          bundles of the recipe's `export.also`
  reference/             the teacher in the same form, to compare with
  report/                index.html, report.md, report.csv, report.json
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgekd.errors import EdgekdError
from edgekd.locks import held, try_lock


@dataclass(frozen=True)
class RunDir:
    """The paths inside one run folder."""

    root: Path
    shared: Path | None = None  # where runs share what they have in common; default: beside the run

    @property
    def shelf(self) -> Path:
        """Finished stages by key, for all runs that look here."""
        return (self.shared or self.root.parent) / ".stages"

    @property
    def teacher_cache(self) -> Path:
        """Outputs of frozen teachers by key, for all runs that look here."""
        return (self.shared or self.root.parent) / ".teacher-cache"

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.yaml"

    @property
    def environment(self) -> Path:
        return self.root / "run.json"

    @property
    def split(self) -> Path:
        return self.root / "split.csv"

    def split_of(self, subset: str) -> Path:
        """The split of another part of the data than the exported model's (`all`: all of it)."""
        return self.root / f"split.{subset}.csv"

    @property
    def scores(self) -> Path:
        return self.root / "scores.json"

    @property
    def thresholds(self) -> Path:
        """Per model, from which probability on each class is there, if a recipe asks for them."""
        return self.root / "thresholds.json"

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    @property
    def reference(self) -> Path:
        return self.root / "reference"

    @property
    def others(self) -> Path:
        """Holds the bundles of `export.also`, each by its model's name."""
        return self.root / "also"

    def bundle_of(self, model: str) -> Path:
        """The bundle of one of `export.also`."""
        return self.others / model

    def said_by(self, bundle: Path, model: str, artifact: str) -> Path:
        """What an artifact says about the test images: several bundles have an `onnx-fp32`."""
        is_main = bundle.resolve() == self.bundle.resolve()
        return self.predictions(artifact if is_main else f"{model}.{artifact}", "test")

    @property
    def report(self) -> Path:
        return self.root / "report"

    def stage(self, name: str) -> Path:
        return self.root / "stages" / name

    def weights(self, model: str) -> Path:
        return self.root / "models" / f"{model}.safetensors"

    @property
    def analysis(self) -> Path:
        return self.root / "analysis"

    def cka(self, first: str, second: str) -> Path:
        """results.CkaMap of two models."""
        return self.analysis / f"cka.{first}.{second}.json"

    def predictions(self, name: str, part: str) -> Path:
        """`name` is a model's or an artifact's name; `part` is train, val or test."""
        return self.root / "predictions" / f"{name}.{part}.npz"


def run_around(bundle: Path) -> RunDir:
    """The run that a bundle would lie in; whether there is one, its files say."""
    parent = bundle.resolve().parent
    run = RunDir(parent.parent)
    return run if parent == run.others and run.recipe.is_file() else RunDir(parent)


@contextlib.contextmanager
def replace_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary neighbour of `path`; rename it over `path` only if all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replace_file(path) as file:
        file.write(text)


@contextlib.contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Give a temporary neighbour folder; swap it in for `path` only if all went well.

    A link stays one: what it leads to is replaced. Raises EdgekdError at once for a mount point,
    which cannot be swapped.
    """
    import shutil

    path = path.resolve()
    if os.path.ismount(path):
        raise EdgekdError(f"{path} is a mount point, and a folder is swapped as a whole",
                          hint=f"mount its parent folder, and name a folder in it, such as "
                               f"{path.parent / 'data' / path.name}")  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    old = temporary.with_suffix(".old")
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            path.replace(old)
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not path.exists():
            old.replace(path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def sha256(path: Path) -> str:
    """Hex digest of a file's contents."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the run folder, so that two commands cannot write into it at once."""
    with held(folder / ".lock", refusal=f"another edgekd is working in {folder}"):
        yield


@contextlib.contextmanager
def only_one_on(path: Path) -> Iterator[None]:
    """Hold a folder that is swapped as a whole, by a lock beside it that is gone afterwards.

    A lock inside would be swapped too. Raises EdgekdError if another edgekd holds the folder, and
    where nothing can be written beside it.
    """
    path = path.resolve()
    beside = path.with_name(f".{path.name}.lock")
    while True:
        descriptor = _open_lock(beside)
        if descriptor is None:
            raise EdgekdError(f"another edgekd is working on {path}")
        if _is_still(beside, descriptor):  # else the one before has taken its lock away since
            break
        os.close(descriptor)
    try:
        yield
    finally:
        beside.unlink(missing_ok=True)
        os.close(descriptor)


def _open_lock(path: Path) -> int | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return try_lock(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise EdgekdError(f"{path.parent}: nothing can be written there: {error.strerror}",
                          hint="a bundle is made in its parent folder; choose another place"
                          ) from None  # fmt: skip


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
