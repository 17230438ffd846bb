"""What was measured, as a table for people, closed by the artifact to deploy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.recommend import is_refused, on_this_host
from edgekd.results import MEASURED, NOT_MEASURED, Measurement
from edgekd.runtimes.session import Target, resolve

if TYPE_CHECKING:
    from rich.console import Group

DASH = "-"
UNKNOWN = "unknown"  # the runtime does not say in what precision it ran


def table(rows: list[Measurement], target: Path) -> Group:
    """A rich renderable: a row per measurement, refused artifacts, notes, and what to deploy."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    found = resolve(target)
    primary = found.manifest.primary if found.manifest else ""
    has_scores = any(row.scores for row in rows)
    columns = ["artifact", "runtime", "device", "ran in", "batch", "p50 ms", "95 % of p50",
               "p95 ms", "images/s", "load s", "peak MB"]  # fmt: skip
    has_energy = any(row.energy_status != NOT_MEASURED for row in rows)  # it was asked for
    extra = [*(["mJ/image"] if has_energy else []), *([primary] if has_scores else [])]
    grid = Table(*columns, *extra, "gate")
    for row in rows:
        threads = f", {row.threads} thr" if row.threads else ""
        cells = [
            row.artifact,
            f"{row.runtime} {row.runtime_version}",
            row.device + threads,
            row.precision_ran or UNKNOWN,
            str(row.batch),
            f"{row.latency_ms.p50:.3g}",
            f"{row.latency_p50_low:.3g} to {row.latency_p50_high:.3g}",
            f"{row.latency_ms.p95:.3g}",
            f"{row.throughput_ips:.4g}",
            f"{row.load_s:.2g}",
            DASH if row.peak_memory_mb is None else f"{row.peak_memory_mb:.0f}",
        ]
        cells += [_energy(row)] if has_energy else []
        cells += [_score(row, primary)] if has_scores else []
        grid.add_row(*cells, row.gate or DASH)
    measured = {row.artifact for row in rows}
    for artifact in found.artifacts.values():
        if is_refused(artifact) and artifact.name not in measured:
            blanks = [DASH] * (len(grid.columns) - 2)
            grid.add_row(artifact.name, *blanks, "refused")
    # notes on further batch sizes repeat those on the first; all are in the file
    first = {row.artifact: row for row in reversed(rows)}
    lines = [f"{row.artifact}: {note}" for row in rows if first[row.artifact] is row
             for note in row.notes]  # fmt: skip
    lines += _surroundings(rows)
    closing = [Text(f"Deploy on this host: {_deploy(rows, found)}")] if found.manifest else []
    return Group(grid, *(Text(line) for line in lines), *closing)


def _energy(row: Measurement) -> str:
    if row.energy_mj is None:
        return NOT_MEASURED
    if row.energy_mj_low is None or row.energy_mj_high is None:
        return f"{row.energy_mj:.3g}"
    return f"{row.energy_mj:.3g} ({row.energy_mj_low:.3g} to {row.energy_mj_high:.3g})"


def _surroundings(rows: list[Measurement]) -> list[str]:
    """How the machine was set, and where the energy comes from; each thing once."""
    found = []
    for row in rows:
        if row.power_mode is not None:
            guess = "power_mode" in row.format_unverified
            found.append(f"power mode: {row.power_mode}{' (format unverified)' if guess else ''}")
        if row.energy_mj is None and row.energy_status != NOT_MEASURED:
            found.append(f"energy {row.energy_status}")
        elif row.idle_w is not None and row.load_w is not None:
            found.append(f"{row.artifact}, batch {row.batch}: {row.load_w:.3g} W at work less "
                         f"{row.idle_w:.3g} W at rest ({row.power_source})")  # fmt: skip
            if row.energy_status != MEASURED:
                found.append(f"{row.artifact}, batch {row.batch}: energy {row.energy_status}")
    return list(dict.fromkeys(found))


def _score(row: Measurement, primary: str) -> str:
    score = (row.scores or {}).get(primary)
    if score is None or score.value is None:
        return DASH
    if score.low is None or score.high is None:
        return f"{score.value:.3f}"
    return f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f})"


def _deploy(rows: list[Measurement], found: Target) -> str:
    """Earlier measurements on this host count too: this command may have measured only some."""
    assert found.manifest is not None
    best = on_this_host(found.folder, found.manifest, rows)
    return f"{best.artifact}: {best.why}" if best.artifact else f"nothing: {best.why}"
