"""Make one artifact, run it by its own runtime, score it and put it through the gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgekd import plugins
from edgekd.bundle import INPUT_NAME, OUTPUT_NAME, Artifact, Manifest, inside
from edgekd.errors import BundleError, EdgekdError
from edgekd.export.gate import gate
from edgekd.export.given import Given, Made, Say
from edgekd.export.golden import Golden, compare
from edgekd.export.lint import check_qdq
from edgekd.export.plan import EXACT, INT8, ONNX, Step, available, is_bound, module_of, plan
from edgekd.image import Float32, UInt8
from edgekd.recipe import GateSpec
from edgekd.recipe_data import InputSpec
from edgekd.results import Predictions
from edgekd.runtimes.base import RunOptions, Runtime
from edgekd.tasks.base import Task

BATCH = 32  # for scoring; the bench measures others


@dataclass(frozen=True)
class Evidence:
    """What an artifact is judged by. `reference` and `squares` are None without test images."""

    task: Task
    input: InputSpec
    golden: Golden
    limits: GateSpec
    # the fp32 PyTorch model, or the imported file as it came, on the test images
    reference: Predictions | None = None
    squares: UInt8 | None = None  # the same test images (N, S, S, 3)
    why_no_images: str = "no test images"


def make_artifact(step: Step, folder: Path, given: Given) -> Artifact:
    """Make `step` from the files already in `folder`.

    `model.fp32.onnx` must be there. Raises BundleError if the result breaks a rule that the
    three runtimes have in common.
    """
    made_from = onnx_file(step.precision if step.target != ONNX else EXACT)
    made = Made([])
    if step.target != ONNX:
        lowering = module_of(step)
        paths = lowering.lower(folder / made_from, folder, step.precision)
        runtime = lowering.RUNTIME
    else:
        paths, runtime = [folder / onnx_file(step.precision)], "onnxruntime"
        if step.precision != EXACT:
            made = module_of(step).convert(folder / made_from, paths[0], given)
        problems = check_qdq(paths[0])
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise BundleError(
                f"{paths[0].name} is not legal for every runtime: {problems[0]}{more}",
                hint=f"leave {step.name} out of export.make, and report this network",
            )
    names = [path.relative_to(folder).as_posix() for path in paths]
    return Artifact(name=step.name, file=names[0], files=names, runtime=runtime,
                    precision=step.precision, made_from=step.made_from, notes=made.notes,
                    float_layers=made.float_layers)  # fmt: skip


def make_each(
    model: str, steps: Sequence[Step], folder: Path, given: Given, evidence: Evidence
) -> Iterator[tuple[Artifact, Predictions | None]]:
    """Make and judge each step; where full int8 is refused, what `export.if_refused` names too.

    What was not asked for and cannot be made (without validation images, say) is said and left.
    """
    todo = list(steps)
    missing: set[str] = set()
    for step in todo:
        if step.made_from in missing:
            missing.add(step.name)
            continue
        given.say(f"{model}: making {step.name}")
        try:
            artifact = make_artifact(step, folder, given)
        except EdgekdError as error:
            if step in steps:
                raise
            given.say(f"  {step.name} cannot be made: {error.message}")
            missing.add(step.name)
            continue
        artifact, predictions = prove(artifact, folder, evidence)
        yield artifact, predictions
        todo += _instead(artifact, folder, given.spec.if_refused, todo)


def _instead(
    artifact: Artifact, folder: Path, precisions: Sequence[str], planned: Sequence[Step]
) -> list[Step]:
    if artifact.precision != INT8 or artifact.gate is None or artifact.gate.verdict != "refused":
        return []
    target, known = artifact.name.removesuffix(f"-{INT8}"), available()
    names = [f"{target}-{precision}" for precision in precisions]
    # where a lowering has nothing to do with a precision, the ONNX file runs there as it is
    wanted = plan([n if n in known else n.replace(target, ONNX, 1) for n in names])
    return [
        step
        for step in wanted
        if step not in planned
        and not (step.target == ONNX and (folder / onnx_file(step.precision)).exists())
    ]


def onnx_file(precision: str) -> str:
    """The name of the ONNX model of one precision inside a bundle."""
    return f"model.{precision}.onnx"


def start(artifact: Artifact, folder: Path) -> Runtime:
    """The artifact in its own runtime, as a context manager; a float artifact runs as f32.

    Raises BundleError for a runtime that is not built in: a manifest never names code to run.
    """
    if artifact.runtime not in plugins.names("runtimes"):
        raise BundleError(f"{artifact.name}: there is no runtime '{artifact.runtime}'")
    loader = _loader(artifact)
    return loader(folder / artifact.file, RunOptions(precision=artifact.precision))


def _loader(artifact: Artifact) -> type[Runtime]:
    return plugins.load("runtimes", artifact.runtime, Runtime)  # type: ignore[type-abstract]


def bound_elsewhere(manifest: Manifest, folder: Path) -> dict[str, str]:
    """The artifacts that another host made for itself alone: name to the reason, in one line."""
    found = {}
    for artifact in manifest.artifacts.values():
        if artifact.runtime in plugins.names("runtimes"):
            reason = _loader(artifact).why_not(inside(folder, artifact.file))
            if reason:
                found[artifact.name] = reason
    return found


def leave_to_device(steps: Sequence[Step], say: Say) -> list[Step]:
    """The steps of a recipe without those for a device that this is not, which are said.

    A recipe is one for workstation and device: what only its own host can run is made there.
    """
    kept = []
    for step in steps:
        runtime = module_of(step).RUNTIME if is_bound(step) else None
        loader = plugins.load("runtimes", runtime, Runtime) if runtime else None  # type: ignore[type-abstract]
        if loader is not None and not loader.probe().available:
            say(f"{step.name}: left to the device: edgekd export BUNDLE --make {step.name}")
            continue
        kept.append(step)
    return kept


def remove_files(artifact: Artifact, folder: Path) -> None:
    """Take an artifact's files out of a bundle, and the folders that are empty then."""
    for name in artifact.files:
        path = inside(folder, name)
        path.unlink()
        for parent in path.relative_to(folder).parents:
            if parent != Path() and not any((folder / parent).iterdir()):
                (folder / parent).rmdir()


def logits_on(artifact: Artifact, folder: Path, squares: UInt8) -> Float32:
    """Logits (N, C) of pictures (N, S, S, 3)."""
    from edgekd.runtimes.session import logits_of

    with start(artifact, folder) as session:
        return np.asarray(logits_of(session, squares, BATCH), dtype=np.float32)


def prove(
    artifact: Artifact, folder: Path, evidence: Evidence
) -> tuple[Artifact, Predictions | None]:
    """Run the artifact on the golden pictures and the test images: gate, scores, predictions."""
    from edgekd.runtimes.session import logits_of

    predictions = None
    with start(artifact, folder) as session:

        def model(inputs: Float32) -> Float32:
            return np.asarray(session.run({INPUT_NAME: inputs})[OUTPUT_NAME], dtype=np.float32)

        golden = compare(evidence.golden, evidence.input, model, evidence.task)
        if evidence.reference is not None and evidence.squares is not None:
            logits = logits_of(session, evidence.squares, BATCH)
            predictions = replace(evidence.reference, logits=np.asarray(logits, dtype=np.float32))
    verdict = gate(
        evidence.task,
        evidence.reference,
        predictions,
        golden=golden,
        limits=evidence.limits,
        precision=artifact.precision,
        why_no_images=evidence.why_no_images,
    )
    finite = predictions is not None and bool(np.isfinite(predictions.logits).all())
    scores = evidence.task.score(predictions) if predictions is not None and finite else None
    return artifact.model_copy(update={"gate": verdict, "scores": scores}), predictions
