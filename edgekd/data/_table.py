"""Tables of labels, from CSV and .xlsx files: cells by the name of their column, with their row."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgekd.errors import DataError
from edgekd.plugins import missing_package

# a program that meets an empty cell writes the whole column with decimals
MARKS = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}


@dataclass(frozen=True)
class Row:
    """One row below the header."""

    where: str  # `labels.csv, row 7`: the line of the file, or the row of the sheet
    cells: dict[str, str]  # by column, without spaces around; "" where there is nothing


@dataclass(frozen=True)
class Table:
    """A table that has its columns and at least one row."""

    path: Path
    columns: tuple[str, ...]  # those with a name, in order
    rows: tuple[Row, ...]


def read_csv(path: Path, needed: Sequence[str], hint: str | None = None) -> Table:
    """Read a CSV file with a header, with or without a byte-order mark.

    Columns without a name (an index that a program wrote) and empty rows do not count. Raises
    DataError that names the file, and where it can the column or the row: not readable, a column
    that is missing or there twice, a row of another length, no rows.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", hint=hint) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}", hint=hint) from None
    header = [name.strip() for name in lines[0][1]] if lines else []
    if len(header) == 1 and ";" in header[0]:
        hint = "separate columns by commas"
    return _table(path, header, lines[1:], needed, hint)


def read_xlsx(path: Path, needed: Sequence[str], needed_by: str, hint: str | None = None) -> Table:
    """Read the first sheet of an .xlsx file, whose first row is the header.

    Whole numbers become text without decimals. Raises DataError as `read_csv` does, MissingOnHost
    without openpyxl.
    """
    lines = [(line, [_text(cell) for cell in cells]) for line, cells in read_sheet(path, needed_by)]
    header = lines[0][1] if lines else []
    whole = [(line, cells + [""] * (len(header) - len(cells))) for line, cells in lines[1:]]
    return _table(path, header, whole, needed, hint)


def read_sheet(
    path: Path, needed_by: str, hint: str | None = None
) -> list[tuple[int, tuple[Any, ...]]]:
    """The rows of the first sheet of an .xlsx file that are not empty, with their numbers.

    Raises DataError for a file that is not there or no such table, MissingOnHost without openpyxl.
    """
    try:
        from openpyxl import load_workbook
    except ModuleNotFoundError:
        raise missing_package("openpyxl", needed_by) from None
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles, which nobody sees here
            book = load_workbook(file, read_only=True, data_only=True)
            try:
                sheet: Any = book.worksheets[0]
                sheet.reset_dimensions()  # what some writers state there is wrong
                found = list(enumerate(sheet.iter_rows(values_only=True), 1))
            finally:
                book.close()
    except FileNotFoundError:
        raise DataError(f"{path}: no such table", hint=hint) from None
    except Exception as error:  # a damaged archive can raise nearly anything inside openpyxl
        reason = str(error) or type(error).__name__
        raise DataError(
            f"{path}: cannot be read as an .xlsx table: {reason}", hint="download it anew"
        ) from None
    return [(line, cells) for line, cells in found if any(cell is not None for cell in cells)]


def inside(root: Path, text: str, where: str) -> PurePosixPath:
    """A path of a table, relative to `root` and below it. Raises DataError for any other."""
    text = text.strip().replace("\\", "/")
    relative = PurePosixPath(os.path.normpath(text)) if text else PurePosixPath()
    if not text or relative.is_absolute() or ".." in relative.parts or ":" in text[:2]:
        raise DataError(f"{where}: path '{text}' does not lie inside {root}")
    return relative


def _table(
    path: Path,
    header: Sequence[str],
    lines: Sequence[tuple[int, Sequence[str]]],
    needed: Sequence[str],
    hint: str | None,
) -> Table:
    columns = tuple(name for name in header if name)
    missing = [name for name in needed if name not in columns]
    if missing:
        raise DataError(
            f"{path}: the header has no column {', '.join(missing)}; "
            f"found {', '.join(columns) or 'nothing'}",
            hint=hint,
        )
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: the header has the column {twice} twice", hint="rename one")
    if not lines:
        raise DataError(f"{path}: no rows below the header", hint=hint)
    return Table(path, columns, tuple(_rows(path, header, lines)))


def _rows(
    path: Path, header: Sequence[str], lines: Sequence[tuple[int, Sequence[str]]]
) -> Iterator[Row]:
    for line, cells in lines:
        if len(cells) < len(header) or any(cell.strip() for cell in cells[len(header) :]):
            raise DataError(
                f"{path}, row {line}: {len(cells)} values for {len(header)} columns",
                hint='a value with a comma in it stands in quotes: "one, two"',
            )
        pairs = zip(header, cells, strict=False)
        yield Row(f"{path}, row {line}", {name: cell.strip() for name, cell in pairs if name})


def _text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return "" if cell is None else str(cell).strip()
