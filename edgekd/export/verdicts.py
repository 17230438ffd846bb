"""What is done with a gate's verdict: recorded, said, accepted with a reason, or raised."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from edgekd.bundle import Artifact, Manifest
from edgekd.errors import EdgekdError, GateFailed
from edgekd.export.finish import finish
from edgekd.export.gate import why
from edgekd.export.given import Say
from edgekd.export.plan import EXACT, INT8, ONNX
from edgekd.rundir import replace_folder

INSTEAD = ("mixed", "int8-aware", "fp16")  # of int8, what to try first


def add(manifest: Manifest, artifact: Artifact, reason: str | None, say: Say) -> Manifest:
    """Put a judged artifact into the manifest and say its verdict."""
    artifact = _accepted(artifact, reason)
    if artifact.gate is not None:
        detail = why(artifact.gate)
        say(f"  {artifact.name}: {artifact.gate.verdict}" + (f" ({detail})" if detail else ""))
    return manifest.model_copy(
        update={"artifacts": {**manifest.artifacts, artifact.name: artifact}}
    )


def accept(folder: Path, manifest: Manifest, reason: str | None) -> Manifest:
    """Record `reason` with the inconclusive artifacts of a finished bundle, in one step."""
    changed = accepted(manifest, reason)
    if changed == manifest:
        return manifest
    with replace_folder(folder) as draft:
        shutil.copytree(folder, draft, dirs_exist_ok=True)
        return finish(draft, changed)


def accepted(manifest: Manifest, reason: str | None) -> Manifest:
    """The manifest with `reason` at its inconclusive artifacts."""
    artifacts = {name: _accepted(a, reason) for name, a in manifest.artifacts.items()}
    return manifest.model_copy(update={"artifacts": artifacts})


def carry_reasons(old: Manifest, new: Manifest, say: Say) -> Manifest:
    """Artifacts of which every file is the same as before keep the reason they were accepted for.

    `new` must list its files already. One that is no longer inconclusive needs no reason.
    """
    artifacts = dict(new.artifacts)
    for name, artifact in new.artifacts.items():
        before = old.artifacts.get(name)
        reason = before.gate.accepted_because if before and before.gate else None
        is_same = (
            before is not None
            and before.files == artifact.files
            and all(old.files[file].sha256 == new.files[file].sha256 for file in artifact.files)
        )
        if reason and artifact.gate and artifact.gate.accepted_because is None and is_same:
            artifacts[name] = _accepted(artifact, reason)
            if artifacts[name] != artifact:
                say(f"  {name}: accepted before, because: {reason}")
    return new.model_copy(update={"artifacts": artifacts})


def check_reason(reason: str | None) -> None:
    """Raise EdgekdError for a reason that says nothing; None is no reason at all, and fine."""
    if reason is not None and not reason.strip():
        raise EdgekdError("--accept-inconclusive: the reason is empty",
                          hint='--accept-inconclusive "trial on 40 volunteers, protocol 7"'
                          )  # fmt: skip


def _accepted(artifact: Artifact, reason: str | None) -> Artifact:
    gate = artifact.gate
    if not reason or gate is None or gate.verdict != "inconclusive":
        return artifact
    accepted = gate.model_copy(update={"accepted_because": reason})
    return artifact.model_copy(update={"gate": accepted})


def raise_if_failed(*manifests: Manifest) -> None:
    """GateFailed that lists what may not ship, and why, over all bundles of a run."""
    lines: list[str] = []
    hints: list[str] = []
    for manifest in manifests:
        failed = [a for a in manifest.artifacts.values() if a.gate and not a.gate.may_ship]
        named = f"{manifest.model.name} " if len(manifests) > 1 else ""
        lines += [f"  {named}{a.name}: {a.gate.verdict}, {why(a.gate)}" for a in failed if a.gate]
        if failed:
            hints.append(next_step(manifest, failed))
    if lines:
        count = f"{len(lines)} of {sum(len(m.artifacts) for m in manifests)} artifacts"
        raise GateFailed(f"{count} did not pass the gate:\n" + "\n".join(lines),
                         hint="; ".join(dict.fromkeys(hints)))  # fmt: skip


def next_step(manifest: Manifest, failed: Sequence[Artifact]) -> str:
    """What to try after these artifacts failed."""
    images = "more test images, or --accept-inconclusive REASON"
    refused = [a for a in failed if a.gate and a.gate.verdict == "refused"]
    if not refused:
        return images
    if any(a.precision == EXACT for a in refused):
        return "edgekd lint FILE.onnx, and another opset or runtime: a float conversion changed it"
    if not any(a.precision == INT8 for a in refused):
        return "deploy an artifact that passed"
    others = [a for a in manifest.artifacts.values() if a.precision not in (EXACT, INT8) and a.gate]
    good = [a.name for a in others if a.gate and a.gate.may_ship]
    if good:
        return f"deploy {' or '.join(good)}, which may ship; {_training(manifest)}"
    untried = [p for p in INSTEAD if p not in {a.precision for a in others}]
    if untried:
        return f"--make {ONNX}-{untried[0]}; {_training(manifest)}"
    if any(a.gate and a.gate.verdict == "inconclusive" for a in others):
        return f"{images}; {_training(manifest)}"
    return _training(manifest)


def _training(manifest: Manifest) -> str:
    where = " where it was trained" if manifest.model.role == "model" else ""
    return (f"full int8 again after a last stage with `quantize: int8`{where} "
            "(docs/concepts/quantization.md)")  # fmt: skip
