"""What the joined data say: ratios, what to deploy, and what is absent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.bundle import read_manifest
from edgekd.errors import BundleError, DataError
from edgekd.report.join import join
from edgekd.report.records import HostTable, ReportData, Row
from edgekd.report.render import report
from edgekd.results import append_jsonl, dump_json
from edgekd.rundir import RunDir
from tests.report import fake_run
from tests.report.conftest import Reported

Copy = Callable[..., RunDir]
Edit = Callable[[Path, Callable[[Any], None]], None]


def host(data: ReportData, name: str = "bedside") -> HostTable:
    return next(table for table in data.hosts if table.name == name)


def row(data: ReportData, model: str, artifact: str | None, name: str = "bedside") -> Row:
    return next(r for r in host(data, name).rows if (r.model, r.artifact) == (model, artifact))


def set_gate(run: RunDir, edit: Edit, artifact: str, **gate: Any) -> None:
    edit(run.bundle / "manifest.json",
         lambda tree: tree["artifacts"][artifact]["gate"].update(gate))  # fmt: skip


@pytest.fixture(scope="module")
def data(reported: Reported) -> ReportData:
    return reported.files.data[0]


def test_every_exported_and_every_trained_model_has_a_row(data: ReportData) -> None:
    rows = [(r.role, r.model, r.artifact) for r in host(data).rows]
    assert rows == [
        ("teacher", "teacher", "onnx-fp32"),
        ("teacher", "teacher", "openvino-fp32"),
        ("model", "alone", None),
        ("student", "student", "onnx-fp32"),
        ("student", "student", "onnx-int8"),
        ("student", "student", "openvino-fp32"),
        ("student", "student", "openvino-int8"),
    ]


def test_same_speedup_compares_one_runtime_and_precision(data: ReportData) -> None:
    assert row(data, "student", "onnx-fp32").same_speedup == pytest.approx(6.4 / 0.62)
    assert row(data, "student", "openvino-fp32").same_speedup == pytest.approx(5.9 / 0.66)


def test_int8_has_no_like_in_a_teacher_of_fp32_only(data: ReportData) -> None:
    assert row(data, "student", "openvino-int8").same_speedup is None


def test_teacher_speedup_is_over_the_teacher_in_onnx_runtime(data: ReportData) -> None:
    assert row(data, "student", "openvino-int8").teacher_speedup == pytest.approx(6.4 / 0.41)
    assert row(data, "teacher", "onnx-fp32").teacher_speedup == pytest.approx(1.0)


def test_ratios_never_mix_hosts_or_threads(copy_run: Copy) -> None:
    run = copy_run()
    teacher = read_manifest(run.reference)
    (run.reference / "bench" / "bedside.jsonl").unlink()
    one = fake_run.measurement(run.reference, teacher, "onnx-fp32", 9.0, "bedside", threads=4)
    append_jsonl(run.reference / "bench" / "bedside.jsonl", one)
    data = join(run.root)
    assert row(data, "student", "onnx-fp32").same_speedup is None
    assert row(data, "student", "onnx-fp32").teacher_speedup is None
    assert row(data, "student", "onnx-fp32", "workstation").same_speedup is not None


def test_a_score_borrowed_from_pytorch_says_so(data: ReportData) -> None:
    assert row(data, "teacher", "onnx-fp32").score_from == "onnx-fp32"
    assert row(data, "teacher", "openvino-fp32").score_from == "PyTorch"


def test_an_int8_artifact_never_borrows_a_score(copy_run: Copy, edit: Edit) -> None:
    run = copy_run()
    edit(run.bundle / "manifest.json",
         lambda tree: tree["artifacts"]["onnx-int8"].update(scores=None))  # fmt: skip
    assert row(join(run.root), "student", "onnx-int8").score is None


# what to deploy


def test_the_fastest_that_passed_is_deployed(data: ReportData) -> None:
    deploy = host(data).deploy
    assert deploy.artifact == "openvino-int8"
    assert deploy.line.startswith(
        "Deploy on this host: openvino-int8: fastest that passed its gates"
    )


@pytest.mark.parametrize("verdict", ["refused", "inconclusive"])
def test_what_did_not_pass_is_never_deployed(copy_run: Copy, edit: Edit, verdict: str) -> None:
    run = copy_run()
    set_gate(run, edit, "openvino-int8", verdict=verdict)
    assert host(join(run.root)).deploy.artifact == "onnx-fp32"


def test_what_a_person_accepted_may_be_deployed_and_is_called_so(
    copy_run: Copy, edit: Edit
) -> None:
    run = copy_run()
    set_gate(run, edit, "openvino-int8", verdict="inconclusive", accepted_because="pilot only")
    deploy = host(join(run.root)).deploy
    assert deploy.artifact == "openvino-int8"
    assert "accepted by hand" in deploy.line


def test_what_no_gate_judged_is_not_deployed(copy_run: Copy, edit: Edit) -> None:
    run = copy_run()
    for name, next_best in (("openvino-int8", "onnx-fp32"), ("onnx-fp32", "openvino-fp32")):
        edit(run.bundle / "manifest.json",
             lambda tree, name=name: tree["artifacts"][name].update(gate=None))  # fmt: skip
        data = join(run.root)
        assert host(data).deploy.artifact == next_best
        assert row(data, "student", name).gate == "not run"


def test_nothing_is_deployed_where_all_was_refused(copy_run: Copy, edit: Edit) -> None:
    run = copy_run()
    for name in ("openvino-int8", "openvino-fp32"):
        set_gate(run, edit, name, verdict="refused")
    edit(run.bundle / "manifest.json", lambda tree: tree["artifacts"]["onnx-fp32"].update(
        gate=tree["artifacts"]["openvino-int8"]["gate"]))  # fmt: skip
    deploy = host(join(run.root)).deploy
    assert deploy.artifact is None
    assert "no measured artifact passed" in deploy.line


def test_what_cannot_be_told_apart_is_named(copy_run: Copy) -> None:
    run = copy_run()
    student = read_manifest(run.bundle)
    close = fake_run.measurement(run.bundle, student, "onnx-fp32", 0.412, "bedside",
                                 utc="2026-11-22T00:00:00Z")  # fmt: skip
    append_jsonl(run.bundle / "bench" / "bedside.jsonl", close)
    assert host(join(run.root)).deploy.tied == ["onnx-fp32"]


# measurements


def test_the_latest_measurement_of_a_setting_counts(copy_run: Copy) -> None:
    run = copy_run()
    again = fake_run.measurement(run.bundle, read_manifest(run.bundle), "onnx-fp32", 0.3,
                                 "bedside", utc="2026-11-22T00:00:00Z")  # fmt: skip
    append_jsonl(run.bundle / "bench" / "bedside.jsonl", again)
    timing = row(join(run.root), "student", "onnx-fp32").timing
    assert timing is not None
    assert timing.latency.p50 == pytest.approx(0.3)


def test_other_threads_are_another_row(copy_run: Copy) -> None:
    run = copy_run()
    more = fake_run.measurement(run.bundle, read_manifest(run.bundle), "onnx-fp32", 0.9,
                                "bedside", threads=1)  # fmt: skip
    append_jsonl(run.bundle / "bench" / "bedside.jsonl", more)
    rows = [r for r in host(join(run.root)).rows if r.label == "student onnx-fp32"]
    assert [r.timing.threads for r in rows if r.timing] == [2, 1]


def test_timings_of_an_earlier_export_are_left_out_and_said(copy_run: Copy) -> None:
    run = copy_run()
    path = run.bundle / "bench" / "workstation.jsonl"
    sums = {read_manifest(run.bundle).files[name].sha256 for name in ("model.int8.onnx",)}
    text = path.read_text(encoding="utf-8")
    for digest in sums:
        text = text.replace(digest, "0" * 64)
    path.write_text(text, encoding="utf-8")
    data = join(run.root)
    assert row(data, "student", "onnx-int8", "workstation").timing is None
    assert any("earlier export" in note for note in data.notes)


def test_a_torn_last_line_is_passed_over(copy_run: Copy) -> None:
    run = copy_run()
    for path in (run.bundle / "bench" / "bedside.jsonl", run.stage("distill") / "metrics.jsonl"):
        path.write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    data = join(run.root)
    assert host(data).deploy.artifact is not None
    assert data.stages[1].val[0].epochs == [1, 2, 3, 4, 5, 6, 7]


# evidence


def test_confusions_and_sensitivities_count_the_test_images(data: ReportData) -> None:
    for subject in data.subjects:
        assert sum(map(sum, subject.confusion)) == subject.images == 360
        assert subject.groups == 120
        for index, counts in enumerate(subject.confusion):
            assert subject.support[index] == sum(counts)
            assert subject.recall[index] == pytest.approx(counts[index] / sum(counts))


def test_ece_is_the_score_of_the_task(data: ReportData) -> None:
    said = {model.name: model.scores["ece"].value for model in data.scores}
    found = {subject.label: subject.ece for subject in data.subjects}
    assert found["student fp32"] == pytest.approx(said["student PyTorch"])
    assert found["student openvino-int8"] == pytest.approx(said["student openvino-int8"])


def test_the_refused_int8_is_looked_at_when_fp32_is_deployed(copy_run: Copy, edit: Edit) -> None:
    run = copy_run()
    set_gate(run, edit, "openvino-int8", verdict="refused")
    labels = [subject.label for subject in join(run.root).subjects]
    assert labels == ["teacher", "student fp32", "student onnx-fp32", "student onnx-int8"]


def test_the_chosen_epoch_is_the_last_best_one(data: ReportData, reported: Reported) -> None:
    lines = (reported.run.stage("distill") / "metrics.jsonl").read_text().splitlines()
    best = [row["epoch"] for row in map(json.loads, lines) if row["best"]["student"]]
    assert data.stages[1].val[0].chosen == best[-1]


def test_the_data_card_counts_the_split(data: ReportData, reported: Reported) -> None:
    card = data.data
    assert card is not None
    lines = reported.run.split.read_text().splitlines()[1:]
    assert sum(map(sum, card.images)) == len(lines)
    assert card.parts == ["train", "val", "test"]
    assert card.groups == [420, 60, 120]
    assert card.shared_groups == 0


# absence


def test_a_run_that_only_trained_still_reports(copy_run: Copy) -> None:
    run = copy_run()
    shutil.rmtree(run.bundle)
    shutil.rmtree(run.reference)
    for path in run.root.glob("predictions/*"):
        path.unlink()
    run.environment.write_text(dump_json({"classes": fake_run.CLASSES}))
    data = join(run.root)
    assert [(r.role, r.artifact) for r in data.hosts[0].rows] == [
        ("teacher", None), ("model", None), ("student", None)]  # fmt: skip
    assert data.hosts[0].deploy.line == "Deploy on this host: not measured"
    assert data.subjects == []
    report([run.root])


def test_a_recipe_alone_is_a_run_of_which_nothing_ran(copy_run: Copy, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    shutil.copy(copy_run().recipe, tmp_path / "new" / "recipe.yaml")
    page = report([tmp_path / "new"]).html.read_text()
    assert "Stage teacher, distill: not run." in page
    assert "Gates: not run." in page


def test_a_bundle_alone_reports_what_it_carries(reported: Reported, tmp_path: Path) -> None:
    shutil.copytree(reported.run.bundle, tmp_path / "bundle")
    files = report([tmp_path / "bundle"])
    assert files.html == tmp_path / "bundle" / "bench" / "report" / "index.html"
    data = files.data[0]
    assert data.kind == "bundle"
    assert host(data).deploy.artifact == "openvino-int8"
    assert row(data, "student", "openvino-int8").teacher_speedup is None


def test_no_code_named_by_a_bundle_is_imported(
    reported: Reported, tmp_path: Path, edit: Edit
) -> None:
    shutil.copytree(reported.run.bundle, tmp_path / "bundle")
    edit(tmp_path / "bundle" / "manifest.json", lambda tree: tree.update(task="os:system"))
    data = join(tmp_path / "bundle")
    assert data.subjects == []
    assert any("os:system" in note for note in data.notes)


@pytest.mark.parametrize("target", ["nowhere", "empty", "file"])
def test_what_is_no_run_is_refused_with_a_hint(tmp_path: Path, target: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=target) as caught:
        report([tmp_path / target])
    assert caught.value.hint
    assert "recipe.yaml" in caught.value.hint


def test_a_damaged_manifest_is_named(copy_run: Copy) -> None:
    run = copy_run()
    (run.bundle / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match=r"manifest\.json is damaged"):
        join(run.root)
