"""What goes with an exported model: its signature, operating points, and where it came from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgekd.bundle import open_bundle, read_manifest
from edgekd.data.read import open_source
from edgekd.data.splits import read_split
from edgekd.errors import CheckpointError, EdgekdError, GateFailed, RecipeError
from edgekd.export.finish import SBOM
from edgekd.export.thresholds import choose
from edgekd.predict import predict
from edgekd.recipe_export import OperatingSpec
from edgekd.recipe_load import load, to_yaml
from edgekd.results import Predictions
from edgekd.rundir import write_text
from edgekd.signature import check_signature, is_signed, open_key
from tests.export.imports import CLASSES, PIXELS, edgekd, pictures
from tests.export.runs import REASON, drop, quiet_export, unaccept
from tests.keys import write_keys

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    write_keys(folder, "key", "pub")
    return folder


class TestSignature:
    def test_a_run_s_bundle_and_its_reference_are_signed(self, run, keys):
        _, said = quiet_export(run.root, accept_inconclusive=REASON, key=open_key(keys / "key.pem"))
        assert said[-2:] == [f"{run.bundle}: signed", f"{run.reference}: signed"]
        for folder in (run.bundle, run.reference):
            assert SBOM in open_bundle(folder).files
            check_signature(folder, keys / "pub.pem")

    def test_more_artifacts_end_it_and_that_is_said(self, run, keys):
        drop(run.bundle, "openvino-int8")
        quiet_export(run.bundle, make=["onnx-fp32"], key=open_key(keys / "key.pem"))
        _, said = quiet_export(run.bundle, make=["onnx-fp32"])
        assert is_signed(run.bundle)  # nothing has changed
        _, said = quiet_export(run.bundle, make=["openvino-int8"], accept_inconclusive=REASON)
        assert not is_signed(run.bundle)
        assert "its signature is gone" in said[-1]
        assert f"edgekd export {run.bundle} --sign" in said[-1]
        _, said = quiet_export(run.bundle, make=["onnx-fp32"], key=open_key(keys / "key.pem"))
        assert said[-1] == f"{run.bundle}: signed"
        check_signature(run.bundle, keys / "pub.pem")

    def test_so_does_an_accepted_reason(self, run, keys):
        unaccept(run.bundle)
        with pytest.raises(GateFailed):  # signed all the same: its gates are in it
            quiet_export(run.bundle, make=["onnx-fp32"], key=open_key(keys / "key.pem"))
        check_signature(run.bundle, keys / "pub.pem")
        quiet_export(run.bundle, make=["onnx-fp32"], accept_inconclusive="trial, protocol 7")
        assert not is_signed(run.bundle)

    def test_a_key_inside_the_bundle_is_not_taken_away_with_it(self, run, keys):
        inside = run.bundle / "bench" / "key.pem"
        inside.parent.mkdir()
        shutil.copy(keys / "key.pem", inside)
        with pytest.raises(EdgekdError, match="lies inside the bundle"):
            quiet_export(run.root, key=open_key(inside))
        assert inside.is_file()


class TestOperatingPoints:
    @pytest.fixture
    def validated(self, run):
        """The run with an operating point in its recipe, and what the student said of val."""
        recipe = load(run.recipe, overrides=["export.make=[onnx-fp32]"])
        spec = {"mild": OperatingSpec(sensitivity=0.8)}
        export = recipe.export.model_copy(update={"thresholds": spec})
        recipe = recipe.model_copy(update={"export": export})
        write_text(run.recipe, to_yaml(recipe))
        source = open_source(recipe.data)
        rows = read_split(run.split, source).val
        random = np.random.default_rng(0)
        logits = random.normal(size=(len(rows), len(source.classes))).astype(np.float32)
        groups = [source.groups()[i] for i in rows]
        said = Predictions([source.ids()[i] for i in rows], groups, source.targets()[rows], logits)
        said.save(run.predictions("student", "val"))
        shutil.rmtree(run.bundle)
        return run, said

    def test_chosen_on_validation_images_and_measured_on_test_images(self, validated):
        run, said = validated
        manifest, _ = quiet_export(run.root)
        (point,) = manifest.thresholds.values()
        exponent = np.exp(said.logits.astype(np.float64))
        probabilities = (exponent / exponent.sum(axis=1, keepdims=True))[:, 1]
        positives = said.targets == 1
        wanted = choose(probabilities, positives, OperatingSpec(sensitivity=0.8))
        assert point.threshold == pytest.approx(wanted, rel=1e-9)
        assert point.validation.sensitivity.value >= 0.8
        assert point.validation.sensitivity.images == positives.sum() > 0
        test = Predictions.load(run.predictions("onnx-fp32", "test"))
        found = point.test["onnx-fp32"]
        assert found.specificity.images == (test.targets != 1).sum()
        assert json.loads((run.bundle / "manifest.json").read_text())["schema_version"] == 2
        card = (run.bundle / "model-card.md").read_text()
        assert f"| mild | {point.threshold:.4f} | validation, for sensitivity 0.8 |" in card
        assert f"| mild | {point.threshold:.4f} | test, onnx-fp32 |" in card
        assert read_manifest(run.reference).thresholds == {}
        # an artifact that is made later is measured at the same point
        more, _ = quiet_export(run.bundle, make=["openvino-fp32"])
        (later,) = more.thresholds.values()
        assert later.threshold == point.threshold
        assert later.validation == point.validation
        assert sorted(later.test) == ["onnx-fp32", "openvino-fp32"]

    def test_a_class_that_is_not_there(self, validated):
        run, _ = validated
        text = run.recipe.read_text().replace("mild:", "mil:")
        write_text(run.recipe, text)
        with pytest.raises(RecipeError, match="no class 'mil'"):
            quiet_export(run.root)
        assert not run.bundle.exists()

    def test_without_validation_predictions(self, validated):
        run, _ = validated
        run.predictions("student", "val").unlink()
        with pytest.raises(CheckpointError, match="no val predictions of 'student'"):
            quiet_export(run.root)

    def test_of_an_imported_model_and_as_predict_shows_it(self, student, capsys):
        data = pictures(Path("images"))
        point = "export.thresholds.malignant.specificity=0.5"
        assert edgekd("import", student, *CLASSES, *PIXELS, *data, point) == 0
        bundle = Path("runs/student/bundle")
        threshold = read_manifest(bundle).thresholds["malignant"].threshold
        assert list(read_manifest(bundle).thresholds["malignant"].test) == ["onnx-fp32"]
        rows = list(predict(bundle, [Path("images")]))
        flagged = {row.flags["malignant"] for row in rows}
        assert flagged == {True, False}
        for row in rows:
            assert row.flags == {"malignant": row.probabilities["malignant"] >= threshold}
            assert row.probability == max(row.probabilities.values())  # decided as before
        capsys.readouterr()
        assert edgekd("predict", bundle, "images") == 0
        shown = {line.split("\t")[3] for line in capsys.readouterr().out.splitlines()}
        assert shown == {"malignant", "-"}

    def test_an_import_without_data_has_nothing_to_choose_on(self, student, capsys):
        point = "export.thresholds.malignant.specificity=0.5"
        assert edgekd("import", student, *CLASSES, point) == 2
        assert "no data is named" in capsys.readouterr().err


class TestProvenance:
    def test_the_git_state_of_the_recipe_goes_along(self, run):
        state = {"commit": COMMIT, "is_dirty": True, "of": "its file's folder"}
        run.environment.write_text(json.dumps({"git": state}))
        shutil.rmtree(run.bundle)
        manifest, _ = quiet_export(run.root, make=["onnx-fp32"])
        assert manifest.provenance["git"] == state
        card = (run.bundle / "model-card.md").read_text()
        assert f"- git: commit {COMMIT}, with uncommitted changes" in card

    def test_a_run_without_one(self, run):
        assert "git" not in read_manifest(run.bundle).provenance
        assert "made by edgekd" in (run.bundle / "model-card.md").read_text()
