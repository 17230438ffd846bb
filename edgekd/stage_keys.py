"""The key of a stage: a hash of it and of all before it. Torch-free: sweeps plan by it.

It covers the stage's own entry, the models it uses (with the contents of the files that the
recipe names), the data and its split, the task, the seed, the precision, and the keys of the stages
before it. It does not cover library versions, nor modules that one's own file imports: after such
a change, `--fresh` trains anew.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from edgekd.recipe import ModelSpec, Recipe, StageSpec
from edgekd.recipe_load import digest
from edgekd.rundir import sha256

FORMAT = 2  # raise it when training itself changes, so that old stages are not served


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
                "stage": stage.model_dump(mode="json", by_alias=True, exclude={"quantize"}),
                **_quantization(recipe, stage),
                "models": {model: model_key(recipe.models[model]) for model in used},
                "losses": file_keys(recipe.plugins),
                "data": data_key,
                "input": recipe.data.input.model_dump(mode="json"),
                "batch": recipe.data.batch,
                "augment": recipe.data.augment,
                # thresholds are chosen once everything is trained
                "task": recipe.task.model_dump(mode="json", exclude={"thresholds"}),
                **_class_groups(recipe, stage),
                "seed": recipe.seed,
                "precision": recipe.hardware.precision,
                "channels_last": recipe.hardware.channels_last,
                "compile": recipe.hardware.compile,
                **_processes(recipe),
            }
        )
    return keys


def _processes(recipe: Recipe) -> dict[str, Any]:
    """BatchNorm goes by the images of one process."""
    hardware = recipe.hardware
    several = hardware.devices != 1 or hardware.nodes != 1
    return {"devices": [hardware.devices, hardware.nodes]} if several else {}


def _quantization(recipe: Recipe, stage: StageSpec) -> dict[str, Any]:
    """The quantizers' first ranges come from the images that the export calibrates on."""
    if stage.quantize is None:
        return {}
    images = recipe.export.calibration.model_dump(mode="json")
    return {"quantize": [stage.quantize, images]}


def _class_groups(recipe: Recipe, stage: StageSpec) -> dict[str, Any]:
    """Only those that the stage's images and models go by: others may change."""
    used = {recipe.models[model].classes for model in (*stage.train, *stage.frozen)}
    groups = recipe.data.class_groups
    names = {name for name in (*used, stage.data.having) if name is not None}
    found = {name: groups[name] for name in sorted(names)}
    return {"class_groups": found} if found else {}


def scored_key(recipe: Recipe, data_key: str, keys: dict[str, str]) -> str:
    """What a finished run's weights, predictions and scores belong to."""
    models = {name: spec.model_dump(mode="json") for name, spec in recipe.models.items()}
    subset = recipe.subset_of(recipe.export.model)  # all are tested where the exported model is
    more = {
        "ensembles": recipe.ensembles,
        "teacher": recipe.export.reference,  # agreement with it is one of the scores
    }
    aim = recipe.task.model_dump(mode="json").get("thresholds")
    return digest(
        [
            *[keys, models, data_key],
            *([] if subset is None else [subset]),
            *([more] if any(more.values()) else []),
            *([{"thresholds": aim}] if aim else []),
        ]
    )


def model_key(spec: ModelSpec) -> dict[str, Any]:
    """What decides a model's initial state, with the contents of the files that it names."""
    key = spec.model_dump(mode="json")
    kind, _, rest = spec.arch.partition(":")
    files = {"file": [rest.rpartition(":")[0]], "onnx": [rest]}.get(kind, [])
    if isinstance(spec.pretrained, str):
        files.append(spec.pretrained)
    key["files"] = file_keys(files)
    return key


def file_keys(paths: list[str]) -> dict[str, str]:
    """Hashes of files, and of the Python files in folders."""
    found = {}
    for name in paths:
        path = Path(name)
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if file.is_file():
                facts = file.stat()
                found[str(file)] = _sha256(str(file), facts.st_size, facts.st_mtime_ns)
    return found


@functools.lru_cache(maxsize=256)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    """A sweep asks for the same large checkpoint again and again; a changed file is read anew."""
    return sha256(Path(path))
