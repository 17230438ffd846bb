"""Published tables beside our own figures: what is compared, what is not, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekd import catalog, published
from edgekd.cli import main
from edgekd.errors import DataError
from edgekd.published import UNAVAILABLE, Setting
from edgekd.recipe import Recipe
from edgekd.recipe_load import load, to_yaml
from edgekd.report.against import _stands_for, against, differs, gather
from edgekd.report.against_page import grid

TABLE = "umkd_table2"  # fundus images: its lines are shares and MAE
LIKE_THE_PAPER = {"name": "aptos2019", "split": "umkd_code", "input": {"size": 224}}


def run(folder: Path, seed: int, scores: dict[str, float], **changes: Any) -> Path:
    """A scored run as `distill` leaves it, of UMKD's line."""
    tree: dict[str, Any] = {
        "edgekd": 1,
        "name": "mine",
        "paper": {"table": TABLE, "method": "UMKD", "scenario": "sources_imbalanced"},
        "task": {"name": "grading"},
        "data": LIKE_THE_PAPER,
        "models": {"student": {"arch": "timm:resnet18", "pretrained": True}},
        "stages": {"distill": {"train": "student", "losses": {"ce": {"to": "student"}}}},
        "export": {"model": "student"},
        "seed": seed,
        **changes,
    }
    target = folder / f"run.seed{seed}"
    target.mkdir(parents=True)
    recipe = Recipe.model_validate(tree)
    (target / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    parts = {"test": {name: {"value": value} for name, value in scores.items()}}
    (target / "scores.json").write_text(json.dumps({"student": parts}), encoding="utf-8")
    return target


def three(folder: Path, accuracy: float, mae: float = 0.4, **changes: Any) -> Path:
    for seed, shift in enumerate((-0.01, 0.0, 0.01), 1):
        run(folder, seed, {"accuracy": accuracy + shift, "mae": mae + shift}, **changes)
    return folder


def status(folder: Path, score: str = "accuracy", method: str = "UMKD") -> str:
    found = against(TABLE, gather([folder]))
    line = next(line for line in found.lines if line.sources and line.row.method == method)
    cell = line.sources[0].cells[score]
    assert cell is not None
    return cell.status


def printed(score: str) -> float:
    rows = published.table(TABLE).rows_of("UMKD", "sources_imbalanced")
    value = rows[0].values[score]
    assert value is not None
    return value


def test_a_printed_figure_inside_our_interval_is_a_match(tmp_path: Path) -> None:
    assert status(three(tmp_path, printed("accuracy") + 0.002)) == "match"


def test_a_figure_outside_is_better_or_worse_by_the_direction_of_its_score(tmp_path: Path) -> None:
    high = three(tmp_path / "a", printed("accuracy") + 0.1, printed("mae") + 0.1)
    assert (status(high), status(high, "mae")) == ("better", "worse")
    low = three(tmp_path / "b", printed("accuracy") - 0.1, printed("mae") - 0.1)
    assert (status(low), status(low, "mae")) == ("worse", "better")


def test_one_seed_has_no_interval_and_claims_nothing(tmp_path: Path) -> None:
    run(tmp_path, 1, {"accuracy": 0.99})
    assert status(tmp_path) == "one seed"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"name": "ham10000"}, "data ham10000, not aptos2019"),
        ({"limit": 500}, "500 of the images"),
        ({"split": "8-1-1"}, "split 8-1-1, not umkd_code"),
        ({"input": {"size": 64}}, "64 pixels, not 224"),
    ],
)
def test_other_data_is_not_compared_and_says_why(
    tmp_path: Path, data: dict[str, Any], why: str
) -> None:
    three(tmp_path, 0.9, data={**LIKE_THE_PAPER, **data})
    assert status(tmp_path) == f"not comparable: {why}"
    shown = grid(against(TABLE, gather([tmp_path])))
    assert shown.notes[0] == f"mine: not compared: {why}"
    assert "+0." not in shown.markdown()  # no difference is printed either


def test_networks_without_pretraining_are_not_compared_with_pretrained_ones(tmp_path: Path) -> None:
    three(tmp_path, 0.9, models={"student": {"arch": "timm:resnet18"}})
    assert status(tmp_path) == "not comparable: not pretrained"


def test_a_table_of_private_images_is_compared_with_nothing() -> None:
    recipe = load(catalog.find("rskd/table3-rfmid"))
    assert differs(recipe, Setting(private=True)) == ["the paper's images are private"]


def test_lost_figures_are_said_to_be_unavailable() -> None:
    shown = grid(against("kdml_table14", []))
    assert {cell.text for row in shown.rows for cell in row[1:]} == {UNAVAILABLE}


def test_lines_stand_in_the_papers_order_run_or_not(tmp_path: Path) -> None:
    three(tmp_path, 0.9)
    shown = grid(against(TABLE, gather([tmp_path])))
    first = [row[0] for row in shown.rows]
    order = [cell.text for cell in first if cell.below.startswith("published")]
    wanted = [", ".join(filter(None, (row.method, row.member, row.scenario)))
              for row in published.table(TABLE).rows]  # fmt: skip
    assert order == wanted
    place = next(i for i, cell in enumerate(first) if cell.text == "mine")
    assert (first[place - 1].text, first[place].below) == (
        "UMKD, sources_imbalanced", "here, 3 seeds")  # fmt: skip
    assert "not run" in first[0].below


def test_a_studys_results_file_serves_as_runs_do() -> None:
    results = Path(__file__).parents[2] / "benchmarks" / "results" / "umkd-ham10000.json"
    found = against("umkd_table1", gather([results]))
    ran = {line.row.method for line in found.lines if line.sources}
    assert {"UMKD", "SDD", "ResNet18_student_alone", "ResNet50_expert1"} <= ran
    words = {c.status.partition(":")[0] for line in found.lines for s in line.sources
             for c in s.cells.values() if c}  # fmt: skip
    assert words == {"not comparable"}
    expert = next(line for line in found.lines if line.row.method == "ResNet50_expert1")
    assert len(expert.sources) == 1  # the experts that all variants share stand there once


def test_the_command_writes_a_page_and_a_site(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three(tmp_path / "runs", 0.9)
    out = tmp_path / "out"
    assert main(["report", str(tmp_path / "runs"), "--against", TABLE, "--out", str(out)]) == 0
    assert "Fundus image grading" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {f"{TABLE}.{end}" for end in
                                                     ("html", "md", "json")}  # fmt: skip
    assert main(["report", str(tmp_path / "runs"), "--all", "--out", str(out)]) == 0
    index = (out / "index.html").read_text(encoding="utf-8")
    assert all(f'href="{name}.html"' in index for name in published.tables())
    assert json.loads((out / f"{TABLE}.json").read_text())["table"]["name"] == TABLE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "umkd_table9"], "there is no table 'umkd_table9'"),
        (["--against", TABLE, "--all"], "--against names one table"),
        (["no-such-folder", "--all"], "no-such-folder: no such file or folder"),
        ([], "nothing to report on"),
    ],
)
def test_mistakes_are_told_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_damaged_run_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    three(tmp_path, 0.9)
    (tmp_path / "run.seed2" / "scores.json").write_text("{", encoding="utf-8")
    found = against(TABLE, gather([tmp_path]))
    assert next(line for line in found.lines if line.sources).sources[0].seeds == [1, 3]
    assert "run.seed2 is left out" in capsys.readouterr().err


def test_a_target_that_is_not_there_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        gather([tmp_path / "x"])


def test_every_published_line_has_a_variant_of_a_recipe_or_a_stated_reason() -> None:
    recipes = []
    for path in sorted(catalog.folder().rglob("*.yaml")):
        recipe = load(path)
        if recipe.paper is not None:
            recipes += [recipe, *(load(path, variant=name) for name in recipe.variants)]
    missing = [
        (name, row.method, row.member, row.scenario)
        for name, table in published.tables().items()
        for row in table.rows
        if row.reason is None and not any(_stands_for(one, row, name) for one in recipes)
    ]
    assert missing == []
