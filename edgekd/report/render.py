"""Write the report of runs and bundles: one offline page, and the same as md, csv and json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import edgekd
from edgekd import bundle
from edgekd.errors import DataError
from edgekd.report import flat, markdown, page, sources
from edgekd.report.join import join
from edgekd.report.mask_records import PRIVATE
from edgekd.report.records import ReportData
from edgekd.results import dump_json
from edgekd.rundir import RunDir, write_text

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ReportFiles:
    """Where the report was written, and what it says in short (for `--json`)."""

    html: Path
    markdown: Path
    csv: Path
    json: Path
    summary: dict[str, Any]
    data: list[ReportData] = field(repr=False)  # for `table.terminal`


def report(
    targets: Sequence[Path], *, out: Path | None = None, pictures: bool = False
) -> ReportFiles:
    """Make the report of runs, bundles, or folders of them.

    It is written to `out`; by default into the one target (RUN/report, DIR/report, and
    BUNDLE/bench/report, which is outside what the manifest lists), or into ./report for several.
    `pictures` puts the test images that are shown into the page, which is then as private as they
    are; else masks are drawn on a plain ground. Raises DataError for a target that is neither run
    nor bundle, and for `pictures` where no target has masks.
    """
    folders = sources.expand(list(targets))
    runs = [join(folder, pictures=pictures) for folder in folders]
    if pictures and not any(data.masks for data in runs):
        raise DataError("--pictures: only reports on masks show pictures, and none of these is one",
                        hint="leave --pictures out")  # fmt: skip
    folder = out or _default(list(targets))
    files = ReportFiles(
        html=folder / "index.html",
        markdown=folder / "report.md",
        csv=folder / "report.csv",
        json=folder / "report.json",
        summary=_summary(runs),
        data=runs,
    )
    parts = [page.sections(data, f"run{index}") for index, data in enumerate(runs, 1)]
    # rendered before anything is written: a failure leaves the old report whole
    texts = {
        files.html: page.html(runs, parts),
        files.markdown: markdown.document(runs, parts),
        files.csv: flat.csv_text(runs),
        files.json: dump_json(
            {
                "schema_version": SCHEMA_VERSION,
                "edgekd": edgekd.__version__,
                "summary": files.summary,
                "runs": [_tree(data) for data in runs],
            }
        ),
    }
    for path, text in texts.items():
        write_text(path, text)
    return files


def _tree(data: ReportData) -> dict[str, Any]:
    """For report.json: without what may show or name a patient."""
    tree = asdict(data)
    for case in (tree["masks"] or {}).get("cases", ()):
        for key in PRIVATE:
            del case[key]
    return tree


def _default(targets: list[Path]) -> Path:
    if len(targets) != 1:
        return Path("report")
    if bundle.is_bundle(targets[0]):
        return targets[0] / "bench" / "report"
    return RunDir(targets[0]).report


def _summary(runs: list[ReportData]) -> dict[str, Any]:
    return {
        "runs": [
            {
                "name": data.name,
                "primary": data.primary,
                "gates": {view.artifact: view.word for view in data.gates},
                "hosts": [
                    {
                        "host": host.name,
                        "deploy": host.deploy.artifact,
                        "line": host.deploy.line,
                        "p50_ms": host.deploy.p50_ms,
                    }
                    for host in data.hosts
                ],
            }
            for data in runs
        ]
    }
