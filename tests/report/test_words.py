"""How figures are written."""

from __future__ import annotations

import pytest

from edgekd.report import words
from edgekd.report.grid import Cell, Column, Grid
from edgekd.results import Score


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0004567, "0.000457"), (0.41, "0.410"), (9.999, "10.0"), (12.34, "12.3"),
     (99.96, "100"), (1234.5, "1234"), (-0.5, "-0.500")],
)  # fmt: skip
def test_three_significant_digits_without_exponent(value: float, text: str) -> None:
    assert words.significant(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "not measured"), (12, "12"), (1_260_000, "1.26 M"), (8_102_000_000, "8.10 G")],
)
def test_counts_have_units(value: int | None, text: str) -> None:
    assert words.count(value) == text


def test_a_score_carries_its_interval_or_says_that_it_is_missing() -> None:
    score = Score(value=0.8123, low=0.79, high=0.833, images=10, groups=5)
    assert words.score(score) == "0.812 [0.790, 0.833]"
    assert words.score(score.model_copy(update={"low": None})) == "0.812"
    assert words.score(score.model_copy(update={"value": None})) == "not measured"
    assert words.score(None) == "not measured"


def test_markdown_escapes_what_would_be_markup() -> None:
    grid = Grid("a*b", [Column("x|y"), Column("n", numeric=True)], [[Cell("<b>"), Cell("1")]])
    assert grid.markdown().splitlines() == [
        r"**a\*b**", "", r"| x\|y | n |", "| --- | ---: |", "| &lt;b&gt; | 1 |"]  # fmt: skip
