"""The blocks about DSP-KD's Table 6 in docs/papers/dspkd.md, computed from what `table6.py` timed.

All ratios compare rounds with themselves; a ratio is the median over rounds with the 95 % interval
of a bootstrap over rounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from settings_table import speed

from edgekd import published

Record = dict[str, Any]
Ratio = tuple[float, float, float]  # middle, low, high

NOT_RUN = "not run"
NOT_RUN_YET = "Not run yet: `python benchmarks/table6.py`."
TEACHER, STUDENT = "Res2Net101", "ShuffleNetV2"
EAGER = "torch-fp32"
FORMS = {
    EAGER: "PyTorch (eager), fp32", "onnxruntime-fp32": "ONNX Runtime, fp32",
    "onnxruntime-int8": "ONNX Runtime, int8", "openvino-fp32": "OpenVINO, fp32",
    "openvino-int8": "OpenVINO, int8",
}  # fmt: skip
INT8 = tuple(form for form in FORMS if form.endswith("int8"))
ONE, ALL = "1", "all"
THREADS = {ONE: "one thread", ALL: "all threads"}
BUSY = 0.5  # processes that run besides
PRINTED = {  # line of Table 6 -> what it is
    "ShuffleNetV2_student": "the student, not distilled",
    "DSP-KD": "the same student, distilled by DSP-KD",
    "SSD-KD": "the same student, distilled by SSD-KD",
    "wide-ShuffleNet": "another network, which could not be established",
}


def key(network: str, form: str, threads: str) -> str:
    """The name of a cell."""
    return f"{network}/{form}/{threads}"


def ratio(record: Record, slow: str, fast: str) -> Ratio | None:
    """How many times as long the first cell takes as the second; None where one was not run."""
    times = record["step_ms"]
    return speed(times, fast, slow) if slow in times and fast in times else None


def like_for_like(record: Record, form: str, threads: str, student: str = STUDENT) -> Ratio | None:
    """Teacher over student, both in the same form with the same threads."""
    return ratio(record, key(TEACHER, form, threads), key(student, form, threads))


def median(record: Record, cell: str) -> float | None:
    times = record["step_ms"].get(cell)
    return float(np.median(times)) if times else None


def best_int8(record: Record, student: str, threads: str) -> str | None:
    """The int8 form in which a student is fastest, by its median."""
    found = {form: median(record, key(student, form, threads)) for form in INT8}
    known = {form: middle for form, middle in found.items() if middle is not None}
    return min(known, key=lambda form: known[form]) if known else None


def times(found: Ratio | None) -> str:
    """A ratio as text: `11.8x [11.2, 12.3]`."""
    return NOT_RUN if found is None else "{:.1f}x [{:.1f}, {:.1f}]".format(*found)


def factor(found: Ratio | None) -> str:
    """A factor of the waterfall, which may be near 1."""
    return NOT_RUN if found is None else "× {:.2f} [{:.2f}, {:.2f}]".format(*found)


def students_of(record: Record) -> list[str]:
    return [name for name in record["networks"] if name != TEACHER]


def published_seconds(method: str) -> float:
    (row,) = published.table("dspkd_table6").rows_of(method)
    found = row.values["latency_s"]
    assert found is not None
    return found


def published_ratio(method: str) -> float:
    """Teacher over one line of the printed table."""
    return published_seconds("Res2Net101_teacher") / published_seconds(method)


def blocks(record: Record | None) -> dict[str, str]:
    """Every block by name; without times all but the printed ones say so."""
    makers = {"times": milliseconds, "ratios": ratios, "waterfall": waterfalls, "facts": facts}
    found = {
        f"table6-{name}": make(record) if record else NOT_RUN_YET for name, make in makers.items()
    }
    return {**found, "table6-published": printed()}


def facts(record: Record) -> str:
    """The machine, and how it was timed."""
    host, packages = record["host"], record["packages"]
    versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    load = host.get("load") or 0.0
    busy = f" **The machine was busy before it began (load {load:.1f}).**" if load > BUSY else ""
    return (
        f"`{record['command']}`\n\n{host['cpu']}, {host['cores_usable']} usable cores (all "
        f"threads: {record['threads'][ALL]}); {versions}. Batch 1, {record['size']}x"
        f"{record['size']} pixels, {record['classes']} classes, random weights. "
        f"{record['rounds']} rounds, in which all cells take turns, each in a process of its own, "
        f"for at least {record['block_ms']:g} ms; medians over rounds, in brackets the 95 % "
        f"interval of a bootstrap over rounds.{busy}"
    )


def printed() -> str:
    """What the paper prints, and the ratios that follow."""
    lines = [
        "| published line | what it is | parameters, M | seconds | teacher / this |",
        "|---|---|---:|---:|---:|",
    ]
    for row in published.table("dspkd_table6").rows:
        words = PRINTED.get(row.method, "the teacher")
        above = published_ratio(row.method)
        doubt = " (?)" if row.suspect and "latency_s" in row.suspect else ""
        lines.append(f"| {row.method} | {words} | {row.values['params_m']:g}{doubt} | "
                     f"{row.values['latency_s']:g}{doubt} | {above:.1f}x |")  # fmt: skip
    return "\n".join(lines)


def milliseconds(record: Record) -> str:
    """The median of every cell, the precision that really ran, and the size of the file."""
    lines = [
        "| network | parameters, M | multiply-adds, M | form | ran in | file, MB | 1 thread, ms | "
        "all threads, ms |",
        "|---|---:|---:|---|---|---:|---:|---:|",
    ]
    for name, network in record["networks"].items():
        sizes = f"{network['params'] / 1e6:.3f} | {network['macs'] / 1e6:.0f}"
        for form, words in FORMS.items():
            cells = [median(record, key(name, form, threads)) for threads in THREADS]
            texts = [NOT_RUN if cell is None else f"{cell:.2f}" for cell in cells]
            size, ran = network["megabytes"].get(form), network["precision"].get(form, "")
            file = "" if size is None else f"{size:.1f}"
            row = [name, sizes, words, ran, file, *texts]
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def ratios(record: Record) -> str:
    """Like for like, and the deployed student against the eager teacher."""
    lines = [
        "| teacher | student | 1 thread | all threads |",
        "|---|---|---:|---:|",
    ]
    for student in students_of(record):
        for form, words in FORMS.items():
            cells = [times(like_for_like(record, form, threads, student)) for threads in THREADS]
            lines.append(f"| {words} | {student}, the same | {' | '.join(cells)} |")
        cells = []
        for threads in THREADS:
            form = best_int8(record, student, threads) or ""
            found = ratio(record, key(TEACHER, EAGER, threads), key(student, form, threads))
            cells.append(times(found) + (f" ({FORMS[form]})" if found else ""))
        lines.append(f"| {FORMS[EAGER]} | {student}, its fastest int8 | {' | '.join(cells)} |")
    return "\n".join(lines)


def steps(record: Record, student: str) -> list[tuple[str, str]]:
    """From the eager teacher to the deployed student, one change at a time: words and cells."""
    best = best_int8(record, student, ALL) or INT8[0]
    runtime = best.removesuffix("-int8")
    name = FORMS[best].partition(",")[0]
    return [
        (f"{TEACHER}, {FORMS[EAGER]}, one thread", key(TEACHER, EAGER, ONE)),
        (f"architecture: {student}", key(student, EAGER, ONE)),
        (f"runtime: {name}", key(student, f"{runtime}-fp32", ONE)),
        ("precision: int8", key(student, best, ONE)),
        ("threads: all", key(student, best, ALL)),
    ]


def waterfall(record: Record, student: str) -> str:
    """What each step contributes; the factors multiply to the last line up to rounding."""
    lines = ["| step | ms | times faster than the line above | than the first |",
             "|---|---:|---:|---:|"]  # fmt: skip
    path = steps(record, student)
    for number, (words, cell) in enumerate(path):
        middle = median(record, cell)
        text = NOT_RUN if middle is None else f"{middle:.2f}"
        first = "" if not number else factor(ratio(record, path[number - 1][1], cell))
        total = "" if not number else times(ratio(record, path[0][1], cell))
        lines.append(f"| {words} | {text} | {first} | {total} |")
    return "\n".join(lines)


def waterfalls(record: Record) -> str:
    return "\n\n".join(waterfall(record, student) for student in students_of(record))
