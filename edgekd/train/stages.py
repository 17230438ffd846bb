"""Finished stages: which are done, and the shelf on which runs share them.

Finished stages are kept by their key beside the runs in `.stages/` (or where `--shared` says), so
that variants of a recipe share their teacher.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from edgekd.errors import RecipeError
from edgekd.locks import held
from edgekd.recipe import Recipe
from edgekd.rundir import RunDir, replace_folder


def is_done(folder: Path, key: str, models: list[str]) -> bool:
    """Does the folder hold this very stage, finished?"""
    try:
        record = json.loads((folder / "done.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return record.get("key") == key and all(
        (folder / f"{model}.safetensors").is_file() for model in models
    )


@contextlib.contextmanager
def hold(run: RunDir, name: str, key: str) -> Iterator[None]:
    """Be the only one that trains this stage; wait while another run does.

    The lock dies with its process. What a killed run had trained is taken over: its folder stands
    in the lock file, and a stage goes on from `last/` wherever it was begun.
    """
    folder = run.stage(name)
    waiting = f"{name}: waiting for another run that trains this very stage"
    with held(run.shelf / f".{key}.lock", waiting=waiting) as file:
        _adopt(Path(file.read().strip() or folder), folder, key)
        file.seek(0)
        file.truncate()
        file.write(str(folder.resolve()))
        file.flush()
        yield
        file.seek(0)
        file.truncate()


def _adopt(source: Path, folder: Path, key: str) -> None:
    """Take over an unfinished stage from where another run left it, if it is further than ours."""
    theirs = _position(source, key)
    if (
        source.resolve() == folder.resolve()
        or theirs is None
        or theirs <= (_position(folder, key) or (0, 0))
    ):
        return
    with replace_folder(folder) as temporary:
        shutil.copytree(source, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))


def _position(folder: Path, key: str) -> tuple[int, int] | None:
    """Epoch and step of an unfinished stage with this key."""
    try:
        progress = json.loads((folder / "last" / "progress.json").read_text(encoding="utf-8"))
        return (progress["epoch"], progress["step"]) if progress["key"] == key else None
    except (OSError, ValueError, KeyError):
        return None


def put(run: RunDir, name: str, key: str, *, replace: bool = False) -> None:
    """Keep a finished stage for other runs (hard links where the disk allows)."""
    target = run.shelf / key
    if target.exists() and not replace:
        return
    with replace_folder(target) as temporary:
        _copy(run.stage(name), temporary)


def take(run: RunDir, name: str, key: str, models: list[str]) -> bool:
    """Bring a finished stage into this run, if there is one."""
    source = run.shelf / key
    if not is_done(source, key, models):
        return False
    with replace_folder(run.stage(name)) as temporary:
        _copy(source, temporary)
    return True


def _copy(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if not path.is_file() or path.name.startswith("."):  # `last/` is only for resuming
            continue
        try:
            os.link(path, target / path.name)
        except OSError:
            shutil.copyfile(path, target / path.name)


def trained_before(recipe: Recipe, stage: str) -> dict[str, str]:
    """For each model, the latest stage before `stage` that trained it."""
    found: dict[str, str] = {}
    for name, spec in recipe.stages.items():
        if name == stage:
            break
        found.update(dict.fromkeys(spec.train, name))
    return found


def last_trained(recipe: Recipe) -> dict[str, str]:
    """For each model, the last stage that trained it."""
    return trained_before(recipe, "")


def learns_first(recipe: Recipe, model: str) -> bool:
    """Is the first stage that uses a model one that trains it?"""
    for stage in recipe.stages.values():
        if model in (*stage.train, *stage.frozen):
            return model in stage.train
    return False


def check_teachers(recipe: Recipe) -> None:
    """A frozen model must have learned something. Raises RecipeError that names it.

    `pretrained: true` brings a library's features, and a classifier for these classes that nobody
    has trained: such a model cannot stand frozen either.
    """
    for name, stage in recipe.stages.items():
        before = trained_before(recipe, name)
        for model in stage.frozen:
            spec = recipe.models[model]
            if model in before or spec.arch.startswith("onnx:") or isinstance(spec.pretrained, str):
                continue
            what = "a random classifier" if spec.pretrained else "random weights"
            raise RecipeError(
                f"stages.{name}.frozen: '{model}' has {what}: no earlier stage trains it",
                hint=f"train it in a stage before, or set models.{model}.pretrained to a "
                "checkpoint of these classes",
            )
