"""KD: the formula and its invariants."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.losses.kd import KD
from tests.losses import oracles
from tests.losses.cases import CLOCK, batch, outputs, random_logits

BATCH = batch([0, 1, 2, 3, 4, 0, 1, 2])


def kd(student: Tensor, *teachers: Tensor, temperature: float = 4.0) -> Tensor:
    loss = KD(temperature=temperature)
    return loss(outputs(student), [outputs(t) for t in teachers], BATCH, CLOCK)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0, 20.0])
def test_it_is_the_formula(temperature: float) -> None:
    student, teacher = random_logits(1), random_logits(2)
    expected = oracles.kd(student.numpy(), teacher.numpy(), temperature)
    assert float(kd(student, teacher, temperature=temperature)) == pytest.approx(expected, rel=1e-9)


def test_it_is_zero_only_for_equal_softmaxes() -> None:
    teacher = random_logits(2)
    assert float(kd(teacher, teacher)) == pytest.approx(0.0, abs=1e-15)
    assert float(kd(teacher * 1.1, teacher)) > 1e-4


def test_a_constant_per_row_changes_nothing() -> None:
    student, teacher = random_logits(1), random_logits(2)
    shift = random_logits(3, classes=1)
    assert float(kd(student + shift, teacher)) == pytest.approx(float(kd(student, teacher)))
    assert float(kd(student, teacher + shift)) == pytest.approx(float(kd(student, teacher)))


def test_its_gradient_is_tau_times_the_difference_of_probabilities() -> None:
    student, teacher = random_logits(1).requires_grad_(), random_logits(2)
    kd(student, teacher, temperature=3.0).backward()
    expected = 3.0 * ((student / 3.0).softmax(1) - (teacher / 3.0).softmax(1)) / len(student)
    assert student.grad is not None
    torch.testing.assert_close(student.grad, expected.detach())


def test_its_limit_for_large_temperature_is_a_squared_distance() -> None:
    student, teacher = random_logits(1), random_logits(2)
    centred = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    limit = (centred**2).sum(1).mean() / (2 * student.shape[1])
    assert float(kd(student, teacher, temperature=1e4)) == pytest.approx(float(limit), rel=1e-3)


def test_several_teachers_are_averaged_in_logit_space() -> None:
    student, one, two = random_logits(1), random_logits(2), random_logits(3)
    assert float(kd(student, one, two)) == pytest.approx(float(kd(student, (one + two) / 2)))


def test_a_permutation_of_the_batch_changes_nothing() -> None:
    student, teacher = random_logits(1), random_logits(2)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    assert float(kd(student[order], teacher[order])) == pytest.approx(float(kd(student, teacher)))


def test_logits_of_any_size_are_finite_and_one_image_suffices() -> None:
    student, teacher = random_logits(1).float() * 1e4, random_logits(2).float() * 1e4
    assert torch.isfinite(kd(student, teacher))
    assert torch.isfinite(kd(student[:1], teacher[:1]))


def test_gradcheck() -> None:
    student, teacher = random_logits(1, rows=3).requires_grad_(), random_logits(2, rows=3)
    assert torch.autograd.gradcheck(lambda z: kd(z, teacher), (student,))
