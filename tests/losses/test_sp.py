"""Similarity preserving: the formula, what it does not see, batches without a relation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.losses.base import Outputs
from edgekd.losses.sp import SP, similarities
from tests.losses import kdml_oracles as oracles
from tests.losses.cases import CLOCK, FACTS, batch, outputs, random_logits, random_maps
from tests.losses.umkd_oracles import slope


def of(features: Tensor, tap: str) -> Outputs:
    return outputs(torch.zeros(len(features), 2), **{tap: features})  # two classes


def sp(student: Tensor, *teachers: Tensor, tap: str = "last") -> Tensor:
    loss, theirs = SP(tap=tap), [of(teacher, tap) for teacher in teachers]
    loss.setup(of(student, tap), theirs, FACTS)
    return loss(of(student, tap), theirs, batch([0] * len(student)), CLOCK)


@pytest.mark.parametrize("rows", [2, 3, 7])
def test_it_is_the_formula_whatever_the_widths_and_sizes(rows: int) -> None:
    student, teacher = random_maps(1, rows), random_maps(2, rows, channels=5, side=3)
    expected = oracles.sp(student.numpy(), teacher.numpy())
    assert expected > 1e-3
    assert float(sp(student, teacher)) == pytest.approx(expected, rel=1e-10)


def test_pooled_features_will_do() -> None:
    student, teacher = random_logits(1), random_logits(2, classes=9)
    value = sp(student, teacher, tap="pooled")
    assert SP(tap="pooled").taps == ("pooled",)
    assert float(value) == pytest.approx(oracles.sp(student.numpy(), teacher.numpy()), rel=1e-10)


def test_its_gradient_is_the_formulas() -> None:
    student = random_maps(1, 4, channels=3, side=2).requires_grad_()
    teacher = random_maps(2, 4, channels=5, side=3)
    sp(student, teacher).backward()
    expected = slope(lambda s: oracles.sp(s, teacher.numpy()), student.detach().numpy())
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.from_numpy(expected), rtol=1e-6, atol=1e-9)


def mixed(maps: Tensor) -> Tensor:
    """Channels turned into each other, and all scaled."""
    channels = maps.shape[1]
    turn = torch.linalg.qr(random_logits(5, channels, channels))[0]
    return 3.0 * torch.einsum("bdhw,de->behw", maps, turn)


def test_mixing_channels_orthogonally_and_scaling_changes_nothing() -> None:
    student, teacher = random_maps(1), random_maps(2, channels=5)
    value = float(sp(student, teacher))
    assert float(sp(mixed(student), teacher)) == pytest.approx(value, rel=1e-10)
    assert float(sp(student, mixed(teacher))) == pytest.approx(value, rel=1e-10)
    assert float(sp(mixed(teacher), teacher)) == pytest.approx(0.0, abs=1e-20)


def test_the_rows_have_length_1() -> None:
    lengths = similarities(random_maps(1, 5)).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(5, dtype=torch.float64))


def test_every_teacher_adds_a_full_term() -> None:
    student, one, two = random_maps(1), random_maps(2), random_maps(3, channels=9)
    expected = float(sp(student, one)) + float(sp(student, two))
    assert float(sp(student, one, two)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("active", [1.0, 0.0])
def test_one_image_has_no_relation(active: float) -> None:
    student = (active * random_maps(1, 1)).requires_grad_()
    value = sp(student, random_maps(2, 1))
    value.backward()
    assert value.item() == 0.0
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize("dead", [[1], [0, 1, 2, 3]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_without_any_activity_are_finite(dead: list[int], dtype: torch.dtype) -> None:
    student, teacher = random_maps(1, 4, dtype=dtype), random_maps(2, 4, dtype=dtype)
    student[dead] = 0.0
    student.requires_grad_()
    value = sp(student, teacher)
    value.backward()
    assert torch.isfinite(value)
    assert student.grad is not None
    assert student.grad.abs().max() < 10
