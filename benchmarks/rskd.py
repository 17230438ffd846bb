"""The studies of RSKD: from the sweeps' folders to their results and their page.

    edgekd sweep studies/rskd-rfmid data.root=path/to/RFMiD
    edgekd sweep studies/rskd-synthetic
    python benchmarks/rskd.py runs/rskd-rfmid.sweep runs/rskd-synthetic.sweep

gathers the scores of every finished run, and of every class what its predictions say, into
`benchmarks/results/rskd-*.json`, and fills the blocks of `docs/papers/rskd.md`. One folder alone
will do; it can be given again whenever more has been run; what was not says so.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import papers
from over_seeds import Record
from rskd_tables import BASE, MODEL, ORDER, SCORES, STUDIES

from edgekd.errors import DataError
from edgekd.recipe_load import load
from edgekd.results import Learned, Predictions, dump_json
from edgekd.rundir import RunDir, write_text
from edgekd.tasks import _label_scores as of
from edgekd.tasks.multilabel import MultiLabel

HERE = Path(__file__).parent
RUN = re.compile(r"(.+)\.seed(\d+)")
DIGITS = 6


def collect(sweep: Path) -> Record:
    """What the finished runs of a sweep say.

    Raises DataError where there are none, and for runs that were tested on different images.
    """
    study = study_of(sweep)
    cells: dict[str, Any] = {}
    seeds: dict[str, Any] = {}
    tested: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    costs: dict[str, Any] = {}
    for root in sorted((sweep / "runs").glob("*.seed*")):
        run, name = RunDir(root), RUN.fullmatch(root.name)
        if name is None or not is_finished(run):
            continue
        environment = json.loads(run.environment.read_text(encoding="utf-8"))
        if name[1] == BASE or not costs:  # a memory costs more
            costs = environment["models"][MODEL]
        test = Predictions.load(run.predictions(MODEL, "test"))
        shown = {"classes": environment["classes"], "test": _positives(test)}
        if tested and shown != tested:
            raise DataError(f"{root}: its classes or test images are not those of the other runs",
                            hint="remove the runs that were made with other data")  # fmt: skip
        tested = shown
        seeds[name[2]] = {
            "train": environment["learned"]["counts"],
            "shots": environment["learned"]["shots"],
            "val": _positives(Predictions.load(run.predictions(MODEL, "val"))),
        }
        cells[f"{name[1]}/{name[2]}"] = _cell(run, environment["classes"], test)
    if not cells:
        raise DataError(f"{sweep}: no finished runs there", hint=f"edgekd {STUDIES[study].command}")
    numbers = sorted(map(int, seeds))
    ran = {key.rpartition("/")[0] for key in cells}
    names = [variant for variant in ORDER if variant in ran]
    names += sorted(ran - set(names))
    recipe = load(run_of(sweep, names[0], cells).recipe)
    named = [group for group in recipe.data.class_groups.values() if not isinstance(group, str)]
    return {
        "name": f"rskd-{study}",
        "recipe": f"studies/rskd-{study}",
        "command": f"edgekd {STUDIES[study].command} --variant {','.join(names)} "
                   f"--seeds {','.join(map(str, numbers))}",
        "seeds": numbers,
        "variants": names,
        "baseline": BASE,
        "model": MODEL,
        "teacher": None,
        "metrics": list(SCORES),
        "split": environment["split"],
        "host": {key: environment["host"].get(key) for key in ("cpu", "cores_usable", "python")},
        "costs": costs,
        **tested,
        "left_out": sorted({one for group in named for one in group} - set(tested["classes"])),
        "by_seed": seeds,
        "cells": cells,
    }  # fmt: skip


def study_of(sweep: Path) -> str:
    """Which of the studies a sweep's folder belongs to. Raises DataError for another one."""
    try:
        recipe = json.loads((sweep / "sweep.json").read_text(encoding="utf-8"))["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{sweep}: not a folder of `edgekd sweep`") from None
    study = str(recipe).removeprefix("rskd-")
    if f"rskd-{study}" != recipe or study not in STUDIES:
        raise DataError(f"{sweep}: is of '{recipe}', expected one of "
                        f"{', '.join(f'rskd-{name}' for name in STUDIES)}")  # fmt: skip
    return study


def is_finished(run: RunDir) -> bool:
    """Are all the files there? Scores are gone before a run is trained anew."""
    files = [run.scores, run.environment, run.thresholds, run.recipe]
    files += [run.predictions(MODEL, part) for part in ("val", "test")]
    return all(path.is_file() for path in files)


def run_of(sweep: Path, variant: str, cells: dict[str, Any]) -> RunDir:
    """The first finished run of a variant."""
    seed = min(int(k.rpartition("/")[2]) for k in cells if k.rpartition("/")[0] == variant)
    return RunDir(sweep / "runs" / f"{variant}.seed{seed}")


def _positives(said: Predictions) -> list[int]:
    return [int(count) for count in (said.targets == 1).sum(axis=0)]


def _cell(run: RunDir, classes: list[str], test: Predictions) -> dict[str, Any]:
    """The scores of all models of a run, and the classes of its student."""
    scores = json.loads(run.scores.read_text(encoding="utf-8"))
    thresholds = json.loads(run.thresholds.read_text(encoding="utf-8"))[MODEL]
    task = MultiLabel(classes=classes).taught(Learned(thresholds=tuple(thresholds)))
    probabilities = task.activate(test.logits)
    figures = task.per_class(probabilities, test.targets)
    once = np.ones((1, len(test.ids)))
    hits, alarms, missed = of.counts_at(task.decide(probabilities), test.targets, once)
    negatives = once @ (test.targets == 0).astype(np.float64)
    return {
        "model": MODEL,
        "scores": {
            MODEL: {
                name: {"value": score["value"], "direction": score["direction"]}
                for name, score in scores[MODEL]["test"].items()
            }
        },
        "ap": _rounded([figures[f"ap:{name}"] for name in classes]),
        "threshold": _rounded(thresholds),
        "sensitivity": _rounded(of.divide(hits, hits + missed)[0]),
        "specificity": _rounded(of.divide(negatives - alarms, negatives)[0]),
    }


def _rounded(values: Any) -> list[float]:
    return [round(float(value), DIGITS) for value in values]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path, nargs="+")
    for record in map(collect, parser.parse_args().sweep):
        path = HERE / "results" / f"{record['name']}.json"
        write_text(path, dump_json(record))
        print(path)
    print(papers.write("rskd"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
