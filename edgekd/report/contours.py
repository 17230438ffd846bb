"""Masks as SVG: their outlines as paths, several over each other, on a plain ground or a picture.

The page admits no images unless it is asked to, and an outline is smaller than one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from edgekd.report.mask_records import MaskCase, Outline

MOST_EDGES = 4000  # of pixels on an outline; beyond it every second pixel is left out, and so on
LINE, SAMPLE = 17, 34  # height of a line of the legend, width of its sample

Mask = npt.NDArray[np.integer]
Point = tuple[int, int]


def path_of(mask: Mask) -> str:
    """The outlines of all classes of a mask (H, W) as the `d` of an SVG path, one unit a pixel.

    Inside is what is surrounded an odd number of times. Of a mask with very long outlines (a
    network that learnt nothing) only every second, fourth ... pixel is drawn.
    """
    step, kept = 1, mask
    while _edges(kept) > MOST_EDGES:
        step *= 2
        kept = mask[step // 2 :: step, step // 2 :: step]
    found = []
    for value in np.unique(kept[kept > 0]):
        found += [_drawn(loop, step) for loop in loops(kept == value)]
    return "".join(found)


def _edges(mask: Mask) -> int:
    framed = np.pad(mask, 1)
    return int((framed[1:] != framed[:-1]).sum() + (framed[:, 1:] != framed[:, :-1]).sum())


def loops(inside: npt.NDArray[np.bool_]) -> list[list[Point]]:
    """The closed outlines (x, y) of the pixels of (H, W) that are inside, corners only.

    Clockwise around pixels and counter-clockwise around holes, as seen on the screen.
    """
    framed = np.pad(inside, 1)
    core = framed[1:-1, 1:-1]
    ends: dict[Point, list[Point]] = {}
    for there, start, end in (
        (framed[:-2, 1:-1], (0, 0), (1, 0)),  # nothing above: along its upper side to the right
        (framed[1:-1, 2:], (1, 0), (1, 1)),
        (framed[2:, 1:-1], (1, 1), (0, 1)),
        (framed[1:-1, :-2], (0, 1), (0, 0)),
    ):
        for y, x in np.argwhere(core & ~there).tolist():
            ends.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    found = []
    while ends:
        first = at = min(ends)  # an outer corner, so that no loop begins within a straight line
        loop = [first]
        heading = None
        while True:
            after = ends[at].pop()
            if not ends[at]:
                del ends[at]
            step = (after[0] - at[0], after[1] - at[1])
            if heading not in (None, step):
                loop.append(at)
            heading, at = step, after
            if at == first:
                break
        found.append(loop)
    return found


def _drawn(loop: list[Point], scale: int) -> str:
    text = f"M{loop[0][0] * scale} {loop[0][1] * scale}"
    for (x0, y0), (x1, y1) in itertools.pairwise(loop):
        text += f"h{(x1 - x0) * scale}" if y0 == y1 else f"v{(y1 - y0) * scale}"
    return text + "z"


def case(one: MaskCase, words: str) -> str:
    """One test image: its picture if there is one, what is true, what each model says."""
    ground = f'<rect class="ground" width="{one.width}" height="{one.height}" '
    ground += 'vector-effect="non-scaling-stroke"/>'
    if one.picture:
        ground = (f'<image href="{escape(one.picture)}" width="{one.width}" '
                  f'height="{one.height}" preserveAspectRatio="none"/>')  # fmt: skip
    paths = "".join(
        f'<path class="{outline.kind}" d="{outline.path}" vector-effect="non-scaling-stroke"/>'
        for outline in one.outlines
        if outline.path
    )
    return (f'<svg role="img" aria-label="{escape(words)}" class="figure case{_on(one.picture)}" '
            f'viewBox="0 0 {one.width} {one.height}">{ground}{paths}</svg>')  # fmt: skip


def legend(outlines: Sequence[Outline], *, on_pictures: bool) -> str:
    """Which line is whose; its colours are those of `case`."""
    height = LINE * len(outlines) + 10
    rows = "".join(
        f'<path class="{one.kind}" d="M8 {y}h{SAMPLE}v9h-{SAMPLE}z"/>'
        f'<text x="{SAMPLE + 16}" y="{y + 9}">{escape(one.label)}</text>'
        for one, y in ((one, 8 + LINE * index) for index, one in enumerate(outlines))
    )
    words = "Lines: " + ", ".join(one.label for one in outlines)
    return (f'<svg role="img" aria-label="{escape(words)}" class="figure case legend'
            f'{_on(on_pictures)}" viewBox="0 0 220 {height}">'
            f'<rect class="ground" width="220" height="{height}"/>{rows}</svg>')  # fmt: skip


def _on(pictures: object) -> str:
    return " pictured" if pictures else ""
