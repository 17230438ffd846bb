"""Reading what a run or a bundle left on disk. Absent files are absent facts, not errors."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from edgekd import bundle
from edgekd.bundle import Manifest
from edgekd.errors import DataError
from edgekd.recipe import Recipe
from edgekd.recipe_load import load
from edgekd.results import Learned, Measurement, Predictions, Score, Scores, read_measurements
from edgekd.rundir import RunDir

NO_RUN_HINT = "a run has a recipe.yaml, a bundle a manifest.json; `edgekd run RECIPE` makes a run"


@dataclass(frozen=True)
class Other:
    """A bundle beside the student's: a member of the ensemble that is deployed, say."""

    manifest: Manifest
    timed: dict[str, list[Measurement]]  # by host


@dataclass(frozen=True)
class Sources:
    """The contents of one target, read but not yet joined."""

    folder: Path
    kind: str  # run or bundle
    recipe: Recipe | None = None
    recipe_yaml: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    student: Manifest | None = None
    reference: Manifest | None = None
    scores: dict[str, dict[str, Scores]] = field(default_factory=dict)
    student_timed: dict[str, list[Measurement]] = field(default_factory=dict)  # by host
    reference_timed: dict[str, list[Measurement]] = field(default_factory=dict)
    others: list[Other] = field(default_factory=list)  # of the recipe's `export.also`

    @property
    def run(self) -> RunDir | None:
        return RunDir(self.folder) if self.kind == "run" else None

    def predictions(self, name: str) -> Predictions | None:
        """The test predictions of a model or an artifact, if they were kept."""
        path = self.run.predictions(name, "test") if self.run else None
        return Predictions.load(path) if path and path.is_file() else None

    @cached_property
    def learned(self) -> Learned:
        """What the task learned from images: in this run, else as the bundle has it.

        Raises DataError for a damaged file.
        """
        found = self.environment.get("learned")
        if found is None:
            return self.student.learned if self.student else Learned()
        try:
            return Learned.model_validate(found)
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{RunDir(self.folder).environment}: `learned`: {reason}") from None

    def columns(self, model: str) -> tuple[int, ...] | None:
        """The classes that a model knows, by their numbers; None if it knows all."""
        spec = self.recipe.models.get(model) if self.recipe else None
        group = spec.classes if spec else None
        return None if group is None else self.learned.groups.get(group)

    def knows(self, model: str) -> int | None:
        """How many classes a model knows; None if it knows all."""
        columns = self.columns(model)
        return None if columns is None else len(columns)

    @cached_property
    def thresholds(self) -> dict[str, list[float]]:
        """Per model, from which probability on each of its classes is there.

        Raises DataError for a damaged file.
        """
        found: dict[str, list[float]] = {}
        if self.student is not None and self.student.learned.thresholds:
            found[self.student.model.name] = list(self.student.learned.thresholds)
        if self.run is None:
            return found
        for model, values in _json(self.run.thresholds).items():
            if not isinstance(values, list) or not all(isinstance(v, (int, float)) for v in values):
                raise DataError(f"{self.run.thresholds}: '{model}' has no list of thresholds")
            found[model] = [float(value) for value in values]
        return found


def is_run(folder: Path) -> bool:
    """A run is a folder with a recipe that is not itself a bundle."""
    return RunDir(folder).recipe.is_file() and not bundle.is_bundle(folder)


def expand(targets: list[Path]) -> list[Path]:
    """Runs and bundles as they are; a folder of them, or a sweep's, is replaced by what it
    holds, by name.

    Raises DataError for a target that is neither.
    """
    found: list[Path] = []
    for target in targets:
        if not target.exists():
            raise DataError(f"{target}: no such folder", hint=NO_RUN_HINT)
        if not target.is_dir():
            raise DataError(f"{target} is a file, expected a run folder or a bundle folder",
                            hint=NO_RUN_HINT)  # fmt: skip
        if (target / "sweep.json").is_file() and (target / "runs").is_dir():
            target = target / "runs"
        inside = [target] if _is_target(target) else list(_targets_in(target))
        if not inside:
            raise DataError(f"{target} is neither a run nor a bundle, nor a folder of them",
                            hint=NO_RUN_HINT)  # fmt: skip
        found += [folder for folder in inside if folder not in found]
    return found


def _targets_in(folder: Path) -> Iterator[Path]:
    """Runs and bundles, and the bundles that lie where a run's would: imported ones."""
    for entry in sorted(folder.iterdir()):
        if _is_target(entry):
            yield entry
        elif bundle.is_bundle(RunDir(entry).bundle):
            yield RunDir(entry).bundle


def _is_target(folder: Path) -> bool:
    return folder.is_dir() and (is_run(folder) or bundle.is_bundle(folder))


def read(folder: Path) -> Sources:
    """Read one run or bundle."""
    if bundle.is_bundle(folder):
        manifest = bundle.read_manifest(folder)
        text = yaml.safe_dump(manifest.recipe, sort_keys=False, allow_unicode=True)
        return Sources(
            folder=folder,
            kind="bundle",
            recipe_yaml=text if manifest.recipe else "",
            student=manifest,
            student_timed=_measurements(folder),
        )
    if not is_run(folder):
        raise DataError(f"{folder} is neither a run nor a bundle", hint=NO_RUN_HINT)
    run = RunDir(folder)
    recipe = load(run.recipe)
    others = [run.bundle_of(name) for name in recipe.export.also]
    return Sources(
        folder=folder,
        kind="run",
        recipe=recipe,
        recipe_yaml=run.recipe.read_text(encoding="utf-8"),
        environment=_json(run.environment),
        student=_manifest(run.bundle),
        reference=_manifest(run.reference),
        scores=_scores(run.scores),
        student_timed=_measurements(run.bundle),
        reference_timed=_measurements(run.reference),
        others=[
            Other(bundle.read_manifest(path), _measurements(path))
            for path in others
            if bundle.is_bundle(path)
        ],
    )


def _manifest(folder: Path) -> Manifest | None:
    return bundle.read_manifest(folder) if bundle.is_bundle(folder) else None


def _measurements(folder: Path) -> dict[str, list[Measurement]]:
    files = sorted((folder / "bench").glob("*.jsonl"))
    return {path.stem: list(read_measurements(path)) for path in files}


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}") from None
    return tree if isinstance(tree, dict) else {}


def _scores(path: Path) -> dict[str, dict[str, Scores]]:
    try:
        return {
            model: {
                part: {name: Score.model_validate(entry) for name, entry in scores.items()}
                for part, scores in parts.items()
            }
            for model, parts in _json(path).items()
        }
    except (AttributeError, ValueError) as error:
        raise DataError(f"{path} is not a file of scores: {error}") from None


def epochs(run: RunDir, stage: str) -> list[dict[str, Any]]:
    """The rows of a stage's metrics.jsonl, one per epoch.

    A torn line (power cut) is passed over, and an epoch that was repeated after resuming counts
    once, as it was last.
    """
    path = run.stage(stage) / "metrics.jsonl"
    if not path.is_file():
        return []
    rows: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
            rows[int(row["epoch"])] = row
        except (ValueError, KeyError, TypeError):
            continue
    return [rows[epoch] for epoch in sorted(rows)]


def split_rows(run: RunDir) -> Iterator[dict[str, str]]:
    """The rows of split.csv: id, target, group, part."""
    if not run.split.is_file():
        return
    with run.split.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if not {"target", "group", "part"} <= set(reader.fieldnames or ()):
            raise DataError(f"{run.split}: expected the columns id, target, group, part, "
                            f"found {reader.fieldnames}")  # fmt: skip
        yield from reader
