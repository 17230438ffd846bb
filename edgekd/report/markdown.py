"""report.md: the page's tables for a pull request or a wiki."""

from __future__ import annotations

from edgekd.report import grids
from edgekd.report.grid import escape
from edgekd.report.records import ReportData
from edgekd.report.section import Section
from edgekd.report.words import plural


def document(runs: list[ReportData], sections: list[list[Section]]) -> str:
    """All runs, with the comparison first where there are several."""
    parts = []
    if len(runs) > 1:
        parts.append(f"# {plural(len(runs), 'run')} compared\n")
        parts += [g.markdown() for g in (grids.comparison(runs), grids.over_seeds(runs)) if g]
    for data, shown in zip(runs, sections, strict=True):
        parts += _run(data, shown)
    return "\n".join(parts)


def _run(data: ReportData, sections: list[Section]) -> list[str]:
    parts = [f"# {escape(data.name)}\n"]
    if data.description:
        parts.append(f"{escape(data.description)}\n")
    for host in data.hosts:
        where = f" ({escape(host.name)})" if host.name else ""
        parts.append(f"**{escape(host.deploy.line)}**{where}\n")
    parts += [f"> {escape(note)}\n" for note in data.notes]
    for section in sections:
        parts.append(f"## {section.title}\n")
        if section.lead:
            parts.append(f"{section.lead}\n")
        if section.missing:
            parts.append(f"{escape(section.missing)}\n")
        parts += [grid.markdown() for grid in (*section.grids, *section.folded)]
    return parts
