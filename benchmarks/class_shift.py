"""What a student takes over of its experts' classes when they learned from other proportions.

    python benchmarks/class_shift.py SWEEP_FOLDER NAME

reads the predictions of every finished run of a sweep, and writes how often each model names each
class of its test images, and how often rightly, to `results/NAME.json`. The experts' answers are
also counted after their logits were corrected for the student's proportions:
`z_c + log(share of c in the student's training images) - log(share in the experts')`.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.results import Predictions, dump_json
from edgekd.rundir import RunDir, write_text

HERE = Path(__file__).parent
Floats = npt.NDArray[np.float64]


def shares(path: Path, classes: int) -> Floats:
    """The proportions of the training images in a split file."""
    with path.open(encoding="utf-8", newline="") as file:
        targets = [int(row["target"]) for row in csv.DictReader(file) if row["part"] == "train"]
    return np.bincount(targets, minlength=classes) / len(targets)


def counts(predictions: Predictions, shift: Floats | float = 0.0) -> dict[str, Any]:
    """Share named, recall per class, accuracy."""
    classes = predictions.logits.shape[1]
    decided = (predictions.logits + shift).argmax(axis=1)
    right = decided == predictions.targets
    return {
        "named": (np.bincount(decided, minlength=classes) / len(decided)).tolist(),
        "recall": [float(right[predictions.targets == c].mean()) for c in range(classes)],
        "accuracy": float(right.mean()),
    }


def collect(sweep: Path) -> dict[str, Any]:
    """All finished runs of a sweep by name, `variant.seed1`."""
    found: dict[str, Any] = {"runs": {}}
    for root in sorted((sweep / "runs").iterdir()):
        run = RunDir(root)
        if not run.environment.is_file():
            continue
        classes = json.loads(run.environment.read_text(encoding="utf-8"))["classes"]
        models: dict[str, Any] = {}
        for path in sorted(root.glob("predictions/*.test.npz")):
            model = path.name.removesuffix(".test.npz")
            predictions = Predictions.load(path)
            models[model] = counts(predictions)
            if run.split_of("all").is_file() and model.startswith("expert"):
                ours, theirs = (
                    shares(run.split, len(classes)),
                    shares(run.split_of("all"), len(classes)),
                )
                models[f"{model}, corrected"] = counts(predictions, np.log(ours / theirs))
        test = Predictions.load(run.predictions("student", "test")).targets
        found["classes"] = classes
        found["test"] = (np.bincount(test, minlength=len(classes)) / len(test)).tolist()
        found["runs"][root.name] = models
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("name")
    arguments = parser.parse_args()
    path = HERE / "results" / f"{arguments.name}.json"
    write_text(path, dump_json(collect(arguments.sweep)))
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
