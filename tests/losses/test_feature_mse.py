"""Squared error of maps: the formula, sizes, widths that must be equal."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.errors import RecipeError
from edgekd.losses.base import Outputs
from edgekd.losses.feature_mse import FeatureMSE
from tests.losses import kdml_oracles as oracles
from tests.losses.cases import CLOCK, FACTS, batch, outputs, random_maps
from tests.losses.umkd_oracles import slope


def of(maps: Tensor, logits: float = 0.0) -> Outputs:
    return outputs(torch.full((len(maps), 2), logits), last=maps)  # two classes


def feature_mse(student: Tensor, *teachers: Tensor) -> Tensor:
    loss, theirs = FeatureMSE(), [of(teacher) for teacher in teachers]
    loss.setup(of(student), theirs, FACTS)
    return loss(of(student), theirs, batch([0] * len(student)), CLOCK)


@pytest.mark.parametrize(("ours", "theirs"), [(4, 4), (4, 2), (2, 4), (5, 3)])
@pytest.mark.parametrize("rows", [1, 3])
def test_it_is_the_formula(rows: int, ours: int, theirs: int) -> None:
    student, teacher = random_maps(1, rows, side=ours), random_maps(2, rows, side=theirs)
    expected = oracles.feature_mse(student.numpy(), teacher.numpy())
    assert float(feature_mse(student, teacher)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("side", [2, 4])
def test_its_gradient_is_the_formulas(side: int) -> None:
    student, teacher = random_maps(1, 2, 3, 3).requires_grad_(), random_maps(2, 2, 3, side)
    feature_mse(student, teacher).backward()
    expected = slope(lambda s: oracles.feature_mse(s, teacher.numpy()), student.detach().numpy())
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.from_numpy(expected), rtol=1e-6, atol=1e-9)


def test_it_is_zero_for_equal_maps_and_the_same_in_both_directions() -> None:
    one, two = random_maps(1), random_maps(2)
    assert float(feature_mse(one, one)) == 0.0
    assert float(feature_mse(one, two)) == float(feature_mse(two, one)) > 0


def test_every_teacher_adds_a_full_term() -> None:
    student, one, two = random_maps(1), random_maps(2), random_maps(3, side=2)
    expected = float(feature_mse(student, one)) + float(feature_mse(student, two))
    assert float(feature_mse(student, one, two)) == pytest.approx(expected, rel=1e-12)


def test_logits_are_not_looked_at_and_there_are_no_adapters() -> None:
    loss, student, teacher = FeatureMSE(), random_maps(1), random_maps(2)
    values = [
        float(loss(of(student, z), [of(teacher, -z)], batch([0, 1, 1]), CLOCK)) for z in (0, 9)
    ]
    assert values[0] == values[1]
    assert not list(loss.parameters())


def test_other_widths_are_an_error_that_names_both_and_the_way_out() -> None:
    student, equal, wider = random_maps(1), random_maps(2), random_maps(3, channels=8)
    with pytest.raises(RecipeError, match=r"feature_mse: at tap 'last' .* 6 channels, .* 8;") as e:
        feature_mse(student, equal, wider)
    assert e.value.hint is not None
    assert "`neck: {width: 6}` in its models.NAME" in e.value.hint


def test_the_tap_can_be_chosen() -> None:
    assert FeatureMSE().taps == ("last",)
    assert FeatureMSE(tap="s3").taps == ("s3",)
    with pytest.raises(ValueError, match="`pooled` is no map"):
        FeatureMSE(tap="pooled")
