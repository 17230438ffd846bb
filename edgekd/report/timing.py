"""Measurements as the report uses them: the latest of each setting, and the ratios."""

from __future__ import annotations

from collections.abc import Iterable

from edgekd.bundle import Manifest
from edgekd.recommend import is_current
from edgekd.report.records import Timing
from edgekd.results import Measurement

BASELINE_RUNTIME, BASELINE_PRECISION = "onnxruntime", "fp32"


def latest(
    measurements: Iterable[Measurement], manifest: Manifest, host: str
) -> tuple[list[Timing], list[str]]:
    """The latest measurement per (artifact, runtime, device, threads, batch), and what was left
    out: timings of files that the bundle no longer holds say nothing about the present ones."""
    kept: dict[tuple[object, ...], Timing] = {}
    stale: set[str] = set()
    for row in sorted(measurements, key=lambda row: row.utc):
        if not is_current(row, manifest):
            stale.add(row.artifact)
            continue
        key = (row.artifact, row.runtime, row.device, row.threads, row.batch)
        kept[key] = _timing(row, manifest.model.name, host)
    gone = stale - {timing.artifact for timing in kept.values()}
    notes = [
        f"{manifest.model.name} {name} on {host}: measured only as an earlier export, so its "
        "timing is left out; `edgekd bench` measures it anew"
        for name in sorted(gone)
    ]
    return list(kept.values()), notes


def _timing(row: Measurement, model: str, host: str) -> Timing:
    return Timing(
        model=model,
        artifact=row.artifact,
        host=host,
        runtime=row.runtime,
        runtime_version=row.runtime_version,
        device=row.device,
        precision_asked=row.precision_asked,
        precision_ran=row.precision_ran,
        threads=row.threads,
        batch=row.batch,
        latency=row.latency_ms,
        p50_low=row.latency_p50_low,
        p50_high=row.latency_p50_high,
        repeats=row.repeats,
        throughput_ips=row.throughput_ips,
        load_s=row.load_s,
        first_ms=row.first_ms,
        peak_memory_mb=row.peak_memory_mb,
        phases=row.phases_ms,
        samples_ms=row.samples_ms,
        utc=row.utc,
        notes=row.notes,
        energy_mj=row.energy_mj,
        energy_mj_low=row.energy_mj_low,
        energy_mj_high=row.energy_mj_high,
        energy_gross_mj=row.energy_gross_mj,
        idle_w=row.idle_w,
        load_w=row.load_w,
        power_source=row.power_source,
        power_mode=row.power_mode,
        temperature_c=row.temperature_c,
    )


def same_speedup(timing: Timing, teacher: list[Timing]) -> float | None:
    """How much faster than the teacher in the same runtime, precision, device and threads.

    None where a runtime did not say in what precision it ran: two unknowns are not the same.
    """
    if not timing.precision_ran:
        return None
    for other in teacher:
        if (
            other.runtime == timing.runtime
            and other.precision_asked == timing.precision_asked
            and other.precision_ran == timing.precision_ran
            and other.device == timing.device
            and other.threads == timing.threads
            and other.batch == timing.batch
        ):
            return other.latency.p50 / timing.latency.p50
    return None


def teacher_speedup(timing: Timing, teacher: list[Timing]) -> float | None:
    """How much faster than the teacher as fp32 in ONNX Runtime with as many threads.

    Runtimes name their devices differently (CPU, CPUExecutionProvider), so the baseline is the
    one on a CPU where there are several.
    """
    baselines = [
        other
        for other in teacher
        if other.runtime == BASELINE_RUNTIME
        and other.precision_asked == BASELINE_PRECISION
        and (other.threads, other.batch) == (timing.threads, timing.batch)
    ]
    baselines.sort(key=lambda other: "cpu" not in other.device.lower())
    return baselines[0].latency.p50 / timing.latency.p50 if baselines else None
