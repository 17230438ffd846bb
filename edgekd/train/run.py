"""`edgekd distill`: the stages of a recipe, one after the other, and the scores at the end."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from edgekd import __version__
from edgekd.data.splits import write_split
from edgekd.errors import MissingOnHost
from edgekd.log import say, warn
from edgekd.models.build import build_network, model_seed
from edgekd.models.complexity import count
from edgekd.models.network import OnnxTeacher
from edgekd.models.weights import load_weights
from edgekd.recipe import Recipe
from edgekd.recipe_load import to_yaml
from edgekd.results import dump_json
from edgekd.rundir import RunDir, only_one, sha256, write_text
from edgekd.stage_keys import scored_key, stage_keys
from edgekd.train import stages
from edgekd.train.cache_build import with_cache
from edgekd.train.checkpoint import save_weights
from edgekd.train.evaluate import predict, quick_scores
from edgekd.train.hardware import compiled, make_fabric, scoring_device
from edgekd.train.loop import Choice, Scores, fit
from edgekd.train.seeding import derive
from edgekd.train.setup import (
    Prepared,
    class_counts,
    make_distiller,
    networks_of,
    prepare,
    quantize_trained,
    stage_feed,
)

OWN_TEST = "own_test"  # the test part of the data that a teacher was trained for, where it differs


@dataclass
class Summary:
    """What `distill` did."""

    run: Path
    trained: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    scores: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def distill(
    recipe: Recipe,
    run: RunDir,
    *,
    fresh: bool = False,
    before: Callable[[Recipe, Prepared], object] | None = None,
    git: dict[str, Any] | None = None,
) -> Summary:
    """Train what is not yet trained, score every model, and write the run folder.

    `before` is called once if anything has to be trained: the place for a dry run. `git` is the
    state of the recipe's folder (git_state.py), kept for the bundle's provenance.
    Raises EdgekdError of all kinds, and KeyboardInterrupt after saving.
    """
    started = time.monotonic()
    summary = Summary(run.root)
    stages.check_teachers(recipe)
    with only_one(run.root):
        data = prepare(recipe)
        keys = stage_keys(recipe, data.key)
        todo = [
            name
            for name, spec in recipe.stages.items()
            if fresh
            or not (
                stages.is_done(run.stage(name), keys[name], spec.train)
                or stages.take(run, name, keys[name], spec.train)
            )
        ]
        summary.reused = [name for name in recipe.stages if name not in todo]
        for name in summary.reused:
            say(f"{name}: already trained")
        if todo and before is not None:
            before(recipe, data)
        if todo or not _is_scored(recipe, run, data, keys):
            # what the last recipe left must not be taken for this one's
            forget_results(run)
        write_text(run.recipe, to_yaml(recipe))
        for caveat in data.caveats:
            warn(caveat)
        for stale in run.root.glob("split.*.csv"):
            stale.unlink()
        write_split(run.split, data.source, data.split)
        for subset, split in data.splits.items():
            if subset != data.target:
                write_split(run.split_of(subset or "all"), data.source, split)
        fabric = make_fabric(recipe.hardware) if todo else None
        for name in todo:
            with stages.hold(run, name, keys[name]):
                trains = recipe.stages[name].train
                if not fresh and stages.take(run, name, keys[name], trains):
                    say(f"{name}: trained by another run meanwhile")
                    summary.reused.append(name)
                    continue
                _train(recipe, run, data, name, keys[name], fabric, fresh)
                stages.put(run, name, keys[name], replace=fresh)
            summary.trained.append(name)
        summary.scores = _finish(recipe, run, data, keys, git)
    summary.seconds = time.monotonic() - started
    return summary


def _train(
    recipe: Recipe, run: RunDir, data: Prepared, name: str, key: str, fabric: Any, fresh: bool
) -> None:
    spec = recipe.stages[name]
    folder = run.stage(name)
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    feed = stage_feed(recipe, data, spec, name)
    networks = networks_of(recipe, run, data.task, name, [*spec.train, *spec.frozen])
    networks = quantize_trained(recipe, name, networks, data)
    distiller = make_distiller(
        recipe, name, networks, data.task, class_counts(feed, data.task.outputs())
    )
    if recipe.hardware.channels_last:
        distiller.to(memory_format=torch.channels_last)
    labelled = int((feed.targets[feed.indices] >= 0).sum())
    say(
        f"{name}: {', '.join(spec.train)} on {len(feed.indices)} images "
        f"({labelled} labelled), {fabric.device}"
    )

    def evaluate() -> Scores:
        return {
            model: quick_scores(
                data.task,
                predict(
                    networks[model],
                    data.store,
                    data.source,
                    data.splits[spec.data.subset].val,
                    recipe.data.input,
                    batch=feed.batch,
                    channels_last=recipe.hardware.channels_last,
                ),
            )
            for model in spec.train
        }

    choice = Choice(data.task.primary, data.task.higher_is_better, spec.select)
    seed = derive(recipe.seed, name)
    try:
        feed = with_cache(recipe, run, data, name, feed, distiller, fabric, seed=seed, fresh=fresh)
        cached = {} if feed.cache is None else feed.cache.teachers
        running = {model: net for model, net in networks.items() if model not in cached}
        with compiled(running, f"stages.{name}", recipe.hardware):
            fit(
                fabric,
                name,
                key,
                spec,
                distiller,
                feed,
                evaluate,
                choice,
                recipe.hardware,
                folder,
                seed,
            )
    except torch.OutOfMemoryError:
        raise MissingOnHost(
            f"stages.{name}: out of memory on {fabric.device}",
            hint=f"halve data.batch and set stages.{name}.accumulate=2",
        ) from None


def _finish(
    recipe: Recipe,
    run: RunDir,
    data: Prepared,
    keys: dict[str, str],
    git: dict[str, Any] | None,
) -> dict[str, Any]:
    """Final weights, predictions on val and test, scores with intervals."""
    if _is_scored(recipe, run, data, keys):
        scored: dict[str, Any] = json.loads(run.scores.read_text(encoding="utf-8"))
        return scored
    last = stages.last_trained(recipe)
    costs: dict[str, Any] = {}
    used = {model for spec in recipe.stages.values() for model in (*spec.train, *spec.frozen)}
    scores: dict[str, Any] = {}
    for model in [name for name in recipe.models if name in used]:
        network = build_network(
            recipe.models[model],
            outputs=data.task.outputs(),
            seed=model_seed(recipe.seed, model),
            initial=model not in last,
            new_head=False,  # a model that no stage has trained must bring its own
        )
        if model in last:
            load_weights(network, run.stage(last[model]) / f"{model}.safetensors")
        if not isinstance(network.net, OnnxTeacher):
            save_weights(network.net, run.weights(model))
            cost = count(network, recipe.data.input.size)
            costs[model] = {"params": cost.params, "macs": cost.macs}
        network.to(scoring_device(recipe.hardware))
        scores[model] = {}
        parts = {"val": data.split.val, "test": data.split.test}
        own = recipe.subset_of(model)
        if model in last and own != data.target:
            parts[OWN_TEST] = data.splits[own].test  # what it was trained for
        for part, indices in parts.items():
            say(f"scoring {model} on {len(indices)} {part} images")
            predictions = predict(network, data.store, data.source, indices, recipe.data.input)
            predictions.save(run.predictions(model, part))
            scores[model][part] = {
                name: score.model_dump() for name, score in data.task.score(predictions).items()
            }
        _tell(model, data.task.primary, scores[model]["test"])
    write_text(run.scores, dump_json(scores))
    environment = {**_environment(recipe, data, run, keys), "git": git, "models": costs}
    write_text(run.environment, dump_json(environment))
    return scores


def _tell(model: str, primary: str, scores: dict[str, Any]) -> None:
    score = scores[primary]
    if score["value"] is not None:
        low, high = score["low"], score["high"]
        interval = f" ({low:.3f} to {high:.3f})" if None not in (low, high) else ""
        images = f"{score['images']} test images"
        say(f"{model}: {primary} {score['value']:.3f}{interval} on {images}")


def _is_scored(recipe: Recipe, run: RunDir, data: Prepared, keys: dict[str, str]) -> bool:
    """Do `models/`, `predictions/` and `scores.json` belong to these very stages?"""
    if not (run.scores.is_file() and run.environment.is_file()):
        return False
    known = json.loads(run.environment.read_text(encoding="utf-8"))
    return bool(known.get("scored") == scored_key(recipe, data.key, keys))


def forget_results(run: RunDir) -> None:
    """Remove what was made from the trained weights, before other weights take their place."""
    run.environment.unlink(missing_ok=True)
    run.scores.unlink(missing_ok=True)
    for folder in (run.root / "models", run.root / "predictions"):
        shutil.rmtree(folder, ignore_errors=True)


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
        "caveats": data.caveats,
        "seed": recipe.seed,
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "recipe_sha256": sha256(run.recipe),
        "torch": torch.__version__,
        "host": host_facts(),
    }
