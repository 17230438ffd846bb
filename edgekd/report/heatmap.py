"""A heat map as SVG that stays small: thousands of cells, no raster image, the page's own colours.

The page admits no images (`default-src 'none'`), and matplotlib would write a path of a hundred
bytes for every cell. So matplotlib draws the axes and an empty frame, and the frame is filled here:
one path per shade, equal neighbours joined.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.report.figure import canvas, svg
from edgekd.report.label_records import Together
from edgekd.report.similarity import words
from edgekd.results import CkaMap

STEPS = 25  # shades from 0 to 1
FULL = 15  # from paper to the colour of heat, and on to that of ink: both halves can be told apart
MOST_NAMES = 14  # layers named on an axis
MOST_ACROSS = 22  # classes named below a map
LONGEST = 22  # letters of a name; the end tells more than the beginning
CELLS, SCALE = "cells", "scale"  # the frames that are filled
Matrix = Sequence[Sequence[float | None]]
Runs = dict[int | None, list[tuple[int, int, int]]]  # of a shade: row, column, how many


def layer_map(one: CkaMap, name: str) -> str:
    """CKA of all pairs of layers as inline SVG; depth grows upwards (first) and rightwards."""
    height = min(3.2 + 0.06 * len(one.layers_first), 6.2)
    vertical = _Axis(f"layers of {one.first}", one.layers_first)
    return _drawn(one.matrix, vertical, _Axis(f"layers of {one.second}", one.layers_second),
                  height, name, words(one))  # fmt: skip


def together_map(one: Together, name: str) -> str:
    """Labels that come together as inline SVG: the first class on top, and at the left."""
    count = len(one.classes)
    height = min(2.4 + 0.2 * count, 7.6)
    most = max(MOST_NAMES, int(6.3 * height))  # so many names find room above each other
    vertical = _Axis("of the images that show", one.classes[::-1], most)
    whole = one.stage is None
    where = "all training images" if whole else f"the training images of stage {one.stage}"
    return _drawn(one.share[::-1], vertical, _Axis("so many also show", one.classes, MOST_ACROSS),
                  height, name, f"Labels that come together on {where}")  # fmt: skip


@dataclass(frozen=True)
class _Axis:
    label: str
    names: Sequence[str]
    most: int = MOST_NAMES


def _drawn(
    matrix: Matrix, vertical: _Axis, across: _Axis, height: float, name: str, description: str
) -> str:
    """The first row at the bottom."""
    with canvas(height) as (figure, axes):
        _frame(axes, CELLS, len(across.names), len(vertical.names))
        for axis, one in ((axes.xaxis, across), (axes.yaxis, vertical)):
            places = named(len(one.names), one.most)
            axis.set_ticks([place + 0.5 for place in places], [_end(one.names[i]) for i in places])
            axis.set_label_text(one.label)
        axes.tick_params(axis="x", labelrotation=90)
        axes.tick_params(labelsize=8)
        bar = axes.inset_axes((1.03, 0, 0.04, 1))
        _frame(bar, SCALE, 1, 1)
        bar.set_xticks([])
        bar.yaxis.tick_right()
        bar.tick_params(labelsize=8)
        drawing = svg(figure, name, description)
    drawing = _fill(drawing, f"{name}-{CELLS}", matrix)
    return _fill(drawing, f"{name}-{SCALE}", [[step / STEPS] for step in range(STEPS + 1)])


def named(count: int, most: int = MOST_NAMES) -> list[int]:
    """Which of so many rows are named: all, or some at even distances, with both ends."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def shade(value: float | None) -> int | None:
    """The step of a value: 0 for what is 0 or below, STEPS for 1."""
    return None if value is None else max(0, min(STEPS, round(value * STEPS)))


def runs_of(matrix: Matrix) -> Runs:
    """Neighbours of one shade in a row, together."""
    found: Runs = {}
    for row, values in enumerate(matrix):
        shades = [shade(value) for value in values]
        start = 0
        for end in range(1, len(shades) + 1):
            if end == len(shades) or shades[end] != shades[start]:
                found.setdefault(shades[start], []).append((row, start, end - start))
                start = end
    return found


def _end(name: str) -> str:
    return name if len(name) <= LONGEST else "…" + name[1 - LONGEST :]


def _frame(axes: Any, gid: str, columns: float, rows: float) -> None:
    """An empty box over the whole of the axes, to be found again in the SVG."""
    from matplotlib.patches import Rectangle

    axes.grid(visible=False)
    axes.set_facecolor("none")
    axes.set_xlim(0, columns)
    axes.set_ylim(0, rows)
    axes.add_patch(Rectangle((0, 0), columns, rows, gid=gid, facecolor="none", edgecolor="none"))


def _fill(drawing: str, gid: str, matrix: Matrix) -> str:
    """Put the cells where their frame was drawn, in units of a cell."""
    found = re.search(rf'<g id="{re.escape(gid)}">\s*<path d="([^"]*)"[^>]*/>', drawing)
    assert found is not None
    numbers = [float(text) for text in re.findall(r"[\d.]+", found[1])]
    left, right = min(numbers[0::2]), max(numbers[0::2])
    top, bottom = min(numbers[1::2]), max(numbers[1::2])
    wide, high = (right - left) / len(matrix[0]), (bottom - top) / len(matrix)
    place = f"matrix({wide:.6g} 0 0 {-high:.6g} {left:.6g} {bottom:.6g})"
    paths = "".join(_path(step, cells) for step, cells in runs_of(matrix).items())
    group = f'<g id="{gid}" transform="{place}" shape-rendering="crispEdges">{paths}'
    return drawing[: found.start()] + group + drawing[found.end() :]


def _path(step: int | None, cells: list[tuple[int, int, int]]) -> str:
    if step is None:  # a stroke through each
        strokes = "".join(f"M{column} {row}l{n} 1" for row, column, n in cells)
        style = "fill: none; stroke: var(--soft); stroke-width: 0.8"
        return f'<path d="{strokes}" style="{style}" vector-effect="non-scaling-stroke"/>'
    boxes = "".join(f"M{column} {row}h{n}v1h-{n}z" for row, column, n in cells)
    return f'<path d="{boxes}" style="{_style(step)}"/>' if step else ""


def _style(step: int) -> str:
    if step <= FULL:
        return f"fill: rgb(var(--heat)); fill-opacity: {step / FULL:.3g}"
    ink = 100 * (step - FULL) / (STEPS - FULL)
    # browsers from before 2023 know no mixing and keep to the first
    mixed = f"color-mix(in srgb, var(--ink) {ink:.3g}%, rgb(var(--heat)))"
    return f"fill: rgb(var(--heat)); fill: {mixed}"
