"""More artifacts for a finished bundle, without torch: precision passes and lowerings."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from edgekd import plugins, recipe_load
from edgekd.bundle import Manifest, close_bundle, open_bundle
from edgekd.errors import BundleError, DataError, EdgekdError
from edgekd.export import golden as goldens
from edgekd.export.artifacts import Evidence, logits_on, make_artifact, prove
from edgekd.export.card import model_card
from edgekd.export.materials import Materials, Say
from edgekd.export.plan import EXACT, ONNX, plan
from edgekd.export.verdicts import accept, add
from edgekd.image import UInt8
from edgekd.recipe import GateSpec, Recipe
from edgekd.rundir import RunDir, only_one, replace_folder, write_text
from edgekd.tasks.base import Task


def extend(folder: Path, *, make: Sequence[str] | None, reason: str | None, say: Say) -> Manifest:
    """Make what `make` names (default: the recipe's list) and the bundle lacks.

    The gate compares with the run's PyTorch predictions, or with the fp32 ONNX file where the
    bundle was copied out of its run. Where the recipe's data cannot be opened, a new int8
    artifact is inconclusive, and says why.
    Raises BundleError for a damaged bundle, or where an int8 model is asked for and the training
    images to calibrate on are not at hand.
    """
    manifest = open_bundle(folder)
    recipe = _recipe(manifest)
    wanted = recipe.export.make if make is None and recipe else make or []
    steps = [step for step in plan(wanted) if step.name not in manifest.artifacts]
    if not steps:
        say(f"{folder}: up to date")
        return accept(folder, manifest, reason)
    materials, problem = _materials(folder, manifest, recipe, say)
    run = materials.run.root if materials and materials.is_run else None
    with only_one(run) if run else contextlib.nullcontext(), replace_folder(folder) as draft:
        shutil.copytree(folder, draft, dirs_exist_ok=True)
        evidence = _evidence(draft, manifest, recipe, materials, problem)
        for step in steps:
            say(f"{manifest.model.name}: making {step.name}")
            artifact = make_artifact(step, draft, _calibration(materials, problem))
            artifact, predictions = prove(artifact, draft, evidence)
            if predictions is not None and run and materials:
                predictions.save(materials.run.predictions(step.name, "test"))
            manifest = add(manifest, artifact, reason, say)
        write_text(draft / "model-card.md", model_card(manifest))
        closed = close_bundle(draft, manifest)
    return accept(folder, closed, reason)


def _recipe(manifest: Manifest) -> Recipe | None:
    return recipe_load.validate(manifest.recipe, "the bundle's recipe") if manifest.recipe else None


def _materials(
    folder: Path, manifest: Manifest, recipe: Recipe | None, say: Say
) -> tuple[Materials | None, str]:
    """The data behind the bundle, or why it is out of reach."""
    if recipe is None:
        return None, "the bundle has no recipe, so its data is unknown"
    materials = Materials(RunDir(folder.resolve().parent), recipe, say)
    try:
        if materials.source.fingerprint() != manifest.provenance.get("data_fingerprint"):
            raise DataError("the data set has changed since the export")
    except EdgekdError as error:
        return None, f"the test images cannot be opened: {error.message}"
    return materials, ""


def _evidence(
    folder: Path, manifest: Manifest, recipe: Recipe | None, materials: Materials | None,
    problem: str,
) -> Evidence:  # fmt: skip
    golden = goldens.read_golden(folder / goldens.FOLDER)
    bare = Evidence(
        task=_task(manifest, recipe), input=manifest.input, golden=golden,
        limits=recipe.export.gate if recipe else GateSpec(), why_no_images=problem,
    )  # fmt: skip
    if materials is None or manifest.model.role == "teacher":
        return bare
    try:
        squares = materials.test_squares
        if materials.is_run:
            reference = materials.predictions(manifest.model.name)
        else:  # the fp32 ONNX file was proven equal to the PyTorch model when it was made
            exact = manifest.artifacts[f"{ONNX}-{EXACT}"]
            reference = materials.from_logits(logits_on(exact, folder, squares))
    except EdgekdError as error:
        return replace(bare, why_no_images=error.message)
    if not reference.ids:
        return replace(bare, why_no_images="the test part is empty")
    return replace(bare, reference=reference, squares=squares)


def _task(manifest: Manifest, recipe: Recipe | None) -> Task:
    folders = [Path(name) for name in recipe.plugins] if recipe else []
    cls = plugins.load("tasks", manifest.task, Task, folders=folders)  # type: ignore[type-abstract]
    return cls(classes=manifest.classes, primary=manifest.primary)


def _calibration(materials: Materials | None, problem: str) -> Callable[[], UInt8]:
    def read() -> UInt8:
        if materials is None:
            raise BundleError(f"quantizing needs training images, but {problem}",
                              hint="edgekd export RUN, where the data is")  # fmt: skip
        return materials.calibration()

    return read
