"""The tables of docs/papers: ours beside the published ones.

    python benchmarks/papers.py umkd

renders every block of `docs/papers/umkd.md` from `results/*.json` (made by `edgekd sweep`, see
study.py) and from the tables printed in the paper. A row that was not run says so. The blocks of
KDML are made in kdml_tables.py, those of RSKD in rskd_claims.py, of DSP-KD in dspkd_claims.py.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import dspkd_claims
import kdml_tables
import rskd_claims
from over_seeds import Record, difference, spread, values

from edgekd import published
from edgekd.rundir import write_text

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "papers"
BLOCK = re.compile(r"(<!-- block ([a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
METHODS = {  # variant -> the row of UMKD's Tables 1 and 2
    "alone": "ResNet18_student_alone",
    "fitnet": "FitNet",
    "rkd": "RKD",
    "kd": "KD",
    "dkd": "DKD",
    "sdd": "SDD",
    "base": "UMKD",
    "umkd-fixed": None,
    "umkd-light": None,
}
LABELS = {
    "alone": "student alone",
    "fitnet": "FitNet",
    "rkd": "RKD",
    "kd": "KD",
    "dkd": "DKD",
    "sdd": "SDD",
    "base": "**UMKD** (`paper`)",
    "umkd-fixed": "UMKD (`official`, mended)",
    "umkd-light": "UMKD, weights / 10",
}
MODULES = ("alone", "sfa", "cfa", "udd", "sfa-cfa", "sfa-udd", "cfa-udd", "base")
NAMES = {
    "accuracy": "OA",
    "macc": "mAcc",
    "weighted_f1": "weighted F1",
    "mae": "MAE ↓",
    "qwk": "QWK",
}


def methods(record: Record, printed_in: str, scenario: str, metrics: list[str]) -> str:
    """One line per method in the paper's order: printed, measured, and UMKD minus this one."""
    is_target = scenario == "target_imbalanced"
    printed = {
        row.method: row for row in published.table(printed_in).rows if row.scenario == scenario
    }
    heads = "".join(f" {NAMES[name]} |" for name in metrics)
    lines = [
        f"| method | published OA | published mAcc |{heads} UMKD minus this, OA | … mAcc | seeds |",
        "|---|---:|---:|" + "---:|" * (len(metrics) + 3),
    ]
    best = "target-umkd" if is_target else "base"
    for number, expert in enumerate(("expert_a", "expert_b"), 1):
        found = {name: values(record, best, name, expert, "own_scores") for name in metrics}
        cells = [spread(found[name]) for name in metrics]
        row = printed[f"ResNet50_expert{number}"]
        label = f"{expert}, on its own data"
        lines.append(_line(label, row, cells, "", "", len(found[metrics[0]])))
    for variant, method in METHODS.items():
        name = best if variant == "base" else f"target-{variant}" if is_target else variant
        if name not in record["variants"] and method is None:
            continue
        cells = [spread(values(record, name, metric)) for metric in metrics]
        against = [
            "" if name == best
            else difference(values(record, best, metric), values(record, name, metric))
            for metric in ("accuracy", "macc")
        ]  # fmt: skip
        seeds = len(values(record, name, "accuracy"))
        lines.append(_line(LABELS[variant], printed.get(method or ""), cells, *against, seeds))
    return "\n".join(lines)


def _line(
    label: str,
    row: published.PublishedRow | None,
    cells: list[str],
    first: str,
    second: str,
    seeds: int,
) -> str:
    keys = ("accuracy", "macc")
    printed = [published.printed(row.values[key]) if row else "–" for key in keys]
    if row and row.suspect:
        printed[0] += " (?)"
    return "| " + " | ".join([label, *printed, *cells, first, second, str(seeds)]) + " |"


def modules(record: Record) -> str:
    """All combinations of SFA, CFA and UDD, and what each adds to none of them."""
    lines = [
        "| SFA | CFA | UDD | OA | mAcc | minus none, OA | … mAcc | seeds |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for variant in MODULES:
        has = {"alone": (), "base": ("sfa", "cfa", "udd")}.get(variant, tuple(variant.split("-")))
        marks = ["✓" if name in has else "" for name in ("sfa", "cfa", "udd")]
        scores = [spread(values(record, variant, name)) for name in ("accuracy", "macc")]
        gains = [
            "" if variant == "alone"
            else difference(values(record, variant, name), values(record, "alone", name))
            for name in ("accuracy", "macc")
        ]  # fmt: skip
        seeds = len(values(record, variant, "accuracy"))
        lines.append("| " + " | ".join([*marks, *scores, *gains, str(seeds)]) + " |")
    return "\n".join(lines)


def proportions(found: Record, watched: list[str]) -> str:
    """How often each model names some classes, and how often it is right about them."""
    classes, runs = found["classes"], found["runs"]
    heads = "".join(f" named {name} | recall {name} |" for name in watched)
    lines = [f"| model |{heads} OA | seeds |", "|---|" + "---:|" * (2 * len(watched) + 2)]
    true = "".join(f" {found['test'][classes.index(name)]:.2f} |  |" for name in watched)
    lines.append(f"| *the test images* |{true}  |  |")
    rows = {name: ("base", name) for name in ("expert_a", "expert_a, corrected")}
    rows |= {LABELS[variant]: (variant, "student") for variant in METHODS}
    for label, (variant, model) in rows.items():
        seen = [
            models[model]
            for name, models in runs.items()
            if name.rpartition(".")[0] == variant and model in models
        ]
        if not seen:
            continue
        cells = []
        for name in watched:
            at = classes.index(name)
            for key in ("named", "recall"):
                cells.append(f"{sum(one[key][at] for one in seen) / len(seen):.2f}")
        cells.append(f"{sum(one['accuracy'] for one in seen) / len(seen):.3f}")
        lines.append(f"| {label} | " + " | ".join(cells) + f" | {len(seen)} |")
    return "\n".join(lines)


def facts(record: Record) -> str:
    """How many images and seeds, and the command that made it."""
    split = record["split"]
    return (
        f"`{record['command']}`\n\nStudent: {split['train']} training, {split['val']} validation, "
        f"{split['test']} test images (the balanced subset). Measured on "
        f"{record['host'].get('cpu')}; mean ± standard deviation over seeds, in brackets the 95 % "
        "interval (Student's t over seeds) of the paired difference."
    )


def record_of(name: str) -> Record:
    found: Record = json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def umkd() -> dict[str, str]:
    """The blocks of docs/papers/umkd.md."""
    ham, retina = record_of("umkd-ham10000"), record_of("umkd-retinamnist")
    three = ["accuracy", "macc", "weighted_f1"]
    five = [*three, "mae", "qwk"]
    sources, target = "sources_imbalanced", "target_imbalanced"
    return {
        "ham10000-facts": facts(ham),
        "ham10000": methods(ham, "umkd_table1", sources, three),
        "retinamnist-facts": facts(retina),
        "retinamnist": methods(retina, "umkd_table2", sources, five),
        "retinamnist-target": methods(retina, "umkd_table2", target, five),
        "modules": modules(retina),
        "proportions": proportions(record_of("umkd-ham10000-classes"), ["nv", "mel"]),
    }


def has_run(name: str) -> bool:
    return (HERE / "results" / f"{name}.json").is_file()


def kdml() -> dict[str, str]:
    """The blocks of docs/papers/kdml.md."""
    return kdml_tables.blocks(record_of("kdml-ham10000") if has_run("kdml-ham10000") else None)


def rskd() -> dict[str, str]:
    """The blocks of docs/papers/rskd.md."""
    return rskd_claims.blocks({
        "rfmid": record_of("rskd-rfmid") if has_run("rskd-rfmid") else None,
        "synthetic": record_of("rskd-synthetic") if has_run("rskd-synthetic") else None,
    })  # fmt: skip


def dspkd() -> dict[str, str]:
    """The blocks of docs/papers/dspkd.md."""
    return dspkd_claims.blocks(
        record_of("dspkd-ham10000") if has_run("dspkd-ham10000") else None,
        record_of("table6") if has_run("table6") else None,
    )


PAPERS = {"umkd": umkd, "kdml": kdml, "rskd": rskd, "dspkd": dspkd}


def render(document: str, blocks: dict[str, str]) -> str:
    """The document with every block made anew. Raises SystemExit for one that nobody makes."""

    def one(match: re.Match[str]) -> str:
        if match[2] not in blocks:
            raise SystemExit(f"there is no block '{match[2]}'; known: {', '.join(blocks)}")
        return f"{match[1]}\n{blocks[match[2]]}\n\n{match[3]}"

    return BLOCK.sub(one, document)


def write(name: str) -> Path:
    """Render a paper's document in its place."""
    path = DOCS / f"{name}.md"
    write_text(path, render(path.read_text(encoding="utf-8"), PAPERS[name]()))
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paper", choices=PAPERS)
    print(write(parser.parse_args().paper))
    return 0


if __name__ == "__main__":
    sys.exit(main())
