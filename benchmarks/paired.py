"""The paired difference of two runs on the same test images, with its interval over groups.

    python benchmarks/paired.py runs/kd-ham10000 runs/kd-ham10000.alone

compares the exported model of the first run with that of the second.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edgekd import stats
from edgekd.plugins import load
from edgekd.recipe_load import load as load_recipe
from edgekd.results import Predictions
from edgekd.rundir import RunDir
from edgekd.tasks.base import Floats, Task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--metrics", default="accuracy,macc")
    arguments = parser.parse_args()
    runs = [RunDir(arguments.first), RunDir(arguments.second)]
    recipe = load_recipe(runs[0].recipe)
    first, second = (
        Predictions.load(run.predictions(load_recipe(run.recipe).export.model, "test"))
        for run in runs
    )
    if first.ids != second.ids:
        sys.exit("the two runs were not tested on the same images")
    classes = json.loads(runs[0].environment.read_text(encoding="utf-8"))["classes"]
    task = load("tasks", recipe.task.name, Task)(classes=classes)  # type: ignore[type-abstract]
    weights = stats.group_weights(first.groups)
    for name in arguments.metrics.split(","):
        metric = task.metrics()[name]

        def compute(probabilities: Floats, weights: Floats) -> Floats:
            return metric.compute(probabilities, first.targets, weights)  # noqa: B023

        point, low, high = stats.paired_difference(
            compute, task.activate(first.logits), task.activate(second.logits), weights
        )
        print(f"{name}: {point:+.4f} [{low:+.4f}, {high:+.4f}]")


if __name__ == "__main__":
    main()
