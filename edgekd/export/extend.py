"""More artifacts for a finished bundle, without torch: precision passes and lowerings."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekd import plugins, recipe_load
from edgekd.bundle import Artifact, Manifest, open_bundle
from edgekd.data.origin import check_same_split
from edgekd.errors import BundleError, DataError, EdgekdError
from edgekd.export import golden as goldens
from edgekd.export.artifacts import (
    Evidence,
    bound_elsewhere,
    leave_to_device,
    logits_on,
    make_each,
    remove_files,
)
from edgekd.export.finish import finish
from edgekd.export.given import Given, Say
from edgekd.export.materials import Materials
from edgekd.export.plan import EXACT, ONNX, plan
from edgekd.export.thresholds import measured
from edgekd.export.verdicts import accept, accepted, add
from edgekd.recipe import ExportSpec, GateSpec, Recipe
from edgekd.results import Predictions
from edgekd.rundir import RunDir, only_one, only_one_on, replace_folder, run_around, sha256
from edgekd.tasks.base import Task


def extend(folder: Path, *, make: Sequence[str] | None, reason: str | None, say: Say) -> Manifest:
    """Make what `make` names (default: the recipe's list) and the bundle lacks.

    The gate compares with the PyTorch predictions of the run around the bundle, if that run holds
    the weights that the bundle was made of, else with the bundle's fp32 ONNX file. Where the
    recipe's data cannot be opened, a new int8 artifact is inconclusive, and says why. A bundle's
    recipe runs no code, unless the user's own run beside it names the same.
    Raises BundleError for a damaged bundle, a task that is not edgekd's own, or where an int8
    model is asked for and the training images to calibrate on are not at hand.
    """
    parent = run_around(folder)
    with contextlib.ExitStack() as held:
        if parent.recipe.is_file():
            held.enter_context(only_one(parent.root))
        held.enter_context(only_one_on(folder))  # the only lock that an import takes
        return _extend(folder, parent, make, reason, say)


def _extend(
    folder: Path, parent: RunDir, make: Sequence[str] | None, reason: str | None, say: Say
) -> Manifest:
    manifest = open_bundle(folder)
    is_run = _made(parent, manifest)
    recipe = _recipe(manifest)
    may_run_code = is_run and recipe is not None and _names_same_code(parent, manifest, recipe)
    if recipe and not may_run_code:
        recipe = recipe.model_copy(update={"plugins": []})
    wanted = recipe.export.make if make is None and recipe else make or []
    stale = bound_elsewhere(manifest, folder)
    steps = [s for s in plan(wanted) if s.name not in manifest.artifacts or s.name in stale]
    steps = leave_to_device(steps, say) if make is None else steps
    if not steps:
        say(f"{folder}: up to date")
        return accept(folder, manifest, reason)
    task = _task(manifest, recipe, may_run_code)
    is_imported = manifest.model.arch.startswith("onnx:")
    if recipe is None and is_imported:
        materials, problem = None, "the bundle was imported without data"
    elif recipe is None:
        materials, problem = None, "the bundle has no recipe, so its data is unknown"
    elif not may_run_code and recipe.data.name not in plugins.names("data"):
        materials, problem = None, (f"the bundle was made with the data source "
                                    f"'{recipe.data.name}', which is not one of edgekd's own"
                                    )  # fmt: skip
    else:
        materials, problem = _materials(Materials(parent, recipe, say, is_run), manifest)
    with replace_folder(folder) as draft:
        shutil.copytree(folder, draft, dirs_exist_ok=True)
        for step in steps:
            if step.name in stale:
                say(f"{step.name}: {stale[step.name]}; building it again")
                remove_files(manifest.artifacts[step.name], draft)
        evidence = _evidence(draft, manifest, recipe, task, materials, problem)
        given = _given(materials, problem, is_imported, task, recipe, say)
        for artifact, predictions in make_each(manifest.model.name, steps, draft, given, evidence):
            if predictions is not None and is_run:
                predictions.save(parent.said_by(folder, manifest.model.name, artifact.name))
            manifest = add(manifest, artifact, reason, say)
            manifest = measured(manifest, artifact.name, predictions, task)
        return finish(draft, accepted(manifest, reason))


def _made(run: RunDir, manifest: Manifest) -> bool:
    """Whether this folder is the run that the bundle was made of: it holds the same weights.

    A bundle may have been copied, even into the folder of another run.
    """
    weights = run.weights(manifest.model.name)
    recorded = manifest.provenance.get("weights_sha256")
    is_run = run.recipe.is_file() and run.split.is_file() and weights.is_file()
    return is_run and recorded == sha256(weights)


def _names_same_code(run: RunDir, manifest: Manifest, recipe: Recipe) -> bool:
    """Whether the recipe in the run folder is the user's own, and names the same plug-ins."""
    uid = getattr(os, "getuid", None)  # not on Windows
    if uid is not None and run.recipe.stat().st_uid != uid():
        return False
    own = recipe_load.load(run.recipe)
    return (own.plugins, own.data.name, own.task.name, own.task.name) == (
        recipe.plugins, recipe.data.name, recipe.task.name, manifest.task,
    )  # fmt: skip


def _recipe(manifest: Manifest) -> Recipe | None:
    return recipe_load.validate(manifest.recipe, "the bundle's recipe") if manifest.recipe else None


def _materials(materials: Materials, manifest: Manifest) -> tuple[Materials | None, str]:
    """The data behind the bundle, or why it is out of reach."""
    try:
        check_same_split(materials.source, materials.split, manifest.provenance)
    except EdgekdError as error:
        return None, f"the test images cannot be used: {error.message}"
    return materials, ""


def _evidence(
    folder: Path, manifest: Manifest, recipe: Recipe | None, task: Task,
    materials: Materials | None, problem: str,
) -> Evidence:  # fmt: skip
    golden = goldens.read_golden(folder / goldens.FOLDER)
    bare = Evidence(
        task=task, input=manifest.input, golden=golden,
        limits=recipe.export.gate if recipe else GateSpec(), why_no_images=problem,
    )  # fmt: skip
    if materials is None or manifest.model.role == "teacher":
        return bare
    try:
        squares = materials.test_squares
        if materials.is_run:
            reference = materials.predictions(manifest.model.name)
        else:  # the fp32 ONNX file was proven equal to the PyTorch model when it was made
            exact = manifest.artifacts.get(f"{ONNX}-{EXACT}")
            if exact is None:
                raise BundleError("the bundle has no fp32 ONNX file to compare with")
            reference = materials.from_logits(logits_on(exact, folder, squares))
            if reference.ids and not _is_scored_on(task, reference, exact):
                raise DataError("the test images are not those that the fp32 model was scored on")
    except EdgekdError as error:
        return replace(bare, why_no_images=error.message)
    if not reference.ids:
        return replace(bare, why_no_images="the test part is empty")
    return replace(bare, reference=reference, squares=squares)


def _is_scored_on(task: Task, reference: Predictions, exact: Artifact) -> bool:
    """Whether the fp32 model scores as recorded. Ids and labels do not tell changed pixels."""
    recorded = exact.scores or {}
    found = task.score(reference, resamples=0) if recorded else {}
    for name, tolerance in ((task.primary, 1e-6), ("brier", 1e-4)):
        # the primary score may stay the same by chance, the Brier score moves with every logit
        if name in recorded and name in found:
            before, now = recorded[name].value, found[name].value
            is_same = before == now if before is None or now is None else (
                abs(before - now) <= tolerance)  # fmt: skip
            if not is_same:
                return False
    return True


def _task(manifest: Manifest, recipe: Recipe | None, may_run_code: bool) -> Task:
    if not may_run_code and manifest.task not in plugins.names("tasks"):
        raise BundleError(f"the bundle has the task '{manifest.task}', which is not one of "
                          "edgekd's own: a bundle never names code to run",
                          hint="edgekd export RUN, where it was trained")  # fmt: skip
    folders = [Path(name) for name in recipe.plugins] if recipe else []
    cls = plugins.load("tasks", manifest.task, Task, folders=folders)  # type: ignore[type-abstract]
    task = cls(classes=manifest.classes, primary=manifest.primary)
    return task.taught(manifest.learned)


def _given(
    materials: Materials | None, problem: str, is_imported: bool, task: Task,
    recipe: Recipe | None, say: Say,
) -> Given:  # fmt: skip
    """The data for precision passes; without it, asking for images says why there are none."""
    if materials is not None:
        return materials.given()

    def refuse() -> Any:
        again = "edgekd import FILE.onnx ... data.name=folder data.root=IMAGES"
        raise BundleError(
            f"quantizing needs training images, but {problem}",
            hint=again if is_imported else "edgekd export RUN, where the data is",
        )

    return Given(refuse, refuse, task, recipe.export if recipe else ExportSpec(), say)
