"""What a stage needs before it trains: data, networks, terms. Also what `doctor` tries out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgekd.data._learned import learned_of
from edgekd.data.base import DataSource
from edgekd.data.calibration import choose
from edgekd.data.protocol import caveats, check_splits, key_of, splits_of, used_by
from edgekd.data.read import ImageStore, open_source, open_store, read_squares
from edgekd.data.splits import Split
from edgekd.errors import RecipeError, did_you_mean
from edgekd.log import say
from edgekd.losses.base import Batch, Facts
from edgekd.models.assemble import assemble, givers_first
from edgekd.models.network import Network, OnnxTeacher
from edgekd.models.quantized import quantized
from edgekd.models.weights import load_weights
from edgekd.plugins import load
from edgekd.recipe import Recipe
from edgekd.rundir import RunDir
from edgekd.tasks.base import Task
from edgekd.train import stages
from edgekd.train.distiller import Distiller
from edgekd.train.seeding import derive
from edgekd.train.starting import start_with
from edgekd.train.terms import build_terms

MASKS_HINT = "a data set with masks, or data.params.masks=true where it has both"


@dataclass(frozen=True)
class Prepared:
    """A recipe's data and task, opened."""

    source: DataSource
    splits: dict[str | None, Split]  # of all images (None) and of each subset that a stage names
    target: str | None  # the subset that the exported model is for
    task: Task
    store: ImageStore
    key: str  # a hash of all labels, groups, files and the splits
    caveats: list[str]  # what must be said beside every figure

    @property
    def split(self) -> Split:
        """What the exported model is validated and tested on, and compared with others."""
        return self.splits[self.target]


def prepare(recipe: Recipe) -> Prepared:
    """Open the data, split it and make the task. Raises DataError or RecipeError."""
    source = open_source(recipe.data, plugin_folders(recipe))
    task_class = load("tasks", recipe.task.name, Task)  # type: ignore[type-abstract]
    task = task_class(classes=source.classes, primary=recipe.task.primary)
    check_kind(task, source, recipe.data.name)
    for name, stage in recipe.stages.items():
        for place, section in (("stop", stage.stop), ("schedule", stage.schedule)):
            score = section.score if section is not None else None
            if score is not None and score not in task.curve():
                raise RecipeError(
                    f"stages.{name}.{place}.score: '{score}' is not a score that is taken after "
                    "every epoch",
                    hint=did_you_mean(score, task.curve()),
                )
    target = recipe.subset_of(recipe.export.model)
    splits = splits_of(source, recipe.data)
    task = task.taught(learned_of(recipe, source, splits[target].train))
    wanted = {target, *(stage.data.subset for stage in recipe.stages.values())}
    check_splits(source, recipe.data, splits, wanted)
    store = open_store(source, recipe.data, used_by(splits[name] for name in wanted))
    return Prepared(
        source,
        {name: split for name, split in splits.items() if name in wanted},
        target,
        task,
        store,
        key_of(source, splits),
        caveats(recipe, splits, source),
    )


def check_kind(task: Task, source: DataSource, name: str) -> None:
    """Raises RecipeError where a task asks for what the data does not say."""
    if task.wants_masks and not source.has_masks:
        raise RecipeError(f"task.name: '{task.name}' needs masks, and '{name}' gives one class per "
                          "image", hint=MASKS_HINT)  # fmt: skip
    if task.wants_labels != source.has_labels:
        several, one = "several classes per image, or none", "one class per image"
        has, wants = (several, one) if source.has_labels else (one, several)
        raise RecipeError(f"task.name: '{task.name}' is for {wants}, and '{name}' gives {has}",
                          hint="task.name=multilabel" if source.has_labels else None)  # fmt: skip


def plugin_folders(recipe: Recipe) -> list[Path]:
    """The recipe's `plugins:` folders. Raises RecipeError for one that does not exist."""
    folders = [Path(name) for name in recipe.plugins]
    for folder in folders:
        if not folder.is_dir():
            raise RecipeError(f"plugins: no such folder: {folder}")
    return folders


def networks_of(
    recipe: Recipe, run: RunDir, task: Task, stage: str, models: list[str]
) -> dict[str, Network]:
    """The networks with which a stage starts: initialised, pretrained or trained before."""
    before = stages.trained_before(recipe, stage)
    networks: dict[str, Network] = {}
    for model in givers_first(recipe, models):
        networks[model] = assemble(
            recipe,
            model,
            task,
            initial=model not in before,
            new_head=stages.learns_first(recipe, model),
            teacher=networks.get(recipe.models[model].graft or ""),
        )
        if model in before:
            load_weights(networks[model], run.stage(before[model]) / f"{model}.safetensors")
        elif recipe.models[model].start is not None:
            origin = str(recipe.models[model].start)
            weights = run.stage(before[origin]) / f"{origin}.safetensors"
            start_with(networks[model], weights, origin)
    return networks


def quantize_trained(
    recipe: Recipe, name: str, networks: dict[str, Network], data: Prepared
) -> dict[str, Network]:
    """The networks of a stage, those that it trains with quantizers if it says `quantize:`.

    The first ranges come from training images, chosen as the export chooses them. Raises
    RecipeError for a compiled stage, MissingOnHost without NNCF.
    """
    spec = recipe.stages[name]
    if spec.quantize is None:
        return networks
    if recipe.hardware.compile:
        raise RecipeError(f"stages.{name}.quantize: a compiled network cannot be quantized",
                          hint="hardware.compile=false")  # fmt: skip
    wanted = recipe.export.calibration
    strata = data.task.strata(data.source.targets())
    train = data.splits[spec.data.subset].train
    chosen = choose(strata, data.source.groups(), train, wanted.images, seed=wanted.seed)
    squares = read_squares(data.source, chosen, recipe.data.input)
    say(f"{name}: quantizers' first ranges from {len(chosen)} training images")
    with torch.random.fork_rng(devices=[]):
        made = {model: quantized(networks[model], squares) for model in spec.train}
    return {**networks, **made}


def make_distiller(
    recipe: Recipe,
    name: str,
    networks: dict[str, Network],
    task: Task,
    counts: list[int],
    labelled: int = 0,
) -> Distiller:
    """The stage's graph with its adapters built. Raises RecipeError where it does not fit.

    `counts` and `labelled` are training images: those of each class, and all that have a label.
    """
    spec = recipe.stages[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(recipe.seed, name, "adapters"))
        terms = build_terms(spec, f"stages.{name}", plugin_folders(recipe), task.name)
        distiller = Distiller(spec, networks, terms, where=f"stages.{name}")
        tied = distiller.tied_to_batch()
        if tied and not spec.data.drop_last:
            raise RecipeError(
                f"stages.{name}.losses.{tied[0]}: this loss needs batches of one size, and the "
                "last one of an epoch is smaller",
                hint=f"stages.{name}.data.drop_last=true",
            )
        size = recipe.data.input.size
        images = torch.rand(2, 3, size, size)
        labels = trial_labels(task, 2, size)
        batch = spec.data.batch or recipe.data.batch
        facts = Facts(task.name, task.classes, tuple(counts), batch, labelled)
        present = {model: networks[model] for model in (*spec.train, *spec.frozen)}
        _check_widths(present, images, task, name)
        distiller.setup(Batch(images, labels), facts)
    if spec.cache is not None:
        distiller.cacheable(f"stages.{name}")
    return distiller


def _check_widths(networks: dict[str, Network], images: Any, task: Task, stage: str) -> None:
    for name, network in networks.items():
        was_training = network.training
        network.eval()
        with torch.no_grad():
            logits = network(images)
        network.train(was_training)
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        own = task if network.classes is None else task.only(network.classes)
        wanted = (len(images), *own.logits_shape(images.shape[-1]))
        if found != wanted:
            hint = "let its builder take `num_classes`"
            if isinstance(network.net, OnnxTeacher):
                hint = "an ONNX file must give the logits of these classes as its first output"
            elif task.wants_masks and len(found) != len(wanted):
                hint = "a network that answers for every pixel, such as smp:unet"
            raise RecipeError(
                f"stages.{stage}: '{name}' returns {found} for {len(images)} images, expected "
                f"logits of shape {wanted}",
                hint=hint,
            )
        sums = logits.sum(1)
        if (
            own.outputs() > 1
            and task.exclusive
            and logits.min() >= 0
            and torch.allclose(sums, torch.ones_like(sums), atol=1e-4)
        ):
            raise RecipeError(
                f"stages.{stage}: '{name}' returns probabilities (each row sums to 1), expected "
                "logits",
                hint="leave out the Softmax at its end",
            )


def trial_labels(task: Task, rows: int, size: int) -> torch.Tensor:
    """Labels of so many images, to try things with: (rows,), (rows, C), or (rows, size, size)."""
    if task.wants_labels:
        return torch.eye(task.outputs(), dtype=torch.int64)[torch.arange(rows) % task.outputs()]
    if not task.wants_masks:
        return torch.arange(rows) % task.outputs()
    labels = torch.zeros(rows, size, size, dtype=torch.int64)
    labels[::2, : size // 2, : size // 2] = 1
    return labels
