"""`edgekd analyze`: what is looked at in trained models besides their scores, kept in the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekd.errors import CheckpointError, DataError, RecipeError, did_you_mean
from edgekd.image import center_crop
from edgekd.log import progress, say
from edgekd.models.assemble import assemble
from edgekd.models.network import Network
from edgekd.models.weights import load_weights
from edgekd.recipe import Recipe
from edgekd.results import CkaMap, dump_json
from edgekd.rundir import RunDir, only_one, sha256, write_text
from edgekd.tasks.base import Task
from edgekd.train.cka import LEAST_IMAGES, Layer, MinibatchCka, layer_grams
from edgekd.train.hardware import scoring_device
from edgekd.train.loader import Indices, to_float
from edgekd.train.setup import Prepared, prepare

IMAGES, BATCH, PART = 512, 64, "test"  # where neither the caller nor the recipe says otherwise
PARTS = ("train", "val", "test")
DECIMALS = 6  # of a stored CKA

Pair = tuple[str, str]


def analyze(
    run: RunDir,
    recipe: Recipe,
    pairs: Sequence[Pair] | None = None,
    *,
    images: int | None = None,
    batch: int | None = None,
    part: str | None = None,
) -> list[CkaMap]:
    """Compare the layers of pairs of a run's models; what is there and up to date is not redone.

    Without `pairs` those of the recipe's `analysis`, else its reference and its exported model.
    The settings are the recipe's unless given. Results are in `run.cka(first, second)`. Raises
    EdgekdError of all kinds before anything is computed.
    """
    wanted = list(dict.fromkeys(pairs if pairs is not None else pairs_of(recipe)))
    spec = recipe.analysis
    images = images or (spec.images if spec else IMAGES)
    batch = batch or (spec.batch if spec else BATCH)
    part = part or (spec.part if spec else PART)
    if part not in PARTS:
        raise RecipeError(f"part '{part}': expected train, val or test")
    if min(images, batch) < LEAST_IMAGES:
        raise RecipeError(f"{images} images in batches of {batch}: expected {LEAST_IMAGES} or more")
    for name in dict.fromkeys(name for pair in wanted for name in pair):
        _check(run, recipe, name)
    with only_one(run.root):
        hashes = {name: sha256(run.weights(name)) for pair in wanted for name in pair}
        found = {pair: _stored(run.cka(*pair)) for pair in wanted}
        data_key = _data_key(run)
        for (first, second), one in found.items():
            if one is not None and _key(one) != (
                images, batch, part, hashes[first], hashes[second], data_key
            ):  # fmt: skip
                found[first, second] = None
        todo = [pair for pair, one in found.items() if one is None]
        for first, second in wanted:
            if (first, second) not in todo:
                say(f"cka of {first} and {second}: already there")
        if todo:
            made = _compare(run, recipe, todo, images, batch, part, prepare(recipe), hashes)
            for pair, one in zip(todo, made, strict=True):
                write_text(run.cka(*pair), dump_json(one))
                found[pair] = one
    return [one for one in found.values() if one is not None]


def cka_of(
    run: RunDir,
    recipe: Recipe,
    first: str,
    second: str,
    images: int = IMAGES,
    batch: int = BATCH,
    part: str = PART,
) -> CkaMap:
    """The CKA of all layers of two of a run's models; nothing is stored.

    At most `images` images of a part, drawn evenly from it and then mixed, in batches of `batch`; a
    last batch of fewer than four is left out. Raises EdgekdError of all kinds.
    """
    for name in (first, second):
        _check(run, recipe, name)
    hashes = {name: sha256(run.weights(name)) for name in (first, second)}
    pairs = [(first, second)]
    return _compare(run, recipe, pairs, images, batch, part, prepare(recipe), hashes)[0]


def pairs_of(recipe: Recipe) -> list[Pair]:
    """The pairs that a recipe wants compared. Raises RecipeError where nothing names any."""
    if recipe.analysis is not None and recipe.analysis.cka:
        return list(recipe.analysis.cka)
    if recipe.export.reference is None or recipe.export.model in recipe.ensembles:
        raise RecipeError(
            f"which models are to be compared? The recipe has {', '.join(recipe.models)}, but "
            "neither `analysis.cka` nor a model and its `export.reference`",
            hint=f"--cka {','.join((list(recipe.models) * 2)[:2])}",
        )
    return [(recipe.export.reference, recipe.export.model)]


def _check(run: RunDir, recipe: Recipe, name: str) -> None:
    """Is a model one of the run's, with layers and weights to look at?"""
    if name in recipe.ensembles:
        members = ", ".join(recipe.ensembles[name])
        raise RecipeError(f"'{name}' is an ensemble, whose members have layers of their own",
                          hint=f"compare one of {members}")  # fmt: skip
    if name not in recipe.models:
        raise RecipeError(f"there is no model '{name}'", hint=did_you_mean(name, recipe.models))
    if recipe.models[name].arch.startswith("onnx:"):
        raise RecipeError(f"model '{name}' is an ONNX file, whose layers cannot be looked into",
                          hint="compare models that are PyTorch networks")  # fmt: skip
    if not run.weights(name).is_file():
        has = sorted(path.stem for path in run.weights(name).parent.glob("*.safetensors"))
        hint = f"it has {', '.join(has)}" if has else f"edgekd distill RECIPE --out {run.root}"
        raise CheckpointError(f"{run.root} has no weights of '{name}'", hint=hint)


def _network(recipe: Recipe, run: RunDir, name: str, task: Task) -> Network:
    """A model of the run as it was scored."""
    network = assemble(recipe, name, task)
    load_weights(network, run.weights(name))
    return network


def _compare(
    run: RunDir,
    recipe: Recipe,
    pairs: Sequence[Pair],
    images: int,
    batch: int,
    part: str,
    data: Prepared,
    hashes: dict[str, str],
) -> list[CkaMap]:
    """All pairs in one pass over the images, in which every model is asked once."""
    if _data_key(run) not in (None, data.key):
        raise DataError(f"the data are no longer those that {run.root} was scored on",
                        hint=f"edgekd distill RECIPE --out {run.root}")  # fmt: skip
    batches = _batches(getattr(data.split, part), images, batch, part)
    count = sum(map(len, batches))
    device = scoring_device(recipe.hardware)
    names = dict.fromkeys(name for pair in pairs for name in pair)
    networks = {name: _network(recipe, run, name, data.task).to(device) for name in names}
    sums = {pair: MinibatchCka() for pair in pairs}
    layers: dict[str, list[Layer]] = {}
    with progress() as bar:
        task = bar.add_task("comparing layers", total=count, note="")
        for indices in batches:
            crops = [center_crop(data.store[int(i)], recipe.data.input.size) for i in indices]
            pixels = to_float(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).to(device))
            grams = {}
            for name, network in networks.items():
                found, grams[name] = layer_grams(network, pixels.contiguous())
                if not found or layers.setdefault(name, found) != found:
                    raise RecipeError(_unusual(name, found))
            for first, second in pairs:
                sums[first, second].add(grams[first], grams[second])
            bar.update(task, advance=len(indices))
    maps = []
    for first, second in pairs:
        ours, theirs = layers[first], layers[second]
        say(f"cka of {first} ({len(ours)} layers) and {second} ({len(theirs)} layers) on "
            f"{count} {part} images")  # fmt: skip
        maps.append(CkaMap(
            first=first, second=second,
            layers_first=[layer.name for layer in ours],
            layers_second=[layer.name for layer in theirs],
            kinds_first=[layer.kind for layer in ours],
            kinds_second=[layer.kind for layer in theirs],
            matrix=_rounded(sums[first, second].matrix()),
            images=count, asked=images, batch=batch, part=part,
            sha256_first=hashes[first], sha256_second=hashes[second], data=data.key,
        ))  # fmt: skip
    return maps


def _unusual(name: str, found: list[Layer]) -> str:
    if not found:
        return (f"model '{name}' has no layers to compare: no convolution, normalisation, "
                "activation or linear layer is a module of its own")  # fmt: skip
    return f"model '{name}' calls other layers for other images, so they cannot be compared"


def _batches(indices: Indices, images: int, batch: int, part: str) -> list[Indices]:
    """Images drawn evenly from a part, mixed, in batches of four or more.

    They are mixed because data often come class by class: a batch of one class would show how
    alike two layers are within it, and nothing of what tells classes apart.
    """
    places = np.linspace(0, len(indices) - 1, min(images, len(indices))).round().astype(np.int64)
    drawn = np.random.default_rng(0).permutation(indices[places])
    pieces = [drawn[start : start + batch] for start in range(0, len(drawn), batch)]
    if not pieces or len(pieces[0]) < LEAST_IMAGES:
        raise DataError(f"the {part} part has {len(indices)} images, expected {LEAST_IMAGES} or "
                        "more to compare layers on")  # fmt: skip
    if len(pieces[-1]) < LEAST_IMAGES:
        say(f"the last {len(pieces.pop())} of {len(drawn)} images are left out: a batch needs "
            f"{LEAST_IMAGES}")  # fmt: skip
    return pieces


def _rounded(matrix: Any) -> list[list[float | None]]:
    return [
        [round(float(value), DECIMALS) if np.isfinite(value) else None for value in row]
        for row in matrix
    ]


def _key(one: CkaMap) -> tuple[Any, ...]:
    return one.asked, one.batch, one.part, one.sha256_first, one.sha256_second, one.data


def _stored(path: Path) -> CkaMap | None:
    """What lies there, None where it is absent, damaged or of another version: it is made anew."""
    try:
        return CkaMap.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _data_key(run: RunDir) -> str | None:
    """The key of the data that the run was scored on."""
    import json

    try:
        key = json.loads(run.environment.read_text(encoding="utf-8")).get("data")
    except (OSError, ValueError):
        return None
    return str(key) if key else None
