"""Beside the paper: what was printed and what was measured, and nothing claimed of the two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from edgekd.published import UNAVAILABLE, PublishedRow, printed, table
from edgekd.report.render import ReportFiles, report
from edgekd.rundir import RunDir
from tests.report import fake_run

TITLE = "Beside the paper"


def reported(tmp_path: Path, paper: dict[str, Any]) -> ReportFiles:
    run = fake_run.write(tmp_path / "run", bench=False)
    tree = yaml.safe_load(run.recipe.read_text(encoding="utf-8"))
    run.recipe.write_text(yaml.safe_dump({**tree, "paper": paper}, sort_keys=False))
    return report([run.root])


def lines(files: ReportFiles) -> list[list[str]]:
    """The cells of the section's table."""
    section = files.markdown.read_text(encoding="utf-8").partition(f"## {TITLE}\n")[2]
    table = section.partition("\n## ")[0].splitlines()
    found = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table if row[:1] == "|"]
    return found[2:]


def score_of(tmp_path: Path, model: str, name: str) -> str:
    scores = json.loads(RunDir(tmp_path / "run").scores.read_text(encoding="utf-8"))
    found = scores[model]["test"][name]
    return f"{found['value']:.3f} \\[{found['low']:.3f}, {found['high']:.3f}\\]"


def test_printed_figures_stand_beside_the_measured_ones(tmp_path: Path) -> None:
    paper = {"table": "umkd_table2", "method": "KD", "scenario": "sources_imbalanced"}
    files = reported(tmp_path, paper)
    rows = lines(files)
    assert [row[3] for row in rows] == ["0.7304", "0.6607", "0.7277", "0.4448"]
    assert rows[0][4] == score_of(tmp_path, "student", "accuracy")
    assert rows[3][4] == score_of(tmp_path, "student", "mae")
    html = files.html.read_text(encoding="utf-8")
    assert f">{TITLE}<" in html
    assert "One run is not compared with a printed figure" in html
    kept = json.loads(files.json.read_text(encoding="utf-8"))["runs"][0]["beside"][0]
    assert (kept["published"], kept["printed"], kept["model"]) == (0.7304, "0.7304", "student")
    assert kept["measured"]["low"] < kept["measured"]["value"] < kept["measured"]["high"]


def test_a_figure_that_cannot_be_had_says_so_for_every_member(tmp_path: Path) -> None:
    paper = {
        "table": "kdml_table14", "method": "KD+ML V3", "also": ["kdml_table11"],
        "members": {"T": "teacher", "S1": "student", "S2": "alone"},
    }  # fmt: skip
    files = reported(tmp_path, paper)
    rows = lines(files)
    # nothing of the ensemble, which this run does not have
    members = [row[1] for row in rows]
    assert members == ["T (here teacher)"] * 3 + ["S1 (here student)"] * 3 + [
        "S2 (here alone)"
    ] * 3 + ["S1 (here student)", "S2 (here alone)"]
    assert {row[3] for row in rows} == {UNAVAILABLE}
    assert rows[0][4] == score_of(tmp_path, "teacher", "precision")
    assert [row[4] for row in rows[-2:]] == ["not measured"] * 2  # no fidelity in this run
    kept = json.loads(files.json.read_text(encoding="utf-8"))["runs"][0]["beside"]
    assert {(row["published"], row["printed"]) for row in kept} == {(None, UNAVAILABLE)}
    for text in (files.html, files.markdown):
        said = text.read_text(encoding="utf-8").partition(TITLE)[2].partition("Latency")[0]
        assert not any(word in said.lower() for word in ("better", "worse", "nan", "none"))


def test_a_doubtful_figure_says_why(tmp_path: Path) -> None:
    paper = {"table": "umkd_table1", "method": "FitNet", "scenario": "target_imbalanced"}
    rows = lines(reported(tmp_path, paper))
    assert "0.7906 (doubtful: equal to the row of Table 2" in rows[0][3]


def test_what_no_table_has_is_a_note_and_not_a_section(tmp_path: Path) -> None:
    for number, (paper, note) in enumerate([
        ({"table": "own_table"}, None),
        ({"table": "umkd_table2", "method": None}, None),
        ({"table": "umkd_table9", "method": "KD"}, "there is no table 'umkd_table9'"),
        ({"table": "umkd_table2", "method": "KDD"}, "the table 'umkd_table2' has no line 'KDD'"),
    ]):  # fmt: skip
        files = reported(tmp_path / str(number), paper)
        text = files.markdown.read_text(encoding="utf-8").replace("\\", "")
        assert TITLE not in text
        assert note is None or note in text


def test_rows_of_a_method_and_its_members() -> None:
    rows = table("kdml_table3").rows_of("KD+ML V3")
    assert [row.member for row in rows] == ["T", "S1", "S2", "Ensemble"]
    assert [row.member for row in table("kdml_table3").rows_of("ML V1")] == ["S1", "S2", "Ensemble"]
    assert table("kdml_table3").rows_of("KD+ML V4") == []
    assert PublishedRow.model_validate({"method": "x", "accuracy": None}).values == {
        "accuracy": None
    }
    assert (printed(None), printed(0.89061)) == (UNAVAILABLE, "0.8906")


def test_no_figure_of_kdml_is_known_and_no_row_is_missing() -> None:
    counts = {
        "kdml_table2": 3, "kdml_table3": 45, "kdml_table8": 45, "kdml_table10": 8,
        "kdml_table11": 27, "kdml_table13": 6, "kdml_table14": 135,
    }  # fmt: skip
    for name, count in counts.items():
        values = [value for row in table(name).rows for value in row.values.values()]
        assert values == [None] * count, name
