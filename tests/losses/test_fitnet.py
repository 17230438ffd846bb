"""FitNet: the formula, the regressor's shapes, several teachers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import RecipeError
from edgekd.losses.fitnet import FitNet, hint_regressor
from tests.losses import oracles
from tests.losses.cases import CLOCK, FACTS, batch, outputs

LOGITS = torch.zeros(4, 5)


def maps(seed: int, channels: int, side: int) -> torch.Tensor:
    return torch.randn(4, channels, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("student", "teacher"), [(8, 4), (4, 8), (8, 8), (8, 5)])
def test_the_regressor_gives_the_teachers_shape(student: int, teacher: int) -> None:
    regressor = hint_regressor(maps(1, 6, student), maps(2, 10, teacher))
    assert regressor(maps(1, 6, student)).shape == (4, 10, teacher, teacher)


def test_a_map_that_no_regressor_fits_is_an_error_that_names_both_sizes() -> None:
    with pytest.raises(RecipeError, match=r"5x5.*8x8"):
        hint_regressor(maps(1, 6, 5), maps(2, 10, 8))


def test_it_is_the_mean_squared_error_of_the_regressed_map() -> None:
    loss = FitNet(tap="s2")
    student, teacher = outputs(LOGITS, s2=maps(1, 6, 4)), outputs(LOGITS, s2=maps(2, 6, 4))
    loss.setup(student, [teacher], FACTS)
    value = loss(student, [teacher], batch([0, 1, 2, 3]), CLOCK)
    regressed = loss.regressors[0](student.taps["s2"]).detach().numpy()
    assert value.item() == pytest.approx(
        oracles.mse(regressed, teacher.taps["s2"].numpy()), rel=1e-6
    )


def test_it_is_zero_for_equal_maps_behind_an_identity() -> None:
    loss = FitNet(tap="s2")
    loss.regressors.append(nn.Identity())
    same = outputs(LOGITS, s2=maps(1, 6, 4))
    assert loss(same, [same], batch([0, 1, 2, 3]), CLOCK).item() == 0.0


def test_every_teacher_adds_a_term_with_a_regressor_of_its_own() -> None:
    loss = FitNet(tap="s1")
    student = outputs(LOGITS, s1=maps(1, 6, 8))
    teachers = [outputs(LOGITS, s1=maps(2, 12, 8)), outputs(LOGITS, s1=maps(3, 9, 4))]
    loss.setup(student, teachers, FACTS)
    assert len(loss.regressors) == 2
    loss(student, teachers, batch([0, 1, 2, 3]), CLOCK).backward()
    for parameter in loss.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


def test_final_relu_can_be_left_out() -> None:
    regressor = hint_regressor(maps(1, 6, 8), maps(2, 6, 8), final_relu=False)
    assert not any(isinstance(layer, nn.ReLU) for layer in regressor)
