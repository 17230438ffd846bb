"""A heading of the page with what stands below it, before it is HTML or Markdown."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgekd.report.grid import Grid


@dataclass
class Section:
    """A heading with tables and figures; `missing` says why there are none."""

    id: str
    title: str
    lead: str = ""
    grids: list[Grid] = field(default_factory=list)
    figures: list[tuple[str, str]] = field(default_factory=list)  # SVG, caption
    small: bool = False  # the figures: many beside each other
    folded: list[Grid] = field(default_factory=list)  # behind a <details>
    fold_title: str = ""
    missing: str = ""
    source: str = ""  # a listing
