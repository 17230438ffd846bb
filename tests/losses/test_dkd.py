"""DKD: the formula and its invariants."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.losses.base import Clock
from edgekd.losses.dkd import DKD, dkd_parts
from edgekd.losses.kd import kd_kl
from tests.losses import oracles
from tests.losses.cases import CLOCK, FACTS, batch, outputs, random_logits

TARGETS = [0, 1, 2, 3, 4, 0, 1, 2]


def dkd(student: Tensor, teacher: Tensor, targets: list[int], clock: Clock = CLOCK, **p: float):
    return DKD(**p)(outputs(student), [outputs(teacher)], batch(targets), clock)


@pytest.mark.parametrize(
    ("tau", "alpha", "beta"), [(4.0, 1.0, 8.0), (1.0, 1.0, 0.5), (2.0, 0.0, 2.0)]
)
def test_it_is_the_formula(tau: float, alpha: float, beta: float) -> None:
    student, teacher = random_logits(1), random_logits(2)
    value = dkd(student, teacher, TARGETS, temperature=tau, alpha=alpha, beta=beta)
    expected = oracles.dkd(student.numpy(), teacher.numpy(), TARGETS, tau, alpha, beta)
    assert float(value) == pytest.approx(expected, rel=1e-9)


def test_per_sample_kd_is_tckd_plus_the_non_target_share_of_nckd() -> None:
    student, teacher = random_logits(1), random_logits(2)
    targets = torch.tensor(TARGETS)
    tckd, nckd = dkd_parts(student, teacher, targets, 4.0)
    share = 1 - (teacher / 4.0).softmax(1)[torch.arange(8), targets]
    whole = torch.stack([kd_kl(student[i : i + 1], teacher[i : i + 1], 4.0) for i in range(8)]) / 16
    torch.testing.assert_close(tckd + share * nckd, whole, rtol=1e-10, atol=1e-14)


def test_with_two_classes_the_non_target_part_is_zero_and_the_user_is_warned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    student, teacher = random_logits(1, classes=2), random_logits(2, classes=2)
    tckd, nckd = dkd_parts(student, teacher, torch.tensor([0, 1] * 4), 4.0)
    assert torch.all(nckd == 0)
    assert torch.all(tckd > 0)
    DKD().setup(outputs(student), [outputs(teacher)], FACTS)
    assert "two classes" in capsys.readouterr().err


def test_it_warms_up_over_epochs_that_count_from_one() -> None:
    student, teacher = random_logits(1), random_logits(2)
    full = float(dkd(student, teacher, TARGETS, warmup=1))
    first = dkd(student, teacher, TARGETS, clock=Clock(1, 100, 0, 1), warmup=20)
    late = dkd(student, teacher, TARGETS, clock=Clock(50, 100, 0, 1), warmup=20)
    assert float(first) == pytest.approx(full / 20)
    assert float(late) == pytest.approx(full)


def test_images_without_a_label_do_not_count() -> None:
    student, teacher = random_logits(1), random_logits(2)
    some = dkd(student, teacher, [0, -1, 2, -1, -1, -1, -1, -1])
    alone = dkd(student[[0, 2]], teacher[[0, 2]], [0, 2])
    assert float(some) == pytest.approx(float(alone))
    assert float(dkd(student, teacher, [-1] * 8)) == 0.0


def test_it_is_zero_for_equal_logits_and_finite_for_huge_ones() -> None:
    teacher = random_logits(2)
    assert float(dkd(teacher, teacher, TARGETS)) == pytest.approx(0.0, abs=1e-12)
    huge = dkd(random_logits(1).float() * 1e4, random_logits(2).float() * 1e4, TARGETS)
    assert torch.isfinite(huge)


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_a_very_confident_teacher_gives_a_finite_gradient(tau: float) -> None:
    student = random_logits(1).float().requires_grad_()
    teacher = torch.zeros(8, 5)
    teacher[torch.arange(8), torch.tensor(TARGETS)] = 1e4
    dkd(student, teacher, TARGETS, temperature=tau).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_gradcheck() -> None:
    student, teacher = random_logits(1, rows=3).requires_grad_(), random_logits(2, rows=3)
    assert torch.autograd.gradcheck(lambda z: dkd(z, teacher, TARGETS[:3]), (student,))
