"""int8 with some layers in float: accuracy control by NNCF, and our ranking of layers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgekd.errors import BundleError, DataError
from edgekd.export import onnx_int8, onnx_int8_aware, onnx_mixed
from edgekd.export.judge import SHIFT, Judge, logits_of_model
from edgekd.export.layers import float_layers, in_float, weighted_layers
from edgekd.export.lint import check_qdq
from edgekd.export.onnx_mixed import rank
from edgekd.export.quantize import spread
from edgekd.tasks.classification import Classification
from edgekd.tasks.grading import Grading
from tests.export.fragile import FRAGILE, squares, write_fragile, write_masks
from tests.export.passes import given
from tests.tiny_onnx import write_identity
from tests.toy_tasks import MultiLabel, Segmentation

LAYERS = ["first", FRAGILE, "narrow", "linear"]
LOOSE = {"control": {"max_drop": 0.5}}  # one of the validation images
SUSPECTS = {FRAGILE, "narrow"}  # the quantizer between them belongs to both


def clear(model, *, seed):
    """300 images that a model decides by a wide margin, and its decisions."""
    many = squares(1200, seed=seed)
    logits = logits_of_model(model, many)
    best, second = np.sort(logits, axis=1)[:, [-1, -2]].T
    chosen = np.argsort(second - best)[:300]
    return many[chosen], logits[chosen].argmax(axis=1).astype(np.int64)


class World:
    """The fragile model, what it says, and its int8 form."""

    def __init__(self, folder):
        self.folder = folder
        self.source = write_fragile(folder / "model.fp32.onnx")
        self.fp32 = onnx.load(self.source)
        self.calibration = squares(32)
        # centred, so that all classes occur
        bias = next(t for t in self.fp32.graph.initializer if t.name == "b4")
        centred = -logits_of_model(self.fp32, squares(600, seed=1)).mean(axis=0)
        bias.CopyFrom(onnx.numpy_helper.from_array(centred.astype(np.float32), "b4"))
        onnx.save(self.fp32, self.source)
        self.validation, self.truth = clear(self.fp32, seed=1)
        onnx_int8.convert(self.source, folder / "model.int8.onnx", given(self.calibration))
        self.int8 = onnx.load(folder / "model.int8.onnx")

    def given(self, **options):
        return given(self.calibration, validation=self.validation, targets=self.truth, **options)

    def agreement(self, path):
        """The share of fresh images that a file decides as the fp32 model does."""
        fresh, truth = clear(self.fp32, seed=2)
        return float((logits_of_model(onnx.load(path), fresh).argmax(axis=1) == truth).mean())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("mixed"))


def test_full_int8_ruins_this_model(world):
    assert world.agreement(world.folder / "model.int8.onnx") < 0.8
    assert float_layers(world.int8, world.fp32) == []


class TestLayers:
    def test_weighted_layers_are_found_in_order(self, world):
        assert [layer.name for layer in weighted_layers(world.fp32)] == LAYERS

    def test_a_layer_put_back_has_its_float_weights(self, world):
        model = in_float(world.int8, world.fp32, "linear")
        assert float_layers(model, world.fp32) == ["linear"]
        assert float_layers(world.int8, world.fp32) == []  # the model itself is unchanged

    def test_all_layers_put_back_compute_as_the_float_model(self, world):
        model = world.int8
        for name in LAYERS:
            model = in_float(model, world.fp32, name)
        found = logits_of_model(model, world.calibration)  # others may exceed the ranges
        expected = logits_of_model(world.fp32, world.calibration)
        # what lies between (pooling) stays quantized
        assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()

    def test_the_fragile_layer_ranks_first(self, world):
        ranked = rank(world.int8, world.fp32, world.calibration)
        assert sorted(ranked) == sorted(LAYERS)
        assert ranked[0] in SUSPECTS


@pytest.mark.parametrize("module", [onnx_int8_aware, onnx_mixed], ids=["aware", "mixed"])
class TestBothPasses:
    def test_they_put_the_fragile_layer_back_and_name_it(self, world, module, tmp_path):
        said = []
        target = tmp_path / "model.onnx"
        made = module.convert(world.source, target, world.given(said=said, **LOOSE))
        assert set(made.float_layers) & SUSPECTS
        assert len(made.float_layers) < len(LAYERS)  # some of it still is int8
        assert made.float_layers == float_layers(onnx.load(target), world.fp32)
        assert check_qdq(target) == []
        assert world.agreement(target) > 0.95
        assert any("validation images" in line for line in said)
        assert any("accuracy g" in note for note in made.notes)

    def test_a_score_where_lower_is_better_is_turned_round(self, world, module, tmp_path):
        task = Grading(classes=list("abcde"), primary="mae_argmax")
        target = tmp_path / "model.onnx"
        made = module.convert(world.source, target, world.given(task=task))
        assert set(made.float_layers) & SUSPECTS
        assert world.agreement(target) > 0.95

    def test_the_same_bytes_twice(self, world, module, tmp_path):
        files = [tmp_path / name for name in ("a.onnx", "b.onnx")]
        for target in files:
            module.convert(world.source, target, world.given())
        assert files[0].read_bytes() == files[1].read_bytes()

    def test_a_model_that_loses_nothing_stays_int8_where_control_finds_no_loss(
        self, world, module, tmp_path
    ):
        source = write_fragile(tmp_path / "sound.onnx", spread=1.0)
        target = tmp_path / "model.onnx"
        images, truth = clear(onnx.load(source), seed=3)
        options = {"validation": images, "targets": truth}
        made = module.convert(source, target, given(world.calibration, **options, **LOOSE))
        assert len(made.float_layers) <= 2
        assert check_qdq(target) == []


class TestJudge:
    @pytest.fixture
    def judge(self, world):
        g = world.given()
        return Judge(world.fp32, g.validation(), g.task)

    def test_the_model_itself_loses_nothing(self, world, judge):
        said = judge.predictions(world.fp32)
        assert (judge.drop(said), judge.changed(said)) == (0.0, 0.0)

    def test_a_loss_is_positive_whichever_way_the_score_points(self, world):
        for primary in ("accuracy", "mae_argmax"):
            task = Grading(classes=list("abcde"), primary=primary)
            judge = Judge(world.fp32, world.given().validation(), task)
            assert judge.drop(judge.predictions(world.int8)) > 0

    def test_nncf_accepts_by_the_score_and_ranks_by_distance(self, world, judge):
        whole, each = judge.for_nncf(world.fp32, range(len(judge)))
        assert whole == SHIFT + 1.0  # the labels are what the fp32 model says
        assert each == [0.0] * len(judge)
        part, each = judge.for_nncf(world.int8, range(10))
        assert part == pytest.approx(np.mean(each))
        assert part < 0


def test_layers_are_ranked_on_images_from_the_whole_calibration_set():
    assert spread(np.arange(300), 64)[-1] >= 295
    assert len(spread(np.arange(300), 64)) <= 64
    assert len(spread(np.arange(10), 64)) == 10


def test_an_undefined_score_chooses_nothing(world):
    one_class = given(squares(8), validation=squares(8), targets=np.zeros(8, np.int64),
                      task=Classification(classes=list("abcde"), primary="auroc"))  # fmt: skip
    with pytest.raises(DataError, match="auroc is undefined on the 8 validation images"):
        Judge(world.fp32, one_class.validation(), one_class.task)


def test_weights_in_constant_nodes_are_layers_too(world, tmp_path):
    model = onnx.load(world.source)
    for tensor in list(model.graph.initializer):
        if tensor.name.startswith("w"):
            node = onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
            model.graph.node.insert(0, node)
            model.graph.initializer.remove(tensor)
    onnx.save(model, tmp_path / "constants.onnx")
    made = onnx_mixed.convert(tmp_path / "constants.onnx", tmp_path / "m.onnx", world.given())
    assert set(made.float_layers) & SUSPECTS


class TestRefusals:
    def test_a_quantized_model_is_not_quantized_again(self, world, tmp_path):
        source = world.folder / "model.int8.onnx"
        for module in (onnx_int8, onnx_int8_aware, onnx_mixed):
            with pytest.raises(BundleError, match="quantized already"):
                module.convert(source, tmp_path / "model.onnx", world.given())
        assert not (tmp_path / "model.onnx").exists()

    def test_control_flow_is_named(self, world, tmp_path):
        model = onnx.load(world.source)
        node = model.graph.node.add(op_type="If", name="branch", input=["flag"])
        del node.output[:]
        path = tmp_path / "branch.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(BundleError, match="'branch' is a If: what it runs"):
            onnx_int8.convert(path, tmp_path / "model.onnx", world.given())

    def test_custom_operators_are_named(self, world, tmp_path):
        model = onnx.load(world.source)
        model.graph.node[0].domain = "ai.acme"
        path = tmp_path / "custom.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(BundleError, match=r"ai\.acme:Sub, not standard ONNX"):
            onnx_int8.convert(path, tmp_path / "model.onnx", world.given())

    def test_weights_that_are_not_finite_are_named(self, world, tmp_path):
        model = onnx.load(world.source)
        tensor = next(t for t in model.graph.initializer if t.name == "w3")
        bad = onnx.numpy_helper.to_array(tensor).copy()
        bad[0] = np.nan
        tensor.CopyFrom(onnx.numpy_helper.from_array(bad, "w3"))
        path = tmp_path / "nan.onnx"
        onnx.save(model, path)
        with pytest.raises(BundleError, match="w3: some of these weights are NaN"):
            onnx_int8.convert(path, tmp_path / "model.onnx", world.given())

    def test_a_model_of_no_layers_cannot_be_mixed(self, tmp_path):
        source = write_identity(tmp_path / "identity.onnx", ["N", 3, 16, 16])
        with pytest.raises(BundleError, match="fewer than two layers"):
            onnx_mixed.convert(source, tmp_path / "model.onnx", given(squares(8)))


@pytest.mark.parametrize("module", [onnx_int8, onnx_int8_aware, onnx_mixed])
def test_the_passes_take_a_task_with_several_labels_per_image(world, module, tmp_path):
    truth = (logits_of_model(world.fp32, world.validation) > 0).astype(np.int64)
    options = {
        "validation": world.validation,
        "targets": truth,
        "task": MultiLabel(classes="abcde"),
    }
    target = tmp_path / "model.onnx"
    made = module.convert(world.source, target, given(world.calibration, **options))
    assert check_qdq(target) == []
    if module is not onnx_int8:
        assert set(made.float_layers) & SUSPECTS


def test_the_judge_takes_masks(tmp_path):
    """A network of one convolution that answers per pixel, judged by the Dice of its images."""
    source = write_masks(tmp_path / "masks.onnx")
    fp32, images = onnx.load(source), squares(24)
    truth = (logits_of_model(fp32, images)[:, 0] > 0).astype(np.int64)  # (N, H, W)
    task = Segmentation(classes=["lesion"])
    judge = Judge(fp32, given(images, validation=images, targets=truth).validation(), task)
    assert judge.drop(judge.reference) == 0.0
    onnx_int8.convert(source, tmp_path / "int8.onnx", given(images, task=task))
    said = judge.predictions(onnx.load(tmp_path / "int8.onnx"))
    assert said.logits.shape == (24, 1, 16, 16)
    assert 0 < judge.changed(said) < 0.1
    assert 0 < judge.drop(said) < 0.1
