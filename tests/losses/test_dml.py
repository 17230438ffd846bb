"""Deep mutual learning: the formula and what holds among peers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.losses.dml import DML
from edgekd.losses.kd import KD
from tests.losses import kdml_oracles as oracles
from tests.losses.cases import CLOCK, batch, outputs, random_logits

BATCH = batch([0, 1, 0, -1, 1, 0, 1, -1])  # labels, and none: they are not looked at


def dml(student: Tensor, *peers: Tensor, **params: float) -> Tensor:
    return DML(**params)(outputs(student), [outputs(peer) for peer in peers], BATCH, CLOCK)


def peers(count: int, classes: int = 5) -> list[Tensor]:
    return [random_logits(seed, classes=classes) for seed in range(1, count + 1)]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("classes", [2, 5])
def test_it_is_the_formula(classes: int, count: int, temperature: float) -> None:
    student, *others = peers(count, classes)
    expected = oracles.dml(student.numpy(), [other.numpy() for other in others], temperature)
    found = dml(student, *others, temperature=temperature)
    assert float(found) == pytest.approx(expected, rel=1e-10)


def test_the_published_temperature_is_1() -> None:
    student, other = peers(2)
    assert float(dml(student, other)) == float(dml(student, other, temperature=1.0))


def test_of_two_peers_it_is_kd_of_the_other() -> None:
    student, other = peers(2)
    kd = KD(temperature=1.0)(outputs(student), [outputs(other)], BATCH, CLOCK)
    assert float(dml(student, other)) == float(kd)


def test_divergences_are_averaged_and_not_logits() -> None:
    student, one, two = peers(3)
    expected = (float(dml(student, one)) + float(dml(student, two))) / 2
    assert float(dml(student, one, two)) == pytest.approx(expected, rel=1e-12)
    assert float(dml(student, (one + two) / 2)) != pytest.approx(expected, rel=1e-2)


def test_it_is_zero_for_identical_peers_only() -> None:
    student, other = peers(2)
    assert float(dml(student, student, student + 3.0)) == pytest.approx(0.0, abs=1e-14)
    assert float(dml(student, student, other)) > 1e-3


def test_permuting_peers_permutes_losses() -> None:
    logits = peers(3)

    def losses(order: list[int]) -> list[float]:
        return [
            float(dml(logits[k], *(logits[other] for other in order if other != k))) for k in order
        ]

    straight = losses([0, 1, 2])
    assert losses([2, 0, 1]) == pytest.approx([straight[k] for k in (2, 0, 1)], rel=1e-12)
    assert len({round(loss, 6) for loss in straight}) == 3  # KL has two sides


@pytest.mark.parametrize("classes", [2, 5])
def test_its_gradient_is_the_difference_to_the_mean_of_the_peers(classes: int) -> None:
    student, one, two = peers(3, classes)
    student.requires_grad_()
    dml(student, one, two, temperature=2.0).backward()
    wanted = ((one / 2).softmax(1) + (two / 2).softmax(1)) / 2
    expected = 2.0 * ((student / 2).softmax(1) - wanted) / len(student)
    assert student.grad is not None
    torch.testing.assert_close(student.grad, expected.detach())


def test_gradcheck() -> None:
    student, *others = (logits[:3] for logits in peers(3))
    assert torch.autograd.gradcheck(lambda z: dml(z, *others), (student.requires_grad_(),))


@pytest.mark.parametrize("rows", [1, 8])
def test_logits_of_any_size_are_finite_and_one_image_suffices(rows: int) -> None:
    student, *others = (1e4 * logits[:rows].float() for logits in peers(3))
    student.requires_grad_()
    found = dml(student, *others)
    found.backward()
    assert torch.isfinite(found)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_without_a_peer_there_is_no_such_term() -> None:
    """So one peer alone learns from its labels only."""
    assert DML.needs_teacher


def test_a_temperature_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="temperature"):
        DML(temperature=0.0)
