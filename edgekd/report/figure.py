"""Drawing with matplotlib into SVG that lives inside the page: themed, inert, readable on a phone.

Colours are drawn as the light theme's values and then replaced by the page's CSS variables, so
that one drawing serves light, dark and print. Text stays text.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

# light theme value -> CSS variable of the page
INK, SOFT, GRID = "#1c2733", "#5a6775", "#d5dce4"
SERIES = ("#b45309", "#0b62a8", "#0d7a5f", "#8a3b8f", "#6b7280", "#a3123a")
THEME = {INK: "--ink", SOFT: "--soft", GRID: "--line",
         **{colour: f"--s{number}" for number, colour in enumerate(SERIES)}}  # fmt: skip
MARKERS = ("s", "o", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", ":", "-.")
HATCHES = ("", "///", "---", "\\\\\\", "|||")  # lines only: dots would weigh 200 kB
WIDTH = 5.2  # inches at 72 units: as wide as a phone, so that text is not shrunk there


@contextmanager
def canvas(height: float, columns: int = 1, width: float = WIDTH) -> Iterator[tuple[Any, Any]]:
    """Yield a figure and its axes under edgekd's own style, whatever the user's matplotlibrc."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # a class name in a script that the metric font lacks is measured roughly; the browser
        # draws it with its own font
        warnings.filterwarnings("ignore", message=r"Glyph .* missing")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({
            "svg.fonttype": "none", "svg.hashsalt": "edgekd", "text.parse_math": False,
            "font.family": ["DejaVu Sans"], "font.size": 10, "text.color": INK,
            "axes.edgecolor": SOFT, "axes.labelcolor": INK, "axes.linewidth": 0.8,
            "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10.5,
            "axes.titlelocation": "left", "axes.axisbelow": True, "axes.grid": True,
            "grid.color": GRID, "grid.linewidth": 0.7, "xtick.color": SOFT, "ytick.color": SOFT,
            "xtick.labelcolor": INK, "ytick.labelcolor": INK, "legend.frameon": False,
            "legend.fontsize": 10, "hatch.linewidth": 0.7, "hatch.color": INK,
        })  # fmt: skip
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
        axes = figure.subplots(1, columns)
        for one in axes if columns > 1 else [axes]:
            one.set_facecolor("none")
        yield figure, axes


def svg(figure: Any, name: str, description: str) -> str:
    """The figure as inline SVG. `name` keeps its ids apart from those of other figures."""
    buffer = io.StringIO()
    silent = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # no date: same bytes each time
    figure.savefig(buffer, format="svg", facecolor="none", metadata=silent)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style).*?</\1>", "", text, flags=re.DOTALL)
    text = (
        re.sub(r' (?:xmlns:xlink|xmlns|version|width|height)="[^"]*"', "", text[:400], count=8)
        + (text[400:])
    )
    text = text.replace("xlink:href", "href").replace("'DejaVu Sans'", "system-ui, sans-serif")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    for colour, variable in THEME.items():
        text = text.replace(colour, f"var({variable})")
    label = f' role="img" aria-label="{escape(description)}" class="figure"'
    return text.replace("<svg", f"<svg{label}", 1)


def plain_ticks(axis: Any) -> None:
    """Ticks of a log axis as plain numbers: 2, 5, 10."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
