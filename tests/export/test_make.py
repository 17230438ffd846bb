"""From a run's weights to a judged bundle: what is made, kept, skipped, refused and accepted."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.bundle import MANIFEST, open_bundle, read_manifest
from edgekd.cli import main
from edgekd.errors import CheckpointError, EdgekdError, GateFailed, RecipeError
from edgekd.export import onnx_int8
from edgekd.export.make import bundle_of
from edgekd.results import Predictions
from edgekd.rundir import RunDir, only_one
from tests.export.runs import ALL, REASON, drop, quiet_export, unaccept


class TestRun:
    def test_every_artifact_is_there_verified_and_judged(self, exported):
        manifest = open_bundle(exported[0] / "bundle")
        assert manifest == exported[1]
        assert sorted(manifest.artifacts) == ALL
        for artifact in manifest.artifacts.values():
            assert artifact.gate is not None
            assert artifact.scores is not None
            assert artifact.scores["accuracy"].value > 0.8
            assert artifact.runtime == {"onnx": "onnxruntime"}.get(
                artifact.name.split("-")[0], "openvino"
            )

    def test_fp32_passes_by_parity_and_int8_needs_more_than_this_test_set(self, exported):
        gates = {name: a.gate for name, a in exported[1].artifacts.items()}
        assert gates["onnx-fp32"].verdict == gates["openvino-fp32"].verdict == "passed"
        assert gates["openvino-int8"].verdict == "inconclusive"
        assert gates["onnx-int8"].verdict == "inconclusive"

    def test_the_manifest_tells_where_it_comes_from(self, exported):
        manifest = exported[1]
        assert manifest.model.name == "student"
        assert manifest.model.macs > manifest.model.params > 0
        assert manifest.artifacts["openvino-int8"].made_from == "onnx-int8"
        assert {"weights_sha256", "data_fingerprint", "versions", "test_ids_sha256",
                "other_ids_sha256"} <= set(manifest.provenance)  # fmt: skip
        assert manifest.recipe["name"] == "tiny"

    def test_the_files_are_those_that_the_architecture_names(self, exported):
        names = set(exported[1].files)
        assert {"model.fp32.onnx", "model.int8.onnx", "model-card.md", "golden/inputs.npy",
                "openvino/model.int8.xml", "openvino/model.int8.bin"} <= names  # fmt: skip
        card = (exported[0] / "bundle" / "model-card.md").read_text()
        assert "| onnx-int8 |" in card
        assert "Not a medical device" in card

    def test_predictions_of_each_artifact_stay_in_the_run(self, exported):
        run = RunDir(exported[0])
        student = Predictions.load(run.predictions("student", "test"))
        for name in ALL:
            assert Predictions.load(run.predictions(name, "test")).ids == student.ids

    def test_the_teacher_becomes_a_reference_in_fp32_judged_by_parity(self, exported):
        reference = open_bundle(exported[0] / "reference")
        assert reference.model.role == "teacher"
        assert sorted(reference.artifacts) == ["onnx-fp32", "openvino-fp32"]
        assert {a.gate.verdict for a in reference.artifacts.values()} == {"passed"}
        assert reference.artifacts["onnx-fp32"].scores["accuracy"].value == 1.0

    def test_a_second_time_does_nothing_and_says_so(self, run):
        before = (run.bundle / MANIFEST).read_bytes()
        started = time.monotonic()
        _, said = quiet_export(run.root, accept_inconclusive=REASON)
        assert said == [f"{run.bundle}: up to date", f"{run.reference}: up to date"]
        assert (run.bundle / MANIFEST).read_bytes() == before
        assert time.monotonic() - started < 5

    def test_asking_for_less_takes_nothing_away(self, run):
        manifest, said = quiet_export(run.root, make=["onnx-fp32"])
        assert said[0] == f"{run.bundle}: up to date"
        assert sorted(manifest.artifacts) == ALL

    def test_a_damaged_bundle_is_made_anew_and_its_measurements_are_kept(self, run):
        (run.bundle / "model.fp32.onnx").write_bytes(b"damaged")
        (run.bundle / "bench").mkdir()
        (run.bundle / "bench" / "host.jsonl").write_text("{}\n")
        manifest, _ = quiet_export(run.root, make=["onnx-fp32"])
        assert list(manifest.artifacts) == ["onnx-fp32"]
        open_bundle(run.bundle)
        assert (run.bundle / "bench" / "host.jsonl").read_text() == "{}\n"


class TestRefusal:
    @pytest.fixture
    def damaged(self, run, monkeypatch):
        """Quantization that moves every decision to the first class."""
        honest = onnx_int8.convert

        def damage(source, target, squares):
            notes = honest(source, target, squares)
            model = onnx.load(target)
            for tensor in model.graph.initializer:
                if tensor.name == "net.fc.bias":
                    bias = numpy_helper.to_array(tensor) + [100, 0, 0, 0, 0][: tensor.dims[0]]
                    tensor.CopyFrom(numpy_helper.from_array(bias.astype(np.float32), tensor.name))
            onnx.save(model, target)
            return notes

        shutil.rmtree(run.bundle)
        predictions = Predictions.load(run.predictions("student", "test"))
        logits = np.roll(np.eye(predictions.logits.shape[1], dtype=np.float32), 1, axis=1)
        decided = logits[predictions.targets % len(logits)]
        assert (decided.argmax(axis=1) != 0).any()
        Predictions(predictions.ids, predictions.groups, decided.argmax(axis=1), decided).save(
            run.predictions("student", "test")
        )
        monkeypatch.setattr(onnx_int8, "convert", damage)
        return run

    def test_a_damaged_model_is_refused_with_exit_code_3_and_stays_marked(self, damaged):
        with pytest.raises(GateFailed, match="onnx-int8: refused, non-inferiority") as caught:
            quiet_export(damaged.root, make=["onnx-int8"])
        assert caught.value.exit_code == 3
        manifest = open_bundle(damaged.bundle)
        assert manifest.artifacts["onnx-int8"].gate.verdict == "refused"

    def test_no_reason_excuses_a_refused_artifact(self, damaged):
        with pytest.raises(GateFailed, match="onnx-int8: refused"):
            quiet_export(damaged.root, make=["onnx-int8"], accept_inconclusive=REASON)
        gate = read_manifest(damaged.bundle).artifacts["onnx-int8"].gate
        assert gate.accepted_because is None
        assert not gate.may_ship


class TestInconclusive:
    def test_a_tiny_test_set_is_inconclusive_until_a_person_accepts_it(self, run):
        shutil.rmtree(run.bundle)
        with pytest.raises(GateFailed, match="onnx-int8: inconclusive"):
            quiet_export(run.root, make=["onnx-int8"])
        with pytest.raises(GateFailed):  # the second time too: nothing was made, nothing passed
            quiet_export(run.root, make=["onnx-int8"])

    def test_the_reason_is_recorded(self, exported):
        gate = exported[1].artifacts["onnx-int8"].gate
        assert gate.accepted_because == REASON
        assert gate.may_ship
        assert REASON in (exported[0] / "bundle" / "model-card.md").read_text()


class TestAccepting:
    def test_one_more_artifact_keeps_the_reason_of_those_whose_files_are_the_same(self, run):
        drop(run.bundle, "openvino-int8")
        with pytest.raises(GateFailed, match="openvino-int8: inconclusive") as caught:
            quiet_export(run.root, make=["openvino-int8"])
        assert "onnx-int8: " not in caught.value.message
        artifacts = open_bundle(run.bundle).artifacts
        assert artifacts["onnx-int8"].gate.accepted_because == REASON
        assert artifacts["openvino-int8"].gate.accepted_because is None
        assert REASON in (run.bundle / "model-card.md").read_text()

    def test_a_file_that_came_out_otherwise_is_accepted_anew(self, run, monkeypatch):
        honest = onnx_int8.convert

        def otherwise(source, target, squares):
            notes = honest(source, target, squares)
            model = onnx.load(target)
            model.doc_string = "other bytes"
            onnx.save(model, target)
            return notes

        monkeypatch.setattr(onnx_int8, "convert", otherwise)
        drop(run.bundle, "openvino-fp32")
        with pytest.raises(GateFailed, match="onnx-int8: inconclusive"):
            quiet_export(run.root, make=["openvino-fp32"])
        assert open_bundle(run.bundle).artifacts["onnx-int8"].gate.accepted_because is None

    @pytest.mark.parametrize("target", ["root", "bundle"])
    def test_an_interruption_leaves_the_bundle_whole(self, run, monkeypatch, target):
        unaccept(run.bundle)

        def killed(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("edgekd.export.finish.close_bundle", killed)
        with pytest.raises(KeyboardInterrupt):
            quiet_export(getattr(run, target), accept_inconclusive="another reason")
        manifest = open_bundle(run.bundle)
        assert manifest.artifacts["onnx-int8"].gate.accepted_because is None
        assert not list(run.root.glob(".bundle.*"))

    def test_not_while_another_command_works_in_the_run(self, run):
        unaccept(run.bundle)
        with only_one(run.root), pytest.raises(EdgekdError, match="another edgekd is working"):
            quiet_export(run.bundle, accept_inconclusive=REASON)

    @pytest.mark.parametrize("blank", ["", " ", "\t"])
    def test_a_blank_reason_is_a_usage_error(self, run, blank):
        unaccept(run.bundle)
        for target in (run.root, run.bundle):
            with pytest.raises(EdgekdError, match="the reason is empty") as caught:
                quiet_export(target, accept_inconclusive=blank)
            assert caught.value.exit_code == 2
        assert open_bundle(run.bundle).artifacts["onnx-int8"].gate.accepted_because is None

    def test_a_blank_reason_is_refused_before_anything_is_trained(self, tmp_path, capsys):
        out = tmp_path / "out"
        assert main(["run", "quickstart", "--out", str(out), "--accept-inconclusive", " "]) == 2
        assert "the reason is empty" in capsys.readouterr().err
        assert not out.exists()


class TestForeseeableErrors:
    def test_nothing_trained(self, tmp_path, trained):
        with pytest.raises(CheckpointError, match="neither a run nor a bundle") as caught:
            quiet_export(tmp_path)
        assert caught.value.hint == "edgekd distill RECIPE"
        root = Path(shutil.copytree(trained, tmp_path / "run"))
        (root / "models" / "student.safetensors").unlink()
        with pytest.raises(CheckpointError, match="no trained weights of 'student'"):
            quiet_export(root)

    def test_an_unknown_artifact_is_refused_before_any_work(self, run):
        with pytest.raises(RecipeError, match="no artifact 'onnx-int9'"):
            quiet_export(run.root, make=["onnx-int9"])
        with pytest.raises(RecipeError, match="no artifact 'onnx-int9'"):
            quiet_export(run.bundle, make=["onnx-int9"])

    def test_a_full_disk_leaves_the_old_bundle_and_no_half_one(self, run, monkeypatch):
        drop(run.bundle, key="of older weights")
        before = (run.bundle / MANIFEST).read_bytes()

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("edgekd.export.golden.np.save", full)
        with pytest.raises(OSError, match="No space left"):
            quiet_export(run.root, make=["onnx-fp32"])
        assert (run.bundle / MANIFEST).read_bytes() == before
        open_bundle(run.bundle)
        assert not list(run.root.glob(".bundle.*"))

    def test_bundle_of_a_run_and_of_a_bundle(self, run):
        assert bundle_of(run.root) == bundle_of(run.bundle) == run.bundle
