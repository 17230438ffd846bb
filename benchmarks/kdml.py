"""The study of KDML: from a sweep's folder to its results and its page.

    edgekd sweep studies/kdml-ham10000 data.root=path/to/ham10000
    python benchmarks/kdml.py runs/kdml-ham10000.sweep

gathers scores, costs and similarities of every finished run, of however many calls of the sweep,
into `benchmarks/results/kdml-ham10000.json`, and fills the blocks of `docs/papers/kdml.md`. It can
be given again whenever more has been run; what was not says so.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import papers
from kdml_tables import ALONE, ORDER, SCORES, TEACHER
from over_seeds import Record

from edgekd.errors import DataError
from edgekd.recipe_load import load
from edgekd.report import similarity
from edgekd.results import dump_json
from edgekd.rundir import RunDir, write_text

HERE = Path(__file__).parent
NAME = "kdml-ham10000"
RUN = re.compile(r"(.+)\.seed(\d+)")


def collect(sweep: Path) -> Record:
    """What the finished runs of a sweep say. Raises DataError where there are none."""
    cells: dict[str, Any] = {}
    costs: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    for root in sorted((sweep / "runs").glob("*.seed*")):
        run, name = RunDir(root), RUN.fullmatch(root.name)
        # both are gone before a run is trained anew, and the second is written last
        if name is None or not (run.scores.is_file() and run.environment.is_file()):
            continue
        environment = json.loads(run.environment.read_text(encoding="utf-8"))
        # a graft changes what a student costs: the plain ones are those of `alone`
        costs = {**environment["models"], **costs} if name[1] in (ALONE, "base") else costs
        cells[f"{name[1]}/{name[2]}"] = _cell(run)
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
        "baseline": ALONE,
        "model": "pair",
        "teacher": TEACHER,
        "metrics": list(SCORES),
        "split": environment["split"],
        "host": {key: environment["host"].get(key) for key in ("cpu", "cores_usable", "python")},
        "costs": costs,
        "cells": cells,
    }  # fmt: skip


def _cell(run: RunDir) -> dict[str, Any]:
    recipe = load(run.recipe)
    scores = json.loads(run.scores.read_text(encoding="utf-8"))
    deepest = {}
    for one in similarity.read(run, recipe)[0]:
        found = similarity.deepest(one)
        deepest[f"{one.first}.{one.second}"] = found.cka if found else None
    return {
        "model": recipe.export.model,
        "scores": {
            model: {
                name: {"value": score["value"], "direction": score["direction"]}
                for name, score in parts["test"].items()
            }
            for model, parts in scores.items()
        },
        "cka": deepest,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path)
    record = collect(parser.parse_args().sweep)
    path = HERE / "results" / f"{NAME}.json"
    write_text(path, dump_json(record))
    print(path)
    print(papers.write("kdml"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
