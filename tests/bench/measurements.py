"""Measurements that nobody made."""

from __future__ import annotations

from typing import Any

from edgekd.bundle import Manifest
from edgekd.results import Latency, Measurement


def latency(p50: float) -> Latency:
    return Latency(p50=p50, p90=p50, p95=p50, p99=p50, mean=p50, std=0.0, min=p50, max=p50)


def measurement(manifest: Manifest, artifact: str, p50: float, **changes: Any) -> Measurement:
    """`artifact` of a bundle took `p50` milliseconds, give or take 1 %."""
    described = manifest.artifacts[artifact]
    facts: dict[str, Any] = {
        "utc": "2026-01-01T00:00:00.000+00:00", "host": {"name": "desk"}, "model": "student",
        "role": "student", "artifact": artifact, "file": described.file,
        "sha256": manifest.files[described.file].sha256, "runtime": described.runtime,
        "runtime_version": "1", "device": "CPU", "precision_asked": described.precision,
        "precision_ran": "f32", "threads": 2, "batch": 1, "input_shape": [1, 3, 16, 16],
        "warmup_runs": 1, "warmup_s": 0.1, "repeats": 100, "seconds": 1.0,
        "latency_ms": latency(p50), "latency_p50_low": p50 * 0.99, "latency_p50_high": p50 * 1.01,
        "samples_ms": [p50], "throughput_ips": 1000 / p50, "load_s": 0.1, "first_ms": p50,
        "peak_memory_mb": 80.0, "phases_ms": {},
    }  # fmt: skip
    return Measurement(**{**facts, **changes})
