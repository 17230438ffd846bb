"""What is done with a gate's verdict: recorded, said, accepted with a reason, or raised."""

from __future__ import annotations

from pathlib import Path

from edgekd.bundle import Artifact, Manifest, close_bundle
from edgekd.errors import GateFailed
from edgekd.export.card import model_card
from edgekd.export.gate import why
from edgekd.export.materials import Say
from edgekd.rundir import write_text


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
    """Record `reason` with the inconclusive artifacts of a finished bundle."""
    artifacts = {name: _accepted(a, reason) for name, a in manifest.artifacts.items()}
    if artifacts == manifest.artifacts:
        return manifest
    changed = manifest.model_copy(update={"artifacts": artifacts})
    write_text(folder / "model-card.md", model_card(changed))
    return close_bundle(folder, changed)


def _accepted(artifact: Artifact, reason: str | None) -> Artifact:
    gate = artifact.gate
    if not reason or gate is None or gate.verdict != "inconclusive":
        return artifact
    accepted = gate.model_copy(update={"accepted_because": reason})
    return artifact.model_copy(update={"gate": accepted})


def raise_if_failed(manifest: Manifest) -> None:
    """GateFailed that lists what may not ship, and why."""
    failed = [a for a in manifest.artifacts.values() if a.gate and not a.gate.may_ship]
    if not failed:
        return
    lines = [f"  {a.name}: {a.gate.verdict}, {why(a.gate)}" for a in failed if a.gate]
    is_open = all(a.gate and a.gate.verdict == "inconclusive" for a in failed)
    hint = ("more test images, or --accept-inconclusive REASON" if is_open
            else "raise export.calibration.images, or deploy an artifact that passed")  # fmt: skip
    count = f"{len(failed)} of {len(manifest.artifacts)} artifacts"
    raise GateFailed(f"{count} did not pass the gate:\n" + "\n".join(lines), hint=hint)
