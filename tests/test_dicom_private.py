"""Nothing of a patient gets out of a DICOM file: what is planted in its tags is looked for in
everything that edgekd prints or writes."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.cli import main
from edgekd.results import Predictions
from tests import tiny
from tests.dicom_files import SECRET, SECRETS, planted
from tests.tiny_bundle import CLASSES, write_bundle

CLASS_NAMES = ("benign", "malignant")
QUICK = ("--warmup", "1", "--repeats", "10", "--seconds", "0")


def picture(seed: int, is_bright: bool) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 1500, (28, 24))
    values[8:20, 8:20] += 2500 if is_bright else 500
    return values.astype(np.uint16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four pictures of either class, some without an ending, each with a patient in it."""
    root = tmp_path_factory.mktemp("data")
    for number in range(48):
        label = CLASS_NAMES[number % 2]
        path = root / label / (f"IM{number:04d}" if number % 4 < 2 else f"{number}.dcm")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(planted(picture(number, label == "malignant"), BitsStored=12,
                                 WindowCenter=2000, WindowWidth=4000))  # fmt: skip
    return root


@pytest.fixture(scope="module")
def recipe(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    tree = tiny.tree(folder, name="folder", root=str(data), params={}, split="8-1-1",
                     input={"size": 24})  # fmt: skip
    tree["task"] = {"name": "classification"}
    del tree["models"]["teacher"], tree["stages"]["teacher"], tree["export"]["reference"]
    losses = {"ce": {"to": "student"}}
    tree["stages"]["distill"] = {"train": ["student"], "losses": losses, "epochs": 1}
    tree["export"]["make"] = ["onnx-fp32"]
    return tiny.write(folder, tree)


def assert_clean(text: str, where: str) -> None:
    found = SECRETS.search(text)
    assert found is None, f"{where}: {found}"


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    """Exit code and what was printed, which holds nothing that was planted."""
    code = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert_clean(printed.out + printed.err, f"edgekd {arguments[0]}")
    return code, printed.out


def assert_clean_folder(folder: Path, least: int) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= least
    for path in files:
        assert_clean(path.read_bytes().decode("latin-1"), str(path))
        if path.suffix == ".npz":  # packed
            kept = Predictions.load(path)
            assert_clean(" ".join([*kept.ids, *kept.groups]), str(path))


def test_what_is_planted_would_be_found(data: Path) -> None:
    texts = [path.read_bytes().decode("latin-1") for path in data.rglob("*") if path.is_file()]
    assert len(texts) == 48
    assert all(len(SECRETS.findall(text)) > 25 for text in texts)


@pytest.mark.slow
def test_from_the_data_to_the_report(
    data: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    code, said = run(capsys, "data", "check", recipe)
    assert (code, "24x28 (48)" in said) == (0, True)
    run(capsys, "data", "check", recipe, "--json")
    assert run(capsys, "data", "prepare", recipe, "--out", tmp_path / "copy", "--json")[0] == 0
    assert_clean_folder(tmp_path / "copy", 3)
    out = tmp_path / "runs" / "tiny"
    assert run(capsys, "run", recipe, "--out", out, f"data.prepared={tmp_path / 'copy'}")[0] == 0
    code, said = run(capsys, "bench", out, "--data", data, *QUICK, "--json")
    assert code == 0
    rows = json.loads(said)
    rows = rows["measurements"] if isinstance(rows, dict) else rows
    assert rows[0]["phases_ms"]["decode_dicom"]["p50"] > 0
    assert run(capsys, "report", out, "--json")[0] == 0
    assert list((out / "report").glob("*.html"))
    for format in ((), ("--json",)):
        code, said = run(capsys, "predict", out, data, *format)
        assert code == 0
    assert len(json.loads(said)) == 48
    assert_clean_folder(tmp_path / "runs", 20)
    assert_clean(caplog.text, "logs")
    memory = Path(os.environ["EDGEKD_CACHE"]) / "digests.sqlite"
    assert_clean("\n".join(sqlite3.connect(memory).iterdump()), "cache")


BROKEN: list[dict[str, Any]] = [
    {"NumberOfFrames": 3},
    {"Rows": 99},
    {"PhotometricInterpretation": f"{SECRET}"},
    {"WindowCenter": 1, "WindowWidth": 2, "VOILUTFunction": SECRET},
    {"BitsAllocated": 32},
    {"SpecificCharacterSet": f"{SECRET}"},
]


@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_errors_name_the_file_and_nothing_in_it(
    debug: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    write_bundle(tmp_path / "bundle")
    (tmp_path / "pictures").mkdir()
    whole = planted(picture(0, True), WindowCenter=1, WindowWidth=12345678)
    files = [planted(picture(0, True), **elements) for elements in BROKEN]
    files += [whole.replace(b"12345678", b"Zyxomma "), whole[: len(whole) // 2], whole[:900]]
    caplog.clear()  # pydicom quotes what it is given to write
    predict = ("predict", tmp_path / "bundle")
    for number, content in enumerate(files):
        path = tmp_path / "pictures" / f"{number}.dcm"
        path.write_bytes(content)
        run(capsys, *predict, path, *debug)
    code, said = run(capsys, *predict, tmp_path / "pictures", "--json", *debug)
    rows = json.loads(said)
    assert code == 2
    assert sum(row["error"] is not None for row in rows) == len(files) - 1  # a strange alphabet
    assert all(row["file"] in (row["error"] or row["file"]) for row in rows)
    assert_clean(caplog.text, "logs")


def test_folders_give_stable_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(tmp_path / "bundle")
    for name in ("b/IM2", "a.dcm", "b/c/IM1", "b/.trash/IM3", "b/DICOMDIR"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(planted(picture(1, True)))
    found = []
    for _ in range(2):
        code, said = run(capsys, "predict", tmp_path / "bundle", tmp_path / "pictures", "--json")
        assert code == 0
        rows = json.loads(said)
        for row in rows:
            assert list(row) == sorted(row)
            spent = row.pop("latency_ms")
            assert list(spent) == ["decode", "infer", "postprocess", "preprocess", "total"]
            assert sum(spent.values()) == pytest.approx(2 * spent["total"], abs=1e-3)
            assert min(spent.values()) >= 0
        found.append(rows)
    assert found[0] == found[1]
    names = [Path(row["file"]).relative_to(tmp_path / "pictures").as_posix() for row in found[0]]
    assert names == ["a.dcm", "b/IM2", "b/c/IM1"]
    assert list(found[0][0]) == [
        "artifact", "error", "file", "flags", "label", "probabilities", "probability", "runtime",
    ]  # fmt: skip
    assert sorted(found[0][0]["probabilities"]) == sorted(CLASSES)


def test_a_picture_that_is_not_dicom_loads_no_pydicom(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    code = f"""
import sys
from pathlib import Path
from edgekd.predict import predict
rows = list(predict(Path({str(tmp_path / "bundle")!r}), [Path({str(tmp_path / "bundle")!r})]))
assert len(rows) == 8, rows
assert not [name for name in sys.modules if name.split(".")[0] == "pydicom"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
