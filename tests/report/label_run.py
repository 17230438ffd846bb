"""A run of several labels per image in a second: two teachers of some classes, and a student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.bundle import Artifact, Manifest, ModelFacts, close_bundle
from edgekd.recipe import Recipe
from edgekd.recipe_data import InputSpec
from edgekd.recipe_load import to_yaml
from edgekd.results import Learned, Predictions, dump_json
from edgekd.rundir import RunDir, write_text
from edgekd.tasks.multilabel import MultiLabel
from tests.report import fake_run

# not in the order of their counts; none of the test images shows the last but one
CLASSES = ["scar", "drusen", "bleeding", "oedema", "A+B"]
COUNTS = (30, 120, 8, 0, 4)
SHOTS = ("medium", "head", "tail", "tail", "tail")
GROUPS = {"many": (0, 1), "few": (2, 3, 4)}
INT8 = "onnx-int8"
TEST = 48
TRAIN = {  # target as split.csv has it: images
    "drusen": 70, "scar+drusen": 20, "scar": 10, "drusen+bleeding": 4, "bleeding": 2,
    "drusen+bleeding+A+B": 2, "drusen+A+B": 2, "drusen+?scar": 22, "none": 68,
}  # fmt: skip
THRESHOLDS = {"student": [0.3, 0.6, 0.5, 0.5, 0.2], "few": [0.4, 0.5, 0.5]}


def targets() -> npt.NDArray[np.int8]:
    """Labels of the test images (48, 5): rarer from class to class, one of them not known."""
    labels = np.zeros((TEST, len(CLASSES)), dtype=np.int8)
    for column, every in enumerate((3, 2, 6, 0, 12)):
        if every:
            labels[::every, column] = 1
    labels[5, 0] = -1
    return labels


def said(skill: float, seed: int, columns: tuple[int, ...] = (0, 1, 2, 3, 4)) -> Predictions:
    """Logits that tell the labels the better the larger `skill` is."""
    labels = targets()[:, list(columns)]
    noise = np.random.default_rng(seed).normal(size=(TEST, len(CLASSES)))[:, list(columns)]
    logits = skill * (labels == 1) - 1 + noise
    return Predictions(
        ids=[f"TCGA_EYE_{index:03d}" for index in range(TEST)],
        groups=[f"patient{index // 2}" for index in range(TEST)],
        targets=labels,  # type: ignore[arg-type]
        logits=logits.astype(np.float32),
    )


def recipe(name: str, seed: int, **task: Any) -> Recipe:
    stage = {
        group: {"train": [group], "losses": {"bce": {"to": group}}, "epochs": 3,
                "data": {"having": group}}
        for group in GROUPS
    }  # fmt: skip
    stage["few"]["data"]["negatives"] = 0.5  # type: ignore[index]
    return Recipe.model_validate({
        "edgekd": 1, "name": name, "seed": seed,
        "task": {"name": "multilabel", "thresholds": "f1", **task},
        "data": {"name": "synthetic_labels", "input": {"size": 32},
                 "class_groups": {"many": ["scar", "drusen"],
                                  "few": ["bleeding", "oedema", "A+B"]}},
        "models": {**{group: {"arch": "timm:resnet10t", "classes": group} for group in GROUPS},
                   "student": {"arch": "timm:resnet10t"}},
        "stages": {**stage, "student": {
            "train": ["student"], "frozen": ["many", "few"], "epochs": 3,
            "losses": {"bce": {"to": "student"},
                       "rskd": {"from": ["many", "few"], "to": "student"}}}},
        "export": {"model": "student", "make": ["onnx-fp32", INT8]},
    })  # fmt: skip


def write(root: Path, *, seed: int = 1, skill: float = 2.5, **task: Any) -> RunDir:
    """The whole run."""
    run = RunDir(root)
    learned = Learned(counts=COUNTS, shots=SHOTS, groups=GROUPS)
    write_text(run.recipe, to_yaml(recipe(root.name, seed, **task)))
    write_text(run.environment, dump_json(
        {"classes": CLASSES, "learned": learned.model_dump(), "seed": seed}))  # fmt: skip
    write_text(run.thresholds, dump_json(THRESHOLDS))
    _split(run)
    _metrics(run)
    whole = MultiLabel(classes=CLASSES, primary=task.get("primary")).taught(learned)
    scores: dict[str, Any] = {}
    models = {"many": (3.0, GROUPS["many"]), "few": (2.0, GROUPS["few"]), "student": (skill, None),
              "onnx-fp32": (skill, None), INT8: (skill - 0.5, None)}  # fmt: skip
    for name, (own, columns) in models.items():
        predictions = said(own, seed, columns) if columns else said(own, seed)
        predictions.save(run.predictions(name, "test"))
        known = whole.only(columns) if columns and "primary" not in task else whole
        if known.classes != whole.classes or not columns:
            scores[name] = {"test": known.score(predictions, resamples=20)}
    made = {
        name: Artifact(name=name, file=f"{name}.onnx", files=[f"{name}.onnx"],
                       runtime="onnxruntime", precision=name.split("-")[1],
                       gate=fake_run.gate("passed", 0.0), scores=scores.pop(name)["test"])
        for name in ("onnx-fp32", INT8)
    }  # fmt: skip
    write_text(run.scores, dump_json(scores))
    run.bundle.mkdir()
    for name in made:
        (run.bundle / f"{name}.onnx").write_bytes(name.encode())
    own_learned = learned.model_copy(update={"thresholds": tuple(THRESHOLDS["student"])})
    close_bundle(run.bundle, Manifest(
        name="eyes", task="multilabel", primary=whole.primary, classes=CLASSES,
        input=InputSpec(size=32), opset=18, artifacts=made, recipe={}, provenance={},
        learned=own_learned, model=ModelFacts(name="student", arch="timm:resnet10t", params=10,
                                              macs=10, role="student"),
    ))  # fmt: skip
    return run


def sweep(root: Path, *, baseline: str = "erm", skill: float = 1.0) -> RunDir:
    """A run in a sweep, and that of the baseline beside it."""
    folder = root / "long.sweep"
    folder.mkdir()
    (folder / "sweep.json").write_text('{"schema_version": 1, "recipe": "long"}')
    (folder / "results.json").write_text(json.dumps({"baseline": baseline}))
    write(folder / "runs" / "erm.seed3", seed=3, skill=skill)
    return write(folder / "runs" / "rskd.seed3", seed=3)


def _split(run: RunDir) -> None:
    lines = ["id,target,group,part"]
    for target, count in TRAIN.items():
        for _ in range(count):
            number = len(lines)
            lines.append(f"train{number},{target},trained{number},train")
    for index, row in enumerate(targets()):
        shown = [CLASSES[c] for c in np.flatnonzero(row == 1)] or ["none"]
        unknown = [f"?{CLASSES[c]}" for c in np.flatnonzero(row < 0)]
        lines.append(
            f"TCGA_EYE_{index:03d},{'+'.join([*shown, *unknown])},patient{index // 2},test"
        )
    write_text(run.split, "\n".join(lines) + "\n")


def _metrics(run: RunDir) -> None:
    for stage in ("many", "few", "student"):
        rows = []
        for epoch in range(1, 4):
            row: dict[str, Any] = {
                "epoch": epoch, "epochs": 3, "terms": {"bce": 0.6 / epoch}, "seconds": 1.0,
                "val": {stage: {"map": 0.1 * epoch, "map_groups": None}}, "best": {stage: True},
            }  # fmt: skip
            if stage == "student":
                row["terms"]["rskd"] = 0.1
                row["val"][stage]["map_groups"] = 0.2
                row["notes"] = {f"rskd/w:{name}": 1.0 - 0.1 * epoch * index
                                for index, name in enumerate(CLASSES)}  # fmt: skip
            rows.append(json.dumps(row))
        write_text(run.stage(stage) / "metrics.jsonl", "\n".join(rows) + "\n")
