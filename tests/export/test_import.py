"""`edgekd import`: from a foreign ONNX file to a bundle that goes the way of any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from onnx import numpy_helper
from PIL import Image

from edgekd.bundle import open_bundle, read_manifest
from edgekd.export.assumed import DREW
from edgekd.results import dump_json
from tests import foreign_onnx as foreign
from tests.export.imports import (
    CLASSES,
    NAMES,
    NORMAL,
    PIXELS,
    QUICK,
    edgekd,
    fails,
    notes_of,
    pictures,
)
from tests.foreign_onnx import SIZE


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
        # and mixed ones, where int8 is refused
        assert {"onnx-fp32", "onnx-int8", "openvino-int8"} <= set(manifest.artifacts)
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
        path = next(Path("images").rglob("*.png"))
        Image.open(path).save(path, compress_level=0)  # other bytes, the same pixels
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
