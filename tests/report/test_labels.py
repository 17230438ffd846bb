"""The report of a run of several labels per image: classes, long tail, gains, weights by epoch."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from edgekd.cli import main
from edgekd.errors import DataError
from edgekd.report import curves, label_split, rows
from edgekd.report.evidence import known_task
from edgekd.report.join import join
from edgekd.report.label_records import LabelEvidence, LabelSubject, Together
from edgekd.report.label_sections import caption, pairs_grid, together_grid
from edgekd.report.records import Curve, ReportData
from edgekd.report.render import ReportFiles, report
from edgekd.results import Learned
from edgekd.rundir import RunDir
from tests.report import label_run
from tests.report.label_run import CLASSES, INT8, TEST, TRAIN
from tests.report.test_page import Page

ORDER = [1, 0, 2, 4, 3]  # by training images


@dataclass(frozen=True)
class Shown:
    run: RunDir
    files: ReportFiles

    @property
    def html(self) -> str:
        return self.files.html.read_text(encoding="utf-8")

    @property
    def labels(self) -> LabelEvidence:
        found = self.files.data[0].labels
        assert found is not None
        return found

    def subject(self, label: str) -> LabelSubject:
        return next(one for one in self.labels.subjects if one.label == label)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    run = label_run.write(tmp_path_factory.mktemp("labels") / "eyes")
    return Shown(run, report([run.root]))


@pytest.fixture
def copy(shown: Shown, tmp_path: Path) -> Callable[..., RunDir]:
    def of(name: str = "copy") -> RunDir:
        shutil.copytree(shown.run.root, tmp_path / name)
        return RunDir(tmp_path / name)

    return of


def evidence(data: ReportData) -> LabelEvidence:
    assert data.labels is not None
    return data.labels


def test_labels_have_a_long_tail_in_place_of_confusions(shown: Shown) -> None:
    assert Page(shown.html).headings == [
        "Results", "Latency", "Classes", "Change per class", "Long tail", "Calibration",
        "Training", "Gates", "Data", "Provenance"]  # fmt: skip
    assert shown.files.data[0].subjects == []


def test_a_task_knows_what_it_learned() -> None:
    learned = Learned(counts=(3, 1), shots=("head", "tail"))
    task = known_task("multilabel", ["a", "b"], None, learned)
    assert task is not None
    assert task.learned == learned


# --- classes


def test_classes_come_by_their_training_images(shown: Shown) -> None:
    found = [(one.name, one.training, one.shot, one.positives) for one in shown.labels.classes]
    assert found == [("drusen", 120, "head", 24), ("scar", 30, "medium", 16),
                     ("bleeding", 8, "tail", 8), ("A+B", 4, "tail", 4), ("oedema", 0, "tail", 0)
                     ]  # fmt: skip


def test_average_precision_is_that_of_scikit_learn_on_the_known_labels(shown: Shown) -> None:
    said = label_run.said(2.5, 1)
    for place, column in enumerate(ORDER[:-1]):
        known = said.targets[:, column] >= 0
        expected = average_precision_score(said.targets[known, column], said.logits[known, column])
        found = shown.subject("student fp32").figures[place]
        assert found is not None
        assert found.ap == pytest.approx(expected)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= expected <= found.high


def test_sensitivity_and_specificity_are_at_the_models_own_thresholds(shown: Shown) -> None:
    for label, model, said in (
        ("student fp32", "student", label_run.said(2.5, 1)),
        (f"student {INT8}", "student", label_run.said(2.0, 1)),
    ):
        for place, column in enumerate(ORDER[:-1]):
            threshold = label_run.THRESHOLDS[model][column]
            hits = positives = quiet = negatives = 0
            for logit, target in zip(
                said.logits[:, column].tolist(), said.targets[:, column].tolist(), strict=True
            ):
                is_seen = 1 / (1 + np.exp(-logit)) >= threshold
                positives += target == 1
                hits += target == 1 and is_seen
                negatives += target == 0
                quiet += target == 0 and not is_seen
            found = shown.subject(label).figures[place]
            assert found is not None
            assert found.threshold == threshold
            assert found.sensitivity == pytest.approx(hits / positives)
            assert found.specificity == pytest.approx(quiet / negatives)


def test_a_class_that_no_test_image_shows_is_not_measured_and_named(shown: Shown) -> None:
    found = shown.subject("student fp32").figures[-1]
    assert found is not None
    assert (found.ap, found.low, found.high, found.sensitivity) == (None,) * 4
    assert found.specificity is not None
    assert "No test image shows oedema: not measured." in shown.html
    assert "not measured</text>" in shown.html  # in the figure


def test_teachers_of_some_classes_share_a_column(shown: Shown) -> None:
    assert [one.label for one in shown.labels.subjects] == [
        "many", "few", "student fp32", f"student {INT8}"]  # fmt: skip
    assert [found is not None for found in shown.subject("few").figures] == [
        False, False, True, True, True]  # fmt: skip
    figures = shown.subject("few").figures[3]
    assert figures is not None
    assert figures.threshold == 0.5  # the third of its own
    lines = shown.files.markdown.read_text().splitlines()
    head = next(line for line in lines if line.startswith("| Class | Group |"))
    assert "the teachers of the class: AP" in head
    assert "few: AP" not in head
    line = next(line for line in lines if line.startswith("| bleeding | tail | 8 | 8 |"))
    assert "(few)" in line
    assert "(from 0.40)" in line


def test_a_score_of_some_classes_says_so_and_is_not_what_the_student_is_held_against(
    shown: Shown,
) -> None:
    (host,) = shown.files.data[0].hosts
    assert {row.model: row.knows for row in host.rows} == {"many": 2, "few": 3, "student": None}
    assert host.teacher is None
    text = shown.files.markdown.read_text()
    assert "scored on its 2 classes" in text
    assert "few PyTorch, its 3 classes" in text


def test_a_student_and_its_exact_artifact_are_shown_once(
    shown: Shown, copy: Callable[..., RunDir]
) -> None:
    assert "student onnx-fp32" not in [one.label for one in shown.labels.subjects]
    run = copy()
    run.predictions("student", "test").unlink()
    labels = evidence(join(run.root))
    assert [one.label for one in labels.subjects if one.kind != "teacher"] == [f"student {INT8}"]


def test_without_thresholds_a_class_is_there_from_a_half_on(
    copy: Callable[..., RunDir], edit: Callable[[Path, Callable[[Any], None]], None]
) -> None:
    run = copy()
    run.thresholds.unlink()
    labels = evidence(join(run.root))  # the bundle has those of the student
    assert [one.figures[2].threshold for one in labels.subjects if one.figures[2]] == [
        0.5, 0.5, 0.5]  # fmt: skip
    student = next(one for one in labels.subjects if one.kind == "student")
    assert [figures.threshold for figures in student.figures if figures] == [
        0.6, 0.3, 0.5, 0.2, 0.5]  # fmt: skip
    edit(run.bundle / "manifest.json", lambda tree: tree["learned"].update(thresholds=[]))
    labels = evidence(join(run.root))
    assert {f.threshold for one in labels.subjects for f in one.figures if f} == {0.5}


def test_predictions_of_other_classes_are_left_out_and_said(copy: Callable[..., RunDir]) -> None:
    run = copy()
    label_run.said(2.0, 1, (0, 1)).save(run.predictions("few", "test"))
    found = evidence(join(run.root))
    assert "few" not in [one.label for one in found.subjects]
    assert "of few are not of the classes" in found.left_out[0]


# --- the long tail


def part(shown: Shown, stage: str | None) -> Together:
    return next(one for one in shown.labels.together if one.stage == stage)


def test_all_training_images_are_counted_before(shown: Shown) -> None:
    before = part(shown, None)
    assert before.classes == [CLASSES[c] for c in ORDER]
    assert before.images == sum(TRAIN.values()) == 200
    assert before.without == 68
    assert before.several == 20 + 4 + 2 + 2
    labels = 70 + 40 + 10 + 8 + 2 + 6 + 4 + 22
    assert before.labels == pytest.approx(labels / 200)
    assert before.labels_of_any == pytest.approx(labels / 132)
    assert before.shown == [120, 30, 8, 4, 0]


def test_a_share_is_of_the_images_that_show_the_row(shown: Shown) -> None:
    before = part(shown, None)
    drusen, scar, bleeding, both, oedema = range(5)
    assert before.both[drusen][scar] == before.both[scar][drusen] == 20
    assert before.share[scar][drusen] == pytest.approx(20 / 30)
    assert before.share[drusen][scar] == pytest.approx(20 / 98)  # of 22 it is not known
    assert before.share[both][bleeding] == pytest.approx(2 / 4)
    assert before.share[oedema] == [None] * 5
    assert all(before.share[i][i] is None for i in range(5))


def test_a_stage_keeps_the_images_and_labels_of_its_classes(shown: Shown) -> None:
    many, few = part(shown, "many"), part(shown, "few")
    assert (many.group, many.classes) == ("many", ["drusen", "scar"])
    assert (many.images, many.without, many.several) == (130, 0, 20)
    assert many.labels == many.labels_of_any == pytest.approx(150 / 130)
    # half as many images without any of them are drawn
    assert (few.images, few.without, few.several) == (10 + 5, 5, 2)
    assert few.labels == pytest.approx(12 / 15)
    assert few.labels_of_any == pytest.approx(12 / 10)
    assert few.share[0] == [None, pytest.approx(2 / 8), 0.0]


def test_the_table_and_the_captions_say_what_is_counted(shown: Shown) -> None:
    grid = together_grid(shown.labels.together)
    assert [[cell.text for cell in row] for row in grid.rows] == [
        ["all", "200", "5", "0.81", "1.23", "28 (14 %)", "68 (34 %)", "4 of 10"],
        ["stage many", "130", "2", "1.15", "1.15", "20 (15 %)", "0 (0 %)", "1 of 1"],
        ["stage few", "15", "3", "0.80", "1.20", "2 (13 %)", "5 (33 %)", "1 of 3"],
    ]
    assert any("which they are is not on disk" in note for note in grid.notes)
    assert caption(part(shown, "many")).startswith(
        "After, stage many: 130 images, the labels of many alone; 1.15 labels per image. Of"
    )
    assert "1.23 where there are any" in caption(part(shown, None))
    assert caption(part(shown, None)).endswith("a class with itself, or one without images.")
    first = pairs_grid(part(shown, None)).rows[0]
    assert [cell.text for cell in first] == ["drusen", "scar", "20", "20 %", "67 %"]


def test_a_stage_of_a_fraction_says_that_all_are_counted(copy: Callable[..., RunDir]) -> None:
    run = copy()
    run.recipe.write_text(run.recipe.read_text().replace("fraction: null", "fraction: 0.5", 1))
    notes = together_grid(evidence(join(run.root)).together).notes
    assert any(note.startswith("Stage many: it trained on a fraction of 0.5") for note in notes)


def test_the_tail_is_drawn_with_its_groups_in_words(shown: Shown) -> None:
    assert "Head: classes with 100 training images or more; tail: with fewer than 20." in shown.html
    assert "Training images of each class: 120 to 0; 1 head, 1 medium, 3 tail." in shown.html


# --- split.csv


def test_targets_are_read_though_a_class_is_called_like_two(shown: Shown) -> None:
    split = label_split.read(shown.run, CLASSES)
    assert split is not None
    assert split.labels[96 + 8 + 4 - 1].tolist() == [0, 1, 1, 0, 1]
    assert (split.labels == -1).sum() == 22 + 1
    assert int(split.trains.sum()) == 200


def test_a_target_of_no_class_is_an_error(copy: Callable[..., RunDir]) -> None:
    run = copy()
    run.split.write_text("id,target,group,part\n1,drusen+plum,a,train\n")
    with pytest.raises(DataError, match="there is no class 'plum'"):
        join(run.root)


def test_images_count_in_each_class_and_once_in_all(shown: Shown) -> None:
    card = shown.files.data[0].data
    assert card is not None
    assert card.parts == ["train", "test"]
    assert card.classes == [*CLASSES, "(none of them)"]
    assert card.images == [[30, 16], [120, 24], [8, 8], [0, 0], [4, 4], [68, 16]]
    assert card.totals == [200, TEST]
    assert "23 labels are not known" in card.remark
    lines = shown.files.markdown.read_text().splitlines()
    assert "| **all images** | **200** | **48** | **248** |" in lines


def test_a_run_that_is_not_finished_is_named_by_its_split(copy: Callable[..., RunDir]) -> None:
    run = copy()
    shutil.rmtree(run.bundle)
    shutil.rmtree(run.root / "predictions")
    for path in (run.environment, run.scores, run.thresholds):
        path.unlink()
    data = join(run.root)
    assert data.classes == ["drusen", "scar", "bleeding", "A", "B"]
    labels = evidence(data)
    assert [one.training for one in labels.classes] == [120, 30, 8, 4, 4]
    assert len(labels.together) == 1
    assert labels.subjects == []


# --- calibration


def test_all_labels_are_pooled(shown: Shown) -> None:
    said = label_run.said(2.5, 1)
    cells: dict[int, list[tuple[float, int]]] = {}
    for logits, labels in zip(said.logits.tolist(), said.targets.tolist(), strict=True):
        for logit, label in zip(logits, labels, strict=True):
            if label >= 0:
                p = 1 / (1 + np.exp(-logit))
                cells.setdefault(min(int(p * 15), 14), []).append((p, label))
    student = shown.subject("student fp32")
    expected = [
        (np.mean([p for p, _ in cell]), np.mean([label for _, label in cell]), len(cell))
        for _, cell in sorted(cells.items())
    ]
    assert student.bins == [pytest.approx(one) for one in expected]
    total = sum(len(cell) for cell in cells.values())
    assert total == TEST * 5 - 1
    assert student.ece == pytest.approx(sum(abs(p - y) * n for p, y, n in expected) / total)
    assert "share that is there" in shown.html


# --- training


def test_weights_are_drawn_by_epoch(shown: Shown) -> None:
    stage = shown.files.data[0].stages[-1]
    assert list(stage.notes) == ["rskd/w"]
    assert [curve.name for curve in stage.notes["rskd/w"]] == CLASSES
    assert stage.notes["rskd/w"][2].values == pytest.approx([0.8, 0.6, 0.4])
    assert "Stage student: rskd/w, as each epoch had it." in shown.html


def test_of_many_weights_those_that_moved_most_are_drawn() -> None:
    noted = [Curve(f"c{i}", [1, 2], [1.0, 1.0 - 0.01 * i]) for i in range(20)]
    drawn, words = curves.most_moved(noted)
    assert [curve.name for curve in drawn] == [f"c{i}" for i in range(8, 20)]
    assert "c0: 1.00; c1: 0.99;" in words
    drawn, words = curves.most_moved([Curve(f"c{i}", [1], [float(i < 3)]) for i in range(13)])
    assert len(drawn) == curves.MOST
    still = [Curve(f"s{i}", [1, 2], [1.0, 1.0]) for i in range(20)]
    drawn, words = curves.most_moved([*still, Curve("moved", [1, 2], [1.0, 0.5])])
    assert [curve.name for curve in drawn] == ["moved"]
    assert "s18, s19: 1.00." in words


def test_a_teacher_of_some_classes_has_its_own_validation_score(
    shown: Shown, tmp_path: Path
) -> None:
    stage = shown.files.data[0].stages[1]
    (few,) = stage.val
    assert few.name == "few, 3 classes"
    assert few.values == pytest.approx([0.1, 0.2, 0.3])
    # three groups' mean is not to be had of one of them
    run = label_run.write(tmp_path / "groups", primary="map_groups")
    many, _, student = join(run.root).stages
    assert many.val[0].name == "many, 2 classes, mAP"
    assert many.val[0].values == pytest.approx([0.1, 0.2, 0.3])
    assert (student.val[0].name, student.val[0].values) == ("student", [0.2] * 3)


def test_without_a_baseline_the_section_says_how_to_get_one(shown: Shown) -> None:
    assert shown.labels.change is None
    assert "this run is not of a sweep" in shown.html
    assert "<code>edgekd sweep RECIPE</code> with a <code>baseline</code>" in shown.html


# --- files, bundles, several runs


def test_the_other_forms_of_the_report_have_the_same_figures(shown: Shown) -> None:
    lines = list(csv.DictReader(shown.files.csv.read_text().splitlines()))
    found = {(row["model"], row["artifact"], row["metric"]): row for row in lines}
    one = found["few", "PyTorch", "ap:bleeding"]
    figures = shown.subject("few").figures[2]
    assert figures is not None
    assert float(one["value"]) == pytest.approx(figures.ap, rel=1e-5)
    assert found["student", INT8, "ap:oedema"]["status"] == "not measured"
    assert ("few", "PyTorch", "ap:scar") not in found
    (tree,) = json.loads(shown.files.json.read_text())["runs"]
    assert tree["labels"]["classes"][0] == {
        "name": "drusen", "training": 120, "shot": "head", "positives": 24}  # fmt: skip
    assert tree["labels"]["together"][0]["shown"] == [120, 30, 8, 4, 0]


def test_no_form_of_the_report_names_an_image(shown: Shown) -> None:
    for path in (shown.files.html, shown.files.markdown, shown.files.csv, shown.files.json):
        assert "TCGA_EYE" not in path.read_text()


def test_a_bundle_alone_has_its_long_tail(shown: Shown, tmp_path: Path) -> None:
    files = report([shown.run.bundle], out=tmp_path)
    text = files.html.read_text()
    assert "Figures per class: not measured" in text
    assert "Labels that come together: not measured (no split.csv here)." in text
    assert "Training images of each class: 120 to 0" in text
    assert "Change of AP per class: not measured; a bundle holds no test predictions." in text


def test_damaged_files_are_named(copy: Callable[..., RunDir]) -> None:
    run = copy()
    run.thresholds.write_text('{"student": "high"}')
    with pytest.raises(DataError, match="'student' has no list of thresholds"):
        join(run.root)
    tree = json.loads(run.environment.read_text())
    run.environment.write_text(json.dumps({**tree, "learned": {"counts": "many"}}))
    with pytest.raises(DataError, match=r"run\.json: `learned`"):
        join(run.root)


def test_a_sweep_shares_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = label_run.sweep(tmp_path).root.parent.parent
    assert main(["report", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert "PyTorch, 2 classes" in capsys.readouterr().out
    text = (tmp_path / "out" / "index.html").read_text()
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert page.count("script") == 0
    assert "minus that of the baseline erm, seed 3" in text
    assert "this run is the baseline, <code>erm</code>, itself." in text
    assert "Change of AP against erm" in (tmp_path / "out" / "report.md").read_text()


def test_roles_are_as_the_losses_have_them(shown: Shown) -> None:
    recipe = label_run.recipe("eyes", 1)
    assert [rows.role_of(recipe, name) for name in recipe.models] == [
        "teacher", "teacher", "student"]  # fmt: skip
