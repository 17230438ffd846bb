"""report.csv: every figure on a line of its own."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from edgekd.report.label_records import LabelSubject
from edgekd.report.records import ReportData, Row, Timing
from edgekd.report.similarity import deepest, nearest
from edgekd.report.words import NOT_MEASURED
from edgekd.results import CkaMap

HEADER = ["run", "model", "artifact", "host", "setting", "batch", "metric", "value", "low", "high",
          "unit", "status"]  # fmt: skip
MEASURED = "measured"

Line = tuple[str, float | int | None, float | None, float | None, str]


def csv_text(runs: list[ReportData]) -> str:
    """The long form of all figures; what is absent has no value and says so."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(HEADER)
    for data in runs:
        for model in data.scores:
            name, _, artifact = model.name.rpartition(" ")
            for metric, found in model.scores.items():
                line = (metric, found.value, found.low, found.high, "score")
                writer.writerow(_cells(data.name, name, artifact, "", "", "", line))
        for one in data.labels.subjects if data.labels else ():
            for line in _per_class(data, one):
                writer.writerow(_cells(data.name, one.model, one.form, "", "", "", line))
        for pair in data.similarities:
            for line in _similarity(pair):
                setting = f"with {pair.first}"
                writer.writerow(_cells(data.name, pair.second, "", "", setting, "", line))
        for host in data.hosts:
            seen = set()
            for row in host.rows:
                place = (data.name, row.model, row.artifact or "PyTorch", host.name or "")
                if row.artifact not in seen:
                    for line in _facts(row):
                        writer.writerow(_cells(*place, "", "", line))
                seen.add(row.artifact)
                setting = row.timing.setting if row.timing else ""
                for line in _speed(row):
                    writer.writerow(_cells(*place, setting, "1", line))
                writer.writerow([*place, "", "", "gate", "", "", "", "", row.gate])
            for timing in host.timings:
                place = (data.name, timing.model, timing.artifact, host.name or "")
                for line in _timing(timing):
                    writer.writerow(_cells(*place, timing.setting, str(timing.batch), line))
    return buffer.getvalue()


def _similarity(one: CkaMap) -> Iterator[Line]:
    for name, found in (("deepest_features", deepest(one)), ("nearest", nearest(one))):
        yield f"cka_{name}", found.cka if found else None, None, None, "ratio"


def _per_class(data: ReportData, one: LabelSubject) -> Iterator[Line]:
    assert data.labels is not None
    for known, found in zip(data.labels.classes, one.figures, strict=True):
        if found is not None:
            yield f"ap:{known.name}", found.ap, found.low, found.high, "score"
            yield f"recall:{known.name}", found.sensitivity, None, None, "score"
            yield f"specificity:{known.name}", found.specificity, None, None, "score"


def _facts(row: Row) -> Iterator[Line]:
    yield "params", row.params, None, None, "count"
    yield "macs", row.macs, None, None, "count"
    yield "size", row.bytes, None, None, "bytes"


def _speed(row: Row) -> Iterator[Line]:
    if row.timing is None:
        yield "latency_p50", None, None, None, "ms"
    yield "speedup_same_runtime_and_precision", row.same_speedup, None, None, "ratio"
    yield "speedup_over_teacher_onnxruntime_fp32", row.teacher_speedup, None, None, "ratio"


def _timing(one: Timing) -> Iterator[Line]:
    latency = one.latency
    yield "latency_p50", latency.p50, one.p50_low, one.p50_high, "ms"
    for name in ("p90", "p95", "p99", "mean"):
        yield f"latency_{name}", getattr(latency, name), None, None, "ms"
    yield "throughput", one.throughput_ips, None, None, "images/s"
    yield "load", one.load_s, None, None, "s"
    yield "first_call", one.first_ms, None, None, "ms"
    yield "peak_memory", one.peak_memory_mb, None, None, "MB"
    yield "energy_per_image", one.energy_mj, one.energy_mj_low, one.energy_mj_high, "mJ"
    yield "energy_per_image_with_rest", one.energy_gross_mj, None, None, "mJ"
    yield "power_at_rest", one.idle_w, None, None, "W"
    yield "power_at_work", one.load_w, None, None, "W"
    yield "temperature", one.temperature_c, None, None, "degC"
    for phase, found in one.phases.items():
        yield f"phase_{phase}_p50", found.p50, None, None, "ms"


def _cells(
    run: str, model: str, artifact: str, host: str, setting: str, batch: str, line: Line
) -> list[object]:
    metric, value, low, high, unit = line
    status = MEASURED if value is not None else NOT_MEASURED
    return [run, model, artifact, host, setting, batch, metric, *map(_number, (value, low, high)),
            unit, status]  # fmt: skip


def _number(value: float | int | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"
