"""Which measurements the report shows, and what it says where a runtime does not say enough."""

from __future__ import annotations

import csv
import io

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


def test_energy_stands_beside_the_latency_or_is_not_measured(copy_run: Copy) -> None:
    run = copy_run()
    manifest = read_manifest(run.bundle)
    known = {"energy_mj": 12.34, "energy_mj_low": 11.0, "energy_mj_high": 13.5, "idle_w": 5.0,
             "load_w": 8.0, "energy_gross_mj": 32.9, "power_source": "ina3221 VDD_IN",
             "power_mode": "15W (0), schedutil"}  # fmt: skip
    for name, more in (("onnx-fp32", known), ("onnx-int8", {})):
        made = fake_run.measurement(run.bundle, manifest, name, 0.2, "edge", **more)
        append_jsonl(run.bundle / "bench" / "edge.jsonl", made)
    files = report([run.root])
    rows = list(csv.DictReader(io.StringIO(files.csv.read_text(encoding="utf-8"))))
    found = {row["artifact"]: row for row in rows
             if (row["host"], row["metric"]) == ("edge", "energy_per_image")}  # fmt: skip
    line = found["onnx-fp32"]
    assert (line["value"], line["low"], line["high"], line["unit"]) == ("12.34", "11", "13.5", "mJ")
    assert (found["onnx-int8"]["value"], found["onnx-int8"]["status"]) == ("", "not measured")
    text = files.markdown.read_text(encoding="utf-8").replace("\\", "")  # escapes of brackets
    assert "12.3 [11.0, 13.5]" in text
    assert "read from ina3221 VDD_IN." in text
    assert "Power mode: 15W (0), schedutil." in text


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
