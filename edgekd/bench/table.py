"""What was measured, as a table for people, closed by the artifact to deploy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.recommend import is_refused, on_this_host
from edgekd.results import Measurement
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
    grid = Table(*columns, *([primary] if has_scores else []), "gate")
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
        grid.add_row(*cells, *([_score(row, primary)] if has_scores else []), row.gate or DASH)
    measured = {row.artifact for row in rows}
    for artifact in found.artifacts.values():
        if is_refused(artifact) and artifact.name not in measured:
            blanks = [DASH] * (len(grid.columns) - 2)
            grid.add_row(artifact.name, *blanks, "refused")
    # notes on further batch sizes repeat those on the first; all are in the file
    first = {row.artifact: row for row in reversed(rows)}
    lines = [f"{row.artifact}: {note}" for row in rows if first[row.artifact] is row
             for note in row.notes]  # fmt: skip
    closing = [Text(f"Deploy on this host: {_deploy(rows, found)}")] if found.manifest else []
    return Group(grid, *(Text(line) for line in lines), *closing)


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
