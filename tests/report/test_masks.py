"""The report of a run whose answers are masks: figures, cases, outlines, pictures on request."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgekd.bundle import Artifact, Manifest, ModelFacts, close_bundle
from edgekd.cli import main
from edgekd.data.read import open_source
from edgekd.errors import DataError
from edgekd.image import UInt8
from edgekd.recipe import Recipe
from edgekd.recipe_data import InputSpec
from edgekd.recipe_load import to_yaml
from edgekd.report.contours import MOST_EDGES, loops, path_of
from edgekd.report.join import join
from edgekd.report.masks import choose
from edgekd.report.render import ReportFiles, report
from edgekd.results import Predictions, dump_json
from edgekd.rundir import RunDir, write_text
from edgekd.tasks.segmentation import Segmentation
from tests.report import fake_run
from tests.report.test_page import Page

IMAGES, SIDE = 40, 32
KINDS = ["without tumour", "with tumour"]
INT8 = "onnx-int8"


def truth() -> npt.NDArray[np.int8]:
    """A box in every image but each fourth, of 1 to 30 rows."""
    masks = np.zeros((IMAGES, SIDE, SIDE), dtype=np.int8)
    for index in range(IMAGES):
        if index % 4:
            masks[index, 1 : 1 + (7 * index) % 30 + 1, 4:20] = 1
    return masks


def said(masks: npt.NDArray[np.int8], shift: int) -> npt.NDArray[np.float32]:
    """Logits that put the masks further to the right; of the first empty image a false alarm."""
    moved = np.roll(masks, shift, axis=2)
    moved[4, 2:8, 3:9] = 1
    return np.where(moved, 4.0, -4.0).astype(np.float32)[:, None]


def write(root: Path, *, data: str = "synthetic", seed: int = 1) -> RunDir:
    """A run of a teacher and a student with its int8 form, in a second."""
    run = RunDir(root)
    recipe = Recipe.model_validate({
        "edgekd": 1, "name": root.name, "task": {"name": "segmentation"}, "seed": seed,
        "data": {"name": data, "input": {"size": SIDE},
                 "params": {"images": IMAGES, "size": SIDE} if data == "synthetic" else {}},
        "models": {"teacher": {"arch": "smp:unet"}, "student": {"arch": "smp:unet"}},
        "stages": {"distill": {"train": ["student"], "frozen": ["teacher"], "epochs": 1,
                               "losses": {"seg": {"loss": "bce", "to": "student"}}}},
        "export": {"model": "student", "reference": "teacher", "make": ["onnx-fp32", INT8]},
    })  # fmt: skip
    ids = [f"TCGA_HT_{index:04d}_1" for index in range(IMAGES)]
    if data == "synthetic":
        ids = list(open_source(recipe.data).ids())
    groups = [f"patient{index // 4}" for index in range(IMAGES)]
    masks, task = truth(), Segmentation(classes=["tumour"])
    write_text(run.recipe, to_yaml(recipe))
    write_text(run.environment, dump_json({"classes": ["tumour"], "kinds": KINDS, "seed": seed}))
    lines = [f"{name},{int(mask.any())},{group},test"
             for name, mask, group in zip(ids, masks, groups, strict=True)]  # fmt: skip
    write_text(run.split, "\n".join(["id,target,group,part", *lines]) + "\n")
    scores: dict[str, Any] = {}
    for name, shift in (("teacher", 1), ("student", 3), (INT8, 4)):
        predictions = Predictions(ids, groups, masks, said(masks, shift))  # type: ignore[arg-type]
        predictions.save(run.predictions(name, "test"))
        scores[name] = {"test": task.score(predictions, resamples=50)}
    int8 = scores.pop(INT8)["test"]
    write_text(run.scores, dump_json(scores))
    run.bundle.mkdir()
    made = {
        name: Artifact(name=name, file=f"{name}.onnx", files=[f"{name}.onnx"], gate=gate,
                       runtime="onnxruntime", precision=name.split("-")[1], scores=score)
        for name, gate, score in (
            ("onnx-fp32", fake_run.gate("passed", 0.0), scores["student"]["test"]),
            (INT8, fake_run.gate("passed", 0.0), int8))
    }  # fmt: skip
    for name in made:
        (run.bundle / f"{name}.onnx").write_bytes(name.encode())
    close_bundle(run.bundle, Manifest(
        name="masks", task="segmentation", primary="fscore", classes=["tumour"],
        input=InputSpec(size=SIDE), opset=18, artifacts=made, recipe={}, provenance={},
        model=ModelFacts(name="student", arch="smp:unet", params=10, macs=10, role="student"),
    ))  # fmt: skip
    return run


@dataclass(frozen=True)
class Shown:
    run: RunDir
    files: ReportFiles
    html: str


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    run = write(tmp_path_factory.mktemp("masks") / "lesions")
    files = report([run.root])
    return Shown(run, files, files.html.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pictured(shown: Shown, tmp_path_factory: pytest.TempPathFactory) -> str:
    files = report([shown.run.root], out=tmp_path_factory.mktemp("pictured"), pictures=True)
    masks = files.data[0].masks
    assert masks is not None
    for path in (files.markdown, files.csv, files.json):  # only the page holds what is private
        text = path.read_text()
        assert "data:image" not in text
        assert not any(re.search(rf"\b{re.escape(case.id)}\b", text) for case in masks.cases)
    return files.html.read_text(encoding="utf-8")


def drawings(html: str) -> list[str]:
    return re.findall(r'<svg role="img"[^>]*class="figure case.*?</svg>', html, flags=re.DOTALL)


def test_masks_have_kinds_and_cases_in_place_of_confusions(shown: Shown) -> None:
    page = Page(shown.html)
    assert page.headings == ["Results", "Latency", "Masks", "Cases", "Training", "Gates", "Data",
                             "Provenance"]  # fmt: skip
    (data,) = shown.files.data
    assert data.subjects == []
    assert data.masks is not None
    assert [one.label for one in data.masks.subjects] == [
        "teacher", "student fp32", f"student {INT8}"]  # fmt: skip


def test_figures_per_kind_are_what_they_say(shown: Shown) -> None:
    (data,) = shown.files.data
    assert data.masks is not None
    named = [(kind.name, kind.images, kind.lesions) for kind in data.masks.kinds]
    assert named == [(KINDS[0], 10, 0), (KINDS[1], 30, 30), ("all images", 40, 30)]
    teacher, student, _ = data.masks.subjects
    empty, lesions, every = student.kinds
    assert empty.fscore == pytest.approx(0.9)
    assert empty.found is None
    assert empty.alarms == 0.1
    # 13 of 16 columns are found, whatever the rows; as many are seen beside it
    assert lesions.fscore == lesions.found == pytest.approx(13 / 16)
    assert lesions.alarms is None
    assert every.fscore == pytest.approx((9 + 30 * 13 / 16) / 40)
    assert every.low is not None
    assert every.high is not None
    assert every.low <= every.fscore <= every.high  # type: ignore[operator]
    assert teacher.kinds[1].fscore == pytest.approx(15 / 16)
    assert "81.2\u00a0%" in shown.html


def test_all_scores_of_masks_are_in_the_table(shown: Shown) -> None:
    text = " ".join(Page(shown.html).text)
    for label in ("F-score (Dice, over the data set)", "Share found of small lesions",
                  "Empty images with a false alarm"):  # fmt: skip
        assert label in text
    rows = list(csv.DictReader(shown.files.csv.read_text().splitlines()))
    assert any(row["metric"] == "fscore_per_image" and row["value"] for row in rows)
    assert "| all images |" in shown.files.markdown.read_text()


def test_images_are_counted_by_kind(shown: Shown) -> None:
    card = shown.files.data[0].data
    assert card is not None
    assert card.classes == KINDS
    assert card.images == [[10], [30]]
    assert "Images per kind and part" in shown.html


def test_twelve_cases_with_outlines_of_all(shown: Shown) -> None:
    (data,) = shown.files.data
    assert data.masks is not None
    cases = data.masks.cases
    assert [case.why for case in cases] == [
        *["hardest"] * 6, *["smallest"] * 4, "false alarm", "best"]  # fmt: skip
    assert len({case.image for case in cases}) == 12
    assert all([line.kind for line in case.outlines]
               == ["truth", "teacher", "student", "artifact"] for case in cases)  # fmt: skip
    alarm = cases[10]
    assert (alarm.image, alarm.area, alarm.seen) == (5, 0.0, 36 / SIDE**2)
    assert alarm.outlines[0].path == ""  # nothing is there
    assert alarm.outlines[2].path == "M3 2h6v6h-6z"
    assert len(drawings(shown.html)) == 13  # and the legend


def test_a_report_names_and_shows_no_patient_unasked(shown: Shown) -> None:
    assert "img-src" not in shown.html
    assert "data:image" not in shown.html
    assert "<image" not in shown.html
    assert "edgekd report RUN --pictures" in shown.html
    (data,) = shown.files.data
    assert data.masks is not None
    for case in data.masks.cases:
        for path in (shown.files.html, shown.files.markdown, shown.files.csv, shown.files.json):
            assert not re.search(rf"\b{re.escape(case.id)}\b", path.read_text())
    (tree,) = json.loads(shown.files.json.read_text())["runs"]
    assert set(tree["masks"]["cases"][0]) == {"image", "why", "of_kind", "area", "seen", "fscores",
                                              "width", "height"}  # fmt: skip


def test_drawings_take_their_colours_from_the_page_and_say_what_they_show(shown: Shown) -> None:
    for drawn in drawings(shown.html):
        assert not re.search(r"(fill|stroke)[:=]", drawn)
        assert re.search(r'aria-label="[^"]{10,}"', drawn)
    words = "Hardest: test image"
    assert words in shown.html
    assert "F-score: teacher 0.94, student fp32 0.81, student onnx-int8 0.75." in shown.html


def test_pictures_come_on_request_and_are_announced(shown: Shown, pictured: str) -> None:
    assert "img-src data:" in pictured
    assert pictured.count('<image href="data:image/png;base64,') == 12
    assert "This page holds pictures of patients." in pictured
    (data,) = shown.files.data
    assert data.masks is not None
    assert f"({data.masks.cases[0].id})" in pictured
    page = Page(pictured)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert page.count("script") == 0


def test_where_the_data_is_not_here_the_outlines_stay(tmp_path: Path) -> None:
    run = write(tmp_path / "elsewhere", data="lgg")
    files = report([run.root], pictures=True)
    text = files.html.read_text()
    assert "outlines alone" in text
    assert "needs the folder of its files" in text
    assert "img-src" not in text
    assert "holds pictures of patients" not in text
    assert len(drawings(text)) == 13


def test_a_source_that_is_not_ours_is_not_opened(tmp_path: Path) -> None:
    run = write(tmp_path / "theirs", data="their_own")
    data = join(run.root, pictures=True)
    assert data.masks is not None
    assert "is not one of edgekd" in data.masks.pictures_missing


def test_pictures_of_a_classifier_are_refused(tmp_path: Path) -> None:
    run = fake_run.write(tmp_path / "grades", bench=False)
    with pytest.raises(DataError, match="only reports on masks show pictures"):
        report([run.root], pictures=True)


def test_without_predictions_both_sections_say_so(shown: Shown, tmp_path: Path) -> None:
    files = report([shown.run.bundle], out=tmp_path)
    text = files.html.read_text()
    assert "Figures per kind of image: not measured" in text
    assert "Cases: not measured" in text


def test_several_runs_share_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 2):
        write(tmp_path / f"masks-seed{seed}", seed=seed)
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "out"), "--pictures"]) == 0
    assert "index.html" in capsys.readouterr().out
    text = (tmp_path / "out" / "index.html").read_text()
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert "over seeds" in text
    assert text.count("This page holds pictures of patients.") == 1
    assert len(drawings(text)) == 26


# --- which cases


def test_neighbours_of_one_patient_do_not_fill_the_page() -> None:
    fscores = np.linspace(0, 1, 30)
    areas = np.full(30, 0.1)
    groups = ["a"] * 20 + ["b"] * 5 + ["c"] * 5
    found = choose(fscores, areas, areas, groups)
    assert [index for index, why in found if why == "hardest"] == [0, 20, 25, 1, 2, 3]


def test_of_the_missed_the_largest_is_first_and_none_comes_twice() -> None:
    areas = np.array([0.1, 0.4, 0.2, 0.0, 0.0])
    found = choose(np.zeros(5), areas, np.array([0, 0, 0, 0.0, 0.3]), list("abcde"))
    assert found == [(1, "hardest"), (2, "hardest"), (0, "hardest"), (4, "false alarm")]
    assert choose(np.ones(2), np.zeros(2), np.zeros(2), list("ab")) == []


# --- outlines


def filled(path: str, shape: tuple[int, int]) -> UInt8:
    """What lies inside of a path of h and v, by the even-odd rule."""
    crossings = np.zeros((shape[0], shape[1] + 1), dtype=np.int64)
    for x, y, rest in re.findall(r"M(\d+) (\d+)([^z]*)z", path):
        points = [(int(x), int(y))]
        for axis, text in re.findall(r"([hv])(-?\d+)", rest):
            last = points[-1]
            step = int(text)
            points.append((last[0] + step, last[1]) if axis == "h" else (last[0], last[1] + step))
        for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
            if x0 == x1:
                crossings[min(y0, y1) : max(y0, y1), x0] += 1
            assert x0 == x1 or y0 == y1
    return (np.cumsum(crossings, axis=1)[:, : shape[1]] % 2).astype(np.uint8)


@pytest.mark.parametrize("density", [0.05, 0.5, 0.95])
def test_outlines_enclose_just_the_mask(density: float) -> None:
    random = np.random.default_rng(0)
    for shape in ((1, 1), (5, 9), (23, 17)):
        mask = (random.random(shape) < density).astype(np.int8)
        assert np.array_equal(filled(path_of(mask), shape), mask)


def test_a_ring_has_two_loops_and_corners_only() -> None:
    mask = np.ones((7, 7), dtype=bool)
    mask[2:5, 2:5] = False
    assert sorted(len(loop) for loop in loops(mask)) == [4, 4]


def test_classes_are_outlined_apart() -> None:
    mask = np.array([[1, 1, 2, 2], [1, 1, 2, 2]], dtype=np.int8)
    assert path_of(mask) == "M0 0h2v2h-2zM2 0h2v2h-2z"


def test_noise_is_drawn_more_coarsely() -> None:
    noise = np.random.default_rng(0).integers(0, 2, (256, 256), dtype=np.int8)
    path = path_of(noise)
    assert len(path) < 6 * MOST_EDGES
    xs = [int(x) for x in re.findall(r"M(\d+)", path)]
    assert max(xs) < 256
