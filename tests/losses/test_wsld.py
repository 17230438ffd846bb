"""WSLD: soft labels weighted by who is right."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.losses.kd import kd_kl
from edgekd.losses.wsld import WSLD, soft_label_weights
from tests.losses import dspkd_oracles as oracles
from tests.losses.cases import CLOCK, batch, outputs, random_logits
from tests.losses.umkd_oracles import slope

TARGETS = [0, 3, 1, 4, 2, 2, 0, 1]


def wsld(
    student: Tensor, *teachers: Tensor, targets: list[int] = TARGETS, **params: float
) -> Tensor:
    theirs = [outputs(teacher) for teacher in teachers]
    return WSLD(**params)(outputs(student), theirs, batch(targets), CLOCK)


def weights(student: Tensor, teacher: Tensor, targets: list[int] = TARGETS) -> Tensor:
    return soft_label_weights(student, teacher, torch.tensor(targets))


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_it_is_the_formula(temperature: float, classes: int) -> None:
    student, teacher = random_logits(1, classes=classes), random_logits(2, classes=classes)
    targets = [target % classes for target in TARGETS]
    wanted = oracles.wsld(student.numpy(), teacher.numpy(), targets, temperature)
    found = wsld(student, teacher, targets=targets, temperature=temperature)
    assert found.item() == pytest.approx(wanted, rel=1e-10)


def test_the_published_temperature_is_2() -> None:
    student, teacher = random_logits(1), random_logits(2)
    assert torch.equal(wsld(student, teacher), wsld(student, teacher, temperature=2.0))


def test_its_gradient_takes_the_weights_for_constants() -> None:
    student, teacher = random_logits(1).requires_grad_(), random_logits(2)
    wsld(student, teacher).backward()
    fixed = oracles.wsld_weights(student.detach().numpy(), teacher.numpy(), TARGETS)
    wanted = slope(
        lambda z: oracles.wsld(z, teacher.numpy(), TARGETS, weights=fixed),
        student.detach().numpy(),
    )
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.from_numpy(wanted), rtol=1e-6, atol=1e-9)
    assert not weights(student, teacher).requires_grad


def test_its_gradient_is_that_of_weighted_kl() -> None:
    student, teacher = random_logits(1).requires_grad_(), random_logits(2)
    (found,) = torch.autograd.grad(wsld(student, teacher), student)
    rows = [
        w * kd_kl(student[[i]], teacher[[i]], 2.0)
        for i, w in enumerate(weights(student, teacher).tolist())
    ]
    (wanted,) = torch.autograd.grad(torch.stack(rows).mean(), student)
    torch.testing.assert_close(found, wanted)


def test_weights_are_at_least_0_and_below_1() -> None:
    found = weights(random_logits(1, scale=1.0), random_logits(2, scale=1.0))
    assert (found >= 0).all()
    assert (found < 1).all()
    assert found.max() - found.min() > 0.1


def test_the_weight_vanishes_where_the_student_is_right_already() -> None:
    teacher = random_logits(2)
    right = torch.nn.functional.one_hot(torch.tensor(TARGETS), 5).double()
    found = torch.stack([weights(scale * right, teacher) for scale in (0.0, 5.0, 20.0, 100.0)])
    assert (found.diff(dim=0) <= 0).all()
    assert found[-1].max() < 1e-12


def test_the_weight_grows_with_how_right_the_teacher_is() -> None:
    student = random_logits(1)
    right = torch.nn.functional.one_hot(torch.tensor(TARGETS), 5).double()
    found = torch.stack([weights(student, scale * right) for scale in (-2.0, 0.0, 2.0, 5.0)])
    assert (found.diff(dim=0) > 0).all()


def test_images_without_a_label_do_not_count() -> None:
    student, teacher = random_logits(1), random_logits(2)
    hidden = [-1 if i in (2, 5) else target for i, target in enumerate(TARGETS)]
    rows = [i for i in range(8) if i not in (2, 5)]
    wanted = wsld(student[rows], teacher[rows], targets=[TARGETS[i] for i in rows])
    torch.testing.assert_close(wsld(student, teacher, targets=hidden), wanted)
    student.requires_grad_()
    value = wsld(student, teacher, targets=[-1] * 8)
    value.backward()
    assert value.item() == 0.0
    assert student.grad is not None
    assert not student.grad.any()


def test_several_teachers_are_averaged_in_logit_space() -> None:
    student, one, two = (random_logits(seed) for seed in (1, 2, 3))
    torch.testing.assert_close(wsld(student, one, two), wsld(student, (one + two) / 2))


@pytest.mark.parametrize("rows", [1, 8])
def test_logits_of_any_size_are_finite(rows: int) -> None:
    student, teacher = (1e4 * random_logits(seed, rows).float() for seed in (1, 2))
    student.requires_grad_()
    value = wsld(student, teacher, targets=TARGETS[:rows])
    value.backward()
    assert torch.isfinite(value)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_a_temperature_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="temperature"):
        WSLD(temperature=0.0)
