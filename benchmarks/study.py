"""Does a method help? Variants x seeds of one recipe, with the paired difference to a baseline.

    python benchmarks/study.py recipes/quickstart.yaml --variants base,alone --baseline alone \\
        --seeds 1,2,3,4,5 --budget-min 45 --name quickstart

Every run is `edgekd distill`, so the command can be stopped and given again. Results go to
`benchmarks/results/NAME.json`, and the table made of them between the marks of
`docs/studies/NAME.md`. What the budget did not allow says `not run`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edgekd.host import host_facts
from edgekd.recipe_load import load
from edgekd.rundir import write_text
from edgekd.stats import mean_interval

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "studies"
BEGIN = "<!-- table: made by benchmarks/study.py, not by hand -->"
END = "<!-- end of table -->"


def run_one(
    recipe: Path, variant: str, seed: int, out: Path, overrides: list[str]
) -> dict[str, Any]:
    """Distil one variant with one seed; returns scores, seconds and images."""
    command = [sys.executable, "-m", "edgekd", "distill", str(recipe), f"seed={seed}",
               *overrides, "--out", str(out)]  # fmt: skip
    if variant != "base":
        command += ["--variant", variant]
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    scores = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    return {"seconds": round(time.monotonic() - started, 1), "scores": scores}


def study(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run what is missing, seed by seed, until the budget ends."""
    recipe = load(arguments.recipe, overrides=arguments.overrides)
    path = HERE / "results" / f"{arguments.name}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    cells: dict[str, Any] = known.get("cells", {})
    started = time.monotonic()
    for seed in arguments.seeds:
        for variant in arguments.variants:
            cell = f"{variant}/{seed}"
            if cell in cells or time.monotonic() - started > arguments.budget_min * 60:
                continue
            print(f"{cell} ...", file=sys.stderr)
            out = arguments.runs / arguments.name / f"{variant}-{seed}"
            result = run_one(arguments.recipe, variant, seed, out, arguments.overrides)
            split = json.loads((out / "run.json").read_text(encoding="utf-8"))["split"]
            cells[cell] = {
                "seconds": result["seconds"],
                "scores": {
                    model: {
                        name: {"value": score["value"], "direction": score["direction"]}
                        for name, score in parts["test"].items()
                    }
                    for model, parts in result["scores"].items()
                },
            }
            record = {
                "name": arguments.name,
                "recipe": recipe.name,
                "command": _command(arguments),
                "seeds": arguments.seeds,
                "variants": arguments.variants,
                "baseline": arguments.baseline,
                "model": recipe.export.model,
                "teacher": recipe.export.reference,
                "metrics": arguments.metrics,
                "split": split,
                "host": {key: host_facts().get(key) for key in ("cpu", "cores_usable", "python")},
                "cells": cells,
            }
            write_text(path, json.dumps(record, indent=1, sort_keys=True) + "\n")
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def _command(arguments: argparse.Namespace) -> str:
    overrides = " ".join(o for o in arguments.overrides if not o.startswith("data.root"))
    return (
        f"python benchmarks/study.py {arguments.recipe} --name {arguments.name} "
        f"--variants {','.join(arguments.variants)} --baseline {arguments.baseline} "
        f"--seeds {','.join(map(str, arguments.seeds))} {overrides}"
    ).strip()


def render(record: dict[str, Any]) -> str:
    """The study as markdown: one row per variant, the teacher first."""
    seeds, metrics = record["seeds"], record["metrics"]
    base = record["baseline"]
    lines = [
        f"`{record['command']}`",
        "",
        f"Seeds {', '.join(map(str, seeds))}; {record['split']['train']} training, "
        f"{record['split']['val']} validation, {record['split']['test']} test images. "
        "Measured: mean ± standard deviation over seeds on the test part; in brackets the 95 % "
        f"interval (Student's t over seeds) of the paired difference to `{base}`.",
        "",
        "| model | variant | "
        + " | ".join(f"{name} | Δ to {base}" for name in metrics)
        + " | runs |",
        "|---|---|" + "---:|---:|" * len(metrics) + "---:|",
    ]
    rows = [(record["teacher"], base)] if record["teacher"] else []
    rows += [(record["model"], variant) for variant in record["variants"]]
    for model, variant in rows:
        cells = []
        for name in metrics:
            values = _values(record, model, variant, name)
            cells.append(_spread(list(values.values())))
            cells.append("" if model != record["model"] or variant == base
                         else _difference(values, _values(record, model, base, name)))  # fmt: skip
        done = len(_values(record, model, variant, metrics[0]))
        label = "" if model != record["model"] else f"`{variant}`"
        lines.append(f"| {model} | {label} | " + " | ".join(cells) + f" | {done}/{len(seeds)} |")
    return "\n".join(lines) + "\n"


def _values(record: dict[str, Any], model: str, variant: str, metric: str) -> dict[int, float]:
    found = {}
    for seed in record["seeds"]:
        cell = record["cells"].get(f"{variant}/{seed}")
        if cell is not None:
            found[seed] = cell["scores"][model][metric]["value"]
    return found


def _spread(values: list[float]) -> str:
    if not values:
        return "not run"
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    deviation = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    return f"{mean:.3f} ± {deviation:.3f}"


def _difference(values: dict[int, float], baseline: dict[int, float]) -> str:
    shared = sorted(set(values) & set(baseline))
    if not shared:
        return "not run"
    mean, low, high = mean_interval([values[seed] - baseline[seed] for seed in shared])
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" if len(shared) > 1 else f"{mean:+.3f}"


def insert(document: str, table: str) -> str:
    """Replace what stands between the marks of a document."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--name", required=True)
    parser.add_argument("--variants", type=lambda t: t.split(","), default=["base"])
    parser.add_argument("--baseline", default="alone")
    parser.add_argument("--seeds", type=lambda t: [int(s) for s in t.split(",")], default=[1, 2, 3])
    parser.add_argument("--metrics", type=lambda t: t.split(","), default=["accuracy", "macc"])
    parser.add_argument("--budget-min", type=float, default=45.0)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    record = study(arguments)
    table = render(record)
    document = DOCS / f"{arguments.name}.md"
    if document.is_file():
        write_text(document, insert(document.read_text(encoding="utf-8"), table))
    print(table)


if __name__ == "__main__":
    main()
