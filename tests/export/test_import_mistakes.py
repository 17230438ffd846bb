"""What `edgekd import` refuses, and what it leaves behind then: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.bundle import open_bundle, read_manifest
from edgekd.rundir import only_one_on
from tests import foreign_onnx as foreign
from tests.export.imports import (
    CLASSES,
    edgekd,
    fails,
    pictures,
)


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["none.onnx", *CLASSES], "no such model file: none.onnx"),
            (["notes.txt", *CLASSES], "notes.txt is not an ONNX model"),
            (["weights.pt", *CLASSES], "torch.onnx.export"),
            (["torn.onnx", *CLASSES], "torn.onnx is not an ONNX model, or it is truncated"),
            (["student.onnx"], "--classes benign,malignant"),
            (["student.onnx", "--classes", "a,b"], "expected (N, 2)"),
            (["student.onnx", "--classes", "a,b,a"], "names 'a' twice"),
            (["student.onnx", "--classes", "a"], "two or more names"),
            (["student.onnx", *CLASSES, "--input-size", "24"], "16 pixels, asked was 24"),
            (["student.onnx", *CLASSES, "--resize", "8"], "resize must be at least size"),
            (["student.onnx", *CLASSES, "--task", "klassification"], "'classification'?"),
            (["student.onnx", *CLASSES, "--mean", "120"], "--scale 255"),
            (["student.onnx", *CLASSES, "--std", "1,2"], "expected three numbers"),
            (["student.onnx", *CLASSES, "--mean", "nan"], "expected three numbers"),
            (["student.onnx", *CLASSES, "--std", "nan,1,1"], "expected three numbers"),
            (["student.onnx", *CLASSES, "--scale", "inf"], "expected a number above 0"),
            (["student.onnx", *CLASSES, "models.student.mean=0"], "--mean, --std, --scale say"),
            (["student.onnx", "--recipe", "x.yaml", "stages={}"], "an import has no stages"),
            (["student.onnx", *CLASSES, "--name", "../x"], "name"),
            (["student.onnx", *CLASSES, "--out", "notes.txt"], "notes.txt is a file"),
            (["student.onnx", *CLASSES, "--out", "."], "is not a bundle"),
            (["student.onnx", *CLASSES, "--make", "onnx-int8"], "data.name=folder data.root="),
            (["student.onnx", *CLASSES, "--make", "onnx-int4"], "no artifact 'onnx-int4'"),
            (["student.onnx", *CLASSES, "data.root=images"], "data.name: this key is missing"),
            (
                ["student.onnx", "data.name=folder", "data.root=nowhere"],
                "no such file or folder: no",
            ),
            (["student.onnx", *CLASSES, "data.title=folder"], "data.name: this key is missing"),
            (["student.onnx", *CLASSES, "dat.name=folder"], "dat: unknown key"),
            (["student.onnx", *CLASSES, "nonsense"], "is not KEY=VALUE"),
            (["student.onnx", "--recipe", "none.yaml"], "no such recipe"),
            (["free.onnx", *CLASSES], "--input-size 224"),
        ],
    )
    def test_a_mistake_is_one_clear_line(self, student, capsys, arguments, message):
        foreign.write(Path("free.onnx"), size="side")
        Path("torn.onnx").write_bytes(student.read_bytes()[:-40])
        Path("notes.txt").write_text("hello " * 100)
        Path("weights.pt").write_bytes(b"PK\x03\x04" + bytes(100))
        text = fails(capsys, "import", *arguments)
        assert message in text
        assert len(text.splitlines()) <= 2

    def test_classes_must_be_those_of_the_data_in_their_order(self, student, capsys):
        data = pictures(Path("images"))
        text = fails(capsys, "import", student, "--classes", "malignant,benign,other", *data)
        assert "malignant, benign, other; the data has another order: benign, malignant" in text
        assert "data.params.classes=[malignant,benign,other]" in text
        assert "a, b, c" in fails(capsys, "import", student, "--classes", "a,b,c", *data)

    def test_what_is_there_already_is_not_overwritten(self, student, capsys):
        edgekd("import", student, *CLASSES)
        hint = "--out FOLDER or --name NAME"
        there = ["--out", "runs/student/bundle", "--name", "other"]
        assert hint in fails(capsys, "import", student, *CLASSES, *there)
        others = ["--classes", "x,y,z"]
        assert "--replace" in fails(capsys, "import", student, *others)
        (kept,) = Path("runs/student/bundle").glob("*.onnx")
        before = kept.read_bytes()
        foreign.write(student, extra=["feature"])
        text = fails(capsys, "import", student, *CLASSES)
        assert "is the bundle of another student.onnx" in text
        assert "--name NAME for a second bundle, or --replace" in text
        assert kept.read_bytes() == before
        assert edgekd("import", student, *others, "--replace") == 0
        assert read_manifest(Path("runs/student/bundle")).classes == ["x", "y", "z"]

    def test_nor_is_the_run_of_a_recipe(self, student, capsys):
        edgekd("import", student, *CLASSES)
        Path("runs/student/recipe.yaml").write_text("edgekd: 1\n", encoding="utf-8")
        text = fails(capsys, "import", student, *CLASSES)
        assert "runs/student is the run of a recipe" in text

    def test_two_at_once_are_told_apart(self, student, capsys):
        bundle = Path("runs/student/bundle")
        for arguments in (["import", student, *CLASSES], ["export", bundle]):
            with only_one_on(bundle):
                assert edgekd(*arguments) == 2
            assert "another edgekd is working on" in capsys.readouterr().err
            assert edgekd(*arguments) == 0
        assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle"]

    def test_a_place_that_cannot_be_written_to_is_no_bug(self, student, capsys):
        Path("file").write_text("")
        text = fails(capsys, "import", student, *CLASSES, "--out", "file/bundle")
        assert "nothing can be written there" in text

    def test_a_link_stays_a_link(self, student, tmp_path):
        Path("disk").mkdir()
        Path("link").symlink_to("disk/bundle")
        for arguments in (["import", student, *CLASSES, "--out", "link"],
                          ["export", "link", "--make", "openvino-fp32"]):  # fmt: skip
            assert edgekd(*arguments) == 0
            assert Path("link").is_symlink()
        assert sorted(open_bundle(Path("disk/bundle")).artifacts) == ["onnx-fp32", "openvino-fp32"]
        assert [path.name for path in Path("disk").iterdir()] == ["bundle"]

    def test_ctrl_c_says_that_nothing_was_written(self, student, capsys, monkeypatch):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("edgekd.export.adopt.prove_same", interrupt)
        assert edgekd("import", student, *CLASSES) == 130
        assert "hint: nothing was written" in capsys.readouterr().err
        assert not Path("runs").exists()

    def test_a_failure_at_the_end_leaves_nothing(self, student, capsys, monkeypatch):
        monkeypatch.setattr("edgekd.export.same.TOLERANCE", -1.0)
        assert "its logits differ by" in fails(capsys, "import", student, *CLASSES)


@pytest.mark.parametrize("blocked", ["torch", "onnx", "onnxruntime"])
def test_it_needs_onnx_and_onnxruntime_and_no_torch(student, blocked, tmp_path):
    names = {"torch": ["torch", "torchvision", "timm", "safetensors", "nncf", "onnxscript"]}
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {names.get(blocked, [blocked])!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "edgekd", "import", str(student), *CLASSES],
        env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == (0 if blocked == "torch" else 4), done.stderr
    assert Path("runs").exists() == (blocked == "torch")
    if blocked != "torch":
        assert f"edgekd import needs the package '{blocked}'" in done.stderr
        assert "pip install 'edgekd[" in done.stderr
