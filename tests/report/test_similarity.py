"""CKA and fidelity on the page: what is shown, what is left out, and how a map is drawn."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import pytest

from edgekd.errors import DataError
from edgekd.report import heatmap, page, similarity
from edgekd.report.heatmap import STEPS, layer_map, named, runs_of, shade
from edgekd.report.join import join
from edgekd.report.render import ReportFiles, report
from edgekd.results import CkaMap, dump_json
from edgekd.rundir import RunDir, sha256, write_text
from tests.report.conftest import Reported
from tests.report.test_page import SECTIONS, Page

TITLE = "Similarity of layers"
NAMES = ["conv", "bn", "relu", "relu#2", "fc"]
KINDS = ["convolution", "normalisation", "activation", "activation", "linear"]


def made(first: str = "teacher", second: str = "student", **changes: Any) -> CkaMap:
    rows, columns = 5, 3
    matrix = [[round(0.1 * i + 0.2 * j, 3) for j in range(columns)] for i in range(rows)]
    matrix[3] = [0.7, 0.91, -0.02]
    return CkaMap(**{
        "first": first, "second": second, "layers_first": NAMES, "layers_second": NAMES[2:],
        "kinds_first": KINDS, "kinds_second": KINDS[2:], "matrix": matrix, "images": 510,
        "asked": 512, "batch": 64, "part": "test", "sha256_first": "", "sha256_second": "",
        "data": "abc", **changes,
    })  # fmt: skip


def analyzed(run: RunDir, first: str = "teacher", second: str = "student", **changes: Any) -> None:
    """What `edgekd analyze` would leave in a run, with its weights."""
    for name in (first, second):
        if not run.weights(name).exists():
            write_text(run.weights(name), name)
    hashes = {"sha256_first": sha256(run.weights(first)),
              "sha256_second": sha256(run.weights(second))}  # fmt: skip
    one = made(first, second, **{**hashes, **changes})
    write_text(run.cka(first, second), dump_json(one))


@pytest.fixture(scope="module")
def files(reported: Reported, tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    """The report of a run that was analysed, whose student was held against its teacher."""
    root = tmp_path_factory.mktemp("analysed") / "run"
    shutil.copytree(reported.run.root, root)
    run = RunDir(root)
    analyzed(run)
    tree = json.loads(run.scores.read_text(encoding="utf-8"))
    tree["student"]["test"]["fidelity"] = {"value": 0.874, "low": 0.85, "high": 0.9,
                                           "direction": "higher", "images": 360, "groups": 120
                                           }  # fmt: skip
    write_text(run.scores, dump_json(tree))
    return report([root])


@pytest.fixture(scope="module")
def shown(files: ReportFiles) -> Page:
    return Page(files.html.read_text(encoding="utf-8"))


def words_of(shown: Page) -> str:
    return " ".join(" ".join(shown.text).split())  # no-break spaces too


def ask(run: RunDir, *pairs: tuple[str, str]) -> None:
    text = run.recipe.read_text(encoding="utf-8")
    wanted = json.dumps([list(pair) for pair in pairs])
    run.recipe.write_text(
        f"{re.sub('(?m)^analysis: null$', '', text)}\nanalysis: {{cka: {wanted}}}"
    )


def test_who_did_not_ask_is_told_nothing(reported: Reported) -> None:
    assert TITLE not in reported.html
    assert "cka" not in reported.files.csv.read_text(encoding="utf-8")


def test_a_map_has_a_section_a_picture_and_the_deepest_features(
    files: ReportFiles, shown: Page
) -> None:
    expected = list(SECTIONS)
    expected.insert(SECTIONS.index("Gates"), TITLE)
    assert shown.headings == expected
    html = files.html.read_text(encoding="utf-8")
    assert "CKA of the layers of teacher and student; deepest features: 0.91" in html
    assert all(link.startswith("#") for link in shown.links)
    assert len(shown.ids) == len(set(shown.ids))
    for words in ("510 test images, batches of 64", "5 × 3", "relu#2, relu#2", "relu#2 of student"):
        assert words in words_of(shown)


def test_the_other_files_say_the_same_figures(files: ReportFiles) -> None:
    markdown = files.markdown.read_text(encoding="utf-8")
    assert f"## {TITLE}" in markdown
    assert r"| 0.910 (relu\#2, relu\#2) | 0.910 (relu\#2 of student) |" in markdown
    rows = csv.DictReader(io.StringIO(files.csv.read_text(encoding="utf-8")))
    found = {row["metric"]: row for row in rows if row["metric"].startswith("cka")}
    assert sorted(found) == ["cka_deepest_features", "cka_nearest"]
    assert found["cka_nearest"]["model"] == "student"
    assert found["cka_nearest"]["setting"] == "with teacher"
    assert float(found["cka_nearest"]["value"]) == 0.91
    tree = json.loads(files.json.read_text(encoding="utf-8"))
    assert tree["runs"][0]["similarities"][0]["matrix"][3] == [0.7, 0.91, -0.02]


def test_fidelity_is_a_row_of_the_scores(files: ReportFiles, shown: Page) -> None:
    words = words_of(shown)
    # nothing of the teacher, which agrees with itself
    assert "agreement with teacher higher is better not measured" in words
    assert "0.874 [0.850, 0.900]" in words
    assert "agreement with teacher (higher is better)" in files.markdown.read_text()
    rows = csv.DictReader(io.StringIO(files.csv.read_text(encoding="utf-8")))
    found = [(row["model"], row["value"]) for row in rows if row["metric"] == "fidelity"]
    assert found == [("student", "0.874")]


def test_what_the_recipe_wants_and_nobody_made_says_not_run(
    copy_run: Callable[..., RunDir],
) -> None:
    run = copy_run()
    ask(run, ("teacher", "student"), ("teacher", "alone"))
    section = page._similarity(join(run.root), "run1")
    assert section.missing.startswith("CKA of teacher and student; teacher and alone: not run.")
    assert section.grids == section.figures == []


def test_the_recipes_pairs_come_first_and_in_its_order(copy_run: Callable[..., RunDir]) -> None:
    run = copy_run()
    for pair in (("alone", "student"), ("teacher", "alone"), ("teacher", "student")):
        analyzed(run, *pair)
    ask(run, ("teacher", "student"), ("teacher", "alone"), ("student", "teacher"))
    data = join(run.root)
    assert [(one.first, one.second) for one in data.similarities] == [
        ("teacher", "student"), ("teacher", "alone"), ("alone", "student")]  # fmt: skip
    assert data.similarities_missing == ["student and teacher"]


def test_a_map_of_other_weights_is_not_shown_and_said(copy_run: Callable[..., RunDir]) -> None:
    run = copy_run()
    analyzed(run, sha256_second="0" * 64)
    data = join(run.root)
    assert data.similarities == data.similarities_missing == []
    (note,) = [text for text in data.notes if "CKA" in text]
    assert note.startswith("The CKA of teacher and student is of other weights than this run's")


def test_a_damaged_map_is_named(copy_run: Callable[..., RunDir]) -> None:
    run = copy_run()
    for text in ("{torn", dump_json(made())[:-3], dump_json({**made().model_dump(), "matrix": []})):
        write_text(run.cka("teacher", "student"), text)
        with pytest.raises(DataError, match=r"cka\.teacher\.student\.json is not a map of CKA"):
            join(run.root)


def test_a_layer_that_does_not_vary_is_undefined() -> None:
    flat = made(matrix=[[None] * 3] * 5)
    assert similarity.deepest(flat) == similarity.Finding("relu#2", "relu#2", None)
    assert similarity.nearest(flat) is None
    (row,) = similarity.grid([flat]).rows
    assert [cell.text for cell in row[2:]] == ["undefined", "–"]
    linear = made(kinds_first=["linear"] * 5)
    assert similarity.deepest(linear) is similarity.nearest(linear) is None
    assert [cell.text for cell in similarity.grid([linear]).rows[0][2:]] == ["–", "–"]


def test_shades_are_steps_and_neighbours_of_one_are_joined() -> None:
    assert [shade(v) for v in (-0.3, 0.0, 0.019, 0.021, 0.5, 1.0, None)] == [
        0, 0, 0, 1, 12, STEPS, None]  # fmt: skip
    found = runs_of([[1.0, 0.99, 0.2], [None, 0.2, 0.2]])
    assert found == {STEPS: [(0, 0, 2)], 5: [(0, 2, 1), (1, 1, 2)], None: [(1, 0, 1)]}


def test_every_cell_is_drawn_once_in_its_shade() -> None:
    one = made()
    one.matrix[0][0] = None  # struck out
    drawing = layer_map(one, "m")
    assert drawing == layer_map(one, "m")  # the same bytes
    root = ET.fromstring(drawing)  # well-formed
    (cells,) = [group for group in root.iter("g") if group.get("id") == f"m-{heatmap.CELLS}"]
    drawn: dict[tuple[int, int], str] = {}
    for path in cells.iter("path"):
        boxes = re.findall(r"M(\d+) (\d+)(?:h(\d+)v1h-\d+z|l(\d+) 1)", path.get("d", ""))
        assert boxes
        for column, row, wide, struck in boxes:
            for at in range(int(wide or struck)):
                assert (int(row), int(column) + at) not in drawn
                drawn[int(row), int(column) + at] = path.get("style", "")
    for i, values in enumerate(one.matrix):
        for j, value in enumerate(values):
            if value is not None and shade(value) == 0:
                assert (i, j) not in drawn  # paper
            else:
                assert ("stroke" in drawn.pop((i, j))) == (value is None)
    assert not drawn
    assert not re.search(r"(fill|stroke): #|<image", drawing)


def test_a_large_map_is_small_and_names_some_of_its_layers() -> None:
    rows, columns = 160, 60
    one = made(
        layers_first=[f"layer{i}.conv" for i in range(rows)], kinds_first=["convolution"] * rows,
        layers_second=[f"stage{i}.downsample.of.the.block" for i in range(columns)],
        kinds_second=["convolution"] * columns,
        matrix=[[abs(i * columns + j * 37) % 101 / 100 for j in range(columns)]
                for i in range(rows)],
    )  # fmt: skip
    drawing = layer_map(one, "m")
    assert len(drawing) < 350_000  # no two neighbours are alike here
    assert len(re.findall(r">layer\d", drawing)) == heatmap.MOST_NAMES
    assert ">layer0.conv<" in drawing
    assert ">layer159.conv<" in drawing
    assert "…" in drawing
    assert named(3) == [0, 1, 2]
    assert (named(160)[0], named(160)[-1], len(named(160))) == (0, 159, heatmap.MOST_NAMES)
