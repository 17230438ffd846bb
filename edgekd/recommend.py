"""Which artifact to deploy on a host: the fastest of those that may ship.

Only measurements of the file that the bundle now holds count, at batch 1, and in the runtime, on
the kind of device and in the arithmetic that its gate proved: the same file elsewhere is another
model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from edgekd.bundle import Artifact, Manifest
from edgekd.host import host_name
from edgekd.results import Measurement, read_measurements

# the kind of device on which the export ran the artifacts for their gates, by runtime
PROVEN_ON = {"tensorrt": "CUDA"}
PROVEN_ON_OTHERWISE = "CPU"


@dataclass(frozen=True)
class Recommendation:
    """What to deploy, and why, in one sentence.

    `ranking` holds one measurement per artifact, the fastest first; `tied` the artifacts whose
    95 % interval of the median overlaps that of the chosen one.
    """

    artifact: str | None  # None: nothing that may ship was measured as its gate judged it
    why: str
    ranking: list[Measurement] = field(default_factory=list)
    tied: list[str] = field(default_factory=list)


def may_ship(artifact: Artifact) -> bool:
    """Its gate passed, or a person accepted an inconclusive one with a reason."""
    return artifact.gate is not None and artifact.gate.may_ship


def is_refused(artifact: Artifact) -> bool:
    return artifact.gate is not None and artifact.gate.verdict == "refused"


def is_current(row: Measurement, manifest: Manifest) -> bool:
    """Is the file that was measured the one that the bundle now lists?"""
    artifact = manifest.artifacts.get(row.artifact)
    entry = manifest.files.get(artifact.file) if artifact else None
    return entry is not None and entry.sha256 == row.sha256


def is_on_proven_device(row: Measurement) -> bool:
    """On the kind of device that the gates ran on, which is the default of every runtime."""
    kind = PROVEN_ON.get(row.runtime, PROVEN_ON_OTHERWISE)
    return row.device.partition(":")[0].upper() == kind


def is_proven(row: Measurement, artifact: Artifact) -> bool:
    """Did the artifact run as its gate judged it: runtime, kind of device, fp32 in f32?"""
    is_other = row.precision_asked == "fp32" and row.precision_ran != "f32"
    return row.runtime == artifact.runtime and is_on_proven_device(row) and not is_other


def recommend(manifest: Manifest, measurements: Iterable[Measurement]) -> Recommendation:
    """Rank the artifacts of a bundle by the median latency at batch 1 on one host.

    Of several measurements in the same setting (device, threads) the latest counts.
    """
    latest: dict[tuple[str, str, int], Measurement] = {}
    for row in measurements:
        artifact = manifest.artifacts.get(row.artifact)
        if artifact is None or row.batch != 1 or row.runtime != artifact.runtime:
            continue
        key = (row.artifact, row.device, row.threads)
        if is_current(row, manifest) and (key not in latest or latest[key].utc <= row.utc):
            latest[key] = row
    if not latest:
        return Recommendation(None, "nothing was measured at batch 1 on this host")
    able = [row for row in latest.values() if may_ship(manifest.artifacts[row.artifact])]
    if not able:
        return Recommendation(None, "no measured artifact passed its gates")
    fastest: dict[str, Measurement] = {}
    for row in sorted(able, key=lambda row: row.latency_ms.p50):
        if is_proven(row, manifest.artifacts[row.artifact]):
            fastest.setdefault(row.artifact, row)
    ranking = list(fastest.values())
    if not ranking:
        ran = ", ".join(
            f"{row.artifact} on {row.device} as {row.precision_ran or 'unknown'}" for row in able
        )
        return Recommendation(None, f"what was measured is not proven as it ran: {ran}")
    best = ranking[0]
    tied = [row.artifact for row in ranking[1:] if row.latency_p50_low <= best.latency_p50_high]
    return Recommendation(best.artifact, _why(manifest, best, tied), ranking, tied)


def on_this_host(
    folder: Path, manifest: Manifest, more: Iterable[Measurement] = ()
) -> Recommendation:
    """The recommendation from what `edgekd bench` left in the bundle on this host, and `more`."""
    path = folder / "bench" / f"{host_name()}.jsonl"
    kept = list(read_measurements(path)) if path.is_file() else []
    return recommend(manifest, [*kept, *more])


def _why(manifest: Manifest, best: Measurement, tied: list[str]) -> str:
    gate = manifest.artifacts[best.artifact].gate
    accepted = gate is not None and gate.verdict == "inconclusive"
    reason = ("fastest that may ship (its gate was inconclusive and accepted by hand)" if accepted
              else "fastest that passed its gates")  # fmt: skip
    threads = f", {best.threads} thread{'s' if best.threads != 1 else ''}" if best.threads else ""
    why = f"{reason}: {best.latency_ms.p50:.3g} ms median ({best.device}{threads})"
    return why + (f"; not told apart from {', '.join(tied)}" if tied else "")
