"""From a run's weights to a judged bundle: what is made, kept, skipped, refused and accepted."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.bundle import MANIFEST, close_bundle, open_bundle, read_manifest
from edgekd.data.read import open_source, read_squares
from edgekd.data.splits import make_split, write_split
from edgekd.errors import BundleError, CheckpointError, GateFailed, RecipeError
from edgekd.export import onnx_int8
from edgekd.export.make import bundle_of, export
from edgekd.export.onnx_from_torch import logits_of_torch
from edgekd.image import to_input
from edgekd.recipe_load import load, to_yaml
from edgekd.results import Predictions
from edgekd.rundir import RunDir, write_text
from tests import tiny

REASON = "a test of the machinery"
ALL = ["onnx-fp32", "onnx-int8", "openvino-fp32", "openvino-int8"]


def quiet_export(target, **options):
    """Export without talk on stderr; returns the manifest and what was said."""
    said: list[str] = []
    return export(target, progress=said.append, **options), said


def drop(bundle, *names, **provenance):
    """Take artifacts out of a bundle again, as if they had never been made."""
    manifest = read_manifest(bundle)
    kept = {name: a for name, a in manifest.artifacts.items() if name not in names}
    changed = {**manifest.provenance, **provenance}
    close_bundle(bundle, manifest.model_copy(update={"artifacts": kept, "provenance": changed}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run as `edgekd distill` leaves it, untrained; the truth is what the student says."""
    from edgekd.models.build import build_network
    from edgekd.train.checkpoint import save_weights

    folder = tmp_path_factory.mktemp("trained")
    recipe = load(tiny.write(folder, tiny.tree(folder)))
    run = RunDir(folder / "run")
    write_text(run.recipe, to_yaml(recipe))
    source = open_source(recipe.data)
    split = make_split(source, recipe.data.split, seed=0)
    write_split(run.split, source, split)
    squares = read_squares(source, split.test, recipe.data.input)
    for name in ("teacher", "student"):
        network = build_network(recipe.models[name], outputs=len(source.classes), seed=1)
        save_weights(network.net, run.weights(name))
        logits = logits_of_torch(network, to_input(squares))
        ids, groups = (
            [values[i] for i in split.test] for values in (source.ids(), source.groups())
        )
        said = Predictions(ids, groups, logits.argmax(axis=1).astype(np.int64), logits)
        said.save(run.predictions(name, "test"))
    return run.root


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The same run after a full export, its inconclusive gates accepted."""
    root = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(trained, root)
    return root, *quiet_export(root, accept_inconclusive=REASON)


@pytest.fixture
def run(exported, tmp_path):
    """A copy of the exported run to change."""
    return RunDir(Path(shutil.copytree(exported[0], tmp_path / "run")))


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
        assert {"weights_sha256", "data_fingerprint", "versions"} <= set(manifest.provenance)
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


class TestBundle:
    def test_a_lowering_is_added_without_torch(self, run, monkeypatch):
        drop(run.bundle, "openvino-int8")
        monkeypatch.setitem(sys.modules, "torch", None)
        manifest, said = quiet_export(
            run.bundle, make=["openvino-int8"], accept_inconclusive=REASON
        )
        assert said[0] == "student: making openvino-int8"
        assert sorted(manifest.artifacts) == ALL
        assert manifest.artifacts["openvino-int8"].gate.images > 0
        open_bundle(run.bundle)

    def test_what_is_there_already_is_not_made_again(self, run):
        _, said = quiet_export(run.bundle, make=["openvino-int8"])
        assert said == [f"{run.bundle}: up to date"]

    def test_copied_away_it_is_judged_against_its_fp32_model(self, run, tmp_path):
        drop(run.bundle, "openvino-int8")
        away = Path(shutil.copytree(run.bundle, tmp_path / "away"))
        manifest, _ = quiet_export(away, make=["openvino-int8"], accept_inconclusive=REASON)
        gate = manifest.artifacts["openvino-int8"].gate
        assert gate.images == manifest.artifacts["onnx-int8"].gate.images > 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["away", "run"]

    def test_without_its_data_int8_is_inconclusive_and_fp32_passes_by_parity(self, run):
        drop(run.bundle, "openvino-fp32", "openvino-int8", data_fingerprint="other")
        with pytest.raises(GateFailed, match="the data set has changed since the export"):
            quiet_export(run.bundle, make=["openvino-fp32", "openvino-int8"])
        artifacts = open_bundle(run.bundle).artifacts
        assert artifacts["openvino-fp32"].gate.verdict == "passed"
        assert artifacts["openvino-int8"].gate.verdict == "inconclusive"

    def test_without_its_data_nothing_can_be_quantized(self, run):
        drop(run.bundle, "onnx-int8", "openvino-int8", data_fingerprint="other")
        with pytest.raises(BundleError, match="quantizing needs training images"):
            quiet_export(run.bundle, make=["onnx-int8"])


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
