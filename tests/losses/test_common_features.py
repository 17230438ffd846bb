"""UMKD's common feature block: the formula from its weights, sizes, gradients, mistakes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError
from edgekd.losses._low_pass import LowPass
from edgekd.losses._mmd import mmd
from edgekd.losses.base import Outputs
from edgekd.losses.common_features import CommonFeatures
from edgekd.plugins import check_arguments
from tests.losses import umkd_oracles as oracles
from tests.losses.cases import CLOCK, FACTS, batch, outputs, random_maps

LOGITS = torch.zeros(2, 5)


def tapped(maps: Tensor, tap: str = "s4") -> Outputs:
    return outputs(LOGITS, **{tap: maps})


def block(
    student: Outputs, experts: Sequence[Outputs], *, hidden: int = 4, **params
) -> CommonFeatures:
    torch.manual_seed(0)
    loss = CommonFeatures(hidden=hidden, **params)
    loss.setup(student, experts, FACTS)
    return loss.double()


def value(loss: CommonFeatures, student: Outputs, experts: Sequence[Outputs]) -> Tensor:
    return loss(student, experts, batch([0] * len(student.logits)), CLOCK)


def kernels(module: nn.Module) -> list:
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert all(layer.bias is None for layer in layers)
    return [layer.weight.detach().numpy() for layer in layers]


def expected(loss: CommonFeatures, student: Tensor, experts: Sequence[Tensor]) -> float:
    common = loss.common
    inner = kernels(common.extractor)
    (shortcut,) = (kernel for kernel in inner if kernel.shape[2] == 1)
    inner = [kernel for kernel in inner if kernel.shape[2] == 3]
    assert len(inner) == 6
    aligns = [kernels(align)[0] for align in (common.align_student, *common.align_experts)]
    return oracles.common_features(
        student.detach().numpy(),
        [expert.numpy() for expert in experts],
        aligns,
        (shortcut, inner),
        [tuple(kernels(decoder)) for decoder in common.decoders],
    )


STUDENT, EXPERTS = random_maps(1, 2, 3, 4), [random_maps(2, 2, 5, 4), random_maps(3, 2, 2, 4)]


@pytest.mark.parametrize("count", [1, 2])
def test_without_a_filter_it_is_the_formula(count: int) -> None:
    maps = EXPERTS[:count]
    student, experts = tapped(STUDENT), [tapped(expert) for expert in maps]
    loss = block(student, experts)
    found = value(loss, student, experts).item()
    assert found == pytest.approx(expected(loss, STUDENT, maps), rel=1e-9)


def test_with_filters_the_experts_filtered_map_is_rebuilt() -> None:
    student, expert = random_maps(1, 2, 4, 6), random_maps(2, 2, 8, 6)
    loss = block(tapped(student, "s1"), [tapped(expert, "s1")], tap="s1", filter="low_pass")
    assert isinstance(loss.filter, LowPass)
    loss.eval()
    found = value(loss, tapped(student, "s1"), [tapped(expert, "s1")]).item()
    filtered = torch.from_numpy(oracles.low_pass(expert.numpy()))
    assert found == pytest.approx(expected(loss, loss.filter(student), [filtered]), rel=1e-9)


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
@pytest.mark.parametrize("norm", ["v", "paper"])
def test_kernel_and_norm_are_those_of_mmd(kernel: str, norm: str) -> None:
    student, expert = tapped(STUDENT), tapped(EXPERTS[0])
    loss = block(student, [expert], kernel=kernel, norm=norm)
    common = loss.common
    ours = common.extractor(common.align_student(STUDENT))
    theirs = common.extractor(common.align_experts[0](EXPERTS[0]))
    rebuilt = (common.decoders[0](theirs) - EXPERTS[0]).pow(2).mean()
    whole = mmd(ours.flatten(1), theirs.flatten(1), kernel=kernel, norm=norm) + rebuilt
    assert value(loss, student, [expert]).item() == pytest.approx(whole.item(), rel=1e-10)


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_compact_alignment_of_resnets_has_its_15_35_million_parameters() -> None:
    experts = [tapped(torch.zeros(2, 2048, 7, 7))] * 2
    loss = CommonFeatures()
    loss.setup(tapped(torch.zeros(2, 512, 7, 7)), experts, FACTS)
    assert size(loss) == 15_351_808


def test_shallow_alignment_of_resnets_has_its_1_93_million_and_the_students_filter() -> None:
    experts = [tapped(torch.zeros(2, 256, 6, 6), "s1")] * 2
    loss = CommonFeatures(tap="s1", filter="low_pass")
    loss.setup(tapped(torch.zeros(2, 64, 6, 6), "s1"), experts, FACTS)
    assert size(loss.common) == 1_933_312
    assert size(loss.filter) == 91_776
    assert size(loss) == 1_933_312 + 91_776


def test_its_layers_are_those_of_the_paper() -> None:
    common = block(tapped(STUDENT), [tapped(e) for e in EXPERTS], hidden=4).common
    assert len(common.align_experts) == len(common.decoders) == 2
    assert [kernel.shape for kernel in kernels(common.align_student)] == [(8, 3, 1, 1)]
    assert [kernel.shape for kernel in kernels(common.align_experts[0])] == [(8, 5, 1, 1)]
    assert [kernel.shape for kernel in kernels(common.decoders[0])] == [(5, 4, 3, 3), (5, 5, 1, 1)]
    assert not [layer for layer in common.modules() if isinstance(layer, nn.BatchNorm2d)]


def test_an_expert_with_the_same_weights_twice_doubles_it() -> None:
    student, expert = tapped(STUDENT), tapped(EXPERTS[0])
    loss = block(student, [expert, expert])
    common = loss.common
    common.align_experts[1].load_state_dict(common.align_experts[0].state_dict())
    common.decoders[1].load_state_dict(common.decoders[0].state_dict())
    twice = value(loss, student, [expert, expert]).item()
    common.align_experts, common.decoders = common.align_experts[:1], common.decoders[:1]
    assert twice == pytest.approx(2 * value(loss, student, [expert]).item(), rel=1e-12)


def gradients(loss: CommonFeatures, student: Tensor, *, alone: bool) -> dict[str, bool]:
    """Which parts get a gradient; `alone` leaves out the reconstruction."""
    student.requires_grad_()
    found = value(loss, tapped(student), [tapped(EXPERTS[0])])
    if alone:
        hidden = loss.common.extractor(loss.common.align_experts[0](EXPERTS[0]))
        found = found - (loss.common.decoders[0](hidden) - EXPERTS[0]).pow(2).mean()
    found.backward()
    parts = {
        "align_student": loss.common.align_student,
        "align_expert": loss.common.align_experts[0],
        "extractor": loss.common.extractor,
        "decoder": loss.common.decoders[0],
    }
    reached = {"student": student.grad}
    reached |= {name: next(part.parameters()).grad for name, part in parts.items()}
    return {n: g is not None and float(g.abs().max()) > 1e-12 for n, g in reached.items()}


def test_mmd_reaches_all_but_the_decoder() -> None:
    loss = block(tapped(STUDENT), [tapped(EXPERTS[0])])
    reached = gradients(loss, STUDENT.clone(), alone=True)
    assert reached == dict.fromkeys(reached, True) | {"decoder": False}


def test_reconstruction_never_reaches_the_student(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "edgekd.losses.common_features.mmd"
    monkeypatch.setattr(module, lambda x, y, **_: 0.0 * (x.sum() + y.sum()))
    loss = block(tapped(STUDENT), [tapped(EXPERTS[0])])
    reached = gradients(loss, STUDENT.clone(), alone=False)
    assert reached == dict.fromkeys(reached, True) | {"student": False, "align_student": False}


def test_its_gradient_is_the_formulas() -> None:
    student = random_maps(1, 2, 2, 2).requires_grad_()
    expert = random_maps(2, 2, 3, 2)
    loss = block(tapped(student), [tapped(expert)], hidden=2)
    value(loss, tapped(student), [tapped(expert)]).backward()
    slope = oracles.slope(
        lambda maps: expected(loss, torch.from_numpy(maps), [expert]), student.detach().numpy()
    )
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.from_numpy(slope), rtol=1e-5, atol=1e-8)


def test_the_map_before_the_activation_is_another_tap() -> None:
    assert CommonFeatures().taps == ("s4",)
    loss = CommonFeatures(tap="s2", tap_activation="pre")
    assert loss.taps == ("s2.pre",)
    student, expert = tapped(STUDENT, "s2.pre"), tapped(EXPERTS[0], "s2.pre")
    loss = block(student, [expert], tap="s2", tap_activation="pre")
    found = value(loss, student, [expert]).item()
    assert found == pytest.approx(expected(loss, STUDENT, EXPERTS[:1]), rel=1e-9)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("filter", ["none", "low_pass"])
def test_the_last_batch_may_be_smaller(rows: int, filter: str) -> None:
    loss = block(tapped(random_maps(1, 4, 4, 6)), [tapped(random_maps(2, 4, 4, 6))], filter=filter)
    student = random_maps(3, rows, 4, 6).requires_grad_()
    found = value(loss, tapped(student), [tapped(random_maps(4, rows, 4, 6))])
    found.backward()
    assert torch.isfinite(found)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_maps_of_unequal_size_are_an_error_that_names_both() -> None:
    with pytest.raises(RecipeError, match=r"common_features.*4x4.*7x7"):
        block(tapped(STUDENT), [tapped(random_maps(2, 2, 5, 7))])
    with pytest.raises(RecipeError, match=r"common_features.*4x4.*7x7"):
        block(tapped(STUDENT), [tapped(EXPERTS[0]), tapped(random_maps(2, 2, 5, 7))])


def test_with_a_strided_filter_the_experts_filtered_maps_are_averaged_to_its_size() -> None:
    student, expert = random_maps(1, 2, 4, 12), random_maps(2, 2, 4, 12)
    loss = block(tapped(student), [tapped(expert)], filter="low_pass", stride=2).eval()
    found = value(loss, tapped(student), [tapped(expert)]).item()
    filtered = torch.from_numpy(oracles.pooled(oracles.low_pass(expert.numpy()), 6))
    assert loss.filter(student).shape == filtered.shape
    assert found == pytest.approx(expected(loss, loss.filter(student), [filtered]), rel=1e-9)


def test_a_map_smaller_than_the_largest_bin_is_an_error() -> None:
    with pytest.raises(RecipeError, match=r"4x4.*6|6.*4x4"):
        block(tapped(STUDENT), [tapped(EXPERTS[0])], filter="low_pass")
    assert block(tapped(STUDENT), [tapped(EXPERTS[0])], filter="low_pass", bins=(1, 2, 4))


@pytest.mark.parametrize(
    "params",
    [
        {"filter": "high_pass"},
        {"kernel": "cubic"},
        {"norm": "u"},
        {"tap_activation": "none"},
        {"hidden": 0},
        {"bins": (0, 1)},
        {"bins": ()},
        {"stride": 2},
    ],
)
def test_a_parameter_out_of_range_is_an_error(params: dict) -> None:
    with pytest.raises((ValueError, RecipeError)):
        CommonFeatures(**check_arguments(CommonFeatures, params, "params"))
