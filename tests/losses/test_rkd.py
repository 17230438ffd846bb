"""RKD: distances and angles, their invariants, chunks, rows that are equal, small batches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.losses.base import Outputs
from edgekd.losses.rkd import RKD, rkd_angle, rkd_distance
from tests.losses import umkd_oracles as oracles
from tests.losses.cases import CLOCK, FACTS, batch, outputs, random_logits

LOGITS = torch.zeros(1, 5)


def rows(seed: int, count: int = 6, features: int = 4) -> Tensor:
    return random_logits(seed, rows=count, classes=features)


def of(pooled: Tensor) -> Outputs:
    return outputs(LOGITS.expand(len(pooled), 5), pooled=pooled)


def rkd(student: Tensor, *teachers: Tensor, **params) -> Tensor:
    loss = RKD(**params)
    theirs = [of(teacher) for teacher in teachers]
    loss.setup(of(student), theirs, FACTS)
    return loss(of(student), theirs, batch([0] * len(student)), CLOCK)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_both_parts_are_the_formula(count: int) -> None:
    student, teacher = rows(1, count), rows(2, count, 9)
    arrays = student.numpy(), teacher.numpy()
    distance, angle = oracles.rkd_distance(*arrays), oracles.rkd_angle(*arrays)
    assert float(rkd_distance(student, teacher)) == pytest.approx(distance, rel=1e-10, abs=1e-15)
    assert float(rkd_angle(student, teacher)) == pytest.approx(angle, rel=1e-10, abs=1e-15)
    value = rkd(student, teacher)
    assert float(value) == pytest.approx(25 * distance + 50 * angle, rel=1e-10, abs=1e-12)
    value = rkd(student, teacher, distance=1.0, angle=0.0)
    assert float(value) == pytest.approx(distance, rel=1e-10, abs=1e-15)
    value = rkd(student, teacher, distance=0.0, angle=2.0)
    assert float(value) == pytest.approx(2 * angle, rel=1e-10, abs=1e-15)


def test_differences_above_one_count_linearly() -> None:
    student, teacher = rows(1), rows(2)
    student[0] += 100.0
    arrays = student.numpy(), teacher.numpy()
    assert abs(oracles.distances(arrays[0]) - oracles.distances(arrays[1])).max() > 1
    expected = oracles.rkd_distance(*arrays)
    assert float(rkd_distance(student, teacher)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("part", ["distance", "angle"])
def test_its_gradient_is_the_formulas(part: str) -> None:
    student, teacher = rows(1, 5).requires_grad_(), rows(2, 5, 7)
    (rkd_distance if part == "distance" else rkd_angle)(student, teacher).backward()
    oracle = oracles.rkd_distance if part == "distance" else oracles.rkd_angle
    expected = oracles.slope(lambda s: oracle(s, teacher.numpy()), student.detach().numpy())
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.from_numpy(expected), rtol=1e-6, atol=1e-9)


def moved(features: Tensor) -> Tensor:
    turn = torch.linalg.qr(rows(5, features.shape[1], features.shape[1]))[0]
    return 3.0 * features @ turn + rows(6, 1, features.shape[1])


def test_moving_turning_and_scaling_either_side_changes_nothing() -> None:
    student, teacher = rows(1), rows(2, features=9)
    value = float(rkd(student, teacher))
    assert value > 0.1
    assert float(rkd(moved(student), teacher)) == pytest.approx(value)
    assert float(rkd(student, moved(teacher))) == pytest.approx(value)


def test_it_is_zero_for_a_student_that_is_its_teacher_moved_turned_and_scaled() -> None:
    teacher = rows(2)
    assert float(rkd(teacher, teacher)) == pytest.approx(0.0, abs=1e-12)
    assert float(rkd(moved(teacher), teacher)) == pytest.approx(0.0, abs=1e-12)


def test_every_teacher_adds_a_full_term() -> None:
    student, one, two = rows(1), rows(2), rows(3, features=9)
    expected = float(rkd(student, one)) + float(rkd(student, two))
    assert float(rkd(student, one, two)) == pytest.approx(expected, rel=1e-12)


def test_features_can_be_normalised_first() -> None:
    student, teacher = rows(1), rows(2)
    expected = rkd(*(torch.nn.functional.normalize(f) for f in (student, teacher)))
    value = float(rkd(student, teacher, l2_normalize=True))
    assert value == pytest.approx(float(expected), rel=1e-10)
    lengths = torch.arange(1.0, 7.0)[:, None]
    assert float(rkd(student * lengths, teacher, l2_normalize=True)) == pytest.approx(value)
    assert float(rkd(student * lengths, teacher)) != pytest.approx(value)


@pytest.mark.parametrize("chunk", [1, 4, 6, 100])
def test_chunks_change_neither_the_value_nor_the_gradient(chunk: int) -> None:
    student, teacher = rows(1).requires_grad_(), rows(2)
    results = []
    for size in (16, chunk):
        student.grad = None
        value = rkd(student, teacher, chunk=size)
        value.backward()
        assert student.grad is not None
        results.append((value.detach(), student.grad.clone()))
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        rkd_angle(student, teacher, chunk=chunk), rkd_angle(student, teacher, chunk=16)
    )


@pytest.mark.parametrize("count", [1, 2])
def test_one_image_or_two_have_no_relation_to_learn(count: int) -> None:
    student = rows(1, count).requires_grad_()
    value = rkd(student, rows(2, count))
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-10)
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-6


@pytest.mark.parametrize("same", ["student", "teacher", "both"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_of_equal_rows_is_finite(same: str, dtype: torch.dtype) -> None:
    student, teacher = rows(1).to(dtype), rows(2).to(dtype)
    if same != "teacher":
        student = student[:1].repeat(6, 1)
    if same != "student":
        teacher = teacher[:1].repeat(6, 1)
    student.requires_grad_()
    value = rkd(student, teacher)
    value.backward()
    assert torch.isfinite(value)
    assert student.grad is not None
    assert student.grad.abs().max() < 1e3
    assert float(rkd_distance(student.detach(), teacher)) == 0.0
    if same == "both":
        assert value.item() == 0.0


@pytest.mark.parametrize("same", ["student", "teacher", "both"])
def test_two_equal_rows_among_others_are_the_formula(same: str) -> None:
    student, teacher = rows(1), rows(2)
    if same != "teacher":
        student[3] = student[0]
    if same != "student":
        teacher[3] = teacher[0]
    arrays = student.numpy(), teacher.numpy()
    expected = oracles.rkd_distance(*arrays), oracles.rkd_angle(*arrays)
    student.requires_grad_()
    distance, angle = rkd_distance(student, teacher), rkd_angle(student, teacher)
    (distance + angle).backward()
    assert distance.item() == pytest.approx(expected[0], rel=1e-5)
    assert angle.item() == pytest.approx(expected[1], rel=1e-10)
    assert student.grad is not None
    assert student.grad.abs().max() < 1e3


def test_single_precision_holds_far_from_the_origin() -> None:
    student, teacher = rows(1).float() + 100.0, rows(2).float() + 100.0
    expected = rkd(student.double(), teacher.double())
    assert float(rkd(student, teacher)) == pytest.approx(float(expected), rel=1e-3)


def test_a_chunk_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="chunk"):
        RKD(chunk=0)
