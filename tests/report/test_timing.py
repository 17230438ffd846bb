"""Which measurements the report shows, and what it says where a runtime does not say enough."""

from __future__ import annotations

from edgekd.bundle import read_manifest
from edgekd.report.render import report
from edgekd.report.timing import latest
from edgekd.results import append_jsonl, read_measurements
from tests.report import fake_run
from tests.report.test_join import Copy, Edit, host, row


def test_timings_of_a_file_that_is_not_listed_are_left_out(copy_run: Copy, edit: Edit) -> None:
    run = copy_run()
    edit(run.bundle / "manifest.json", lambda tree: tree["files"].pop("model.int8.onnx"))
    measured = list(read_measurements(run.bundle / "bench" / "bedside.jsonl"))
    kept, notes = latest(measured, read_manifest(run.bundle), "bedside")
    assert {timing.artifact for timing in kept} == {"onnx-fp32", "openvino-fp32", "openvino-int8"}
    assert any("onnx-int8" in note and "earlier export" in note for note in notes)


def test_arithmetic_that_is_not_known_is_said_and_compared_with_nothing(copy_run: Copy) -> None:
    run = copy_run()
    for folder in (run.bundle, run.reference):
        manifest = read_manifest(folder)
        silent = fake_run.measurement(folder, manifest, "onnx-fp32", 0.2, "edge", device="TENSORRT",
                                      precision_ran="")  # fmt: skip
        append_jsonl(folder / "bench" / "edge.jsonl", silent)
    files = report([run.root])
    found = row(files.data[0], "student", "onnx-fp32", "edge")
    assert found.same_speedup is None
    assert host(files.data[0], "edge").deploy.artifact is None
    assert "arithmetic unknown" in files.html.read_text(encoding="utf-8")
