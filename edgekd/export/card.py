"""`model-card.md`: what is in a bundle, for a person. Everything in it is in the manifest too."""

from __future__ import annotations

from edgekd.bundle import Artifact, Gate, Manifest
from edgekd.results import Score, Scores

SHOWN = ("macc", "macro_f1", "ece")  # beside the primary score


def model_card(manifest: Manifest) -> str:
    """Markdown: the network, its input, the artifacts with scores and gates, and the limits."""
    facts = manifest.model
    crop = manifest.input.resize or manifest.input.size
    lines = [
        f"# {manifest.name}: {facts.name}",
        "",
        "Made by edgekd. **Not a medical device**: a research model, judged on one test set.",
        "",
        "## Network",
        "",
        f"- architecture `{facts.arch}`, {facts.params:,} parameters, {_macs(facts.macs)}",
        f"- task {manifest.task}; classes: {', '.join(manifest.classes)}",
        f"- input `input`: float32 (N, 3, {manifest.input.size}, {manifest.input.size}), RGB in "
        f"[0, 1], {manifest.input.fit} to {crop}, then the centre; mean and deviation are inside",
        f"- output `logits`: float32 {_output(manifest)}",
        *_decides(manifest),
        f"- ONNX opset {manifest.opset}",
        "",
        "## Artifacts",
        "",
        *_table(manifest),
        "",
    ]
    for artifact in manifest.artifacts.values():
        lines += _artifact(artifact)
    lines += _operating_points(manifest)
    lines += [
        "## Where it comes from",
        "",
        *(f"- {key}: {_git(value) if key == 'git' else _plain(value)}"
          for key, value in sorted(manifest.provenance.items())),
        f"- made by edgekd {manifest.edgekd}",
        f"- recipe: {f'sha256 {manifest.recipe_sha256}' if manifest.recipe_sha256 else 'none'}",
        "",
        "Scores are on the test part, with 95 % bootstrap intervals over groups (patients, "
        "lesions). They say nothing about other populations, cameras or sites.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _output(manifest: Manifest) -> str:
    sides = [manifest.input.size] * 2 if manifest.task == "segmentation" else []
    return f"({', '.join(['N', *map(str, (len(manifest.classes), *sides))])})"


def _decides(manifest: Manifest) -> list[str]:
    """From which probability on a class (or a pixel of it) is there, if that was chosen."""
    cuts = manifest.learned.thresholds
    if not cuts:
        return []
    pairs = ", ".join(f"{c} {cut:.4f}" for c, cut in zip(manifest.classes, cuts, strict=True))
    return [f"- a class is there from its probability on, chosen on validation images: {pairs}"]


def _macs(macs: int) -> str:
    """0 means that they could not be counted (an imported graph)."""
    if not macs:
        return "multiply-accumulates not counted"
    return f"{macs / 1e6:,.1f} M multiply-accumulates per image"


def _table(manifest: Manifest) -> list[str]:
    known = {name for artifact in manifest.artifacts.values() for name in artifact.scores or {}}
    shown = [manifest.primary, *(n for n in SHOWN if n != manifest.primary and n in known)]
    rows = ["| artifact | file | gate | " + " | ".join(shown) + " |",
            "|---" * (3 + len(shown)) + "|"]  # fmt: skip
    for artifact in manifest.artifacts.values():
        scores: Scores = artifact.scores or {}
        cells = [artifact.name, f"`{artifact.file}`", _verdict(artifact.gate)]
        cells += [_score(scores.get(name)) for name in shown]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _artifact(artifact: Artifact) -> list[str]:
    lines = [f"### {artifact.name}", ""]
    lines += [f"- {note}" for note in artifact.notes]
    if artifact.float_layers:
        names = ", ".join(f"`{name}`" for name in artifact.float_layers)
        lines.append(f"- layers that stayed in float ({len(artifact.float_layers)}): {names}")
    if artifact.gate is None:
        return [*lines, ""]
    gate = artifact.gate
    lines.append(f"- gate {_verdict(gate)} on {gate.images} images of {gate.groups} groups")
    if gate.accepted_because:
        lines.append(f"- accepted although inconclusive: {gate.accepted_because}")
    lines += ["", "| check | verdict | value | 95 % interval | limit | |", "|---" * 6 + "|"]
    for check in gate.checks:
        interval = f"{_number(check.low)} to {_number(check.high)}"
        if check.low is None:
            interval = "" if check.high is None else f"up to {_number(check.high)}"
        detail = check.detail.replace("|", "\\|")
        lines.append(f"| {check.name} | {check.verdict} | {_number(check.value)} | {interval} | "
                     f"{_number(check.limit)} | {detail} |")  # fmt: skip
    return [*lines, ""]


def _operating_points(manifest: Manifest) -> list[str]:
    if not manifest.thresholds:
        return []
    lines = [
        "## Operating points",
        "",
        "A class is flagged where its probability reaches the threshold; the decision stays the "
        "most probable class. Thresholds are chosen on validation images, whose figures are too "
        "good for that; test images only measure them.",
        "",
        "| class | threshold | measured on | images of the class, others | sensitivity | "
        "specificity |",
        "|---" * 6 + "|",
    ]
    for label, point in manifest.thresholds.items():
        aim = "" if point.at_least is None else f", for {point.aim} {point.at_least:g}"
        places = {f"validation{aim}": point.validation}
        places |= {f"test, {name}": found for name, found in point.test.items()}
        for place, found in places.items():
            if found is not None:
                lines.append(
                    f"| {label} | {point.threshold:.4f} | {place} | {found.sensitivity.images}, "
                    f"{found.specificity.images} | {_score(found.sensitivity)} | "
                    f"{_score(found.specificity)} |"
                )
    return [*lines, ""]


def _git(state: object) -> str:
    if not isinstance(state, dict):
        return _plain(state)
    changed = "with uncommitted changes" if state.get("is_dirty") else "without changes"
    return f"commit {state.get('commit')}, {changed} ({state.get('of')})"


def _verdict(gate: Gate | None) -> str:
    if gate is None:
        return "none"
    accepted = gate.verdict == "inconclusive" and gate.accepted_because
    return f"{gate.verdict} (accepted)" if accepted else gate.verdict


def _score(score: Score | None) -> str:
    if score is None or score.value is None:
        return "-"
    if score.low is None or score.high is None:
        return f"{score.value:.3f}"
    return f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _plain(value: object) -> str:
    if isinstance(value, list):
        return "; ".join(map(_plain, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry}" for key, entry in sorted(value.items()))
    return str(value)
