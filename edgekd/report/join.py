"""Join scores, manifests and measurements of one run or bundle into what the page shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import edgekd
from edgekd.recipe import Recipe
from edgekd.recipe_load import digest
from edgekd.report import (
    evidence,
    gates,
    label_split,
    labels,
    masks,
    paper,
    similarity,
    sources,
    training,
)
from edgekd.report.records import PYTORCH, DataCard, GateView, ModelScores, ReportData
from edgekd.report.rows import host_tables, to_look_at
from edgekd.report.sources import Sources
from edgekd.results import Scores
from edgekd.tasks.base import Task
from edgekd.tasks.fidelity import fidelity_labels


def join(run: Path, *, pictures: bool = False) -> ReportData:
    """Read one run or bundle and join what belongs together.

    `pictures` puts those of the test images that are shown in, where answers are masks.

    Raises DataError for a folder that is neither, BundleError or DataError for a damaged file.
    """
    found = sources.read(run)
    manifest, recipe = found.student, found.recipe
    classes = _classes(found)
    name = manifest.task if manifest else recipe.task.name if recipe else ""
    asked = manifest.primary if manifest else recipe.task.primary if recipe else None
    task = evidence.known_task(name, classes, asked, found.learned)
    primary = task.primary if task else (asked or "accuracy")
    metric = task.metrics()[primary] if task else None
    label = metric.label if metric and metric.label else primary
    hosts, notes = host_tables(found, primary)
    known = found.environment or (manifest.provenance if manifest else {})
    notes += [str(text) for text in known.get("caveats") or ()]
    maps, missing, left_out = similarity.read(found.run, recipe)
    beside, unknown = paper.rows(recipe, found.scores)
    notes += [*left_out, *unknown]
    stages = training.stages(found, primary, task)
    shown = evidence.wanted(found, to_look_at(hosts, manifest))
    is_masks = task is not None and task.wants_masks
    is_labels = task is not None and task.wants_labels
    split = label_split.read(found.run, classes) if is_labels and found.run else None
    if task is None:
        notes.append(f"the task '{name}' is not one of edgekd's own: per-class figures, "
                     "confusions and calibration are not shown")  # fmt: skip
    return ReportData(
        name=_name(found),
        kind="run" if found.kind == "run" else "bundle",
        description=recipe.description if recipe else "",
        task=name,
        primary=primary,
        primary_label=label,
        higher_is_better=metric.direction == "higher" if metric else True,
        score_labels=_score_labels(task, recipe),
        classes=classes,
        seed=recipe.seed if recipe else None,
        hosts=hosts,
        scores=_all_scores(found),
        gates=_gates(found, label),
        subjects=evidence.subjects(found, task, shown)
        if task and not (is_masks or is_labels)
        else [],
        stages=stages,
        data=_data_card(found, task, classes, split),
        provenance=_provenance(found),
        recipe_yaml=found.recipe_yaml,
        siblings=_siblings(recipe),
        notes=notes,
        similarities=maps,
        similarities_missing=missing,
        beside=beside,
        masks=masks.evidence(found, task, shown, pictures=pictures) if task and is_masks else None,
        labels=labels.evidence(found, task, shown, split) if task and is_labels else None,
    )


def _data_card(
    found: Sources, task: Task | None, classes: list[str], split: label_split.LabelSplit | None
) -> DataCard | None:
    if task is not None and task.wants_masks:
        return training.data_card(found, masks.kind_names(found), "kind")
    if task is not None and task.wants_labels:
        return label_split.data_card(split) if split else None
    return training.data_card(found, classes)


def _score_labels(task: Task | None, recipe: Recipe | None) -> dict[str, str]:
    labels = {key: m.label or key for key, m in task.metrics().items()} if task else {}
    if recipe is not None and recipe.export.reference:
        labels |= fidelity_labels(task, recipe.export.reference)
    return labels


def _name(found: Sources) -> str:
    if found.recipe is not None:
        return found.recipe.name
    return found.student.name if found.student else found.folder.name


def _classes(found: Sources) -> list[str]:
    named = found.environment.get("classes")
    if isinstance(named, list):  # all that the data has; a model that is exported may know fewer
        return [str(name) for name in named]
    for manifest in (found.student, found.reference):
        if manifest is not None:
            return list(manifest.classes)
    if found.run is None:
        return []
    # not exported yet: nothing on disk names the classes, so they go by their numbers
    targets = {row["target"] for row in sources.split_rows(found.run)}
    numbers = [int(target) for target in targets if target.isdecimal()]
    if targets - {"-1"} and not numbers:  # several labels per image stand there by name
        return label_split.names(found.run)
    return [f"class {index}" for index in range(max(numbers, default=1) + 1)]


def _siblings(recipe: Recipe | None) -> str:
    if recipe is None:
        return ""
    tree = recipe.model_dump(mode="json", by_alias=True)
    for key in ("seed", "name", "description", "hardware", "seeds", "variants"):
        tree.pop(key)
    return digest(tree)


def _gates(found: Sources, label: str) -> list[GateView]:
    """The student's; those of other bundles name their model too."""
    views = gates.views(found.student, label)
    for other in found.others:
        name = other.manifest.model.name
        named = gates.views(other.manifest, label)
        views += [replace(view, artifact=f"{name} {view.artifact}") for view in named]
    return views


def _all_scores(found: Sources) -> list[ModelScores]:
    """All test scores: the trained models', then the exported student's."""
    every: list[tuple[str, Scores | None, int | None]] = [
        (f"{model} {PYTORCH}", parts.get("test"), found.knows(model))
        for model, parts in found.scores.items()
    ]
    others = [other.manifest for other in found.others]
    for manifest in (found.reference, found.student, *others):
        for artifact in manifest.artifacts.values() if manifest else ():
            assert manifest is not None
            model = manifest.model.name
            every.append((f"{model} {artifact.name}", artifact.scores, found.knows(model)))
    return [ModelScores(name, scores, knows) for name, scores, knows in every if scores]


def _provenance(found: Sources) -> dict[str, dict[str, str]]:
    """Named groups of facts: who made this, of what, where."""
    groups: dict[str, dict[str, str]] = {"Report": {"edgekd": edgekd.__version__}}
    if found.environment:
        groups["Run"] = _flat(found.environment)
    bundles = [("Student bundle", found.student), ("Teacher bundle", found.reference)]
    for other in found.others:
        bundles.append((f"Bundle of {other.manifest.model.name}", other.manifest))
    for title, manifest in bundles:
        if manifest is None:
            continue
        groups[title] = {
            "edgekd": manifest.edgekd,
            "architecture": manifest.model.arch,
            "opset": str(manifest.opset),
            "input": f"{manifest.input.size} x {manifest.input.size} pixels",
            "recipe sha256": manifest.recipe_sha256 or "not recorded",
            **_flat(manifest.provenance),
            **{f"sha256 of {a.file}": manifest.files[a.file].sha256
               for a in manifest.artifacts.values() if a.file in manifest.files},
        }  # fmt: skip
    return groups


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            found.update(_flat(value, f"{name}."))
        elif isinstance(value, list):
            found[name] = ", ".join(str(entry) for entry in value)
        elif value is not None:
            found[name] = str(value)
    return found
