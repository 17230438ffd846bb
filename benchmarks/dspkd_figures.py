"""The drawings of docs/papers/dspkd: bars and matrices as plain SVG, the same bytes each time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
from dspkd_tables import ALONE, BASE, LABELS, RIVAL, by_frequency
from over_seeds import Record, values

COLOURS = ("#6b7280", "#0b62a8", "#b45309", "#0d7a5f")
INK, LINE = "#1c2733", "#d5dce4"
DRAWN = (ALONE, "kd", RIVAL, BASE)
CELL, BAR, HIGH = 34, 11, 220  # units: side of a cell, width of a bar, height of the bars


def drawings(record: Record) -> dict[str, str]:
    """Every drawing by its file's name."""
    return {
        "counts.svg": counts(record),
        "classes.svg": classes(record),
        "confusion.svg": confusion(record),
    }


def plain(variant: str) -> str:
    return LABELS[variant].replace("*", "")


def ran(record: Record) -> list[str]:
    return [variant for variant in DRAWN if values(record, variant, "accuracy")]


def counts(record: Record) -> str:
    """Training images of each class, before balancing and after."""
    order = by_frequency(record)
    series = {
        "training images": [float(record["train"][label]) for label in order],
        "with the copies": [float(record["copied"][label]) for label in order],
    }
    most = max(map(max, series.values()))
    return bars([record["classes"][label] for label in order], series, {}, most, "{:.0f}")


def classes(record: Record) -> str:
    """F1 of each class: mean over seeds, and whiskers of one standard deviation."""
    order = by_frequency(record)
    series: dict[str, list[float]] = {}
    whiskers: dict[str, list[float]] = {}
    for variant in ran(record):
        found = [
            list(values(record, variant, f"f1_{record['classes'][label]}").values())
            for label in order
        ]
        name = plain(variant)
        series[name] = [float(np.mean(one)) if one else 0.0 for one in found]
        whiskers[name] = [float(np.std(one, ddof=1)) if len(one) > 1 else 0.0 for one in found]
    return bars([record["classes"][label] for label in order], series, whiskers, 1.0, "{:.1f}")


def confusion(record: Record) -> str:
    """Shares of each true class (rows) by what was decided (columns), mean over seeds, percent."""
    order = by_frequency(record)
    names = [record["classes"][label] for label in order]
    side = CELL * len(names)
    parts, wide = [], 0
    for number, variant in enumerate(ran(record)):
        shares = mean_shares(record, variant)[np.ix_(order, order)]
        left = 70 + number * (side + 90)
        parts.append(_text(left + side / 2, 18, plain(variant), "middle"))
        parts += _matrix(shares, names, left, 34)
        wide = left + side + 20
    parts.append(_text(70, 34 + side + 44, "rows: true class; columns: decided; percent of a row"))
    return _svg(max(wide, 400), 34 + side + 56, parts, "Confusion matrices")


def mean_shares(record: Record, variant: str) -> np.ndarray:
    """Of each true class the shares of decisions (C, C), averaged over the seeds that were run."""
    found = []
    for seed in record["seeds"]:
        cell = record["cells"].get(f"{variant}/{seed}")
        if cell is not None:
            matrix = np.array(cell["confusion"], dtype=np.float64)
            found.append(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1.0))
    return np.asarray(np.mean(found, axis=0))


def _matrix(shares: np.ndarray, names: Sequence[str], left: float, top: float) -> Iterator[str]:
    for row, name in enumerate(names):
        middle = top + (row + 0.5) * CELL + 4
        yield _text(left - 6, middle, name, "end")
        yield _text(left + (row + 0.5) * CELL, top + len(names) * CELL + 16, name, "middle")
        for column in range(len(names)):
            share = float(shares[row, column])
            x, y = left + column * CELL, top + row * CELL
            yield (
                f'<rect x="{x:g}" y="{y:g}" width="{CELL}" height="{CELL}" fill="{COLOURS[1]}" '
                f'fill-opacity="{share:.2f}" stroke="{LINE}"/>'
            )
            colour = "#ffffff" if share > 0.55 else INK
            yield _text(x + CELL / 2, middle, f"{100 * share:.0f}", "middle", colour)


def bars(
    groups: Sequence[str],
    series: dict[str, list[float]],
    whiskers: dict[str, list[float]],
    most: float,
    form: str,
) -> str:
    """Groups of bars from 0 to `most`, each series in its colour, with a scale of five lines."""
    step = BAR * len(series) + 18
    left, top = 64, 34
    wide, bottom = left + step * len(groups) + 16, top + HIGH
    parts = []
    for tick in range(6):
        y = bottom - HIGH * tick / 5
        parts.append(f'<path d="M{left} {y:g}H{wide - 16:g}" stroke="{LINE}"/>')
        parts.append(_text(left - 6, y + 4, form.format(most * tick / 5), "end"))
    for number, (name, heights) in enumerate(series.items()):
        colour = COLOURS[number]
        place = left + number * (wide - left) / max(len(series), 1)
        parts.append(f'<rect x="{place:.1f}" y="8" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(place + 15, 17, name))
        for group, height in enumerate(heights):
            x = left + 9 + group * step + number * BAR
            high = HIGH * height / most
            parts.append(f'<rect x="{x:g}" y="{bottom - high:.1f}" width="{BAR - 2}" '
                         f'height="{high:.1f}" fill="{colour}"/>')  # fmt: skip
            reach = HIGH * whiskers.get(name, [0.0] * len(heights))[group] / most
            if reach:
                upper, lower = max(bottom - high - reach, top), min(bottom - high + reach, bottom)
                parts.append(f'<path d="M{x + (BAR - 2) / 2:g} {upper:.1f}V{lower:.1f}" '
                             f'stroke="{INK}"/>')  # fmt: skip
    for group, name in enumerate(groups):
        parts.append(_text(left + group * step + step / 2, bottom + 18, name, "middle"))
    return _svg(max(wide, 400), bottom + 30, parts, ", ".join(series))


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = INK) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}"'
    return f'<text {place} text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" font-family="system-ui, sans-serif" font-size="12">\n'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{body}\n</svg>\n'
    )
