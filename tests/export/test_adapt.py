"""The graph of an imported file: read, refused or adapted, and proven to compute the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import BundleError
from edgekd.export.adapt import adapt
from edgekd.export.foreign import fixed_size, read_foreign
from edgekd.export.lint import check_qdq
from edgekd.export.original import Original, Pixels
from edgekd.export.same import prove_same
from edgekd.export.tidy import write as write_model
from tests import foreign_onnx as foreign
from tests.foreign_onnx import SIZE
from tests.tiny_onnx import write_int8_classifier

NAMES = ["a", "b", "c"]
PIXELS = Pixels(255.0, (120.0, 110.0, 100.0), (60.0, 55.0, 50.0))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "student.onnx"


def adapted(path, *, pixels=Pixels(), output=None, names=NAMES, size=SIZE):  # noqa: B008
    """The file through the whole surgery, proven; the written file and what was changed."""
    original = Original(read_foreign(path), pixels, size)
    original.choose(names, output)
    model, changes = adapt(original, len(names))
    target = path.with_name("adapted.onnx")
    write_model(model, target)
    prove_same(original, target, changes)
    assert check_qdq(target) == []
    return target, changes


def images(count=4):
    return np.random.default_rng(1).random((count, 3, SIZE, SIZE), dtype=np.float32)


def softmax(logits):
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponent / exponent.sum(axis=1, keepdims=True)


class TestAdapt:
    def test_names_and_shapes_are_the_bundles(self, path):
        target, changes = adapted(foreign.write(path))
        graph = onnx.load(target).graph
        assert [value.name for value in (*graph.input, *graph.output)] == ["input", "logits"]
        assert "'picture' is called 'input' now" in changes
        assert np.allclose(foreign.run(target, images()), foreign.run(path, images()), atol=1e-6)

    def test_the_pixels_are_brought_into_the_graph(self, path):
        target, changes = adapted(foreign.write(path), pixels=PIXELS)
        mean, std = np.array(PIXELS.mean), np.array(PIXELS.std)
        wanted = (images() * 255 - mean[:, None, None]) / std[:, None, None]
        expected = foreign.run(path, wanted.astype(np.float32))
        assert np.allclose(foreign.run(target, images()), expected, atol=1e-4)
        assert any("pixels times 255, minus 120 110 100" in change for change in changes)
        assert [node.op_type for node in onnx.load(target).graph.node][:3] == ["Mul", "Sub", "Div"]

    def test_channels_last_get_a_transpose_in_front(self, path):
        target, _ = adapted(foreign.write(path, is_nhwc=True), pixels=PIXELS)
        graph = onnx.load(target).graph
        assert [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim][1:] == [
            3, SIZE, SIZE,
        ]  # fmt: skip
        assert [node.op_type for node in graph.node][:4] == ["Mul", "Sub", "Div", "Transpose"]

    def test_what_edgekd_once_made_can_be_taken_again(self, path):
        first, _ = adapted(foreign.write(path, batch=1, is_nhwc=True), pixels=PIXELS)
        again = first.rename(path.with_name("again.onnx"))
        expected = foreign.run(again, PIXELS.apply(images()))
        target, _ = adapted(again, pixels=PIXELS)
        assert np.allclose(foreign.run(target, images()), expected, atol=1e-4)

    @pytest.mark.parametrize("batch", [1, 4])
    def test_a_fixed_batch_becomes_free(self, path, batch):
        target, changes = adapted(foreign.write(path, batch=batch))
        assert f"the batch was fixed to {batch} and is free now (1 Reshape node changed)" in changes
        assert foreign.run(target, images(7)).shape == (7, 3)

    def test_a_batch_that_is_free_in_name_only_becomes_free(self, path):
        def trace(model):
            tensor = next(t for t in model.graph.initializer if t.name == "shape")
            fixed = np.array([1, 8], dtype=np.int64)
            tensor.CopyFrom(numpy_helper.from_array(fixed, "shape"))

        target, changes = adapted(foreign.change(foreign.write(path), trace))
        assert any("the batch was fixed to 1" in change for change in changes)
        assert foreign.run(target, images(7)).shape == (7, 3)

    def test_a_batch_that_cannot_be_freed_says_what_to_do(self, path):
        def grow(model):  # what tracing makes of `expand(batch, ...)`: a constant of the batch
            token = np.zeros((1, 3), dtype=np.float32)
            model.graph.initializer.append(numpy_helper.from_array(token, "token"))
            node = helper.make_node("Concat", ["values", "token"], ["both"], axis=1)
            names = [numpy_helper.from_array(np.array(v, dtype=np.int64), n)
                     for n, v in (("from", [0]), ("to", [3]), ("axis", [1]))]  # fmt: skip
            model.graph.initializer.extend(names)
            cut = helper.make_node("Slice", ["both", "from", "to", "axis"], ["cut"])
            model.graph.node.extend([node, cut])
            model.graph.output[0].name = "cut"

        foreign.change(foreign.write(path, batch=1), grow)
        with pytest.raises(BundleError, match="cannot run 2 pictures at once") as caught:
            adapted(path)
        assert "dynamic_shapes" in caught.value.hint

    def test_a_picture_that_depends_on_its_batch_is_found(self, path):
        def train(model):
            node = next(n for n in model.graph.node if n.op_type == "BatchNormalization")
            node.attribute.append(helper.make_attribute("training_mode", 1))
            node.output.extend(["running_mean", "running_var"])

        foreign.change(foreign.write(path), train)
        with pytest.raises(BundleError, match="depend on the others of its batch") as caught:
            adapted(path)
        assert "model.eval()" in caught.value.hint

    @pytest.mark.parametrize(
        ("ending", "is_flattened"),
        [(["Softmax"], True), (["LogSoftmax"], True), (["Identity", "Softmax", "Identity"], True),
         (["Softmax", "Flatten"], False), (["Softmax"], False)],
    )  # fmt: skip
    def test_a_softmax_at_the_end_is_taken_off(self, path, ending, is_flattened):
        target, changes = adapted(foreign.write(path, ending=ending, is_flattened=is_flattened))
        kind = next(name for name in ending if "Softmax" in name)
        assert any(f"the {kind} at its end is left out" in change for change in changes)
        assert not {"Softmax", "LogSoftmax"} & {n.op_type for n in onnx.load(target).graph.node}
        said = foreign.run(path, images()).reshape(4, 3)
        probabilities = np.exp(said) if kind == "LogSoftmax" else said
        assert np.allclose(softmax(foreign.run(target, images())), probabilities, atol=1e-5)

    def test_a_softmax_over_another_axis_is_refused(self, path):
        def elsewhere(model):
            model.graph.node[-1].attribute[0].i = 0

        foreign.change(foreign.write(path, ending=["Softmax"], batch=2), elsewhere)
        with pytest.raises(BundleError, match="is not taken over the classes"):
            adapted(path)

    def test_a_sigmoid_is_refused(self, path):
        with pytest.raises(BundleError, match="ends in a Sigmoid"):
            adapted(foreign.write(path, ending=["Sigmoid"]))

    def test_other_outputs_are_dropped_with_what_only_they_need(self, path):
        target, changes = adapted(foreign.write(path, ending=["Softmax"], extra=["feature"]))
        assert "other outputs are left out: 'feature'" in changes
        assert len(onnx.load(target).graph.output) == 1

    def test_of_logits_and_their_softmax_the_logits_are_taken(self, path):
        _, changes = adapted(foreign.write(path, ending=["Softmax"], extra=["values"]))
        assert "other outputs are left out: 'end0'" in changes

    def test_two_answers_are_ambiguous_until_one_is_named(self, path):
        foreign.write(path, ending=["Neg"], extra=["values"])
        with pytest.raises(BundleError, match="several outputs of 3 values: 'end0', 'values'"):
            adapted(path)
        target, _ = adapted(path, output="values")
        assert np.allclose(foreign.run(target, images()), foreign.run(path, images(), "values"))
        with pytest.raises(BundleError, match="has no output 'valuez'") as caught:
            adapted(path, output="valuez")
        assert "values" in caught.value.hint

    @pytest.mark.parametrize(("opset", "ir", "expected"), [(11, 6, 13), (20, 10, 18), (15, 8, 15)])
    def test_the_opset_is_brought_into_range(self, path, opset, ir, expected):
        target, changes = adapted(foreign.write(path, opset=opset, ir=ir, ending=["Softmax"]))
        assert onnx.load(target).opset_import[0].version == expected
        assert (f"opset {opset} converted to {expected}" in changes) == (opset != expected)

    def test_old_files_list_their_weights_among_the_inputs(self, path):
        target, _ = adapted(foreign.write(path, opset=9, ir=3, weights_are_inputs=True))
        assert len(onnx.load(target).graph.input) == 1

    def test_tensors_that_have_our_names_already_are_told_apart(self, path):
        def confuse(model):
            for node in model.graph.node:
                for names in (node.input, node.output):
                    for index, name in enumerate(names):
                        names[index] = {"one": "logits", "two": "input"}.get(name, name)

        target, _ = adapted(foreign.change(foreign.write(path), confuse))
        assert np.allclose(foreign.run(target, images()), foreign.run(path, images()), atol=1e-6)

    def test_nothing_of_the_exporters_notes_stays(self, path):
        def note(model):
            model.doc_string = model.graph.node[0].doc_string = "/home/somebody/net.py"

        target, _ = adapted(foreign.change(foreign.write(path), note))
        assert b"/home/somebody" not in target.read_bytes()
        model = onnx.load(target)
        assert model.producer_name == "edgekd"
        names = [node.name for node in model.graph.node]
        assert all(names)
        assert len(set(names)) == len(names)


class TestRead:
    def test_weights_beside_the_file_are_taken_in(self, path):
        model = onnx.load(foreign.write(path))
        onnx.save(model, str(path), save_as_external_data=True, location="student.weights",
                  size_threshold=64)  # fmt: skip
        target, changes = adapted(path)
        assert "the weights in student.weights are inside the file now" in changes
        assert sorted(read_foreign(path).sha256) == ["student.onnx", "student.weights"]
        path.with_name("student.weights").unlink()
        assert foreign.run(target, images()).shape == (4, 3)
        with pytest.raises(BundleError, match=r"student.weights, which is not beside it"):
            read_foreign(path)

    @pytest.mark.parametrize("name", ["../outside.bin", "/etc/hostname", "link.bin"])
    def test_weights_outside_the_folder_are_refused(self, tmp_path, name):
        path = foreign.write(tmp_path / "in" / "student.onnx")
        (tmp_path / "outside.bin").write_bytes(bytes(4096))
        (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "outside.bin")

        model = onnx.load(path)
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=name)
        path.write_bytes(model.SerializeToString())
        with pytest.raises(BundleError, match="outside its folder"):
            read_foreign(path)

    def test_quantized_models_are_refused(self, path):
        with pytest.raises(BundleError, match="is quantized already") as caught:
            read_foreign(write_int8_classifier(path))
        assert "edgekd bench" in caught.value.hint

    def test_half_precision_is_refused(self, path):
        def halve(model):
            for tensor in model.graph.initializer:
                if tensor.data_type == TensorProto.FLOAT:
                    half = numpy_helper.to_array(tensor).astype(np.float16)
                    tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))

        with pytest.raises(BundleError, match="is in float16"):
            read_foreign(foreign.change(foreign.write(path), halve))

    def test_foreign_operators_are_named(self, path):
        def fuse(model):
            model.graph.node[2].domain = "com.microsoft"
            model.graph.node[2].op_type = "Gelu"
            model.opset_import.append(helper.make_opsetid("com.microsoft", 1))

        with pytest.raises(BundleError, match=r"com\.microsoft:Gelu"):
            read_foreign(foreign.change(foreign.write(path), fuse))

    def test_two_inputs_are_refused(self, path):
        def more(model):
            model.graph.input.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, [1]))

        with pytest.raises(BundleError, match=r"has 2 inputs \('picture', 'age'\)"):
            read_foreign(foreign.change(foreign.write(path), more))

    def test_grey_pictures_are_refused(self, path):
        with pytest.raises(BundleError, match="1-channel pictures"):
            Original(read_foreign(foreign.write(path, channels=1)), Pixels(), SIZE)

    def test_another_size_is_named_with_both_numbers(self, path):
        file = read_foreign(foreign.write(path))
        with pytest.raises(BundleError, match="takes pictures of 16 pixels, asked was 24"):
            Original(file, Pixels(), 24)

    def test_the_size_is_read_from_the_bytes_where_it_is_fixed(self, tmp_path):
        assert fixed_size(foreign.write(tmp_path / "a.onnx")) == SIZE
        assert fixed_size(foreign.write(tmp_path / "b.onnx", is_nhwc=True)) == SIZE
        assert fixed_size(foreign.write(tmp_path / "c.onnx", size="side")) is None

    def test_a_free_size_is_fixed(self, path):
        target, _ = adapted(foreign.write(path, size="side"), size=SIZE)
        assert fixed_size(target) == SIZE

    def test_another_number_of_classes_is_named(self, path):
        with pytest.raises(BundleError, match=r"'values' \(N, 3\); expected \(N, 2\).* a, b"):
            adapted(foreign.write(path), names=["a", "b"])


def test_names_in_a_strangers_file_do_not_steer_the_terminal(path):
    def edit(model):
        model.graph.node[0].op_type, model.graph.node[0].domain = "Evil\x1b[31m\nhint: x", "own"

    with pytest.raises(BundleError) as caught:
        read_foreign(foreign.change(foreign.write(path), edit))
    assert caught.value.message.endswith(r"own:Evil\x1b[31m\nhint: x")
