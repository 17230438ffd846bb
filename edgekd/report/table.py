"""The main table: the one that closes a command, and the first on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekd.report.grid import Cell, Column, Grid, Tone
from edgekd.report.records import PYTORCH, GateWord, HostTable, ReportData, Row
from edgekd.report.words import (
    CI,
    DOES_NOT_APPLY,
    NOT_MEASURED,
    NOT_RUN,
    count,
    plural,
    ratio,
    score,
    significant,
    size,
)

if TYPE_CHECKING:
    from rich.table import Table

RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "tensorrt": "TensorRT"}
GATE_WORDS: dict[GateWord, tuple[str, Tone]] = {
    "passed": ("passed", "good"),
    "accepted": ("accepted", "warn"),
    "inconclusive": ("inconclusive", "warn"),
    "refused": ("refused", "bad"),
    "not run": (NOT_RUN, "muted"),
}


RATIOS = (
    "× same: faster than the teacher in the same runtime and precision; "
    "× teacher: faster than the teacher as fp32 in ONNX Runtime."
)


def form(row: Row) -> str:
    """Runtime and precision of a row."""
    return f"{RUNTIMES.get(row.runtime, row.runtime)} {row.precision}"


def main(data: ReportData, host: HostTable) -> Grid:
    """The main table of one host."""
    columns = [
        Column("Model, artifact"),
        Column("Params", True),
        Column("MACs", True),
        Column(f"{data.primary_label} {CI}", True),
        Column("Latency p50, ms", True),
        Column("p95, ms", True),
        Column("Speed-up, same runtime and precision", True),
        Column("Speed-up over teacher fp32 in ONNX Runtime", True),
        Column("Gate"),
        Column("On disk", True),
    ]
    rows = [_row(row, host) for row in host.rows]
    return Grid(caption(data, host), columns, rows, _notes(host))


def caption(data: ReportData, host: HostTable) -> str:
    """What was measured, on how many images, where."""
    parts = []
    sizes = [row.score for row in host.rows if row.score is not None]
    if sizes:
        images, groups = sizes[0].images, sizes[0].groups
        parts.append(
            f"Scores measured on the test part: {plural(images, 'image')} of "
            f"{plural(groups, 'group')}"
        )
    else:
        parts.append(f"Scores: {NOT_MEASURED}")
    if data.seed is not None:
        parts.append(f"one training run, seed {data.seed}")
    if host.name is None:
        parts.append(f"latency: {NOT_MEASURED}")
    else:
        parts.append(f"latency measured at batch 1 on {host.name} {settings(host)}".rstrip())
    return "; ".join(parts) + "."


def settings(host: HostTable) -> str:
    """`(CPU, 2 threads)` where all rows share it."""
    found = sorted({row.timing.setting for row in host.rows if row.timing})
    return f"({found[0]})" if len(found) == 1 else ""


def _row(row: Row, host: HostTable) -> list[Cell]:
    timing = row.timing
    text, tone = GATE_WORDS[row.gate]
    several = timing is not None and not settings(host)
    gate = Cell(text, tone)
    # a gate compares a conversion with the student's fp32 model; other rows have none
    if row.role != "student" or row.artifact is None:
        gate = Cell(DOES_NOT_APPLY, "muted")
    return [
        Cell(row.model, "strong" if row.deploy else "", below=_which(row, several)),
        _figure(count(row.params)),
        _figure(count(row.macs)),
        _score(row),
        _figure(significant(timing.latency.p50) if timing else _untimed(row)),
        _figure(significant(timing.latency.p95) if timing else _untimed(row)),
        _figure(_same_speedup(row, host)),
        _figure(_teacher_speedup(row)),
        gate,
        _figure(DOES_NOT_APPLY if row.artifact is None else size(row.bytes)),
    ]


def _which(row: Row, several: bool) -> str:
    """The artifact, with whatever its name and the caption do not say."""
    words = [row.artifact or "not exported"]
    if row.role == "teacher" and row.model != row.role:
        words.append(row.role)
    if row.knows is not None:
        words.append(f"scored on its {plural(row.knows, 'class', 'classes')}")
    if row.timing and row.artifact and not _named_after(row.artifact, row.runtime):
        words.append(f"run by {RUNTIMES.get(row.runtime, row.runtime)}")
    if row.timing and several:
        words.append(row.timing.setting)
    words += [word for word in (_ran(row), "deploy" if row.deploy else "") if word]
    return ", ".join(words)


def _named_after(artifact: str, runtime: str) -> bool:
    """Whether `onnx-int8` already says that ONNX Runtime ran it."""
    return runtime.startswith(artifact.partition("-")[0])


def _ran(row: Row) -> str:
    """What really executed, where it is not what the artifact's name says."""
    whole = {"i8", "int8", "u8"}
    usual = {"fp32": {"f32", "fp32"}, "fp16": {"f16", "fp16"}, "int8": whole, "int8-aware": whole,
             "mixed": whole}  # fmt: skip
    timing = row.timing
    if timing is None:
        return ""
    if not timing.precision_ran:
        return "arithmetic unknown"
    same = timing.precision_ran.lower() in usual.get(row.precision, {row.precision})
    return "" if same else f"ran as {timing.precision_ran}"


def _score(row: Row) -> Cell:
    from_pytorch = row.score_from == PYTORCH and row.artifact is not None
    return Cell(
        score(row.score),
        "" if row.score else "muted",
        below="of the PyTorch model" if from_pytorch else "",
    )


def _untimed(row: Row) -> str:
    return DOES_NOT_APPLY if row.artifact is None else NOT_MEASURED


def _same_speedup(row: Row, host: HostTable) -> str:
    if row.role == "teacher" or row.artifact is None:
        return DOES_NOT_APPLY
    # the teacher is exported as fp32 only: an int8 row has nothing of its kind to stand against
    kin = any(other.role == "teacher" and other.artifact == row.artifact for other in host.rows)
    return ratio(row.same_speedup, NOT_MEASURED if kin else DOES_NOT_APPLY)


def _teacher_speedup(row: Row) -> str:
    return DOES_NOT_APPLY if row.artifact is None else ratio(row.teacher_speedup)


def _figure(text: str) -> Cell:
    return Cell(text, "muted" if text in (NOT_MEASURED, NOT_RUN, DOES_NOT_APPLY) else "")


def _notes(host: HostTable) -> list[str]:
    notes = ["CI: bootstrap over groups (patients, lesions). MACs: multiply-accumulates of one "
             "image. Latency: one call of the runtime, host copies included. Speed-up: p50 of "
             "the teacher over p50 of the row."]  # fmt: skip
    if any(row.role == "student" and _same_speedup(row, host) == DOES_NOT_APPLY
           for row in host.rows if row.artifact):  # fmt: skip
        notes.append("–: does not apply (the teacher was not exported in this form).")
    if any(row.role == "student" and row.gate == "accepted" for row in host.rows):
        notes.append("accepted: the gate was inconclusive, and a person accepted it with a reason.")
    return notes


def _form(row: Row) -> str:
    """The artifact, and of how many classes the score is where they are not all."""
    form = row.artifact or row.runtime
    return form if row.knows is None else f"{form}, {plural(row.knows, 'class', 'classes')}"


def _pair(first: str, second: str) -> str:
    """Two figures above each other; one remark for both where both lack."""
    return first.replace(" ", "\n") if first == second == NOT_MEASURED else f"{first}\n{second}"


def terminal(data: ReportData) -> Table:
    """The closing table of a command, for the host measured last, with the line to deploy."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    host = data.latest_host
    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(data.name, style="bold"),
        title_justify="left",
        caption=Text(f"{caption(data, host)}\n{RATIOS}\n\n{host.deploy.line}"),
        caption_justify="left",
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for name, numeric in (
        ("model\nartifact", False), ("params\nMACs", True), (f"{data.primary}\n{CI}", True),
        ("p50 ms\np95 ms", True), ("× same\n× teacher", True), ("gate", False), ("size", True),
    ):  # fmt: skip
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    styles = {"good": "green", "bad": "bold red", "warn": "yellow"}
    for row, cells in zip(host.rows, main(data, host).rows, strict=True):
        params, macs, value, p50, p95, same, teacher, gate, disk = (cell.text for cell in cells[1:])
        latency = f"{p50}\n{p95}" if row.timing else p50.replace(" ", "\n")
        table.add_row(
            Text(f"{row.model}\n{_form(row)}", style="bold" if row.deploy else ""),
            _pair(params, macs),
            value.replace(" [", "\n["),
            latency,
            _pair(same, teacher),
            Text(gate, style=styles.get(cells[8].tone, "")),
            disk,
        )
    return table
