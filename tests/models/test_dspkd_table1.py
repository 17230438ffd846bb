"""DSP-KD's networks (its Table 1): where their taps are, and every printed size of them."""

from __future__ import annotations

import pytest
import torch

from edgekd import published
from edgekd.models import zoo
from edgekd.models.build import build_network
from edgekd.models.complexity import Complexity, count
from edgekd.models.network import Network
from edgekd.models.taps import Recorder
from edgekd.models.zoo import DIFFERS, MATCH, UNKNOWN, Entry, Size, survey
from edgekd.recipe import ModelSpec

# the channels of s1 to s4, at 56, 28, 14 and 7 pixels, and of the last map, at 7
TAPS = {
    "timm:res2net101_26w_4s": (256, 512, 1024, 2048, 2048),
    "timm:convnext_base": (128, 256, 512, 1024, 1024),
    "torchvision:convnext_base": (128, 256, 512, 1024, 1024),
    "timm:efficientnet_b4": (32, 56, 160, 448, 1792),
    "torchvision:efficientnet_b4": (32, 56, 160, 448, 1792),
    "timm:efficientnet_b0": (24, 40, 112, 320, 1280),
    "torchvision:efficientnet_b0": (24, 40, 112, 320, 1280),
    "timm:mobilenetv2_100": (24, 32, 96, 320, 1280),
    "torchvision:mobilenet_v2": (24, 32, 96, 320, 1280),
    "torchvision:shufflenet_v2_x1_0": (24, 116, 232, 464, 1024),
    "edgekd:shufflenet_v1": (24, 240, 480, 960, 960),
}

# Parameters in millions, with the head that the paper counted; the other one prints other digits.
PARAMETERS = {
    ("timm:res2net101_26w_4s", 8): 43.174,
    ("timm:convnext_base", 8): 87.575,
    ("torchvision:efficientnet_b4", 1000): 19.342,
    ("edgekd:shufflenet_v1", 8): 0.912,
    ("torchvision:shufflenet_v2_x1_0", 8): 1.262,
    ("torchvision:efficientnet_b0", 1000): 5.289,
    ("torchvision:mobilenet_v2", 1000): 3.505,
}
OTHER_HEAD = {
    ("timm:res2net101_26w_4s", 1000): 45.207,
    ("timm:convnext_base", 1000): 88.591,
    ("torchvision:efficientnet_b4", 8): 17.563,
    ("edgekd:shufflenet_v1", 1000): 1.866,
    ("torchvision:shufflenet_v2_x1_0", 1000): 2.279,
    ("torchvision:efficientnet_b0", 8): 4.018,
    ("torchvision:mobilenet_v2", 8): 2.234,
}
# Multiply-accumulates in billions: every cell is met with the head of 8 classes. Those of 1000
# would print 8.104, 15.384, 1.545, 0.143, 0.149, 0.402 and 0.314.
MACS = {
    "timm:res2net101_26w_4s": 8.102,
    "timm:convnext_base": 15.383,
    "torchvision:efficientnet_b4": 1.543,
    "edgekd:shufflenet_v1": 0.143,
    "torchvision:shufflenet_v2_x1_0": 0.148,
    "torchvision:efficientnet_b0": 0.4,
    "torchvision:mobilenet_v2": 0.313,
}
# What is printed and cannot be met: the line of the table, the figure, ours, and why.
NOT_MET = {
    "SSD-KD": (1.13, 1.262, "distillation cannot change"),
    "DSP-KD": (1.09, 1.262, "distillation cannot change"),
    "wide-ShuffleNet": (1.8, None, "could not be established"),
}


def shaped(arch: str, classes: int = 8) -> Network:
    """A network whose tensors have shapes and no values, which costs nothing to make."""
    with torch.device("meta"):
        return build_network(ModelSpec(arch=arch), outputs=classes)


def gmacs(arch: str) -> float:
    """With 8 classes, as printed. Tracing needs tensors in memory, whatever is in them."""
    return round(count(shaped(arch).to_empty(device="cpu"), zoo.SIZE).macs / 1e9, 3)


@pytest.mark.parametrize("arch", TAPS)
def test_taps_have_the_channels_and_the_strides_of_their_stages(arch: str) -> None:
    network = shaped(arch).eval()
    wanted = ("s1", "s2", "s3", "s4", "last")
    recorder = Recorder(network, {*wanted, "pooled"}, "net")
    recorder.start()
    network(torch.zeros(2, 3, 224, 224, device="meta"))
    maps = recorder.take()
    shapes = [tuple(maps[name].shape) for name in wanted]
    sides = (56, 28, 14, 7, 7)
    assert shapes == [(2, c, s, s) for c, s in zip(TAPS[arch], sides, strict=True)]
    assert maps["pooled"].shape == (2, TAPS[arch][-1])


@pytest.mark.parametrize(("arch", "classes"), [*PARAMETERS, *OTHER_HEAD])
def test_each_printed_number_of_parameters_is_met_by_one_head(arch: str, classes: int) -> None:
    found = sum(tensor.numel() for tensor in shaped(arch, classes).net.parameters())
    assert round(found / 1e6, 3) == {**PARAMETERS, **OTHER_HEAD}[arch, classes]


def test_the_figures_above_are_the_published_ones() -> None:
    lines = {entry.arch: entry.name for entry in zoo.NETWORKS if entry.table == "dspkd_table1"}
    assert len(lines) == 7
    for (arch, _), params in PARAMETERS.items():
        [row] = published.table("dspkd_table1").rows_of(lines[arch])
        assert row.values == {"params_m": params, "gmacs": MACS[arch]}
        assert bool(row.suspect) == ((arch, 1000) in PARAMETERS)
    for name, (printed, _, _) in NOT_MET.items():
        [row] = published.table("dspkd_table6").rows_of(name)
        assert row.values["params_m"] == printed


@pytest.mark.parametrize("arch", MACS)
def test_multiply_accumulates_are_the_printed_digits_with_the_head_of_8_classes(arch: str) -> None:
    assert gmacs(arch) == MACS[arch]


def test_efficientnets_of_timm_count_less_and_do_not_fit() -> None:
    """Their squeeze-and-excitation takes the mean with an operation that fvcore passes over."""
    assert gmacs("timm:efficientnet_b0") == 0.398 != MACS["torchvision:efficientnet_b0"]


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[Size]:
    """The survey, with sizes that the tests above have measured."""

    def known(arch: str, classes: int) -> Complexity:
        millions = {**PARAMETERS, **OTHER_HEAD}[arch, classes]
        return Complexity(round(millions * 1e6), round(MACS[arch] * 1e9))

    monkeypatch.setattr(zoo, "measure", known)
    return survey()


def test_the_survey_holds_every_printed_size_once_and_says_which_are_met(
    sizes: list[Size],
) -> None:
    cells = [
        (size.network, figure)
        for size in sizes
        for figure in ("params_m", "gmacs")
        if size.table == "dspkd_table1" and getattr(size, f"published_{figure}") is not None
    ]
    rows = published.table("dspkd_table1").rows
    printed = [(row.method, f) for row in rows for f in row.values if f in ("params_m", "gmacs")]
    assert sorted(cells) == sorted(printed)
    assert len(cells) == 14
    assert {size.status for size in sizes if size.table == "dspkd_table1"} == {MATCH}


def test_the_survey_says_of_what_is_not_met_why(sizes: list[Size]) -> None:
    others = {size.network: size for size in sizes if size.table != "dspkd_table1"}
    assert set(others) == set(NOT_MET)
    for name, (printed, ours, reason) in NOT_MET.items():
        size = others[name]
        assert (size.published_params_m, size.params_m) == (printed, ours)
        assert size.status == (UNKNOWN if ours is None else DIFFERS)
        assert reason in size.note


def test_one_digit_off_is_not_a_match(sizes: list[Size], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "NETWORKS", (Entry("ShuffleNetV2", "x"), Entry("ShuffleNetV1", "y")))
    macs = {"x": 147_499_999, "y": 142_500_001}
    params = {"x": 1_262_000, "y": 912_499}
    monkeypatch.setattr(zoo, "measure", lambda arch, _: Complexity(params[arch], macs[arch]))
    assert [size.status for size in survey()] == [DIFFERS, MATCH]
