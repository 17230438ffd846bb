"""The command line: exit codes, one clear line per mistake, stdout for data."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image

from edgekd import __version__
from edgekd.cli import main
from edgekd.errors import MissingOnHost
from tests import tiny
from tests.tiny_onnx import write_classifier


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__
    assert main(["--help"]) == 0
    assert "distill" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from edgekd.cli import main; main(['--help']); "
        "heavy = {'torch', 'numpy', 'timm', 'onnx', 'onnxruntime', 'openvino', 'sklearn', 'scipy', "
        "'matplotlib', 'pandas', 'pydantic', 'lightning_fabric', 'PIL'} & set(sys.modules); "
        "print(sorted(heavy), file=sys.stderr); sys.exit(bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["distil"], 2, "Did you mean 'distill'"),
        (["distill", "none.yaml"], 2, "no such recipe: none.yaml"),
        (["distill", "quickstrat"], 2, "quickstart"),
        (["bench", "nowhere"], 2, "nowhere"),
        (["report", "nowhere"], 2, "nowhere"),
        (["export", "nowhere"], 2, "nowhere"),
        (["verify", "nowhere"], 2, "nowhere"),
        (["predict", "nowhere", "x.png"], 2, "x.png"),
        (["bench", "nowhere", "--batch", "one"], 2, "--batch one"),
        (["doctor", "lossses"], 2, "lossses"),
        (["recipes", "show", "quickstrat"], 2, "quickstart"),
    ],
)
def test_a_wrong_word_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    found, text = fails(capsys, *arguments)
    assert found == code
    assert message in text


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "none.yaml", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_what_is_not_expected_is_called_a_bug(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.catalog.entries", lambda: 1 / 0)
    code, text = fails(capsys, "recipes", "list")
    assert code == 1
    assert "this is a bug in edgekd: ZeroDivisionError" in text


def test_a_missing_data_root_names_it_and_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny.tree(tmp_path, name="ham10000", params={}, split="8-1-1")
    recipe["data"]["root"] = str(tmp_path / "absent")
    code, text = fails(capsys, "distill", str(tiny.write(tmp_path, recipe)))
    assert code == 2
    assert "absent" in text
    assert "data.root" in text


def folder_data(place: Path, count: int = 12) -> None:
    for name in ("benign", "malignant"):
        (place / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / name / f"{index}.png")


def folder_recipe(tmp_path: Path) -> Path:
    recipe = tiny.tree(tmp_path, name="folder", params={}, split="6-2-2")
    recipe["data"]["root"] = str(tmp_path / "images")
    recipe["task"] = {"name": "classification"}
    return tiny.write(tmp_path, recipe)


def test_an_unreadable_image_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_data(tmp_path / "images")
    (tmp_path / "images" / "benign" / "3.png").write_bytes(b"\x89PNG broken")
    code, text = fails(
        capsys, "distill", str(folder_recipe(tmp_path)), "--out", str(tmp_path / "run")
    )
    assert code == 2
    assert "3.png" in text


def test_data_check_lists_what_is_wrong_and_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_data(tmp_path / "images")
    (tmp_path / "images" / "benign" / "3.png").write_bytes(b"\x89PNG broken")
    assert main(["data", "check", str(folder_recipe(tmp_path)), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "problems"
    assert any("3.png" in text for text in found["broken"])


def test_an_empty_class_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_data(tmp_path / "images")
    for path in (tmp_path / "images" / "malignant").iterdir():
        path.unlink()
    code, text = fails(capsys, "distill", str(folder_recipe(tmp_path)))
    assert code == 2
    assert "malignant" in text


def test_a_class_that_training_never_saw_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_data(tmp_path / "all")
    for part, names in (("train", ["benign"]), ("test", ["benign", "malignant"])):
        for name in names:
            shutil.copytree(tmp_path / "all" / name, tmp_path / "images" / part / name)
    recipe = tiny.tree(tmp_path, name="folder", params={}, split="official")
    recipe["data"]["root"] = str(tmp_path / "images")
    recipe["task"] = {"name": "classification"}
    code, text = fails(capsys, "distill", str(tiny.write(tmp_path, recipe)))
    assert code == 2
    assert "malignant" in text


def test_a_checkpoint_of_another_architecture_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"conv.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    path = tiny.write(tmp_path, tiny.tree(tmp_path))
    code, text = fails(capsys, "distill", str(path), "--out", str(tmp_path / "run"),
                       f"models.student.pretrained={tmp_path / 'other.safetensors'}")  # fmt: skip
    assert code == 2
    assert "another architecture" in text


def test_an_onnx_that_is_not_ours_is_timed_but_not_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_classifier(tmp_path / "own.onnx", size=16, classes=3)
    code = main(["bench", str(tmp_path / "own.onnx"), "--repeats", "10", "--warmup", "1",
                 "--seconds", "0", "--json"])  # fmt: skip
    rows = json.loads(capsys.readouterr().out)
    assert code == 0
    assert rows[0]["scores"] is None
    assert rows[0]["energy_status"] == "not measured"
    (tmp_path / "fake.onnx").write_bytes(b"this is no model")
    code, text = fails(capsys, "bench", str(tmp_path / "fake.onnx"))
    assert code == 2
    assert "fake.onnx" in text


def test_a_full_disk_is_exit_code_4_and_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tiny.write(tmp_path, tiny.tree(tmp_path)))
    overrides = ["stages.teacher.epochs=1", "stages.distill.epochs=1"]
    command = ["distill", path, "--out", str(tmp_path / "runs" / "x"), *overrides]
    calls = 0
    sync = os.fsync

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise OSError(errno.ENOSPC, "No space left on device", "weights")
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        code, text = fails(capsys, *command)
    assert code == 4
    assert "the disk is full" in text
    left = [p for p in tmp_path.rglob("*") if p.name.endswith((".tmp", ".old"))]
    assert left == []
    assert main(command) == 0


def test_a_disk_that_fills_up_while_a_checkpoint_is_written_is_no_bug(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    path = str(tiny.write(tmp_path, tiny.tree(tmp_path)))
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", full)
        code, text = fails(capsys, "distill", path, "--out", str(tmp_path / "runs" / "x"))
    assert code == 4
    assert "the disk is full" in text


@pytest.mark.parametrize(
    ("number", "message"), [(errno.EFBIG, "`ulimit -f`"), (errno.EIO, "input/output error")]
)
def test_a_file_that_cannot_be_written_on_is_no_bug(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))  # as a file's `write` does, without a name

    monkeypatch.setattr("edgekd.catalog.resolve", fail)
    code, text = fails(capsys, "doctor", "x.yaml")
    assert code == 4
    assert message in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("models.student={arch: 'timm:vit_tiny_patch16_224'}", "stages.distill"),
        ("models.student.mean=[0.5]", "models.student.mean"),
        ("data.augment=[hflip:2]", "'hflip:2'"),
        ("stages.teacher.optimizer={name: sgd, nesterov: true, momentum: 0}", "nesterov"),
        ("stages.distll.epochs=2", "there is no 'distll'"),
        ("export.model=other", "there is no model 'other'"),
        ("stages.distill.losses={kd.a: {loss: kd, from: teacher, to: student}}", "kd.a"),
    ],
)
def test_what_cannot_train_is_found_by_doctor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    path = tiny.write(tmp_path, tiny.tree(tmp_path))
    code, text = fails(capsys, "doctor", str(path), override)
    assert code == 2
    assert message in text


def test_recipes_travel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "list", "--json"]) == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert "quickstart" in names
    assert main(["recipes", "show", "quickstart"]) == 0
    shown = capsys.readouterr().out
    target = tmp_path / "mine.yaml"
    assert main(["recipes", "copy", "quickstart", str(target)]) == 0
    assert target.read_text() == shown
    assert main(["recipes", "copy", "quickstart", str(target)]) == 2


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "edgekd recipe"


def test_energy_on_a_machine_without_a_meter_is_said_and_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekd.bench import power

    def absent(root: Path) -> NoReturn:
        raise MissingOnHost("none")

    monkeypatch.setattr(power, "READERS", dict.fromkeys(power.READERS, absent))
    write_classifier(tmp_path / "own.onnx", size=16, classes=3)
    code = main(["bench", str(tmp_path / "own.onnx"), "--repeats", "10", "--warmup", "1",
                 "--seconds", "0", "--energy", "60", "--json"])  # fmt: skip
    said = capsys.readouterr()
    assert code == 0
    assert json.loads(said.out)[0]["energy_status"] == "not measured: none; none; none"
    assert said.err.count("energy not measured") == 1


def test_doctor_knows_the_machine_and_the_plug_ins(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["runtimes"]["onnxruntime"]["available"]
    assert facts["packages"]["numpy"]
    assert set(facts["power"]) == {"ina3221", "tegrastats", "rapl", "nvml"}
    assert "power_mode" in facts["clocks"]
    assert main(["doctor", "losses", "--json"]) == 0
    losses = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"ce", "kd", "dkd", "fitnet"} <= set(losses)
    assert losses["kd"]["params"] == {"temperature": "4.0"}


def test_doctor_tries_a_whole_recipe_without_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny.write(tmp_path, tiny.tree(tmp_path))
    assert main(["doctor", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["models"]["teacher"]["params"] > found["models"]["student"]["params"]
    assert set(found["stages"]["distill"]["terms"]) == {"ce", "kd", "fitnet"}
    assert not (tmp_path / "runs").exists()
    code, text = fails(capsys, "doctor", str(path), "export.make=[onnx-int9]")
    assert code == 2
    assert "onnx-int8" in text


@pytest.mark.parametrize("command", [["recipes", "list"], ["doctor", "tasks"]])
def test_json_is_one_document_on_stdout(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert main([*command, "--json"]) == 0
    json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("seconds", ["2", "0.5", "4.99"])
def test_too_short_an_energy_is_refused_before_anything_is_measured(
    seconds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = fails(capsys, "bench", str(tmp_path / "none.onnx"), "--energy", seconds)
    assert code == 2
    assert "--energy" in text
    assert "5 or more" in text
