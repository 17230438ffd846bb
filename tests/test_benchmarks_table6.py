"""The timing behind DSP-KD's Table 6: fair turns, ratios of rounds, and one change at a time."""

from __future__ import annotations

import importlib
import itertools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests import tiny_onnx

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "table6.json"


def module(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return module("table6_tables")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return module("table6")


# milliseconds of the teacher and the student with one thread; all threads take half of it
TIMES = {"torch-fp32": (240.0, 12.0), "onnxruntime-fp32": (160.0, 5.0),
         "onnxruntime-int8": (96.0, 6.0), "openvino-fp32": (150.0, 4.0),
         "openvino-int8": (44.0, 2.0)}  # fmt: skip
ROUNDS = [1.0, 1.1, 3.0, 0.9, 1.0, 1.2, 1.0]  # the machine was slower in some, for all


def record(**changes: Any) -> dict[str, Any]:
    times: dict[str, list[float]] = {}
    for form, pair in TIMES.items():
        for name, ms in zip(("Res2Net101", "ShuffleNetV2"), pair, strict=True):
            times[f"{name}/{form}/1"] = [ms * turn for turn in ROUNDS]
            times[f"{name}/{form}/all"] = [ms / 2 * turn for turn in ROUNDS]
    sizes = {"megabytes": dict.fromkeys(TIMES, 5.04), "precision": dict.fromkeys(TIMES, "f32")}
    return {
        "command": "c", "rounds": 7, "block_ms": 100.0, "size": 224, "classes": 8,
        "threads": {"1": 1, "all": 4}, "host": {"cpu": "x", "cores_usable": 4, "load": 0.1},
        "packages": {"torch": "2", "nncf": None},
        "networks": {"Res2Net101": {"params": 43_174_040, "macs": 8_102_000_000, **sizes},
                     "ShuffleNetV2": {"params": 1_261_804, "macs": 148_000_000, **sizes}},
        "step_ms": times, **changes,
    }  # fmt: skip


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"| {start}"))


def test_a_ratio_compares_each_round_with_itself(tables: ModuleType) -> None:
    found = tables.like_for_like(record(), "torch-fp32", "1")
    assert found == pytest.approx((20.0, 20.0, 20.0))  # though rounds differ by three times
    assert tables.ratio(record(), "Res2Net101/torch-fp32/1", "nobody/torch-fp32/1") is None


def test_like_for_like_stands_beside_the_deployed_student(tables: ModuleType) -> None:
    text = tables.ratios(record())
    assert line_of(text, "PyTorch (eager), fp32 | ShuffleNetV2, the same") == (
        "| PyTorch (eager), fp32 | ShuffleNetV2, the same | 20.0x [20.0, 20.0] "
        "| 20.0x [20.0, 20.0] |"
    )
    deployed = line_of(text, "PyTorch (eager), fp32 | ShuffleNetV2, its fastest int8")
    assert deployed.count("120.0x [120.0, 120.0] (OpenVINO, int8)") == 2


def test_the_waterfall_changes_one_thing_at_a_time(tables: ModuleType) -> None:
    cells = [cell for _, cell in tables.steps(record(), "ShuffleNetV2")]
    assert cells == ["Res2Net101/torch-fp32/1", "ShuffleNetV2/torch-fp32/1",
                     "ShuffleNetV2/openvino-fp32/1", "ShuffleNetV2/openvino-int8/1",
                     "ShuffleNetV2/openvino-int8/all"]  # fmt: skip
    parts = [cell.split("/") for cell in cells]
    for before, after in itertools.pairwise(parts):
        forms = [(*one[0:1], *one[1].split("-"), one[2]) for one in (before, after)]
        assert sum(a != b for a, b in zip(*forms, strict=True)) == 1
    text = tables.waterfall(record(), "ShuffleNetV2")
    factors = [float(row.split("× ")[1].split()[0]) for row in text.splitlines()[3:]]
    assert factors == [20.0, 3.0, 2.0, 2.0]
    assert text.splitlines()[-1].endswith("| 240.0x [240.0, 240.0] |")
    assert np.prod(factors) == 240


def test_the_fastest_int8_may_be_of_another_runtime(tables: ModuleType) -> None:
    found = record()
    for threads in ("1", "all"):
        found["step_ms"][f"ShuffleNetV2/onnxruntime-int8/{threads}"] = [0.5] * 7
    assert tables.best_int8(found, "ShuffleNetV2", "all") == "onnxruntime-int8"
    assert "runtime: ONNX Runtime" in tables.waterfall(found, "ShuffleNetV2")


def test_the_published_ratios_are_both_there(tables: ModuleType) -> None:
    text = tables.printed()
    assert line_of(text, "DSP-KD").endswith("| 0.023 (?) | 12.9x |")
    assert line_of(text, "ShuffleNetV2_student").endswith("| 0.046 | 6.5x |")
    assert tables.published_ratio("DSP-KD") == pytest.approx(0.297 / 0.023)


def test_what_was_not_timed_says_so(tables: ModuleType) -> None:
    made = tables.blocks(None)
    assert {made[f"table6-{name}"] for name in ("facts", "times", "ratios", "waterfall")} == {
        tables.NOT_RUN_YET
    }
    empty = tables.blocks(record(step_ms={}))
    rows = empty["table6-ratios"].splitlines()[2:]
    assert all(row.endswith("| not run | not run |") for row in rows)
    assert "nan" not in "".join(empty.values())


def test_a_machine_that_was_busy_is_named(tables: ModuleType) -> None:
    assert "busy" not in tables.facts(record())
    host = {"cpu": "x", "cores_usable": 2, "load": 3.2}
    assert "**The machine was busy before it began (load 3.2).**" in tables.facts(record(host=host))


def test_all_cells_have_a_turn_in_every_round_in_changing_order(script: ModuleType) -> None:
    turns: list[str] = []

    def cell(name: str) -> Any:
        def turn(least_ms: float, warm_ms: float) -> float:
            turns.append(name)
            return float(len(turns))

        return turn

    names = ["a", "b", "c", "d"]
    times = script.measure({name: cell(name) for name in names}, 8, 100.0, 50.0)
    assert {name: len(found) for name, found in times.items()} == dict.fromkeys(names, 8)
    rounds = [turns[start : start + 4] for start in range(0, 32, 4)]
    assert all(sorted(one) == names for one in rounds)
    assert len({tuple(one) for one in rounds}) > 4  # nobody always comes after the same other


def clock_of(each_ms: float) -> tuple[Any, Any]:
    """A call that takes so long on a clock of its own."""
    now = [0.0]

    def call() -> None:
        now[0] += each_ms / 1000

    return call, lambda: now[0]


@pytest.mark.parametrize(("each", "runs"), [(7.0, 15), (230.0, 3)])
def test_a_block_lasts_at_least_so_long_and_so_many_calls(
    script: ModuleType, each: float, runs: int
) -> None:
    call, clock = clock_of(each)
    count = iter(range(1000))

    def counted() -> None:
        next(count)
        call()

    assert script.block(counted, 100.0, 0.0, clock) == pytest.approx(each)
    assert next(count) == script.LEAST_RUNS + runs  # those of the warm-up do not count


def test_pictures_to_calibrate_on_are_the_same_each_time(script: ModuleType) -> None:
    one = script.noise(2, 30)
    assert one.shape == (2, 30, 30, 3)
    assert one.dtype == np.uint8
    assert (one == script.noise(2, 30)).all()
    assert one.std() > 40


def test_every_form_has_its_file(script: ModuleType, tables: ModuleType, tmp_path: Path) -> None:
    paths = {form: script.file_of(tmp_path, form) for form in tables.FORMS}
    assert len(set(paths.values())) == 5
    assert paths["onnxruntime-int8"] == tmp_path / "onnxruntime" / "model.int8.onnx"
    assert paths["openvino-fp32"] == tmp_path / "openvino" / "model.fp32.xml"
    for suffix in (".xml", ".bin"):
        path = paths["openvino-fp32"].with_suffix(suffix)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 500_000)
    assert script.megabytes(tmp_path, "openvino-fp32") == 1.0


@pytest.mark.parametrize(
    ("given", "said"),
    [(["--rounds", "3"], "at least 7"), (["--students", "ResNet18"], "no such student: ResNet18"),
     (["--students", "Res2Net101"], "no such student: Res2Net101")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    script: ModuleType, capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    with pytest.raises(SystemExit):
        script.main(given)
    assert said in capsys.readouterr().err


def fake_make(name: str, folder: Path, size: int, calibration: int) -> dict[str, Any]:
    assert (size, calibration) == (64, 4)
    return {"params": 1_000_000, "macs": 10_000_000, "precision": {},
            "megabytes": dict.fromkeys(TIMES, 1.0)}  # fmt: skip


class FakeCell:
    open = 0

    def __init__(self, folder: Path, form: str, threads: int, size: int) -> None:
        self.ms = TIMES[form][folder.name != "Res2Net101"] / threads
        self.precision = "i8" if "int8" in form else "f32"
        FakeCell.open += 1

    def turn(self, least_ms: float, warm_ms: float) -> float:
        return self.ms

    def close(self) -> None:
        FakeCell.open -= 1


@pytest.fixture
def faked(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(script, "make", fake_make)
    monkeypatch.setattr(script, "Cell", FakeCell)
    monkeypatch.setattr(script, "usable_cores", lambda: 2)
    return script


def test_a_quick_run_touches_no_document(
    faked: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ROOT / "docs" / "papers" / "dspkd.md"
    before, had = page.read_bytes(), RESULTS.is_file()
    path = tmp_path / "quick.json"
    assert faked.main(["--quick", "--results", str(path)]) == 0
    assert FakeCell.open == 0
    assert page.read_bytes() == before
    assert RESULTS.is_file() == had
    found = json.loads(path.read_text(encoding="utf-8"))
    assert len(found["step_ms"]) == 2 * 5 * 2
    assert {len(times) for times in found["step_ms"].values()} == {2}
    assert found["threads"] == {"1": 1, "all": 2}
    assert found["networks"]["ShuffleNetV2"]["precision"]["openvino-int8"] == "i8"
    said = capsys.readouterr().out
    assert "| openvino" not in said
    assert "| ShuffleNetV2 | 1.000 | 10 | OpenVINO, int8 | i8 | 1.0 | 2.00 | 1.00 |" in said


def test_a_cell_is_a_process_that_answers_when_asked(script: ModuleType, tmp_path: Path) -> None:
    tiny_onnx.write_classifier(tmp_path / "model.fp32.onnx", size=16)
    cell = script.Cell(tmp_path, "onnxruntime-fp32", 1, 16)
    try:
        assert cell.precision == "f32"
        assert cell.turn(1.0, 1.0) > 0
        assert cell.turn(1.0, 1.0) > 0
    finally:
        cell.close()
    assert cell.process.poll() is not None


def test_a_cell_that_ends_is_named(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"onnxruntime-fp32 1 16: it ended without an answer"):
        script.Cell(tmp_path, "onnxruntime-fp32", 1, 16)


def test_what_is_published_was_timed_as_it_should_be(tables: ModuleType) -> None:
    if not RESULTS.is_file():
        pytest.skip("not run yet")
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert found["rounds"] >= 7
    assert found["block_ms"] >= 100
    assert found["size"] == 224
    assert {len(times) for times in found["step_ms"].values()} == {found["rounds"]}
    assert len(found["step_ms"]) == 2 * len(tables.FORMS) * len(found["networks"])
