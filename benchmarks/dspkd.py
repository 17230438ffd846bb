"""The study of DSP-KD: from a sweep's folder to its results, figures and page.

    edgekd sweep studies/dspkd-ham10000 data.root=path/to/ham10000
    python benchmarks/dspkd.py runs/dspkd-ham10000.sweep

gathers scores, confusions and costs of every finished run, of however many calls of the sweep, into
`benchmarks/results/dspkd-ham10000.json`, draws `docs/papers/dspkd/*.svg`, and fills the blocks of
`docs/papers/dspkd.md`. It can be given again whenever more has been run; what was not says so.

`--figures DIR` also writes what shows photographs: augmented copies, hair before and after, masks
on images. Their licence is non-commercial, so DIR must be outside of the repository.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import dspkd_figures
import numpy as np
import papers
from dspkd_tables import BASE, MODEL, NAME, ORDER, SCORES, TEACHER
from over_seeds import Record

from edgekd.data._rebalance import SHARE, topped_up
from edgekd.errors import DataError
from edgekd.results import Predictions, dump_json
from edgekd.rundir import RunDir, write_text

HERE = Path(__file__).parent
RUN = re.compile(r"(.+)\.seed(\d+)")


def collect(sweep: Path) -> Record:
    """What the finished runs of a sweep say.

    Raises DataError where there are none, and for runs that saw different images.
    """
    cells: dict[str, Any] = {}
    costs: dict[str, Any] = {}
    seen: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    for root, variant, seed in runs_of(sweep):
        run = RunDir(root)
        environment = json.loads(run.environment.read_text(encoding="utf-8"))
        costs |= environment["models"]
        test = Predictions.load(run.predictions(MODEL, "test"))
        shown = {"classes": environment["classes"], **counts_of(run, environment["classes"], test)}
        if seen and shown != seen:
            raise DataError(f"{root}: its images are not those of the other runs",
                            hint="remove the runs that were made with other data")  # fmt: skip
        seen = shown
        cells[f"{variant}/{seed}"] = _cell(run, test)
    if not cells:
        raise DataError(f"{sweep}: no finished runs there", hint=f"edgekd sweep studies/{NAME}")
    seeds = sorted({int(key.rpartition("/")[2]) for key in cells})
    ran = {key.rpartition("/")[0] for key in cells}
    names = [name for name in ORDER if name in ran]
    names += sorted(ran - set(names))
    return {
        "name": NAME,
        "recipe": f"studies/{NAME}",
        "command": f"edgekd sweep studies/{NAME} --variant {','.join(names)} "
                   f"--seeds {','.join(map(str, seeds))}",
        "seeds": seeds,
        "variants": names,
        "baseline": "alone",
        "model": MODEL,
        "teacher": TEACHER,
        "metrics": list(SCORES),
        "split": environment["split"],
        "host": {key: environment["host"].get(key) for key in ("cpu", "cores_usable", "python")},
        "costs": costs,
        **seen,
        "cells": cells,
    }  # fmt: skip


def runs_of(sweep: Path) -> list[tuple[Path, str, int]]:
    """The folders of finished runs with their variants and seeds."""
    found = []
    for root in sorted((sweep / "runs").glob("*.seed*")):
        run, name = RunDir(root), RUN.fullmatch(root.name)
        # the first two are gone before a run is trained anew, and `run.json` is written last
        wanted = (run.scores, run.environment, run.predictions(MODEL, "test"), run.split)
        if name is not None and all(path.is_file() for path in wanted):
            found.append((root, name[1], int(name[2])))
    return found


def counts_of(run: RunDir, classes: list[str], test: Predictions) -> dict[str, list[int]]:
    """Images per class: to train on, the same with the copies, and to test on."""
    with run.split.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "train"]
    targets = np.array([int(row["target"]) for row in rows])
    several = topped_up(np.arange(len(targets)), targets, share=SHARE, seed=0)
    return {
        key: np.bincount(found, minlength=len(classes)).tolist()
        for key, found in (
            ("train", targets), ("copied", targets[several]), ("test", test.targets),
        )
    }  # fmt: skip


def _cell(run: RunDir, test: Predictions) -> dict[str, Any]:
    scores = json.loads(run.scores.read_text(encoding="utf-8"))
    count = test.logits.shape[1]
    confusion = np.zeros((count, count), dtype=np.int64)  # rows are the true classes
    np.add.at(confusion, (test.targets, test.logits.argmax(axis=1)), 1)
    return {
        "model": MODEL,
        "scores": {
            model: {
                name: {"value": score["value"], "direction": score["direction"]}
                for name, score in parts["test"].items()
            }
            for model, parts in scores.items()
        },
        "confusion": confusion.tolist(),
    }


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--figures", type=Path, metavar="DIR", help="write photographs there too")
    arguments = parser.parse_args(given)
    record = collect(arguments.sweep)
    path = HERE / "results" / f"{NAME}.json"
    write_text(path, dump_json(record))
    print(path)
    for name, drawing in dspkd_figures.drawings(record).items():
        write_text(papers.DOCS / "dspkd" / name, drawing)
    print(papers.write("dspkd"))
    if arguments.figures is not None:
        import dspkd_pictures

        variants = {name: root for root, name, _ in runs_of(arguments.sweep)}
        run = variants.get(BASE, next(iter(variants.values())))
        for written in dspkd_pictures.write(run, arguments.figures):
            print(written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
