"""Where full int8 is refused: what is made besides, and what the tool says to try next."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.bundle import Artifact, Gate, open_bundle
from edgekd.errors import DataError, GateFailed
from edgekd.export.given import Made
from edgekd.export.make import bundle_of, export
from edgekd.export.verdicts import next_step
from tests.export.runs import drop


@pytest.fixture
def ruined(monkeypatch):
    """In place of a quantizer: an int8 file whose classes are turned round."""

    def convert(source, target, _):
        model = onnx.load(source)
        node = model.graph.node[-1]  # the last layer
        for tensor in model.graph.initializer:
            if tensor.name in node.input:
                turned = np.ascontiguousarray(-numpy_helper.to_array(tensor))
                tensor.CopyFrom(numpy_helper.from_array(turned, tensor.name))
        onnx.save(model, target)
        return Made(["turned round"])

    monkeypatch.setattr("edgekd.export.onnx_int8.convert", convert)


@pytest.fixture
def sound(monkeypatch):
    """In place of the ranking of layers: the mixed file is the fp32 one."""

    def convert(source, target, _):
        shutil.copy(source, target)
        return Made(["copied"], ["fc"])

    monkeypatch.setattr("edgekd.export.onnx_mixed.convert", convert)


def refused(root, *, make):
    """Export, which fails; returns the bundle's manifest, the error and what was said."""
    said = []
    with pytest.raises(GateFailed) as caught:
        export(root, make=make, progress=said.append)
    return open_bundle(bundle_of(root)), caught.value, said


class TestInstead:
    def test_mixed_is_made_for_every_target_and_its_float_layers_are_listed(
        self, run, ruined, sound
    ):
        shutil.rmtree(run.bundle)
        manifest, error, _ = refused(run.root, make=["onnx-int8", "openvino-int8"])
        assert set(manifest.artifacts) == {
            "onnx-fp32", "onnx-int8", "openvino-int8", "onnx-mixed", "openvino-mixed"
        }  # fmt: skip
        assert manifest.artifacts["onnx-int8"].gate.verdict == "refused"
        assert manifest.artifacts["onnx-mixed"].gate.verdict != "refused"
        assert manifest.artifacts["onnx-mixed"].float_layers == ["fc"]
        assert "refused" in error.message

    def test_it_happens_in_a_finished_bundle_too(self, run, ruined, sound):
        drop(run.bundle, "onnx-int8", "openvino-int8")
        manifest, _, _ = refused(run.bundle, make=["onnx-int8"])
        assert "onnx-mixed" in manifest.artifacts

    def test_a_recipe_can_ask_for_other_things_or_none(self, run, ruined, sound):
        shutil.rmtree(run.bundle)
        text = run.recipe.read_text(encoding="utf-8")
        assert "if_refused:\n  - mixed\n" in text
        run.recipe.write_text(text.replace("if_refused:\n  - mixed\n", "if_refused: []\n"))
        manifest, _, _ = refused(run.root, make=["onnx-int8"])
        assert list(manifest.artifacts) == ["onnx-fp32", "onnx-int8"]

    @pytest.mark.parametrize("precision", ["mixed", "int8-aware", "fp16"])
    def test_every_way_out_is_known_to_every_target(self, precision):
        from edgekd.export.artifacts import _instead
        from edgekd.export.plan import targets

        gate = Gate(verdict="refused", checks=[], images=1, groups=1)
        for target in targets():
            artifact = Artifact(name=f"{target}-int8", file="x", files=["x"], runtime="r",
                                precision="int8", gate=gate)  # fmt: skip
            names = [s.name for s in _instead(artifact, Path("nowhere"), [precision], [])]
            assert any(name.endswith(f"-{precision}") for name in names), target

    def test_what_cannot_be_made_is_said_and_the_rest_is_kept(self, run, ruined, monkeypatch):
        def convert(*_):
            raise DataError("the validation part has no labelled images")

        monkeypatch.setattr("edgekd.export.onnx_mixed.convert", convert)
        shutil.rmtree(run.bundle)
        manifest, _, said = refused(run.root, make=["onnx-int8", "openvino-int8"])
        assert "onnx-mixed" not in manifest.artifacts
        assert "  onnx-mixed cannot be made: the validation part has no labelled images" in said

    def test_what_was_asked_for_and_cannot_be_made_is_an_error(self, run, monkeypatch):
        def convert(*_):
            raise DataError("no images")

        monkeypatch.setattr("edgekd.export.onnx_mixed.convert", convert)
        with pytest.raises(DataError, match="no images"):
            export(run.root, make=["onnx-mixed"], progress=lambda _: None)


class TestNextStep:
    @pytest.fixture
    def advise(self, exported):
        """The hint for a bundle whose artifacts got these verdicts."""
        manifest = exported[1]
        like = manifest.artifacts["onnx-int8"]

        def hint(**verdicts):
            artifacts = {}
            for precision, verdict in verdicts.items():
                gate = like.gate.model_copy(update={"verdict": verdict, "accepted_because": None})
                name = precision.replace("_", "-")
                artifacts[f"onnx-{name}"] = like.model_copy(
                    update={"name": f"onnx-{name}", "precision": name, "gate": gate}
                )
            failed = [a for a in artifacts.values() if not a.gate.may_ship]
            return next_step(manifest.model_copy(update={"artifacts": artifacts}), failed)

        return hint

    def test_too_few_images(self, advise):
        assert advise(int8="inconclusive") == "more test images, or --accept-inconclusive REASON"

    def test_int8_alone(self, advise):
        assert advise(fp32="passed", int8="refused").startswith("--make onnx-mixed; ")

    def test_mixed_passed(self, advise):
        hint = advise(fp32="passed", int8="refused", mixed="passed")
        assert hint.startswith("deploy onnx-mixed, which may ship; ")

    def test_mixed_failed_too(self, advise):
        assert advise(int8="refused", mixed="refused").startswith("--make onnx-int8-aware; ")

    def test_a_float_conversion_that_failed_is_no_matter_of_int8(self, advise):
        assert "lint" in advise(fp32="refused", int8="passed")
        assert "quantize" not in advise(int8="passed", fp16="refused")

    def test_inconclusive_ways_out_want_images(self, advise):
        open_ends = {"mixed": "inconclusive", "int8_aware": "inconclusive", "fp16": "inconclusive"}
        assert advise(int8="refused", **open_ends).startswith("more test images")

    def test_everything_failed(self, advise):
        hint = advise(int8="refused", mixed="refused", int8_aware="refused", fp16="refused")
        assert hint.startswith("full int8 again after a last stage with `quantize: int8`")
