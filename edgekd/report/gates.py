"""Gates in plain words."""

from __future__ import annotations

from edgekd.bundle import Artifact, Check, Manifest
from edgekd.report.records import CheckView, GateView, GateWord

# What each check asks; the part after the colon of a check's name is its subject.
QUESTIONS = {
    "parity": "Outputs on the golden pictures: largest difference, as a part of the largest output",
    "parity-test": "The same on the test images",
    "preprocessing": "Golden pictures decoded and resized again: largest difference of a pixel",
    "non-inferiority": "Loss of {primary} on the test images (positive is worse)",
    "evidence": "Patients or lesions lost minus won, as a share: is the test part large enough?",
    "sensitivity": "Loss of sensitivity for {subject} (positive is worse)",
    "calibration": "Change of {subject} (positive is worse)",
    "mcnemar": "Probability that chance alone explains the changed decisions (McNemar)",
}
SUBJECTS = {"ece": "the calibration error (ECE)", "brier": "the Brier score"}
REFERENCE = "onnx-fp32"  # what the others are compared with


def word(artifact: Artifact) -> GateWord:
    """The verdict on an artifact."""
    gate = artifact.gate
    if gate is None:
        return "not run"
    if gate.verdict == "inconclusive" and gate.may_ship:
        return "accepted"
    return gate.verdict


def views(manifest: Manifest | None, primary_label: str) -> list[GateView]:
    """The gates of all artifacts of a bundle."""
    if manifest is None:
        return []
    found = []
    for artifact in manifest.artifacts.values():
        gate = artifact.gate
        found.append(
            GateView(
                artifact=artifact.name,
                word=word(artifact),
                accepted_because=gate.accepted_because if gate else None,
                images=gate.images if gate else None,
                groups=gate.groups if gate else None,
                checks=[_view(check, primary_label) for check in gate.checks] if gate else [],
            )
        )
    return found


def _view(check: Check, primary_label: str) -> CheckView:
    kind, _, subject = check.name.partition(":")
    question = QUESTIONS.get(kind, check.name)
    # replaced, not formatted: a class may be called `{primary}`
    question = question.replace("{primary}", primary_label).replace(
        "{subject}", SUBJECTS.get(subject, subject) if kind == "calibration" else subject
    )
    return CheckView(
        name=check.name,
        question=question,
        verdict=check.verdict,
        value=check.value,
        low=check.low,
        high=check.high,
        limit=check.limit,
        detail=check.detail,
    )
