"""UDD: the paper's formula, the authors' code with each of its flags, and their invariants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from edgekd.errors import RecipeError
from edgekd.losses.base import Outputs
from edgekd.losses.udd import UDD
from edgekd.plugins import check_arguments
from tests.losses import umkd_oracles as oracles
from tests.losses.cases import CLOCK, FACTS, batch, classified, linear_head, outputs, random_maps

TARGETS = [1, 0, 4]
HEADS = [linear_head(seed) for seed in (11, 12, 13)]


def network(seed: int, side: int = 4, rows: int = 3) -> Outputs:
    return classified(random_maps(seed, rows, side=side), HEADS[seed % 3])


def psi(of: Outputs, windows: tuple[int, ...] = (1, 2, 4), from_finest: bool = False):
    weight, bias = of.head.weight.numpy(), of.head.bias.numpy()
    return oracles.region_logits(of.taps["last"].numpy(), weight, bias, windows, from_finest)


def udd(student: Outputs, *experts: Outputs, targets: list[int] = TARGETS, **params) -> Tensor:
    loss = UDD(**params)
    loss.setup(student, experts, FACTS)
    return loss(student, experts, batch(targets), CLOCK)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("windows", [(1, 2, 4), (1, 2), (1,)])
@pytest.mark.parametrize("side", [4, 7])
def test_the_paper_s_form_is_the_formula(
    side: int, windows: tuple[int, ...], reduction: str
) -> None:
    student, experts = network(1, side), [network(2, side), network(3, side)]
    value = udd(student, *experts, windows=windows, region_reduction=reduction)
    expected = oracles.udd_paper(
        psi(student, windows), [psi(expert, windows) for expert in experts], reduction
    )
    assert float(value) == pytest.approx(expected, rel=1e-10)


def test_the_paper_s_form_does_not_look_at_labels() -> None:
    value = float(udd(network(1), network(2)))
    assert float(udd(network(1), network(2), targets=[-1, -1, -1])) == value


@pytest.mark.parametrize(
    "parameter",
    [
        {"temperature": 1.0},
        {"alpha": 3.0},
        {"beta": 0.0},
        {"u": "uncertainty"},
        {"row_order": "fixed"},
    ],
)
def test_the_paper_s_form_refuses_what_only_the_official_one_uses(
    parameter: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match="belongs to `variant: official`"):
        UDD(**parameter)
    UDD(variant="official", **parameter)


def test_the_paper_s_form_is_zero_only_for_equal_region_logits() -> None:
    student = network(1)
    assert float(udd(student, student)) == 0.0
    assert float(udd(student, classified(student.taps["last"] + 1e-3, HEADS[1]))) > 0.0


def test_a_sure_expert_gives_twice_tckd_plus_nckd() -> None:
    student, expert = network(1), classified(random_maps(2), linear_head(12, scale=1e4))
    ours, theirs = torch.from_numpy(psi(student)), torch.from_numpy(psi(expert))
    assert torch.all(theirs.softmax(1).amax(1) == 1.0)
    tckd = (theirs.softmax(1) - ours.softmax(1)).pow(2).sum(1)
    nckd = (theirs - ours).pow(2).sum(1)
    assert float(udd(student, expert)) == pytest.approx(float((2 * tckd + nckd).mean()))


@pytest.mark.parametrize("pyramid", ["direct", "from_finest"])
@pytest.mark.parametrize("variant", ["paper", "official"])
def test_either_form_takes_either_pyramid(variant: str, pyramid: str) -> None:
    student, expert = network(1, 7), network(2, 7)
    finest = pyramid == "from_finest"
    ours, theirs = psi(student, from_finest=finest), [psi(expert, from_finest=finest)]
    if variant == "paper":
        expected = oracles.udd_paper(ours, theirs)
    else:
        expected = oracles.udd_official(ours, theirs, TARGETS)
    value = udd(student, expert, variant=variant, pyramid=pyramid)
    assert float(value) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("row_order", ["shipped", "fixed"])
@pytest.mark.parametrize("u", ["confidence", "uncertainty"])
@pytest.mark.parametrize("side", [4, 7])
def test_the_official_form_is_the_formula(side: int, u: str, row_order: str) -> None:
    student, experts = network(1, side), [network(2, side), network(3, side)]
    value = udd(student, *experts, variant="official", u=u, row_order=row_order)
    expected = oracles.udd_official(
        psi(student, from_finest=True),
        [psi(expert, from_finest=True) for expert in experts],
        TARGETS,
        u=u,
        row_order=row_order,
    )
    assert float(value) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("tau", "alpha", "beta"), [(1.0, 1.0, 0.5), (2.0, 0.0, 2.0), (4, 2, 0)])
def test_the_official_form_weighs_its_parts(tau: float, alpha: float, beta: float) -> None:
    student, expert = network(1), network(2)
    value = udd(student, expert, variant="official", temperature=tau, alpha=alpha, beta=beta)
    expected = oracles.udd_official(
        psi(student), [psi(expert)], TARGETS, tau=tau, alpha=alpha, beta=beta
    )
    assert float(value) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("rows", "windows", "same"), [(1, (1, 2, 4), True), (3, (1,), True), (3, (1, 2, 4), False)]
)
def test_the_shipped_order_is_wrong_except_for_one_image_or_one_region(
    rows: int, windows: tuple[int, ...], same: bool
) -> None:
    student, expert = network(1, rows=rows), network(2, rows=rows)
    params = {"variant": "official", "windows": windows, "targets": TARGETS[:rows]}
    shipped = float(udd(student, expert, row_order="shipped", **params))
    fixed = float(udd(student, expert, row_order="fixed", **params))
    assert (abs(shipped - fixed) < 1e-12 * fixed) is same


def test_images_without_a_label_do_not_count_in_the_official_form() -> None:
    student, expert = network(1), network(2)

    def rows(of: Outputs, keep: list[int]) -> Outputs:
        return classified(of.taps["last"][keep], of.head)

    some = udd(student, expert, targets=[1, -1, 4], variant="official")
    alone = udd(rows(student, [0, 2]), rows(expert, [0, 2]), targets=[1, 4], variant="official")
    assert float(some) == pytest.approx(float(alone), rel=1e-12)


def test_without_any_label_the_official_form_is_zero_with_a_zero_gradient() -> None:
    maps = random_maps(1).requires_grad_()
    value = udd(classified(maps, HEADS[1]), network(2), targets=[-1] * 3, variant="official")
    value.backward()
    assert value.item() == 0.0
    assert maps.grad is not None
    assert torch.count_nonzero(maps.grad) == 0


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_one_expert_named_twice_changes_nothing(variant: str) -> None:
    student, expert = network(1), network(2)
    twice = float(udd(student, expert, expert, variant=variant))
    assert twice == pytest.approx(float(udd(student, expert, variant=variant)), rel=1e-12)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_its_gradient_is_the_formulas(variant: str) -> None:
    maps, expert, targets = random_maps(1, 2).requires_grad_(), network(2, rows=2), TARGETS[:2]
    student = classified(maps, HEADS[1])
    udd(student, expert, targets=targets, variant=variant, windows=(1, 2)).backward()

    def value(array) -> float:
        weight, bias = HEADS[1].weight.numpy(), HEADS[1].bias.numpy()
        ours, theirs = oracles.region_logits(array, weight, bias, (1, 2)), [psi(expert, (1, 2))]
        if variant == "paper":
            return oracles.udd_paper(ours, theirs)
        return oracles.udd_official(ours, theirs, targets)

    assert maps.grad is not None
    expected = torch.from_numpy(oracles.slope(value, maps.detach().numpy()))
    torch.testing.assert_close(maps.grad, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_a_window_larger_than_the_map_is_an_error(variant: str) -> None:
    with pytest.raises(RecipeError, match=r"udd.*3x3"):
        udd(network(1, 3), network(2, 3), variant=variant)


def test_the_map_of_an_expert_must_hold_the_windows_too() -> None:
    with pytest.raises(RecipeError, match=r"udd.*3x3"):
        udd(network(1, 4), network(2, 3))


def test_only_the_official_form_warns_of_two_classes(capsys: pytest.CaptureFixture[str]) -> None:
    two = outputs(torch.zeros(3, 2), last=random_maps(1))
    UDD().setup(two, [two], FACTS)
    assert "two classes" not in capsys.readouterr().err
    UDD(variant="official").setup(two, [two], FACTS)
    assert "two classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "params",
    [
        {"variant": "printed"},
        {"region_reduction": "max"},
        {"pyramid": "none"},
        {"u": "evidence"},
        {"row_order": "sorted"},
        {"temperature": 0.0},
        {"windows": ()},
    ],
)
def test_a_parameter_out_of_range_is_an_error(params: dict) -> None:
    with pytest.raises((ValueError, RecipeError)):
        UDD(**check_arguments(UDD, params, "params"))
