"""Which stages are already done, by the hash of a stage and of all before it.

A stage's key covers its own entry, the models it uses (with the contents of the files that the
recipe names), the data and its split, the task, the seed, the precision, and the keys of the stages
before it. It does not cover library versions, nor modules that one's own file imports: after such
a change, `--fresh` trains anew. Finished stages are kept beside the runs in `.stages/`, so
that variants of a recipe share their teacher.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from edgekd.errors import RecipeError
from edgekd.recipe import ModelSpec, Recipe
from edgekd.recipe_load import digest
from edgekd.rundir import RunDir, replace_folder, sha256

FORMAT = 1  # raise it when training itself changes, so that old stages are not served


def stage_keys(recipe: Recipe, data_key: str) -> dict[str, str]:
    """The key of every stage, in order."""
    keys: dict[str, str] = {}
    for name, stage in recipe.stages.items():
        used = [*stage.train, *stage.frozen]
        keys[name] = digest(
            {
                "format": FORMAT,
                "before": list(keys.values()),
                "name": name,  # it seeds order and adapters
                "stage": stage.model_dump(mode="json", by_alias=True),
                "models": {model: _model_key(recipe.models[model]) for model in used},
                "losses": _file_keys(recipe.plugins),
                "data": data_key,
                "input": recipe.data.input.model_dump(mode="json"),
                "batch": recipe.data.batch,
                "augment": recipe.data.augment,
                "task": recipe.task.model_dump(mode="json"),
                "seed": recipe.seed,
                "precision": recipe.hardware.precision,
                "channels_last": recipe.hardware.channels_last,
            }
        )
    return keys


def _model_key(spec: ModelSpec) -> dict[str, Any]:
    key = spec.model_dump(mode="json")
    kind, _, rest = spec.arch.partition(":")
    files = {"file": [rest.rpartition(":")[0]], "onnx": [rest]}.get(kind, [])
    if isinstance(spec.pretrained, str):
        files.append(spec.pretrained)
    key["files"] = _file_keys(files)
    return key


def _file_keys(paths: list[str]) -> dict[str, str]:
    found = {}
    for name in paths:
        path = Path(name)
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if file.is_file():
                found[str(file)] = sha256(file)
    return found


def is_done(folder: Path, key: str, models: list[str]) -> bool:
    """Does the folder hold this very stage, finished?"""
    try:
        record = json.loads((folder / "done.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return record.get("key") == key and all(
        (folder / f"{model}.safetensors").is_file() for model in models
    )


def shelf(run: RunDir, key: str) -> Path:
    """Where a finished stage is kept for other runs beside this one."""
    return run.root.parent / ".stages" / key


def put(run: RunDir, name: str, key: str, *, replace: bool = False) -> None:
    """Keep a finished stage for other runs (hard links where the disk allows)."""
    target = shelf(run, key)
    if target.exists() and not replace:
        return
    with replace_folder(target) as temporary:
        _copy(run.stage(name), temporary)


def take(run: RunDir, name: str, key: str, models: list[str]) -> bool:
    """Bring a finished stage into this run, if there is one."""
    source = shelf(run, key)
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
