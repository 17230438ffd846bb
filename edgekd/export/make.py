"""`edgekd export`: from a run's weights to a bundle whose every artifact has been judged."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekd import __version__, recipe_load
from edgekd.bundle import (
    SCHEMA_VERSION,
    Artifact,
    Manifest,
    ModelFacts,
    close_bundle,
    is_bundle,
    open_bundle,
)
from edgekd.data.origin import digests
from edgekd.errors import BundleError, CheckpointError
from edgekd.export import golden as goldens
from edgekd.export.artifacts import (
    Evidence,
    bound_elsewhere,
    leave_to_device,
    make_each,
    onnx_file,
)
from edgekd.export.finish import finish
from edgekd.export.given import Say
from edgekd.export.materials import Materials
from edgekd.export.packages import versions
from edgekd.export.plan import EXACT, Step, plan
from edgekd.export.thresholds import check_classes, measured, operating_points
from edgekd.export.verdicts import accept, add, carry_reasons, check_reason, raise_if_failed
from edgekd.log import say as say_to_person
from edgekd.rundir import RunDir, only_one, replace_folder, sha256
from edgekd.signature import SigningKey, check_outside, saying_if_removed, sign


def export(
    target: Path,
    *,
    make: Sequence[str] | None = None,
    accept_inconclusive: str | None = None,
    key: SigningKey | None = None,
    progress: Say = say_to_person,
) -> Manifest:
    """Make the bundle of a run, or more artifacts in a bundle; returns the student's manifest.

    The models of the recipe's `export.also` get a bundle each, in `also/<model>/`.
    `make` names the artifacts (default: the recipe's `export.make`); what they need is made too.
    What is already there and up to date stays. Artifacts that a gate did not pass remain in the
    bundle, marked; then GateFailed is raised, after everything else is done and stored.
    `accept_inconclusive` is a reason, recorded with each inconclusive artifact; it never excuses
    a refused one. With `key` the bundle, and the reference's, is signed, whatever its gates say:
    they are in it. Raises CheckpointError where there is nothing trained, RecipeError for unknown
    names, MissingOnHost for absent packages, EdgekdError for a blank reason.
    """
    check_reason(accept_inconclusive)
    run = RunDir(target)
    folders = [target] if is_bundle(target) else [run.bundle, run.reference, *_others(run)]
    if key is not None:
        for folder in folders:
            check_outside(key, folder)
    with saying_if_removed(folders if key is None else (), progress):
        made = _made(run, make, accept_inconclusive, progress)
        folders = [*folders, *(f for f in _others(run) if f not in folders)]
    if key is not None:
        for folder in filter(is_bundle, folders):
            sign(folder, key)
            progress(f"{folder}: signed")
    raise_if_failed(*made)
    return made[0]


def _others(run: RunDir) -> list[Path]:
    """The bundles of the recipe's `export.also` that are there."""
    names = recipe_load.load(run.recipe).export.also if run.recipe.is_file() else []
    return [folder for folder in map(run.bundle_of, names) if is_bundle(folder)]


def _made(run: RunDir, make: Sequence[str] | None, reason: str | None, say: Say) -> list[Manifest]:
    # an imported bundle may lie where a run's would, without a run around it
    if is_bundle(run.root) or (is_bundle(run.bundle) and not run.recipe.is_file()):
        from edgekd.export.extend import extend

        return [extend(bundle_of(run.root), make=make, reason=reason, say=say)]
    return _export_run(run, make, reason, say)


def bundle_of(target: Path) -> Path:
    """The student's bundle of a run; a bundle is its own."""
    return target if is_bundle(target) else RunDir(target).bundle


def _export_run(
    run: RunDir, make: Sequence[str] | None, reason: str | None, say: Say
) -> list[Manifest]:
    if not run.recipe.is_file():
        raise CheckpointError(f"{run.root} is neither a run nor a bundle",
                              hint="edgekd distill RECIPE")  # fmt: skip
    recipe = recipe_load.load(run.recipe)
    steps = leave_to_device(plan(recipe.export.make), say) if make is None else plan(make)
    materials = Materials(run, recipe, say)
    with only_one(run.root):
        made = [
            _make_bundle(_Job(model, "student", folder, steps), materials, reason)
            for model, folder in [
                (recipe.export.model, run.bundle),
                *((name, run.bundle_of(name)) for name in recipe.export.also),
            ]
        ]
        teacher = recipe.export.reference
        if teacher and recipe.models[teacher].arch.startswith("onnx:"):
            say(f"{teacher}: an ONNX file already, no reference bundle")
        elif teacher:
            lowered = {f"{step.target}-{EXACT}" for step in steps}
            job = _Job(teacher, "teacher", run.reference, plan(sorted(lowered)))
            _make_bundle(job, materials, None)
    return made


@dataclass(frozen=True)
class _Job:
    """One model of the run on its way into one bundle folder."""

    model: str
    role: str
    folder: Path
    steps: list[Step]


def _make_bundle(job: _Job, materials: Materials, reason: str | None) -> Manifest:
    """Make one bundle in a neighbour folder and swap it in; an unchanged one is left alone."""
    run, say = materials.run, materials.say
    weights = run.weights(job.model)
    if not weights.is_file():
        raise CheckpointError(f"{run.root} has no trained weights of '{job.model}'",
                              hint="edgekd distill RECIPE")  # fmt: skip
    key = _key(job, materials, sha256(weights))
    known = unchanged(job.folder, key)
    if known is not None:
        wanted = [step.name for step in job.steps]
        if set(wanted) <= set(known.artifacts) - set(bound_elsewhere(known, job.folder)):
            say(f"{job.folder}: up to date")
            return accept(job.folder, known, reason)
        kept = [step.name for step in leave_to_device(plan(list(known.artifacts)), say)]
        job = replace(job, steps=plan([*kept, *wanted]))  # nothing good gets lost
    with replace_folder(job.folder) as folder:
        manifest = _start(job, materials, folder, sha256(weights), key)
        evidence = _evidence(job, materials, folder)
        given = materials.given(job.model)
        made = make_each(job.model, job.steps, folder, given, evidence)
        for artifact, predictions in made:
            if predictions is not None:
                predictions.save(run.said_by(job.folder, job.model, artifact.name))
            if job.role == "teacher":
                artifact = _borrow_scores(artifact, job, materials, evidence)
            manifest = add(manifest, artifact, reason, say)
            manifest = measured(manifest, artifact.name, predictions, evidence.task)
        if known is not None:
            manifest = carry_reasons(known, close_bundle(folder, manifest), say)
        keep_measurements(job.folder, folder)
        return finish(folder, manifest)


def _start(
    job: _Job, materials: Materials, folder: Path, weights_sha256: str, key: str
) -> Manifest:
    """The first ONNX file and the golden pictures: all that needs torch."""
    from edgekd.export.onnx_from_torch import OPSET, logits_of_torch, to_onnx
    from edgekd.models.assemble import arch_of, assemble
    from edgekd.models.complexity import count
    from edgekd.models.weights import load_weights

    recipe, run = materials.recipe, materials.run
    task = materials.task(job.model)
    points = {}
    wanted = recipe.export.thresholds
    if wanted and job.role == "student":
        check_classes(wanted, task)
        validation = materials.predictions(job.model, "val")
        points = operating_points(task, validation, wanted, materials.say)
    network = assemble(recipe, job.model, task)
    load_weights(network, run.weights(job.model))
    materials.say(f"{job.model}: writing ONNX, opset {OPSET}")
    to_onnx(network, folder / onnx_file(EXACT), size=recipe.data.input.size)
    goldens.write_golden(
        folder / goldens.FOLDER, recipe.data.input, lambda x: logits_of_torch(network, x)
    )
    complexity = count(network, recipe.data.input.size)
    return Manifest(
        name=recipe.name, task=recipe.task.name, primary=task.primary, classes=list(task.classes),
        input=recipe.data.input, opset=OPSET, thresholds=points, learned=task.learned,
        model=ModelFacts(name=job.model, arch=arch_of(recipe, job.model), params=complexity.params,
                         macs=complexity.macs, role="teacher" if job.role == "teacher"
                         else "student"),
        recipe=recipe.model_dump(mode="json", by_alias=True), recipe_sha256=sha256(run.recipe),
        provenance={
            "key": key, "weights_sha256": weights_sha256, "versions": versions(),
            "data_fingerprint": materials.source.fingerprint(),
            **digests(materials.source, materials.split),
            **({"caveats": materials.caveats()} if materials.caveats() else {}),
            **run_git(run),
            "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    )  # fmt: skip


def _evidence(job: _Job, materials: Materials, folder: Path) -> Evidence:
    """The student is judged on the test images too; the teacher only by parity."""
    spec = materials.recipe
    evidence = Evidence(
        task=materials.task(job.model),
        input=spec.data.input,
        golden=goldens.read_golden(folder / goldens.FOLDER),
        limits=spec.export.gate,
        why_no_images="judged by parity only",
    )
    if job.role == "teacher":
        return evidence
    reference = materials.predictions(job.model)
    if not reference.ids:
        return replace(evidence, why_no_images="the test part is empty")
    return replace(evidence, reference=reference, squares=materials.test_squares)


def _borrow_scores(
    artifact: Artifact, job: _Job, materials: Materials, evidence: Evidence
) -> Artifact:
    """An fp32 artifact with parity scores as the PyTorch model does; a teacher is slow to run."""
    if artifact.gate is None or artifact.gate.verdict != "passed":
        return artifact
    reference = materials.predictions(job.model)
    if not reference.ids:
        return artifact
    note = "scores are those of the PyTorch model, which it equals on the golden pictures"
    return artifact.model_copy(update={"scores": evidence.task.score(reference),
                                       "notes": [*artifact.notes, note]})  # fmt: skip


def keep_measurements(old: Path, new: Path) -> None:
    """Carry `bench/*.jsonl` over; each row names the sha256 of the file it measured."""
    if (old / "bench").is_dir():
        shutil.copytree(old / "bench", new / "bench", dirs_exist_ok=True)


def run_git(run: RunDir) -> dict[str, Any]:
    """The git state that `distill` recorded, as an entry of the provenance."""
    try:
        known = json.loads(run.environment.read_text(encoding="utf-8")).get("git")
    except (OSError, ValueError, AttributeError):
        return {}
    return {"git": known} if known else {}


def _key(job: _Job, materials: Materials, weights_sha256: str) -> str:
    """Changes when anything changes that the bundle is made of (which artifacts apart)."""
    recipe = materials.recipe
    return recipe_load.digest([
        __version__, SCHEMA_VERSION, weights_sha256, recipe.name,
        *(part.model_dump(mode="json", by_alias=True)
          for part in (recipe.export, recipe.task, recipe.data,
                       *(recipe.models[member] for member in recipe.members(job.model)))),
        materials.source.fingerprint(),
        *materials.task(job.model).learned.thresholds,
    ])  # fmt: skip


def unchanged(folder: Path, key: str) -> Manifest | None:
    """The manifest of a bundle that is whole and made of the same things."""
    if not is_bundle(folder):
        return None
    try:
        manifest = open_bundle(folder)
    except BundleError:
        return None  # damaged or of another version: made anew
    return manifest if manifest.provenance.get("key") == key else None
