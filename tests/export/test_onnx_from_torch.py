"""The exported file computes what the network computes, and the network stays as it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgekd.errors import EdgekdError
from edgekd.export.lint import check_qdq
from edgekd.export.onnx_from_torch import OPSET, logits_of_torch, to_onnx
from edgekd.export.tidy import IR_VERSION

SIZE = 16


class Small(nn.Module):
    """Normalises itself, as every edgekd network does."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))
        self.register_buffer("std", torch.full((1, 3, 1, 1), 0.25))
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv((x - self.mean) / self.std)))
        return self.linear(self.drop(x.mean(dim=(2, 3))))


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    network = Small().train()
    with torch.no_grad():
        for _ in range(5):  # statistics that are not 0 and 1, or folding them proves nothing
            network(torch.rand(8, 3, SIZE, SIZE))
        network.norm.weight.uniform_(0.5, 1.5)
    return network


@pytest.fixture(scope="module")
def exported(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.fp32.onnx"
    small.conv.register_forward_hook(lambda *_: None)
    to_onnx(small, path, size=SIZE)
    return path


def test_names_shapes_and_versions(exported):
    model = onnx.load(exported)
    (image,), (logits,) = model.graph.input, model.graph.output
    assert (image.name, logits.name) == ("input", "logits")
    shapes = [[d.dim_value for d in value.type.tensor_type.shape.dim] for value in (image, logits)]
    assert shapes == [[0, 3, SIZE, SIZE], [0, 4]]  # 0: the batch is free
    assert (model.opset_import[0].version, model.ir_version) == (OPSET, IR_VERSION) == (18, 10)
    assert check_qdq(exported) == []


def test_one_file_that_says_what_it_is_and_no_path_of_this_machine(exported):
    model = onnx.load(exported)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert set(properties) == {"edgekd.version", "edgekd.input"}
    assert '"range": [0, 1]' in properties["edgekd.input"]
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]
    raw = exported.read_bytes()
    assert b".py" not in raw
    assert b"/site-packages" not in raw


def test_the_network_is_left_as_it_was(small, exported):
    assert all(module.training for module in small.modules())
    assert len(small.conv._forward_hooks) == 1
    assert all(parameter.requires_grad for parameter in small.parameters())


def test_batch_norm_is_folded_and_dropout_gone(exported):
    operators = {entry.op_type for entry in onnx.load(exported).graph.node}
    assert not operators & {"BatchNormalization", "Dropout"}


def test_logits_of_torch_are_those_of_evaluation_mode(small):
    images = np.random.default_rng(0).random((3, 3, SIZE, SIZE), dtype=np.float32)
    first, second = (logits_of_torch(small, images) for _ in range(2))
    assert first.shape == (3, 4)
    np.testing.assert_array_equal(first, second)


def test_channels_last_weights_leave_no_transposes(small, tmp_path):
    to_onnx(small.to(memory_format=torch.channels_last), tmp_path / "model.onnx", size=SIZE)
    assert "Transpose" not in {n.op_type for n in onnx.load(tmp_path / "model.onnx").graph.node}


class Looks(nn.Module):
    """Its path depends on the pixels, which no exporter can follow."""

    def forward(self, x):
        return x.mean(dim=(2, 3)) if x.sum() > 0 else x.amax(dim=(2, 3))


def test_a_network_that_cannot_be_exported_is_named_and_leaves_nothing(tmp_path):
    with pytest.raises(EdgekdError, match="Looks cannot be exported to ONNX") as caught:
        to_onnx(Looks(), tmp_path / "model.onnx", size=SIZE)
    assert "must not depend on the values" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_computes_something_else_is_not_kept(small, tmp_path, monkeypatch):
    from edgekd.export import onnx_from_torch

    honest = onnx_from_torch.write

    def damage(model, path):
        for tensor in model.graph.initializer:
            if tensor.name == "linear.bias":
                shifted = onnx.numpy_helper.to_array(tensor) + 1
                tensor.CopyFrom(onnx.numpy_helper.from_array(shifted, tensor.name))
        honest(model, path)

    monkeypatch.setattr(onnx_from_torch, "write", damage)
    with pytest.raises(EdgekdError, match="differ from PyTorch's"):
        to_onnx(small, tmp_path / "model.onnx", size=SIZE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_shufflenet_is_the_small_graph(tmp_path):
    """173 nodes and the normalisation, against 902 from the TorchScript exporter."""
    from torchvision.models import shufflenet_v2_x0_5

    class Normalised(nn.Sequential):
        def forward(self, x):
            return super().forward((x - 0.5) / 0.25)

    torch.manual_seed(0)
    to_onnx(Normalised(shufflenet_v2_x0_5(num_classes=8)), tmp_path / "model.onnx", size=64)
    assert len(onnx.load(tmp_path / "model.onnx").graph.node) == 173 + 2


class Cancels(nn.Module):
    """Adds and takes away what is so large that single precision keeps few digits of the rest."""

    def __init__(self, huge: float):
        super().__init__()
        self.register_buffer("huge", torch.tensor(huge))

    def forward(self, x):
        small = x.mean(dim=(2, 3))
        return torch.stack([small[:, 0] + self.huge - self.huge, small[:, 1]], dim=1)


def test_where_single_precision_has_few_digits_the_file_need_not_have_more(tmp_path, monkeypatch):
    network = Cancels(3e4).eval()  # rounds to 1/512, far more than is tolerated

    def with_another_rounding(plain, images):
        exact = plain(torch.from_numpy(images)).numpy()
        return np.stack([exact[:, 0] + 1 / 512, exact[:, 1]], axis=1)

    monkeypatch.setattr("edgekd.export.onnx_from_torch.logits_of_torch", with_another_rounding)
    to_onnx(network, tmp_path / "model.onnx", size=SIZE)
    assert (tmp_path / "model.onnx").is_file()
