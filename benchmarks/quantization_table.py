"""The tables of `quantization.py`, all computed from what it measured."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from edgekd.stats import mean_interval, percentile_interval
from edgekd.sweep import show, table

BLOCK = re.compile(r"(<!-- block ([a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
STUDENTS = {"resnet18": "ResNet-18", "shufflenetv2": "ShuffleNetV2 x1.0",
            "mobilenetv3": "MobileNetV3-small"}  # fmt: skip
LABELS = {
    "fp32": "fp32", "fp16": "fp16", "int8": "int8 (PTQ)", "int8-aware": "int8, accuracy control",
    "mixed": "mixed",
}  # fmt: skip
QUANTIZED = {key: label for key, label in LABELS.items() if not key.startswith("fp")}
ARTIFACTS = {"onnx": LABELS, "onnxruntime": QUANTIZED, "openvino": LABELS}
TREATMENTS = {"longer": "two more epochs in float", "qat": "QAT without teacher",
              "qat-taught": "QAT with teacher"}  # fmt: skip
EXACT = "onnx-fp32"
RESAMPLES = 10_000
NOT_RUN = "not run"
COMMAND = "python benchmarks/quantization.py SWEEP_FOLDER"

Record = dict[str, Any]


def insert(document: str, record: Record) -> str:
    """Fill every block of the document; raises KeyError for one that nobody makes."""
    if not record:
        return BLOCK.sub(rf"\1\nNot run yet: `{COMMAND}`.\n\n\3", document)
    made = {"facts": facts(record), "accuracy": accuracy(record), "qat": qat(record),
            "latency": latency(record), "advice": advice(record)}  # fmt: skip
    return BLOCK.sub(lambda m: f"{m[1]}\n{made[m[2]]}\n\n{m[3]}", document)


def facts(record: Record) -> str:
    """How many images, and where."""
    split = record["split"]
    seeds = ", ".join(str(seed) for seed in record["seeds"])
    return (
        f"{split['train']} training, {split['val']} validation and {split['test']} test images; "
        f"seeds {seeds}; {record['host'].get('cpu')}."
    )


def rows_of(record: Record, student: str, treatment: str, artifact: str) -> dict[int, Any]:
    """One artifact's rows by seed, of the seeds that were run."""
    found = {}
    for seed in record["seeds"]:
        row = record["rows"].get(f"{student}/{treatment}/{seed}", {}).get(artifact)
        if row is not None:
            found[seed] = row
    return found


def accuracy(record: Record) -> str:
    """Per student and artifact: what is lost against fp32, and what the gates said."""
    lines = [
        "| student | artifact | accuracy | loss, points | balanced acc. | worst class | ECE "
        "| Brier | decisions changed | MB | layers in float | gates |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for student, label in STUDENTS.items():
        for target, names in ARTIFACTS.items():
            for precision, name in names.items():
                rows = rows_of(record, student, "plain", f"{target}-{precision}")
                exact = rows_of(record, student, "plain", EXACT)
                cells = _accuracy_cells(rows, exact) if rows else [NOT_RUN, *[""] * 9]
                lines.append(f"| {label} | {target} {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _accuracy_cells(rows: dict[int, Any], exact: dict[int, Any]) -> list[str]:
    def scores(name: str) -> dict[int, float]:
        return {seed: row["scores"][name][0] for seed, row in rows.items()}

    losses = {seed: 100 * row["loss"][0] for seed, row in rows.items()}
    changed = [100 * row["flips"] / row["images"] for row in rows.values()]
    layers = [str(len(row["float_layers"])) for row in rows.values()]
    return [
        _spread(scores("accuracy")),
        _difference(losses),
        _spread(scores("macc")),
        _worst(rows),
        _spread(scores("ece")),
        _spread(scores("brier")),
        f"{np.mean(changed):.1f} %",
        f"{np.mean([row['bytes'] for row in rows.values()]) / 1e6:.1f}",
        "/".join(layers) if any(count != "0" for count in layers) else "",
        verdicts([row["verdict"] for row in rows.values()]),
    ]


def _worst(rows: dict[int, Any]) -> str:
    """The class whose sensitivity fell most, on the average over seeds."""
    fallen: dict[str, list[float]] = {}
    for row in rows.values():
        for name, (value, _, _) in row["sensitivity"].items():
            if value is not None:
                fallen.setdefault(name, []).append(100 * value)
    if not fallen:
        return ""
    name, values = max(fallen.items(), key=lambda item: float(np.mean(item[1])))
    return f"{name} −{np.mean(values):.1f}" if np.mean(values) > 0.05 else "none"


def verdicts(found: list[str]) -> str:
    """`passed` where all seeds agree, else how many of each."""
    kinds = [kind for kind in ("passed", "inconclusive", "refused") if kind in found]
    if len(kinds) == 1:
        return kinds[0]
    return ", ".join(f"{found.count(kind)} {kind}" for kind in kinds)


def qat(record: Record) -> str:
    """int8 after more training, against the float student before it."""
    lines = [
        "| student | then | float accuracy | int8 accuracy | int8 minus float of the same weights, "
        "points | int8 minus the float student before, points | gates | seeds |",
        "|---|---|---:|---:|---:|---:|---|---:|",
    ]
    for student, label in STUDENTS.items():
        for treatment, name in {"plain": "nothing (PTQ)", **TREATMENTS}.items():
            int8 = rows_of(record, student, treatment, "onnx-int8")
            exact = rows_of(record, student, treatment, EXACT)
            if not int8:
                lines.append(f"| {label} | {name} | {NOT_RUN} |  |  |  |  | 0 |")
                continue
            ours, before = (_accuracy_of(rows) for rows in (int8, exact))
            start = _accuracy_of(rows_of(record, student, "plain", EXACT))
            lines.append(
                f"| {label} | {name} | {_spread(before)} | {_spread(ours)} | "
                f"{_difference(_minus(ours, before))} | {_difference(_minus(ours, start))} | "
                f"{verdicts([row['verdict'] for row in int8.values()])} | {len(int8)} |"
            )
    return "\n".join(lines)


def _accuracy_of(rows: dict[int, Any]) -> dict[int, float]:
    return {seed: row["scores"]["accuracy"][0] for seed, row in rows.items()}


def _minus(ours: dict[int, float], theirs: dict[int, float]) -> dict[int, float]:
    """Paired differences in points."""
    return {seed: 100 * (ours[seed] - theirs[seed]) for seed in ours if seed in theirs}


def latency(record: Record) -> str:
    """Median of each artifact, and how many times faster than ONNX Runtime's fp32 it is."""
    lines = ["| artifact |" + "".join(f" {label} |" for label in STUDENTS.values()),
             "|---|" + "---:|" * len(STUDENTS)]  # fmt: skip
    for target, names in ARTIFACTS.items():
        for precision, name in names.items():
            cells = [
                _latency_cell(record["timing"].get(student), f"{target}-{precision}")
                for student in STUDENTS
            ]
            lines.append(f"| {target} {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _latency_cell(found: Record | None, artifact: str) -> str:
    if found is None or artifact not in found["rounds_ms"]:
        return NOT_RUN
    own, base = (np.array(found["rounds_ms"][name]) for name in (artifact, EXACT))
    middle, low, high = speed(own, base)
    ran = found["ran"][artifact]
    text = f"{np.median(own):.2f} ms {ran}"
    return text if artifact == EXACT else f"{text}, {middle:.2f}x [{low:.2f}, {high:.2f}]"


def speed(own: Any, base: Any) -> tuple[float, float, float]:
    """How many times faster, round by round: median and its 95 % bootstrap interval."""
    ratios = np.asarray(base) / np.asarray(own)
    drawn = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = percentile_interval(np.median(ratios[drawn], axis=1))
    return float(np.median(ratios)), low, high


def advice(record: Record) -> str:
    """What the tool advises, and what the interleaved rounds say is fastest of what may ship."""
    lines = ["| student | advised by `edgekd bench` | fastest of those that may ship | agree |",
             "|---|---|---|---|"]  # fmt: skip
    for student, label in STUDENTS.items():
        found = record["timing"].get(student)
        if found is None:
            lines.append(f"| {label} | {NOT_RUN} |  |  |")
            continue
        fastest = fastest_of(found)
        lines.append(f"| {label} | {found['advised']} | {' or '.join(fastest) or 'none'} | "
                     f"{'yes' if agrees(found) else 'no'} |")  # fmt: skip
    return "\n".join(lines)


def fastest_of(found: Record) -> list[str]:
    """The fastest artifact that may ship, and those that are not told apart from it."""
    medians = {name: float(np.median(found["rounds_ms"][name])) for name in found["may_ship"]}
    ranked = sorted(medians, key=medians.__getitem__)
    if not ranked:
        return []
    best = found["rounds_ms"][ranked[0]]
    return [name for name in ranked
            if name == ranked[0] or speed(best, found["rounds_ms"][name])[1] <= 1]  # fmt: skip


def agrees(found: Record) -> bool:
    """Whether the tool names one of the fastest (or nothing, where nothing may ship)."""
    fastest = fastest_of(found)
    return found["advised"] in fastest if fastest else found["advised"] is None


def _spread(values: dict[int, float]) -> str:
    """Mean and standard deviation over seeds."""
    return show.spread(table.cell_of(len(values), values, {}))


def _difference(points: dict[int, float]) -> str:
    """Mean over seeds and, from two seeds on, its 95 % interval (Student's t)."""
    if not points:
        return ""
    mean, low, high = mean_interval(list(points.values()))
    return f"{mean:+.2f}" + (f" [{low:+.2f}, {high:+.2f}]" if len(points) > 1 else "")
