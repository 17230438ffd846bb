"""ShuffleNetV1: the paper's figures, its unit, and how a recipe names it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from edgekd.errors import RecipeError
from edgekd.models import shufflenet_v1
from edgekd.models.build import build_network
from edgekd.models.neck import NeckedNet
from edgekd.models.shufflenet_v1 import ShuffleNetV1, ShuffleUnit, channel_shuffle
from edgekd.models.taps import Recorder, head_of
from edgekd.recipe import ModelSpec

ARCH = "edgekd:shufflenet_v1"


def spec(**more: Any) -> ModelSpec:
    return ModelSpec.model_validate({"arch": ARCH, **more})


@pytest.mark.parametrize(("groups", "millions"), [(1, 143), (2, 140), (3, 137), (4, 133), (8, 137)])
def test_the_convolutions_cost_what_the_paper_prints(groups: int, millions: int) -> None:
    """Table 1 of arXiv 1707.01083, multiply-accumulates at 224 pixels."""
    with torch.device("meta"):
        net = ShuffleNetV1(num_classes=1000, groups=groups).eval()
        images = torch.zeros(1, 3, 224, 224)
    macs = 0

    def add(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal macs
        assert isinstance(module, nn.Conv2d)
        kernel = module.kernel_size[0] * module.kernel_size[1]
        macs += output[0].numel() * kernel * module.in_channels // module.groups

    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add)
    net(images)
    assert round(macs / 1e6) == millions


def test_with_three_groups_and_8_classes_it_has_912416_parameters() -> None:
    """Counted here layer by layer: convolutions without bias, two numbers for a BatchNorm."""
    total = 3 * 24 * 9 + 2 * 24
    inputs = 24
    for outputs, units in ((240, 4), (480, 8), (960, 4)):
        for unit in range(units):
            narrow = outputs // 4
            wide = outputs - inputs if unit == 0 else outputs
            groups = 1 if inputs == 24 else 3
            total += inputs * narrow // groups + 2 * narrow
            total += 9 * narrow + 2 * narrow
            total += narrow * wide // 3 + 2 * wide
            inputs = outputs
    total += 960 * 8 + 8
    net = build_network(spec(), outputs=8).net
    assert total == 912_416
    assert sum(parameter.numel() for parameter in net.parameters()) == total


def test_the_shuffle_gives_every_group_one_channel_of_each_group() -> None:
    maps = torch.arange(12.0).view(1, 12, 1, 1).expand(2, 12, 2, 3)
    found = channel_shuffle(maps, 3)
    order = []
    for place in range(4):
        for group in range(3):
            order.append(4 * group + place)
    assert found.shape == maps.shape
    assert found[1, :, 1, 2].tolist() == order
    assert torch.equal(channel_shuffle(channel_shuffle(maps, 3), 4), maps)


def test_a_unit_adds_to_its_input_or_joins_its_mean() -> None:
    maps = torch.rand(2, 24, 8, 8)
    plain = ShuffleUnit(24, 24, groups=3, stride=1).eval()
    nn.init.zeros_(plain.bn3.weight)  # nothing comes out of the branch
    torch.testing.assert_close(plain(maps), maps)
    halving = ShuffleUnit(24, 60, groups=3, stride=2).eval()
    found = halving(maps)
    assert found.shape == (2, 60, 4, 4)
    assert found.min() >= 0
    torch.testing.assert_close(found[:, :24, 1:, 1:], _means(maps)[:, :, 1:, 1:])


def _means(maps: torch.Tensor) -> torch.Tensor:
    """Means of 3x3 pixels around every other one; the border is not looked at."""
    found = torch.zeros(*maps.shape[:2], maps.shape[2] // 2, maps.shape[3] // 2)
    for row in range(1, found.shape[2]):
        for column in range(1, found.shape[3]):
            near = maps[:, :, 2 * row - 1 : 2 * row + 2, 2 * column - 1 : 2 * column + 2]
            found[:, :, row, column] = near.mean(dim=(2, 3))
    return found


def groups_that_are_seen() -> list[set[int]]:
    """Of each group behind a unit's convolutions: the groups of its input that change it."""
    unit = ShuffleUnit(36, 36, groups=3, stride=1).eval()
    for module in unit.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    maps = torch.ones(1, 36, 6, 6, requires_grad=True)
    behind: list[torch.Tensor] = []
    unit.bn3.register_forward_hook(lambda _, __, output: behind.append(output))
    unit(maps)
    found = []
    for group in behind[0].chunk(3, dim=1):
        (gradient,) = torch.autograd.grad(group.sum(), maps, retain_graph=True)
        parts = gradient.chunk(3, dim=1)
        found.append({number for number, part in enumerate(parts) if part.abs().max() > 0})
    return found


def test_every_group_sees_all_groups_by_way_of_the_shuffle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert groups_that_are_seen() == [{0, 1, 2}] * 3
    monkeypatch.setattr(shufflenet_v1, "channel_shuffle", lambda maps, groups: maps)
    assert groups_that_are_seen() == [{0}, {1}, {2}]


def test_every_parameter_learns() -> None:
    torch.manual_seed(1)
    net = ShuffleNetV1(num_classes=3)
    logits = net(torch.rand(4, 3, 64, 64))
    loss = nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0]))
    names, parameters = zip(*net.named_parameters(), strict=True)
    for name, gradient in zip(names, torch.autograd.grad(loss, parameters), strict=True):
        assert torch.isfinite(gradient).all(), name
        assert gradient.abs().max() > 0, name


def test_it_takes_a_neck_and_has_a_tap_before_its_last_activation() -> None:
    necked = build_network(spec(neck={"width": 16}), outputs=5).eval()
    assert isinstance(necked.net, NeckedNet)
    assert necked(torch.rand(2, 3, 64, 64)).shape == (2, 5)
    plain = build_network(spec(), outputs=5).eval()
    recorder = Recorder(plain, {"s4.pre", "pooled"}, "net")
    recorder.start()
    logits = plain(torch.rand(2, 3, 64, 64))
    maps = recorder.take()
    torch.testing.assert_close(maps["s4.pre"].relu(), maps["last"])
    torch.testing.assert_close(head_of(plain)(maps["pooled"]), logits)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"args": {"groups": 5}}, "there is none with groups=5"),
        ({"args": {"width": 2}}, "`args` do not fit"),
        ({"pretrained": True}, "no weights of it are published"),
        ({"arch": "edgekd:shufflenet_v2"}, "edgekd has no model 'shufflenet_v2'"),
    ],
)
def test_mistakes_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        build_network(spec(**wrong), outputs=2)
    assert caught.value.hint or "args" in message
