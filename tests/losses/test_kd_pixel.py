"""Divergence at pixels: the formula, the one-channel rule, several teachers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.losses._masks import log_probabilities, two_channels
from edgekd.losses.kd import kd_kl
from edgekd.losses.kd_pixel import KDPixel
from tests.losses import segmentation_oracles as oracles
from tests.losses.cases import CLOCK, outputs
from tests.losses.segmentation_cases import BINARY, UNKNOWN, batch, masks, values
from tests.losses.umkd_oracles import slope


def loss(student: Tensor, *teachers: Tensor, tau: float = 1.0) -> Tensor:
    made, theirs = KDPixel(temperature=tau), [outputs(teacher) for teacher in teachers]
    made.setup(outputs(student), theirs, BINARY)
    labels = masks(9, len(student), *student.shape[2:])
    return made(outputs(student), theirs, batch(labels), CLOCK)


@pytest.mark.parametrize("tau", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 5), (1, 1)])
def test_it_is_the_formula(height: int, width: int, channels: int, tau: float) -> None:
    student, teacher = (values(i, 2, channels, height, width, scale=3.0) for i in (1, 2))
    expected = oracles.kd_pixel(student.numpy(), teacher.numpy(), tau)
    assert expected > 1e-3
    assert loss(student, teacher, tau=tau).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_one_channel_is_the_divergence_of_two_coins_and_learns(tau: float) -> None:
    student, teacher = values(1, 2, 1, 3, 5, scale=3.0).requires_grad_(), values(2, 2, 1, 3, 5)
    value = loss(student, teacher, tau=tau)
    expected = oracles.bernoulli_kl(student.detach().numpy(), teacher.numpy(), tau)
    assert value.item() == pytest.approx(expected, rel=1e-9)
    value.backward()
    assert student.grad is not None
    # d/dz of the divergence of coins is q - p, times tau^2 / tau
    by_hand = (student / tau).sigmoid() - (teacher / tau).sigmoid()
    torch.testing.assert_close(student.grad, (tau * by_hand / 30).detach())


def test_two_channels_of_which_one_is_0_say_the_same_as_one() -> None:
    student, teacher = (values(i, 2, 1, 3, 5, scale=3.0) for i in (1, 2))
    value = loss(student, teacher, tau=2.0)
    torch.testing.assert_close(loss(two_channels(student), two_channels(teacher), tau=2.0), value)
    torch.testing.assert_close(loss(two_channels(student), teacher, tau=2.0), value)


def test_its_gradient_is_the_formulas() -> None:
    student, teacher = values(1, 1, 3, 2, 3).requires_grad_(), values(2, 1, 3, 2, 3)
    loss(student, teacher, tau=2.0).backward()
    expected = slope(lambda s: oracles.kd_pixel(s, teacher.numpy(), 2.0), student.detach().numpy())
    torch.testing.assert_close(student.grad, torch.from_numpy(expected), rtol=1e-6, atol=1e-9)


def test_it_is_kd_with_every_pixel_as_an_image() -> None:
    student, teacher = (values(i, 2, 4, 3, 5, scale=3.0) for i in (1, 2))
    rows = [maps.permute(0, 2, 3, 1).flatten(0, 2) for maps in (student, teacher)]
    torch.testing.assert_close(loss(student, teacher, tau=4.0), kd_kl(*rows, 4.0))


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_zero_for_equal_answers_and_never_negative(channels: int) -> None:
    student, teacher = (values(i, 2, channels, 3, 5) for i in (1, 2))
    assert loss(student, student).item() == 0.0
    assert loss(student, teacher).item() > 0


def test_a_constant_added_to_all_channels_changes_nothing_unless_there_is_one() -> None:
    student, teacher = (values(i, 2, 3, 3, 5) for i in (1, 2))
    torch.testing.assert_close(loss(student + 5, teacher), loss(student, teacher))
    assert (
        loss(student[:, :1] + 5, teacher[:, :1]).item()
        > 2 * loss(student[:, :1], teacher[:, :1]).item()
    )


def test_the_logits_of_several_teachers_are_averaged() -> None:
    student, one, two = (values(i, 2, 1, 3, 5, scale=3.0) for i in (1, 2, 3))
    torch.testing.assert_close(loss(student, one, two), loss(student, (one + two) / 2))


def test_labels_are_not_needed() -> None:
    student, teacher = values(1, 2, 1, 3, 5), outputs(values(2, 2, 1, 3, 5))
    hidden = batch(torch.full((2, 3, 5), UNKNOWN))
    value = KDPixel()(outputs(student), [teacher], hidden, CLOCK)
    torch.testing.assert_close(value, loss(student, teacher.logits))


@pytest.mark.parametrize("channels", [1, 3])
def test_huge_logits_are_finite_and_so_is_the_gradient(channels: int) -> None:
    student = values(1, 2, channels, 3, 5, scale=1e4, dtype=torch.float32).requires_grad_()
    teacher = values(2, 2, channels, 3, 5, scale=1e4, dtype=torch.float32)
    value = loss(student, teacher)
    value.backward()
    assert value.item() > 1e3
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_probabilities_of_one_channel_are_exact_far_out() -> None:
    logs = log_probabilities(torch.tensor([30.0, -30.0]).reshape(1, 1, 1, 2))
    small = torch.tensor(-30.0).exp().item()
    assert logs[0, 1, 0, 0].item() == pytest.approx(-small)  # not 0
    assert logs[0, 0, 0, 1].item() == pytest.approx(-small)
    assert logs[0, 0, 0, 0].item() == -30.0


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_probabilities_add_up_to_1(channels: int) -> None:
    logits = values(1, 2, channels, 3, 5, scale=5.0)
    total = log_probabilities(logits, 2.0).exp().sum(dim=1)
    torch.testing.assert_close(total, torch.ones(2, 3, 5, dtype=torch.float64))
    assert two_channels(logits).shape[1] == max(2, channels)


def test_a_temperature_of_0_is_an_error() -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        KDPixel(temperature=0.0)
