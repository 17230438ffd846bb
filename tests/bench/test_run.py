"""`bench` on a tiny bundle: what is measured, what is kept, what is passed over."""

from __future__ import annotations

import io
import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgekd.bench import memory, run
from edgekd.bench.energy import Sampler, measure_energy
from edgekd.bench.meter import Meter
from edgekd.bench.phases import NAMES
from edgekd.bench.run import bench, is_measured
from edgekd.bench.table import table
from edgekd.errors import BundleError, MissingOnHost
from edgekd.host import host_name
from edgekd.results import Measurement, append_jsonl, read_measurements
from edgekd.runtimes.base import RunOptions
from edgekd.runtimes.onnxruntime import OnnxRuntime
from edgekd.runtimes.session import open_session
from tests.tiny_bundle import gate, write_bundle
from tests.tiny_onnx import write_classifier

QUICK: dict[str, Any] = {
    "warmup": 1,
    "warmup_s": 0.0,
    "repeats": 10,
    "seconds": 0.0,
    "memory": False,
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


def printed(rows: list[Measurement], target: Path) -> str:
    console = Console(width=250, file=io.StringIO())
    with console.capture() as capture:
        console.print(table(rows, target))
    return capture.get()


def test_every_artifact_at_every_batch_is_measured_and_kept(bundle: Path) -> None:
    rows = bench(bundle, batches=(1, 2), **QUICK)
    assert [(row.artifact, row.batch) for row in rows] == [
        ("onnx-fp32", 1), ("onnx-fp32", 2), ("onnx-int8", 1), ("onnx-int8", 2),
    ]  # fmt: skip
    kept = bundle / "bench" / f"{host_name()}.jsonl"
    assert list(read_measurements(kept)) == rows


def test_a_second_bench_adds_to_the_first(bundle: Path) -> None:
    for _ in range(2):
        bench(bundle, artifacts=["onnx-fp32"], **QUICK)
    assert len((bundle / "bench" / f"{host_name()}.jsonl").read_text().splitlines()) == 2


def test_a_row_says_what_ran_and_how(bundle: Path) -> None:
    (row,) = bench(bundle, artifacts=["onnx-fp32"], batches=(2,), threads=1, **QUICK)
    assert (row.model, row.role, row.file) == ("student", "student", "model.fp32.onnx")
    assert (row.precision_asked, row.precision_ran) == ("fp32", "f32")
    assert (row.device, row.threads, row.input_shape) == ("CPU", 1, [2, 3, 16, 16])
    assert row.repeats == len(row.samples_ms) == 10
    assert row.latency_p50_low <= row.latency_ms.p50 <= row.latency_p50_high
    assert row.host["name"] == host_name()
    assert row.runtime_version


def test_the_phases_of_one_image_are_told_apart(bundle: Path) -> None:
    (row,) = bench(bundle, artifacts=["onnx-fp32"], **QUICK)
    assert tuple(row.phases_ms) == NAMES
    parts = sum(row.phases_ms[name].mean for name in NAMES[:-1])
    assert row.phases_ms["total"].mean == pytest.approx(parts)


def test_a_bundle_is_measured_once_every_artifact_is_at_every_batch(bundle: Path) -> None:
    assert not is_measured(bundle, [1], threads=0, repeats=10)
    bench(bundle, artifacts=["onnx-fp32"], **QUICK)
    assert not is_measured(bundle, [1], threads=0, repeats=10)
    bench(bundle, artifacts=["onnx-int8"], **QUICK)
    assert is_measured(bundle, [1], threads=0, repeats=10)
    assert not is_measured(bundle, [1, 2], threads=0, repeats=10)


def test_a_measurement_with_other_settings_does_not_count(bundle: Path) -> None:
    bench(bundle, threads=1, **QUICK)
    assert is_measured(bundle, [1], threads=1, repeats=10)
    assert is_measured(bundle, [1], threads=0, repeats=5)
    assert not is_measured(bundle, [1], threads=2, repeats=10)
    assert not is_measured(bundle, [1], threads=1, repeats=11)


def test_a_measurement_on_another_device_does_not_count(bundle: Path) -> None:
    rows = bench(bundle, out=bundle.parent / "elsewhere.jsonl", **QUICK)
    for row in rows:
        gpu = row.model_copy(update={"device": "CUDA"})
        append_jsonl(bundle / "bench" / f"{host_name()}.jsonl", gpu)
    assert not is_measured(bundle, [1], threads=0, repeats=10)


def test_looking_inside_is_not_part_of_the_load_time(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(self: OnnxRuntime) -> None:
        time.sleep(3.0)
        self.facts.precision = "i8"

    monkeypatch.setattr(OnnxRuntime, "_inspect", slow)
    (row,) = bench(bundle, artifacts=["onnx-int8"], **QUICK)
    assert row.load_s < 2.0
    assert row.precision_ran == "i8"


def test_the_process_for_peak_memory_does_not_look_inside(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(self: OnnxRuntime) -> None:
        raise AssertionError

    monkeypatch.setattr(OnnxRuntime, "_inspect", never)
    job = {"path": str(bundle / "model.int8.onnx"), "runtime": "onnxruntime", "input": "input",
           "type": "float32", "shape": [1, 3, 16, 16], "options": {"batch": 1}}  # fmt: skip
    memory._main(json.dumps(job))
    assert float(capsys.readouterr().out) > 0


def test_arithmetic_that_is_not_known_is_called_so(bundle: Path) -> None:
    rows = bench(bundle, artifacts=["onnx-fp32"], **QUICK)
    silent = rows[0].model_copy(update={"device": "TENSORRT", "precision_ran": ""})
    assert " unknown " in printed([silent], bundle)


def test_measuring_leaves_the_bundle_intact(bundle: Path) -> None:
    bench(bundle, artifacts=["onnx-fp32"], **QUICK)
    bench(bundle, artifacts=["onnx-fp32"], **QUICK)  # verifies it again


def test_what_was_refused_is_passed_over_unless_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path, int8=gate("refused"))
    rows = bench(tmp_path, **QUICK)
    assert [row.artifact for row in rows] == ["onnx-fp32"]
    assert "onnx-int8: refused by its gate, not measured" in capsys.readouterr().err
    assert "refused" in printed(rows, tmp_path)
    (row,) = bench(tmp_path, artifacts=["onnx-int8"], **QUICK)
    assert row.gate == "refused"
    assert "do not deploy it" in capsys.readouterr().err


def test_an_artifact_without_its_runtime_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgekd.runtimes.base import Probe
    from edgekd.runtimes.openvino import OpenVino

    write_bundle(tmp_path, openvino=True)
    absent = classmethod(lambda cls: Probe(False, reason="not installed"))
    monkeypatch.setattr(OpenVino, "probe", absent)
    assert {row.runtime for row in bench(tmp_path, **QUICK)} == {"onnxruntime"}
    assert "openvino-fp32: not measured" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(OnnxRuntime, "probe", absent)
    with pytest.raises(MissingOnHost, match="nothing can be measured here") as caught:
        bench(tmp_path, **QUICK)
    assert caught.value.hint == "pip install 'edgekd[onnxruntime,openvino]'"
    with pytest.raises(MissingOnHost) as caught:
        bench(tmp_path, runtime="openvino", **QUICK)
    assert caught.value.hint == "pip install 'edgekd[openvino]'"


def test_another_runtime_measures_what_it_can_read(tmp_path: Path) -> None:
    write_bundle(tmp_path, openvino=True)
    rows = bench(tmp_path, runtime="openvino", **QUICK)
    assert sorted(row.artifact for row in rows) == ["onnx-fp32", "onnx-int8", "openvino-fp32"]
    assert {row.runtime for row in rows} == {"openvino"}


def test_an_unwritable_place_is_found_out_first(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        bench(bundle, out=tmp_path / "file" / "rows.jsonl", **QUICK)


def test_a_foreign_model_is_timed_and_keeps_no_file(tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "theirs.onnx")
    (row,) = bench(path, **QUICK)
    assert (row.model, row.role, row.gate, row.phases_ms) == ("theirs", "model", None, {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["theirs.onnx"]
    assert "Deploy" not in printed([row], path)


def test_a_foreign_model_cannot_be_scored(tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "theirs.onnx")
    with pytest.raises(BundleError, match="can be timed, not scored"):
        bench(path, data=tmp_path, **QUICK)


def test_peak_memory_is_that_of_a_process_of_its_own(bundle: Path) -> None:
    settings = {**QUICK, "memory": True}
    (row,) = bench(bundle, artifacts=["onnx-fp32"], **settings)
    assert row.peak_memory_mb is not None
    assert 10 < row.peak_memory_mb < 2000


def test_that_process_runs_nothing_of_the_working_folder(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    for name in ("json", "re", "numpy", "edgekd"):
        (tmp_path / "work" / f"{name}.py").write_text("raise SystemExit('a stranger ran')\n")
    monkeypatch.chdir(tmp_path / "work")
    for safe in (memory.SAFE, {}):  # Python 3.10 does not know the variable
        monkeypatch.setattr(memory, "SAFE", safe)
        with open_session(bundle) as session:
            assert memory.peak_memory_mb(session, RunOptions())[1] is None


def test_the_table_ends_with_what_to_deploy(bundle: Path) -> None:
    rows = bench(bundle, **QUICK)
    lines = printed(rows, bundle).strip().splitlines()
    assert lines[-1].startswith("Deploy on this host: onnx-")
    assert json.loads(rows[0].model_dump_json())["artifact"] == "onnx-fp32"


class TestEnergy:
    """The machine of the tests has whatever it has, so the meter is put in its place."""

    @pytest.fixture
    def meter(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """A gauge that says 5 W at rest and then 8 W; it keeps what happens around its readings."""
        log: list[str] = []
        watts = itertools.cycle([5.0] * READINGS + [8.0] * READINGS)

        def read() -> float:
            log.append("reading")
            return next(watts)

        gauge = Meter("test", read, is_counter=False, period_s=60.0)
        timing = run.measure

        def timed(*arguments: Any, **options: Any) -> Any:
            log.append("timing")
            found = timing(*arguments, **options)
            log.append("timed")
            return found

        monkeypatch.setattr(run, "measure", timed)
        monkeypatch.setattr("edgekd.bench.energy.find_meter", lambda device, root: gauge)
        monkeypatch.setitem(energy_kwargs(), "settle_s", 0.0)
        monkeypatch.setitem(energy_kwargs(), "sampler", Prompt)
        return log

    def test_it_is_measured_after_the_timing_and_never_during_it(
        self, bundle: Path, meter: list[str]
    ) -> None:
        rows = bench(bundle, batches=(1, 2), energy=0.002, **QUICK)
        steps = [step for step, _ in itertools.groupby(meter)]
        assert steps == ["timing", "timed", "reading"] * 4
        for row in rows:
            assert row.energy_status == "measured"
            assert row.load_w == pytest.approx(8.0)
            assert row.idle_w == pytest.approx(5.0)
            assert row.energy_images is not None
            assert row.energy_s is not None
            assert row.energy_images % row.batch == 0
            gross = row.load_w * 1e3 * row.energy_s / row.energy_images
            assert row.energy_gross_mj == pytest.approx(gross)
        text = printed(rows, bundle)
        assert "mJ/image" in text
        assert "onnx-fp32, batch 2: 8 W at work less 5 W at rest (test)" in text

    def test_off_unless_asked_for(self, bundle: Path, meter: list[str]) -> None:
        (row,) = bench(bundle, artifacts=["onnx-fp32"], **QUICK)
        assert (row.energy_status, row.energy_mj) == ("not measured", None)
        assert "reading" not in meter
        assert "mJ" not in printed([row], bundle)

    def test_a_machine_without_a_meter_says_so_once_and_goes_on(
        self, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def absent(device: str, root: Path) -> Meter:
            raise MissingOnHost("no counters")

        monkeypatch.setattr("edgekd.bench.energy.find_meter", absent)
        rows = bench(bundle, energy=60.0, **QUICK)
        assert [row.energy_status for row in rows] == ["not measured: no counters"] * 2
        assert capsys.readouterr().err.count("energy not measured: no counters") == 1
        text = printed(rows, bundle)
        assert text.count("energy not measured: no counters") == 1
        assert text.count("│ not measured") == 2

    def test_how_the_machine_was_set_is_said_once(self, bundle: Path) -> None:
        rows = bench(bundle, **QUICK)
        seen = {"power_mode": "15W (0), schedutil", "format_unverified": ["power_mode"]}
        known = [row.model_copy(update=seen) for row in rows]
        text = printed(known, bundle)
        assert text.count("power mode: 15W (0), schedutil (format unverified)") == 1
        assert "power mode" not in printed(
            [row.model_copy(update={"power_mode": None}) for row in rows], bundle
        )


READINGS = 13  # of one stretch


class Prompt(Sampler):
    """Takes its readings at once: no test waits for a thread."""

    def __enter__(self) -> Prompt:
        for _ in range(READINGS - 1):
            self.take()
        return self

    def __exit__(self, *error: object) -> None:
        self.take()


def energy_kwargs() -> dict[str, Any]:
    """The defaults of `measure_energy`, of which a test may change one."""
    found = measure_energy.__kwdefaults__
    assert found is not None
    return found
