"""NormKD: a temperature for every image, and what scaling and shifting logits do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from edgekd.errors import RecipeError
from edgekd.losses.normkd import NormKD
from tests.losses import dspkd_oracles as oracles
from tests.losses.cases import CLOCK, FACTS, batch, outputs, random_logits
from tests.losses.umkd_oracles import slope


def normkd(student: Tensor, *teachers: Tensor, **params) -> Tensor:
    loss = NormKD(**params)
    theirs = [outputs(teacher) for teacher in teachers]
    loss.setup(outputs(student), theirs, FACTS)
    return loss(outputs(student), theirs, batch([-1] * len(student)), CLOCK)


@pytest.mark.parametrize("classes", [3, 8])
@pytest.mark.parametrize("temperature", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("kl", ["forward", "reverse"])
def test_it_is_the_formula(kl: str, temperature: float, classes: int) -> None:
    student, teacher = random_logits(1, classes=classes), random_logits(2, classes=classes)
    wanted = oracles.normkd(student.numpy(), teacher.numpy(), temperature, kl == "reverse")
    found = normkd(student, teacher, temperature=temperature, kl=kl)
    assert found.item() == pytest.approx(wanted, rel=1e-10)
    assert wanted > 1e-2


def test_the_defaults_are_those_of_cifar() -> None:
    student, teacher = random_logits(1), random_logits(2)
    assert torch.equal(
        normkd(student, teacher), normkd(student, teacher, temperature=2.0, kl="forward")
    )


def test_the_two_sides_of_kl_differ() -> None:
    student, teacher = random_logits(1), random_logits(2)
    both = [normkd(student, teacher, kl=kl).item() for kl in ("forward", "reverse")]
    assert both[0] != pytest.approx(both[1], rel=1e-3)


@pytest.mark.parametrize("kl", ["forward", "reverse"])
def test_its_gradient_is_the_formulas_also_through_the_students_deviation(kl: str) -> None:
    student, teacher = random_logits(1).requires_grad_(), random_logits(2)
    normkd(student, teacher, kl=kl).backward()
    wanted = slope(
        lambda z: oracles.normkd(z, teacher.numpy(), reverse=kl == "reverse"),
        student.detach().numpy(),
    )
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.from_numpy(wanted), rtol=1e-5, atol=1e-8)
    # a step along the logits only scales them, which changes nothing
    along = (student.grad * (student - student.mean(1, keepdim=True))).sum(1)
    torch.testing.assert_close(along, torch.zeros_like(along), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kl", ["forward", "reverse"])
def test_gradcheck(kl: str) -> None:
    student, teacher = random_logits(1, rows=3), random_logits(2, rows=3)
    assert torch.autograd.gradcheck(
        lambda z: normkd(z, teacher, kl=kl), (student.requires_grad_(),)
    )


@pytest.mark.parametrize("kl", ["forward", "reverse"])
def test_scaling_and_shifting_the_students_logits_changes_nothing(kl: str) -> None:
    student, teacher = random_logits(1), random_logits(2)
    value = normkd(student, teacher, kl=kl).item()
    scales = torch.tensor([0.1, 1.0, 3.0, 50.0] * 2).double()[:, None]
    assert normkd(scales * student, teacher, kl=kl).item() == pytest.approx(value, rel=1e-10)
    assert normkd(student + scales, teacher, kl=kl).item() == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize("kl", ["forward", "reverse"])
def test_scaling_the_teachers_logits_scales_it_by_the_square(kl: str) -> None:
    student, teacher = random_logits(1), random_logits(2)
    value = normkd(student, teacher, kl=kl).item()
    assert normkd(student, 3.0 * teacher, kl=kl).item() == pytest.approx(9 * value, rel=1e-10)
    assert normkd(student, teacher - 7.0, kl=kl).item() == pytest.approx(value, rel=1e-10)


def test_it_is_zero_for_logits_that_are_the_teachers_scaled_and_shifted() -> None:
    teacher = random_logits(2)
    assert normkd(4.0 * teacher + 1.0, teacher).item() == pytest.approx(0.0, abs=1e-12)
    assert normkd(random_logits(1), teacher).item() > 1e-2


def test_several_teachers_are_averaged_in_logit_space() -> None:
    student, one, two = (random_logits(seed) for seed in (1, 2, 3))
    torch.testing.assert_close(normkd(student, one, two), normkd(student, (one + two) / 2))


@pytest.mark.parametrize("flat", ["student", "teacher", "both"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_logits_of_all_classes_are_finite(flat: str, dtype: torch.dtype) -> None:
    student, teacher = random_logits(1).to(dtype), random_logits(2).to(dtype)
    for name, logits in (("student", student), ("teacher", teacher)):
        if flat in (name, "both"):
            logits[:] = 1.0
    student.requires_grad_()
    value = normkd(student, teacher)
    value.backward()
    assert math.isfinite(value.item())
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_two_classes_are_refused_for_their_normalised_logits_are_constant() -> None:
    student, teacher = random_logits(1, classes=2), random_logits(2, classes=2)
    with pytest.raises(RecipeError, match="normkd: with two classes") as error:
        normkd(student, teacher)
    assert error.value.hint == "use `kd`"
    normalised = student / student.std(1, keepdim=True)
    gaps = (normalised[:, 0] - normalised[:, 1]).abs()
    torch.testing.assert_close(gaps, torch.full_like(gaps, 2**0.5))


def test_a_temperature_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="temperature"):
        NormKD(temperature=0.0)
