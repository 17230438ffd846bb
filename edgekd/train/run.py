"""`edgekd distill`: the stages of a recipe, one after the other, and the scores at the end."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from edgekd.bundle import is_bundle, read_manifest
from edgekd.data.splits import write_split
from edgekd.errors import EdgekdError, MissingOnHost
from edgekd.log import be_quiet, say, warn
from edgekd.models.assemble import task_of
from edgekd.recipe import Recipe
from edgekd.recipe_load import to_yaml
from edgekd.rundir import RunDir, only_one, sha256, write_text
from edgekd.stage_keys import stage_keys
from edgekd.train import stages
from edgekd.train.adopting import adopt, kept_by
from edgekd.train.cache_build import with_cache
from edgekd.train.choose import Scores
from edgekd.train.evaluate import class_scores, predict, quick_scores
from edgekd.train.feeding import check_full_batch, class_counts, stage_feed
from edgekd.train.finish import finish, forget_results, forget_scores, is_scored
from edgekd.train.hardware import compiled, make_fabric
from edgekd.train.loop import fit
from edgekd.train.seeding import derive
from edgekd.train.setup import Prepared, make_distiller, networks_of, prepare, quantize_trained
from edgekd.train.starting import start_memory
from edgekd.train.together import check_several, is_follower, is_lost


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
) -> Summary | None:
    """Train what is not yet trained, score every model, and write the run folder.

    `before` is called once if anything has to be trained: the place for a dry run. `git` is the
    state of the recipe's folder (git_state.py), kept for the bundle's provenance.
    Raises EdgekdError of all kinds, and KeyboardInterrupt after saving. Where several processes
    train together only the first one gets a summary.
    """
    started = time.monotonic()
    summary = Summary(run.root)
    stages.check_teachers(recipe)
    check_several(recipe)
    if is_follower(recipe.hardware):
        _follow(recipe, run, fresh)
        return None
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
        # what the last recipe left must not be taken for this one's
        if todo or not _has_weights(recipe, run):
            forget_results(run)
        elif not is_scored(recipe, run, data, keys):
            forget_scores(run)
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
                if fresh:
                    shutil.rmtree(run.stage(name), ignore_errors=True)
                assert fabric is not None
                fabric.broadcast(name)  # the other processes train it too
                _train(recipe, run, data, name, keys[name], fabric, fresh)
                stages.put(run, name, keys[name], replace=fresh)
            summary.trained.append(name)
        if fabric is not None:
            fabric.broadcast("")
        summary.scores = finish(recipe, run, data, keys, git)
    summary.seconds = time.monotonic() - started
    return summary


def _follow(recipe: Recipe, run: RunDir, fresh: bool) -> None:
    """Train with another process, which alone decides what, writes, speaks and scores."""
    be_quiet()
    data = prepare(recipe)
    keys = stage_keys(recipe, data.key)
    fabric = make_fabric(recipe.hardware)
    while name := fabric.broadcast(""):
        _train(recipe, run, data, name, keys[name], fabric, fresh)


def _train(
    recipe: Recipe, run: RunDir, data: Prepared, name: str, key: str, fabric: Any, fresh: bool
) -> None:
    spec = recipe.stages[name]
    folder = run.stage(name)
    feed = stage_feed(recipe, data, spec, name)
    networks = networks_of(recipe, run, data.task, name, [*spec.train, *spec.frozen])
    for model in spec.train:
        if model not in stages.trained_before(recipe, name):
            outputs = task_of(recipe, model, data.task).outputs()
            start_memory(networks[model], feed, recipe.data.input, outputs)
    networks = quantize_trained(recipe, name, networks, data)
    distiller = make_distiller(
        recipe, name, networks, data.task, class_counts(feed, data.task.outputs()), feed.labelled()
    )
    adopt(distiller, kept_by(recipe, run, name))
    check_full_batch(distiller, feed, name)
    if recipe.hardware.channels_last:
        distiller.to(memory_format=torch.channels_last)
    say(
        f"{name}: {', '.join(spec.train) or 'adapters only'} on {len(feed.indices)} images "
        f"({feed.labelled()} labelled), {fabric.device}"
    )

    def evaluate(models: Sequence[str]) -> tuple[Scores, Scores]:
        scores, of_classes = {}, {}
        for model in models:
            said = predict(
                networks[model],
                data.store,
                data.source,
                data.splits[spec.data.subset].val,
                recipe.data.input,
                batch=feed.batch,
                channels_last=recipe.hardware.channels_last,
                masks=data.task.wants_masks,
            )
            task = task_of(recipe, model, data.task)
            scores[model] = quick_scores(task, said)
            of_classes[model] = class_scores(task, said)
        return scores, of_classes

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
                data.task,
                recipe.hardware,
                folder,
                seed,
            )
    except torch.OutOfMemoryError:
        raise MissingOnHost(
            f"stages.{name}: out of memory on {fabric.device}",
            hint=f"halve data.batch and set stages.{name}.accumulate=2",
        ) from None
    except RuntimeError as error:
        if not is_lost(error):
            raise
        raise EdgekdError(
            f"stages.{name}: another process of this run has ended",
            hint="what it said stands above; the same command goes on where it was",
        ) from None


def _has_weights(recipe: Recipe, run: RunDir) -> bool:
    """Are the weights in `models/` those of the stages that are there, and is a bundle of them?"""
    if is_bundle(run.bundle):
        made_of = read_manifest(run.bundle).provenance.get("weights_sha256")
        weights = run.weights(recipe.export.model)
        if not weights.is_file() or made_of != sha256(weights):
            return False
    return all(
        run.weights(model).is_file()
        and sha256(run.weights(model)) == sha256(run.stage(stage) / f"{model}.safetensors")
        for model, stage in stages.last_trained(recipe).items()
    )
