"""A table before it is HTML, Markdown or a terminal's: a caption, columns and cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["", "good", "bad", "warn", "muted", "strong"]


@dataclass(frozen=True)
class Cell:
    """One entry. The tone only underlines what the words already say."""

    text: str
    tone: Tone = ""
    share: float | None = None  # shades the cell (confusion matrices), 0 to 1
    below: str = ""  # a second, smaller line

    @property
    def plain(self) -> str:
        return f"{self.text} ({self.below})" if self.below else self.text


@dataclass(frozen=True)
class Column:
    """A heading; numbers are set flush right."""

    name: str
    numeric: bool = False


@dataclass(frozen=True)
class Grid:
    """One table; the first cell of a row is its heading."""

    caption: str
    columns: list[Column]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)  # small print below it

    @property
    def shaded(self) -> bool:
        return bool(self.rows) and self.rows[0][-1].share is not None

    def markdown(self) -> str:
        """As a GitHub table below its caption."""
        lines = [f"**{escape(self.caption)}**", ""] if self.caption else []
        lines.append(_line([column.name for column in self.columns]))
        lines.append("|" + "|".join(" ---: " if c.numeric else " --- " for c in self.columns) + "|")
        lines += [_line([_emphasis(cell) for cell in row], raw=True) for row in self.rows]
        lines += [f"\n{escape(note)}" for note in self.notes]
        return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text that Markdown must not read as markup: names come from other people's data."""
    for sign in "\\`*_[]|~#":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")


def _emphasis(cell: Cell) -> str:
    text = escape(cell.plain)
    return f"**{text}**" if cell.tone == "strong" and text else text


def _line(cells: list[str], raw: bool = False) -> str:
    return "| " + " | ".join(cell if raw else escape(cell) for cell in cells) + " |"
