"""`edgekd import`: from a foreign ONNX file to a bundle that goes the way of any other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from onnx import numpy_helper
from PIL import Image

from edgekd.bundle import open_bundle, read_manifest
from edgekd.cli import main
from edgekd.export.assumed import DREW
from edgekd.export.original import Pixels
from edgekd.image import to_input
from edgekd.results import dump_json
from edgekd.rundir import only_one_on
from tests import foreign_onnx as foreign
from tests.foreign_onnx import SIZE

QUICK = ["--repeats", "10", "--warmup", "1", "--seconds", "0"]
NAMES = ["benign", "malignant", "other"]
CLASSES = ["--classes", ",".join(NAMES)]
PIXELS = ["--mean", "0.5", "--std", "0.2,0.25,0.3"]
NORMAL = Pixels(1.0, (0.5,) * 3, (0.2, 0.25, 0.3))


@pytest.fixture
def student(tmp_path, monkeypatch):
    """`student.onnx` in the current directory, which is empty otherwise; no class is rare."""
    monkeypatch.chdir(tmp_path)
    squares = np.stack([square for square, _ in zip(squares_forever(), range(200), strict=False)])
    plain = foreign.write(Path("plain.onnx"))
    values = foreign.run(plain, NORMAL.apply(to_input(squares)))
    plain.unlink()

    def centre(model):
        tensor = next(t for t in model.graph.initializer if t.name == "bias")
        bias = numpy_helper.to_array(tensor) - values.mean(axis=0)
        tensor.CopyFrom(numpy_helper.from_array(bias.astype(np.float32), "bias"))

    return foreign.change(foreign.write(Path("student.onnx"), batch=1, ending=["Softmax"]), centre)


def squares_forever():
    """Pictures (S, S, 3) of four colours."""
    random = np.random.default_rng(0)
    while True:
        base = random.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        yield np.kron(base, np.ones((SIZE // 2, SIZE // 2, 1), dtype=np.uint8))


def pictures(root, count=8):
    """A folder per class of pictures whose class is what the student says with PIXELS."""
    placed = dict.fromkeys(NAMES, 0)
    for number, square in enumerate(squares_forever()):
        said = foreign.run(Path("student.onnx"), NORMAL.apply(to_input(square[None])))
        name = NAMES[int(said.argmax())]
        if placed[name] < count:
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(square).save(root / name / f"{number}.png")
            placed[name] += 1
        if min(placed.values()) == count:
            return ["data.name=folder", f"data.root={root}", "data.split=4-2-2"]
        assert number < 1000
    raise AssertionError


def edgekd(*arguments):
    return main([str(argument) for argument in arguments])


def fails(capsys, *arguments):
    """A command that must end with exit code 2, one line and nothing written."""
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    code = edgekd(*arguments)
    text = capsys.readouterr().err
    assert code == 2, text
    assert "Traceback" not in text
    assert sorted(Path().rglob("*")) == before
    return text


@pytest.fixture
def copied(monkeypatch):
    """In place of a quantizer: the int8 file is the fp32 one."""

    def convert(source, target, _):
        shutil.copy(source, target)
        return []

    monkeypatch.setattr("edgekd.export.onnx_int8.convert", convert)


def notes_of(name):
    return read_manifest(Path(f"runs/{name}/bundle")).artifacts["onnx-fp32"].notes


class TestBundle:
    @pytest.mark.slow
    def test_from_a_file_to_a_report(self, student, capsys):
        data = pictures(Path("images"))
        assert edgekd("import", student, *PIXELS, *data) == 0
        said = capsys.readouterr()
        assert said.out == "runs/student/bundle\n"
        assert "the Softmax at its end is left out" in said.err
        assert "student.onnx: accuracy 1.000" in said.err
        bundle = Path("runs/student/bundle")
        made = ["--make", "onnx-int8,openvino-int8", "--accept-inconclusive", "a test"]
        assert edgekd("export", "runs/student", *made) in (0, 3)
        manifest = open_bundle(bundle)
        assert sorted(manifest.artifacts) == ["onnx-fp32", "onnx-int8", "openvino-int8"]
        assert manifest.artifacts["onnx-int8"].gate.images == 6
        assert edgekd("bench", bundle, *QUICK) == 0
        assert edgekd("bench", "runs/student", "--data", "images", *QUICK) == 0
        assert edgekd("verify", bundle) == 0
        capsys.readouterr()
        assert edgekd("predict", "runs/student", "images/other", "--artifact", "onnx-fp32") == 0
        labels = [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()]
        assert labels == ["other"] * 8
        for target, place in (("runs/student", "runs/student/report"), ("runs", "runs/report")):
            assert edgekd("report", target) == 0
            assert "student" in (Path(place) / "report.md").read_text(encoding="utf-8")

    def test_what_the_manifest_says(self, student, capsys):
        edgekd("import", student.resolve(), *CLASSES, *PIXELS, "--json", *pictures(Path("images")))
        manifest = read_manifest(Path("runs/student/bundle"))
        assert json.loads(capsys.readouterr().out) == json.loads(dump_json(manifest))
        assert manifest.model.arch == "onnx:student.onnx"
        assert (manifest.model.name, manifest.model.role) == ("student", "model")
        assert manifest.classes == NAMES
        assert manifest.recipe["models"]["student"]["arch"] == "onnx:student.onnx"
        assert manifest.recipe["stages"] == {}
        assert list(manifest.provenance["imported_sha256"]) == ["student.onnx"]
        # the file's own logits are the reference, on the golden and on the test pictures
        gate = manifest.artifacts["onnx-fp32"].gate
        assert {"parity", "parity-test"} <= {c.name for c in gate.checks if c.verdict == "passed"}
        assert "imported from student.onnx" in manifest.artifacts["onnx-fp32"].notes
        files = [Path("runs/student/bundle") / name for name in ("manifest.json", "model-card.md")]
        assert str(Path().resolve()) not in "".join(file.read_text() for file in files)

    def test_the_golden_outputs_are_those_of_the_original(self, student):
        edgekd("import", student, *CLASSES, *PIXELS)
        golden = Path("runs/student/bundle/golden")
        inputs, outputs = (np.load(golden / f"{name}.npy") for name in ("inputs", "outputs"))
        wanted = NORMAL.apply(inputs)
        said = np.concatenate([foreign.run(student, image[None]) for image in wanted])
        exponent = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        assert np.allclose(exponent / exponent.sum(axis=1, keepdims=True), said, atol=1e-5)

    def test_without_data_it_is_judged_by_parity_only(self, student, capsys):
        assert edgekd("import", student, *CLASSES) == 0
        assert "no data was named" in capsys.readouterr().err
        bundle = Path("runs/student/bundle")
        manifest = open_bundle(bundle)
        gate = manifest.artifacts["onnx-fp32"].gate
        assert (gate.verdict, gate.images, manifest.recipe) == ("passed", 0, {})
        assert edgekd("export", bundle, "--make", "openvino-fp32") == 0
        assert edgekd("export", bundle, "--make", "onnx-int8") == 2
        text = capsys.readouterr().err
        assert "was imported without data" in text
        assert "data.name=folder" in text
        assert edgekd("verify", bundle) == 0
        assert edgekd("report", bundle) == 0

    def test_the_same_again_does_nothing_and_a_change_makes_it_anew(self, student, capsys):
        edgekd("import", student, *CLASSES)
        bundle = Path("runs/student/bundle")
        assert edgekd("bench", bundle, *QUICK) == 0
        rows = {path.name: path.read_bytes() for path in (bundle / "bench").iterdir()}
        assert edgekd("import", student, *CLASSES) == 0
        assert "up to date" in capsys.readouterr().err
        assert edgekd("import", student, *CLASSES, *PIXELS) == 0
        assert "made anew" in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in (bundle / "bench").iterdir()} == rows

    def test_a_warning_where_the_model_is_at_chance(self, student, capsys):
        data = pictures(Path("images"))
        bias = np.array([9.0, 0.0, 0.0], dtype=np.float32)

        def confuse(model):
            tensor = next(t for t in model.graph.initializer if t.name == "bias")
            tensor.CopyFrom(numpy_helper.from_array(bias, "bias"))

        foreign.change(student, confuse)
        assert edgekd("import", student, *PIXELS, *data) == 0
        assert "right no more often than chance" in capsys.readouterr().err
        assert any("no more often than chance" in note for note in notes_of("student"))

    def test_what_is_assumed_is_said_and_kept(self, student, capsys):
        edgekd("import", student, *CLASSES)
        given = "outputs in this order (as given): 0 benign, 1 malignant, 2 other"
        raw = "pixels: RGB in [0, 1] as they are (no --mean, --std, --scale)"
        said = capsys.readouterr().err
        assert given in said
        assert raw in said
        assert {given, raw} <= set(notes_of("student"))
        data = pictures(Path("images"))
        assert edgekd("import", student, *PIXELS, *data, "--name", "mine") == 0
        assert f"warning: {DREW}" in capsys.readouterr().err
        notes = notes_of("mine")
        assert given.replace("as given", "the data's") in notes
        assert DREW in notes
        assert raw not in notes

    @pytest.mark.parametrize("has_recipe", [False, True])
    def test_the_datas_own_split_is_used(self, student, capsys, has_recipe):
        parts = Path("parts")
        for number, part in enumerate(("train", "val", "test")):
            pictures(parts / part, 2 + number)
        arguments = [*PIXELS, "data.name=folder", "data.root=parts"]
        if has_recipe:
            tree = {"edgekd": 1, "name": "student",
                    "models": {"student": {"arch": "onnx:student.onnx"}},
                    "data": {"name": "folder", "root": "parts",
                             "input": {"size": SIZE}}}  # fmt: skip
            text = yaml.safe_dump(tree)
            Path("mine.yaml").write_text(text, encoding="utf-8")
            arguments = [*PIXELS, "--recipe", "mine.yaml"]
        assert edgekd("import", student, *arguments) == 0
        assert "the data's official split is used" in capsys.readouterr().err
        manifest = read_manifest(Path("runs/student/bundle"))
        assert manifest.recipe["data"]["split"] == "official"
        assert manifest.artifacts["onnx-fp32"].gate.images == 12
        assert DREW not in notes_of("student")
        assert edgekd("import", student, *arguments, "data.split=4-2-2") == 0
        assert DREW in notes_of("student")

    def test_touched_data_costs_no_artifact_and_no_acceptance(self, student, capsys, copied):
        data = pictures(Path("images"))
        command = ["import", student, *PIXELS, *data]
        made = ["--make", "onnx-int8,openvino-fp32", "--accept-inconclusive", "a test"]
        assert edgekd(*command, *made) in (0, 3)
        bundle = Path("runs/student/bundle")
        before = read_manifest(bundle)
        assert before.artifacts["onnx-int8"].gate.accepted_because == "a test"
        os.utime(next(Path("images").rglob("*.png")), (1, 1))
        capsys.readouterr()
        assert edgekd(*command) in (0, 3)
        assert "made anew" in capsys.readouterr().err
        after = read_manifest(bundle)
        assert sorted(after.artifacts) == sorted(before.artifacts)
        assert after.artifacts["onnx-int8"].gate.accepted_because == "a test"

    def test_changed_pixels_do_not_judge(self, student, capsys, copied):
        data = pictures(Path("images"))
        assert edgekd("import", student, *PIXELS, *data) == 0
        for path in Path("images").rglob("*.png"):
            Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
        assert edgekd("export", "runs/student", "--make", "onnx-int8") == 3
        artifact = read_manifest(Path("runs/student/bundle")).artifacts["onnx-int8"]
        assert artifact.gate.verdict == "inconclusive"
        assert artifact.scores is None
        assert "not those that the fp32 model was scored on" in capsys.readouterr().err


class TestRecipe:
    def recipe(self, data, **keys):
        root = data[1].partition("=")[2]
        tree = {
            "edgekd": 1, "name": "mine", "task": {"name": "grading"},
            "data": {"name": "folder", "root": root, "split": "4-2-2", "input": {"size": SIZE}},
            "models": {"pupil": {"arch": "onnx:student.onnx", "mean": [0.5] * 3}},
            "export": {"model": "pupil"}, **keys,
        }  # fmt: skip
        Path("mine.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        return "mine.yaml"

    def test_everything_but_the_file_comes_from_it(self, student):
        recipe = self.recipe(pictures(Path("images")))
        assert edgekd("import", student, "--recipe", recipe) == 0
        manifest = open_bundle(Path("runs/mine/bundle"))
        assert (manifest.task, manifest.model.name) == ("grading", "pupil")
        assert manifest.recipe["models"]["pupil"]["mean"] == [0.5] * 3
        assert manifest.artifacts["onnx-fp32"].gate.images == 6

    def test_it_must_be_of_this_file(self, student, capsys):
        recipe = self.recipe(pictures(Path("images")))
        other = student.rename("other.onnx")
        text = fails(capsys, "import", other, "--recipe", recipe)
        assert "it is the recipe of student.onnx, not of other.onnx" in text

    def test_of_one_that_trains_the_data_is_taken(self, student):
        stages = {"only": {"train": "pupil", "losses": {"ce": {"to": "pupil"}}}}
        models = {"pupil": {"arch": "timm:resnet18"}}
        recipe = self.recipe(pictures(Path("images")), models=models, stages=stages)
        assert edgekd("import", student, "--recipe", recipe, *PIXELS, "export.make=[]") == 0
        manifest = open_bundle(Path("runs/student/bundle"))
        assert manifest.recipe["stages"] == {}
        assert manifest.recipe["models"]["pupil"]["arch"] == "onnx:student.onnx"

    @pytest.mark.parametrize("command", ["distill", "run", "doctor"])
    def test_it_cannot_be_trained(self, student, capsys, command):
        recipe = self.recipe(pictures(Path("images")))
        text = fails(capsys, command, recipe)
        assert "there is nothing to train" in text
        assert "edgekd import student.onnx" in text


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
