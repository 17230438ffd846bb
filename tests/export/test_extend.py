"""More artifacts for a finished bundle: judged by what made it, and running nobody's code."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.bundle import close_bundle, open_bundle, read_manifest
from edgekd.errors import BundleError, GateFailed
from edgekd.recipe_load import load, to_yaml
from edgekd.results import Predictions
from edgekd.rundir import write_text
from tests.export.runs import ALL, REASON, drop, quiet_export, rewrite_recipe, unscore


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
        unscore(run.bundle)
        away = Path(shutil.copytree(run.bundle, tmp_path / "away"))
        manifest, _ = quiet_export(away, make=["openvino-int8"], accept_inconclusive=REASON)
        gate = manifest.artifacts["openvino-int8"].gate
        assert gate.images == manifest.artifacts["onnx-int8"].gate.images > 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["away", "run"]

    def test_on_images_that_score_otherwise_int8_is_inconclusive(self, run, tmp_path):
        drop(run.bundle, "openvino-int8")  # the labels of this run are not those of its data
        away = Path(shutil.copytree(run.bundle, tmp_path / "away"))
        with pytest.raises(GateFailed, match="not those that the fp32 model was scored on"):
            quiet_export(away, make=["openvino-int8"])
        assert open_bundle(away).artifacts["openvino-int8"].scores is None

    def test_without_its_data_int8_is_inconclusive_and_fp32_passes_by_parity(self, run):
        drop(run.bundle, "openvino-fp32", "openvino-int8", test_ids_sha256="other")
        with pytest.raises(GateFailed, match="not the data the bundle was split from"):
            quiet_export(run.bundle, make=["openvino-fp32", "openvino-int8"])
        artifacts = open_bundle(run.bundle).artifacts
        assert artifacts["openvino-fp32"].gate.verdict == "passed"
        assert artifacts["openvino-int8"].gate.verdict == "inconclusive"

    def test_a_copy_of_the_data_with_new_times_is_the_same_data(self, run):
        drop(run.bundle, "openvino-int8", data_fingerprint="of the original")
        manifest, _ = quiet_export(run.bundle, make=["openvino-int8"], accept_inconclusive=REASON)
        assert manifest.artifacts["openvino-int8"].gate.images > 0

    def test_without_its_data_nothing_can_be_quantized(self, run):
        drop(run.bundle, "onnx-int8", "openvino-int8", test_ids_sha256="other")
        with pytest.raises(BundleError, match="quantizing needs training images"):
            quiet_export(run.bundle, make=["onnx-int8"])


class TestInTheFolderOfAnotherRun:
    @pytest.fixture
    def other(self, run):
        """The run around the bundle was trained again: other weights and predictions."""
        drop(run.bundle, "openvino-fp32", "openvino-int8")
        unscore(run.bundle)
        run.weights("student").write_bytes(b"other weights")
        said = Predictions.load(run.predictions("student", "test"))
        other = Predictions(said.ids, said.groups, said.targets, np.roll(said.logits, 1, axis=1))
        for name in ("student", "openvino-fp32", "openvino-int8"):
            other.save(run.predictions(name, "test"))
        return run

    def test_the_reference_is_the_bundles_own_fp32_model(self, other):
        manifest, _ = quiet_export(
            other.bundle, make=["openvino-fp32", "openvino-int8"], accept_inconclusive=REASON
        )
        gate = manifest.artifacts["openvino-fp32"].gate
        assert gate.images > 0
        parity = next(check for check in gate.checks if check.name == "parity-test")
        assert parity.verdict == "passed"

    def test_that_runs_split_is_not_read(self, other):
        other.split.write_text("of other data\n")
        self.test_the_reference_is_the_bundles_own_fp32_model(other)

    def test_that_runs_predictions_are_left_alone(self, other):
        stored = sorted((other.root / "predictions").iterdir())
        before = [path.read_bytes() for path in stored]
        quiet_export(
            other.bundle, make=["openvino-fp32", "openvino-int8"], accept_inconclusive=REASON
        )
        assert [path.read_bytes() for path in stored] == before
        assert sorted((other.root / "predictions").iterdir()) == stored


CODE = """
from pathlib import Path

from edgekd.data.synthetic import Synthetic

Path({trace!r}).write_text("ran")


class Mine(Synthetic):
    pass
"""


class TestCode:
    """A bundle comes from anywhere: what its manifest names is not run."""

    @pytest.fixture
    def code(self, tmp_path):
        """A plugins folder; whoever imports its `mine.py` leaves `trace` behind."""
        folder = tmp_path / "code"
        folder.mkdir()
        self.trace = tmp_path / "trace"
        (folder / "mine.py").write_text(CODE.format(trace=str(self.trace)))
        return folder

    @pytest.mark.parametrize("name", ["mine", "mine:Mine"])
    def test_a_data_source_of_somebody_is_not_opened(self, run, code, monkeypatch, name):
        monkeypatch.syspath_prepend(str(code))
        drop(run.bundle, "openvino-int8")
        rewrite_recipe(run.bundle, plugins=[str(code)], data={"name": name})
        with pytest.raises(GateFailed, match="not one of edgekd's own") as caught:
            quiet_export(run.bundle, make=["openvino-int8"])
        assert "openvino-int8: inconclusive" in caught.value.message
        assert not self.trace.exists()

    def test_a_plugins_folder_does_not_replace_what_is_built_in(self, run, code):
        (code / "mine.py").rename(code / "synthetic.py")
        drop(run.bundle, "openvino-int8")
        rewrite_recipe(run.bundle, plugins=[str(code)])
        manifest, _ = quiet_export(run.bundle, make=["openvino-int8"], accept_inconclusive=REASON)
        assert manifest.artifacts["openvino-int8"].gate.images > 0
        assert not self.trace.exists()

    @pytest.mark.parametrize("name", ["mine", "mine:Mine"])
    def test_a_task_of_somebody_is_refused(self, run, code, monkeypatch, name):
        monkeypatch.syspath_prepend(str(code))
        drop(run.bundle, "openvino-int8")
        rewrite_recipe(run.bundle, plugins=[str(code)])
        manifest = read_manifest(run.bundle).model_copy(update={"task": name})
        close_bundle(run.bundle, manifest)
        with pytest.raises(BundleError, match="which is not one of edgekd's own"):
            quiet_export(run.bundle, make=["openvino-int8"])
        assert not self.trace.exists()

    def test_a_runtime_of_somebody_is_refused(self, run, code, monkeypatch, tmp_path):
        monkeypatch.syspath_prepend(str(code))
        drop(run.bundle, "openvino-int8")
        manifest = read_manifest(run.bundle)
        exact = manifest.artifacts["onnx-fp32"].model_copy(update={"runtime": "mine:Mine"})
        artifacts = {**manifest.artifacts, "onnx-fp32": exact}
        close_bundle(run.bundle, manifest.model_copy(update={"artifacts": artifacts}))
        away = Path(shutil.copytree(run.bundle, tmp_path / "away"))
        with pytest.raises(GateFailed, match="there is no runtime 'mine:Mine'"):
            quiet_export(away, make=["openvino-int8"])
        assert not self.trace.exists()

    def test_what_the_users_own_run_names_is_used(self, run, code):
        drop(run.bundle, "openvino-int8")
        rewrite_recipe(run.bundle, plugins=[str(code)], data={"name": "mine"})
        own = load(run.recipe)
        data = own.data.model_copy(update={"name": "mine"})
        write_text(run.recipe, to_yaml(own.model_copy(update={"plugins": [str(code)],
                                                              "data": data})))  # fmt: skip
        manifest, _ = quiet_export(run.bundle, make=["openvino-int8"], accept_inconclusive=REASON)
        assert manifest.artifacts["openvino-int8"].gate.images > 0
        assert self.trace.exists()

    def test_not_if_the_run_is_of_other_weights(self, run, code):
        self.test_what_the_users_own_run_names_is_used(run, code)
        self.trace.unlink()
        drop(run.bundle, "openvino-int8")
        run.weights("student").write_bytes(b"other weights")
        manifest, _ = quiet_export(run.bundle, make=["openvino-int8"], accept_inconclusive=REASON)
        assert manifest.artifacts["openvino-int8"].gate.images == 0
        assert not self.trace.exists()
