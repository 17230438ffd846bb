"""Parameters and multiply-accumulates, counted in an ONNX graph."""

from __future__ import annotations

import onnx
import pytest

from edgekd.export.graph_cost import count_macs, count_params
from tests import foreign_onnx as foreign
from tests.foreign_onnx import SIZE


@pytest.mark.slow
def test_the_count_is_that_of_the_same_torch_network(tmp_path):
    """fvcore adds BatchNorm and pooling; of BatchNorm's two parameters folding leaves one."""
    from torch import nn

    from edgekd.export.onnx_from_torch import to_onnx
    from edgekd.models.complexity import count
    from edgekd.models.network import Network

    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), nn.Hardswish(),
        nn.Conv2d(16, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5),
    )  # fmt: skip
    network = Network(net, mean=(0.5,) * 3, std=(0.2,) * 3)
    to_onnx(network.eval(), tmp_path / "net.onnx", size=32)
    model = onnx.load(tmp_path / "net.onnx")
    expected = count(network, 32)
    assert count_macs(model) == pytest.approx(expected.macs, rel=0.15)
    assert count_macs(model) < expected.macs
    assert count_params(model) == pytest.approx(expected.params, rel=0.1)


def test_by_hand(tmp_path):
    path = foreign.write(tmp_path / "net.onnx")
    half = SIZE // 2
    first, second, linear = half**2 * 8 * 27, half**2 * 8 * 9, 8 * 3
    assert count_macs(onnx.load(path)) == first + second + linear
    assert count_params(onnx.load(path)) == 8 * 27 + 4 * 8 + 8 * 9 + 8 * 3 + 3


def test_unknown_shapes_are_not_guessed(tmp_path):
    path = foreign.write(tmp_path / "net.onnx", size="side")
    assert count_macs(onnx.load(path)) is None
