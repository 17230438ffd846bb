"""SDD: both forms, the weights of complementary regions, warm-up, hidden labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError
from edgekd.losses.base import Clock, Outputs
from edgekd.losses.dkd import DKD
from edgekd.losses.kd import KD, kd_kl
from edgekd.losses.sdd import SDD
from edgekd.plugins import check_arguments
from tests.losses import umkd_oracles as oracles
from tests.losses.cases import CLOCK, FACTS, batch, classified, linear_head, outputs, random_maps

TARGETS = [1, 0, 4]
HEADS = [linear_head(seed) for seed in (11, 12, 13)]
FORMS = ("kd", "dkd")


def network(seed: int, side: int = 4) -> Outputs:
    return classified(random_maps(seed, side=side), HEADS[seed % 3])


def psi(of: Outputs, windows: tuple[int, ...] = (1, 2, 4), from_finest: bool = False):
    weight, bias = of.head.weight.numpy(), of.head.bias.numpy()
    return oracles.region_logits(of.taps["last"].numpy(), weight, bias, windows, from_finest)


def sdd(
    student: Outputs,
    *experts: Outputs,
    targets: list[int] = TARGETS,
    clock: Clock = CLOCK,
    **params,
) -> Tensor:
    loss = SDD(**params)
    loss.setup(student, experts, FACTS)
    return loss(student, experts, batch(targets), clock)


@pytest.mark.parametrize("pyramid", ["direct", "from_finest"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("windows", [(1, 2, 4), (1, 2)])
@pytest.mark.parametrize("side", [4, 7])
def test_it_is_the_formula(side: int, windows: tuple[int, ...], form: str, pyramid: str) -> None:
    student, expert = network(1, side), network(2, side)
    finest = pyramid == "from_finest"
    expected = oracles.sdd(
        psi(student, windows, finest), psi(expert, windows, finest), TARGETS, form=form
    )
    value = sdd(student, expert, form=form, windows=windows, pyramid=pyramid)
    assert float(value) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("tau", "alpha", "beta"), [(1.0, 1.0, 0.5), (2.0, 3.0, 0.0)])
def test_temperature_and_parts_are_weighed(
    tau: float, alpha: float, beta: float, form: str
) -> None:
    student, expert = network(1), network(2)
    params = {"form": form, "alpha": alpha, "beta": beta}
    expected = oracles.sdd(psi(student), psi(expert), TARGETS, tau=tau, **params)
    value = sdd(student, expert, temperature=tau, **params)
    assert float(value) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_experts_are_averaged_in_logit_space(form: str) -> None:
    student, one, two = network(1), network(2), network(3)
    expected = oracles.sdd(psi(student), (psi(one) + psi(two)) / 2, TARGETS, form=form)
    assert float(sdd(student, one, two, form=form)) == pytest.approx(expected, rel=1e-10)
    once, twice = sdd(student, one, form=form), sdd(student, one, one, form=form)
    assert float(twice) == pytest.approx(float(once), rel=1e-12)


@pytest.mark.parametrize("side", [4, 7])
def test_with_the_whole_map_alone_it_is_kd_and_dkd(side: int) -> None:
    student, expert = network(1, side), network(2, side)
    for form, plain in (("kd", KD()), ("dkd", DKD())):
        value = sdd(student, expert, form=form, windows=(1,))
        expected = plain(student, [expert], batch(TARGETS), CLOCK)
        assert float(value) == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize(
    ("right", "weights"),
    [
        ([True, True, True, True], [1, 1, 1, 1, 1]),
        ([False, False, False, False], [1, 1, 1, 1, 1]),
        ([True, True, True, False], [1, 1, 1, 1, 2]),  # right in the whole, wrong in a part
        ([False, True, False, False], [1, 1, 2, 1, 1]),  # right in a part only
    ],
)
def test_a_complementary_region_counts_twice(right: list[bool], weights: list[int]) -> None:
    """A map of four pixels that are the logits of two classes, of which 0 is the label."""
    pixels = torch.tensor([[3.0, 1.0] if here else [1.0, 2.0] for here in right]).double()
    maps = pixels.T.reshape(1, 2, 2, 2)
    expert, student = (classified(m, nn.Identity()) for m in (maps, torch.zeros_like(maps)))
    value = sdd(student, expert, targets=[0], form="kd", windows=(1, 2))
    rows = torch.cat([pixels.mean(0, keepdim=True), pixels])
    parts = [float(kd_kl(torch.zeros_like(row)[None], row[None], 4.0)) for row in rows]
    expected = sum(weight * part for weight, part in zip(weights, parts, strict=True)) / 5
    assert float(value) == pytest.approx(expected, rel=1e-12)


def test_the_dkd_form_warms_up_and_the_kd_form_does_not() -> None:
    student, expert = network(1), network(2)
    first, last = Clock(1, 100, 0, 1), Clock(20, 100, 0, 1)
    full = float(sdd(student, expert, clock=last))
    assert float(sdd(student, expert, clock=first)) == pytest.approx(full / 20)
    assert float(sdd(student, expert, clock=first, warmup=1)) == pytest.approx(full)
    assert float(sdd(student, expert)) == pytest.approx(full)
    early, late = (float(sdd(student, expert, form="kd", clock=c)) for c in (first, last))
    assert early == late


def test_an_image_without_a_label_weighs_one_in_the_kd_form_and_nothing_in_the_other() -> None:
    student, expert = network(1), network(2)
    hidden = [1, -1, 4]
    expected = oracles.sdd(psi(student), psi(expert), hidden, form="kd")
    assert float(sdd(student, expert, targets=hidden, form="kd")) == pytest.approx(expected)
    expected = oracles.sdd(psi(student)[[0, 2]], psi(expert)[[0, 2]], [1, 4])
    assert float(sdd(student, expert, targets=hidden)) == pytest.approx(expected)


def test_a_batch_without_any_label() -> None:
    maps, expert = random_maps(1).requires_grad_(), network(2)
    value = sdd(classified(maps, HEADS[1]), expert, targets=[-1] * 3)
    value.backward()
    assert value.item() == 0.0
    assert maps.grad is not None
    assert torch.count_nonzero(maps.grad) == 0
    kd = sdd(network(1), expert, targets=[-1] * 3, form="kd")
    expected = oracles.sdd(psi(network(1)), psi(expert), [-1] * 3, form="kd")
    assert float(kd) == pytest.approx(expected)


@pytest.mark.parametrize("form", FORMS)
def test_its_gradient_is_the_formulas(form: str) -> None:
    maps, expert = random_maps(1).requires_grad_(), network(2)
    student = classified(maps, HEADS[1])
    sdd(student, expert, form=form, windows=(1, 2)).backward()

    def value(array) -> float:
        weight, bias = HEADS[1].weight.numpy(), HEADS[1].bias.numpy()
        ours = oracles.region_logits(array, weight, bias, (1, 2))
        return oracles.sdd(ours, psi(expert, (1, 2)), TARGETS, form=form)

    assert maps.grad is not None
    expected = torch.from_numpy(oracles.slope(value, maps.detach().numpy()))
    torch.testing.assert_close(maps.grad, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("form", FORMS)
def test_it_is_zero_for_equal_networks(form: str) -> None:
    assert float(sdd(network(1), network(1), form=form)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_a_window_larger_than_the_map_is_an_error(form: str) -> None:
    for student, expert in ((3, 3), (4, 3)):
        with pytest.raises(RecipeError, match=r"sdd.*3x3"):
            sdd(network(1, student), network(2, expert), form=form)


def test_only_the_dkd_form_warns_of_two_classes(capsys: pytest.CaptureFixture[str]) -> None:
    two = outputs(torch.zeros(3, 2), last=random_maps(1))
    SDD(form="kd").setup(two, [two], FACTS)
    assert "two classes" not in capsys.readouterr().err
    SDD().setup(two, [two], FACTS)
    assert "two classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "params",
    [{"form": "ce"}, {"pyramid": "none"}, {"temperature": 0.0}, {"warmup": 0}, {"windows": ()}],
)
def test_a_parameter_out_of_range_is_an_error(params: dict) -> None:
    with pytest.raises((ValueError, RecipeError)):
        SDD(**check_arguments(SDD, params, "params"))
