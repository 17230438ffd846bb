"""Records on disk: a torn line costs itself and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekd.errors import DataError
from edgekd.results import Measurement, Score, append_jsonl, read_measurements
from tests.bench.measurements import measurement
from tests.tiny_bundle import write_bundle


@pytest.fixture
def row(tmp_path: Path) -> Measurement:
    return measurement(write_bundle(tmp_path / "bundle"), "onnx-fp32", 1.0)


def test_a_torn_last_line_is_passed_over_and_cut_off_by_the_next_row(
    tmp_path: Path, row: Measurement
) -> None:
    path = tmp_path / "host.jsonl"
    append_jsonl(path, row)
    with path.open("ab") as file:
        file.write(b'{"schema_version": 1, "utc": "20')
    assert list(read_measurements(path)) == [row]
    append_jsonl(path, row)
    append_jsonl(path, row)
    assert list(read_measurements(path)) == [row] * 3


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path, row: Measurement) -> None:
    path = tmp_path / "host.jsonl"
    path.write_text("{}\n" + row.model_dump_json() + "\n")
    with pytest.raises(DataError, match=r"host\.jsonl:1: not a measurement"):
        list(read_measurements(path))


def test_a_byte_that_is_not_utf_8_stops_nothing(tmp_path: Path, row: Measurement) -> None:
    path = tmp_path / "host.jsonl"
    append_jsonl(path, row)
    path.write_bytes(path.read_bytes().replace(b'"name":"desk"', b'"name":"d\xe9sk"') * 2)
    assert [found.host for found in read_measurements(path)] == [{"name": "d\ufffdsk"}] * 2


def test_a_row_from_before_energy_was_measured_is_still_read(
    tmp_path: Path, row: Measurement
) -> None:
    tree = json.loads(row.model_dump_json())
    fields = list(tree)
    for name in fields[fields.index("notes") + 1 :]:
        del tree[name]
    assert {"energy_mj", "power_mode", "temperature_c"} & set(tree) == set()
    path = tmp_path / "host.jsonl"
    path.write_text(json.dumps(tree) + "\n" + row.model_dump_json() + "\n")
    old, new = read_measurements(path)
    assert old == new == row
    assert (old.energy_mj, old.energy_status) == (None, "not measured")


def test_a_record_is_read_back_as_it_was() -> None:
    score = Score(value=0.5, low=0.4, high=0.6, images=10, groups=5)
    assert Score.model_validate_json(score.model_dump_json()) == score
