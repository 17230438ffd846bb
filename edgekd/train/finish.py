"""After the last stage: weights for the export, predictions, scores, and what the run was."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from typing import Any

import torch

from edgekd import __version__
from edgekd.log import say
from edgekd.models.assemble import assemble, task_of
from edgekd.models.complexity import count
from edgekd.models.network import Network, OnnxTeacher
from edgekd.models.weights import load_weights
from edgekd.recipe import Recipe
from edgekd.results import Learned, Predictions, dump_json
from edgekd.rundir import RunDir, sha256, write_text
from edgekd.stage_keys import scored_key
from edgekd.tasks._cuts import with_thresholds
from edgekd.tasks.base import Task
from edgekd.tasks.fidelity import fidelities
from edgekd.train import stages
from edgekd.train.checkpoint import save_weights
from edgekd.train.evaluate import predict
from edgekd.train.hardware import scoring_device
from edgekd.train.setup import Prepared

VAL, TEST = "val", "test"
OWN_TEST = "own_test"  # the test part of the data that a teacher was trained for, where it differs


def finish(
    recipe: Recipe,
    run: RunDir,
    data: Prepared,
    keys: dict[str, str],
    git: dict[str, Any] | None,
) -> dict[str, Any]:
    """Final weights, predictions and scores with intervals of every model and ensemble.

    Returns `{model: {part: {score: ...}}}`, also where all of that was there already.
    """
    if is_scored(recipe, run, data, keys):
        scored: dict[str, Any] = json.loads(run.scores.read_text(encoding="utf-8"))
        return scored
    used = {model for spec in recipe.stages.values() for model in (*spec.train, *spec.frozen)}
    costs: dict[str, Any] = {}
    parts: dict[str, list[str]] = {}
    for model in [name for name in recipe.models if name in used]:
        parts[model] = _ask(recipe, run, data, model, costs)
    for name in recipe.ensembles:
        parts[name] = _join(recipe, run, data, name, costs)
    tasks = _choose_thresholds(recipe, run, data, list(parts))
    scores = {name: _score(recipe, run, tasks, name, found) for name, found in parts.items()}
    write_text(run.scores, dump_json(scores))
    environment = {**_environment(recipe, data, run, keys), "git": git, "models": costs}
    write_text(run.environment, dump_json(environment))
    return scores


def _ask(
    recipe: Recipe, run: RunDir, data: Prepared, model: str, costs: dict[str, Any]
) -> list[str]:
    """Keep a model's weights and what it says; returns the parts that it was asked about."""
    last = stages.last_trained(recipe)
    network = assemble(
        recipe,
        model,
        data.task,
        initial=model not in last,
        new_head=False,  # a model that no stage has trained must bring its own
    )
    if model in last:
        load_weights(network, run.stage(last[model]) / f"{model}.safetensors")
    if not isinstance(network.net, OnnxTeacher):
        costs[model] = _store(network, model, recipe, run)
    network.to(scoring_device(recipe.hardware))
    parts = {VAL: data.split.val, TEST: data.split.test}
    own = recipe.subset_of(model)
    if model in last and own != data.target:
        parts[OWN_TEST] = data.splits[own].test  # what it was trained for
    for part, indices in parts.items():
        say(f"scoring {model} on {len(indices)} {part} images")
        predictions = predict(
            network,
            data.store,
            data.source,
            indices,
            recipe.data.input,
            masks=data.task.wants_masks,
        )
        predictions.save(run.predictions(model, part))
    return list(parts)


def _join(
    recipe: Recipe, run: RunDir, data: Prepared, name: str, costs: dict[str, Any]
) -> list[str]:
    """Keep an ensemble's weights and what its members say together."""
    members = recipe.ensembles[name]
    network = assemble(recipe, name, data.task)
    for member, own in zip(members, network.net.members, strict=True):  # type: ignore[arg-type]
        load_weights(own, run.weights(member))
    costs[name] = _store(network, name, recipe, run)
    for part in (VAL, TEST):
        said = [Predictions.load(run.predictions(member, part)) for member in members]
        logits = data.task.combine_logits([one.logits for one in said])
        replace(said[0], logits=logits).save(run.predictions(name, part))
    return [VAL, TEST]


def _store(network: Network, name: str, recipe: Recipe, run: RunDir) -> dict[str, int]:
    """Keep the plain network's weights for the export; returns what it costs."""
    save_weights(network.net, run.weights(name))
    cost = count(network, recipe.data.input.size)
    return {"params": cost.params, "macs": cost.macs}


def _choose_thresholds(
    recipe: Recipe, run: RunDir, data: Prepared, names: list[str]
) -> dict[str, Task]:
    """Each model's task, with thresholds of its own if the recipe asks for them."""
    tasks = {name: task_of(recipe, name, data.task) for name in names}
    aim = recipe.task.thresholds
    if aim is None:
        run.thresholds.unlink(missing_ok=True)
        return tasks
    for name, task in tasks.items():
        tasks[name] = with_thresholds(task, Predictions.load(run.predictions(name, VAL)), aim, name)
    write_text(run.thresholds, dump_json({n: list(t.learned.thresholds) for n, t in tasks.items()}))
    return tasks


def _score(
    recipe: Recipe, run: RunDir, tasks: dict[str, Task], name: str, parts: list[str]
) -> dict[str, Any]:
    """The task's scores, and how far a model agrees with the teacher, if there is one."""
    teacher, task = recipe.export.reference, tasks[name]
    found: dict[str, Any] = {}
    for part in parts:
        said = Predictions.load(run.predictions(name, part))
        scores = task.score(said)
        if (
            teacher is not None
            and name != teacher
            and part in (VAL, TEST)
            and task.classes == tasks[teacher].classes
        ):
            other = Predictions.load(run.predictions(teacher, part))
            scores |= fidelities(task, said, other)
        found[part] = {key: score.model_dump() for key, score in scores.items()}
    _tell(name, task.primary, found[TEST])
    return found


def _tell(model: str, primary: str, scores: dict[str, Any]) -> None:
    score = scores[primary]
    if score["value"] is not None:
        low, high = score["low"], score["high"]
        interval = f" ({low:.3f} to {high:.3f})" if None not in (low, high) else ""
        images = f"{score['images']} test images"
        say(f"{model}: {primary} {score['value']:.3f}{interval} on {images}")


def is_scored(recipe: Recipe, run: RunDir, data: Prepared, keys: dict[str, str]) -> bool:
    """Do `models/`, `predictions/` and `scores.json` belong to these very stages?"""
    if not (run.scores.is_file() and run.environment.is_file()):
        return False
    known = json.loads(run.environment.read_text(encoding="utf-8"))
    return bool(known.get("scored") == scored_key(recipe, data.key, keys))


def forget_results(run: RunDir) -> None:
    """Remove what was made from the trained weights, before other weights take their place."""
    forget_scores(run)
    for folder in (run.root / "models", run.root / "predictions", run.analysis):
        shutil.rmtree(folder, ignore_errors=True)


def forget_scores(run: RunDir) -> None:
    """Remove what says that the run is scored. What its artifacts said of the same weights stays:
    an export that is up to date would not ask them again."""
    run.environment.unlink(missing_ok=True)
    run.scores.unlink(missing_ok=True)


def _learned(task: Task) -> dict[str, Any]:
    return {} if task.learned == Learned() else {"learned": task.learned.model_dump()}


def _environment(
    recipe: Recipe, data: Prepared, run: RunDir, keys: dict[str, str]
) -> dict[str, Any]:
    from edgekd.host import host_facts

    split = {part: len(getattr(data.split, part)) for part in ("train", "val", "test")}
    return {
        "edgekd": __version__,
        "scored": scored_key(recipe, data.key, keys),
        "data": data.key,
        "split": split,
        "classes": list(data.task.classes),
        "kinds": list(data.source.kinds()),
        **_learned(data.task),
        "caveats": data.caveats,
        "seed": recipe.seed,
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "recipe_sha256": sha256(run.recipe),
        "torch": torch.__version__,
        "host": host_facts(),
    }
