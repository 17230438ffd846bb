"""RSKD: coins per class, teachers of subsets, weights that fall as the student catches up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd.errors import RecipeError
from edgekd.losses._masks import pixel_kl
from edgekd.losses.base import Clock, Facts, Outputs
from edgekd.losses.rskd import RSKD, coin_kl, dynamic_weight
from tests.losses import multilabel_oracles as oracles
from tests.losses.multilabel_cases import (
    CLASSES,
    FACTS,
    LABELS,
    LAST,
    PAIR,
    SUBSETS,
    at_epoch,
    batch,
    says,
    values,
)

ORDERS = [tuple(classes) for classes in SUBSETS.values()]
START = Clock(epoch=0, epochs=100, step=0, steps=0)
Kl = Literal["reverse", "forward"]


def of_subsets(scale: float = 3.0) -> list[Outputs]:
    return [
        says(values(10 + i, 6, len(classes), scale=scale), classes)
        for i, classes in enumerate(ORDERS)
    ]


def made(teachers: Sequence[Outputs], facts: Facts = PAIR, **params: Any) -> RSKD:
    loss = RSKD(**params)
    loss.setup(says(values(1, 6, 5)), teachers, facts)
    return loss


def term(student: Tensor, teachers: Sequence[Outputs], loss: RSKD) -> Tensor:
    return loss(says(student), teachers, batch(LABELS), LAST)


def one(student: Tensor, teacher: Tensor, **params: Any) -> Tensor:
    """With a single teacher of all classes."""
    return term(student, [says(teacher)], made([says(teacher)], FACTS, **params))


def scored(values_of: Sequence[float], key: str = "ap") -> dict[str, float]:
    return {f"{key}:{name}": value for name, value in zip(CLASSES, values_of, strict=True)}


def watching(theirs: Sequence[float], **params: Any) -> RSKD:
    """One that has been told of its teacher."""
    loss = made([says(values(2, 6, 5))], FACTS, **params)
    loss.observe(START, {"all": scored(theirs, "acc" if "score" in params else "ap")})
    return loss


def weights_after(theirs: Sequence[float], ours: Sequence[float], **params: Any) -> list[float]:
    loss = watching(theirs, **params)
    loss.observe(at_epoch(1), {"student": scored(ours, "acc" if "score" in params else "ap")})
    return list(loss.notes().values())


# The formula.


@pytest.mark.parametrize("kl", ["reverse", "forward"])
@pytest.mark.parametrize("scope", ["all", "subset_only"])
@pytest.mark.parametrize("temperature", [3.0, 10.0])
def test_it_is_the_formula(kl: Kl, scope: str, temperature: float) -> None:
    student, teachers = values(1, 6, 5, scale=3.0), of_subsets()
    loss = made(teachers, temperature=temperature, kl=kl, scope=scope)
    weights = [0.5, 1.0, 0.25, 0.0, 0.75]
    loss.class_weights.copy_(torch.tensor(weights))
    per_class = oracles.rskd(
        student.numpy(),
        [teacher.logits.numpy() for teacher in teachers],
        ORDERS,
        LABELS.numpy(),
        temperature=temperature,
        per_class=weights,
        is_forward=kl == "forward",
        only_subset=scope == "subset_only",
    )
    expected = sum(per_class) / 5
    assert expected > 1e-3
    assert term(student, teachers, loss).item() == pytest.approx(expected, rel=1e-9)


def test_by_default_it_is_as_printed_student_before_teacher_and_without_t2() -> None:
    student, teacher = values(1, 6, 5, scale=3.0), values(2, 6, 5, scale=3.0)
    value = one(student, teacher)
    torch.testing.assert_close(value, one(student, teacher, kl="reverse", t2=False))
    torch.testing.assert_close(one(student, teacher, t2=True), 100 * value)
    torch.testing.assert_close(one(student, teacher, kl="forward"), one(teacher, student))
    assert not torch.isclose(one(student, teacher, kl="forward"), value, rtol=1e-3)


@pytest.mark.parametrize("kl", ["reverse", "forward"])
def test_it_is_zero_for_equal_logits_only_and_never_negative(kl: Kl) -> None:
    student = values(1, 6, 5, scale=3.0)
    assert one(student, student, kl=kl).item() == 0.0
    for seed in range(5):
        assert coin_kl(student, student + 0.01 * values(seed, 6, 5), 10.0).min() > -1e-15
    for c in range(5):
        other = student.clone()
        other[2, c] += 0.5
        assert one(student, other, kl=kl).item() > 0


def test_it_grows_with_the_distance_of_the_logits() -> None:
    student = torch.zeros(1, 1, dtype=torch.float64)
    found = [coin_kl(student, student + d, 1.0).item() for d in (0.0, 0.5, 1.0, 5.0)]
    assert found == sorted(found)
    assert coin_kl(student, student + 1, 1.0) == coin_kl(student, student - 1, 1.0)


def test_one_subset_of_all_classes_with_fixed_weights_is_plain_binary_distillation() -> None:
    """The usual one: teacher || student, times T^2, every answer as a pixel of one channel."""
    student, teacher = values(1, 6, 5, scale=3.0), values(2, 6, 5, scale=3.0)
    value = one(student, teacher, kl="forward", t2=True, weights="fixed", temperature=4.0)
    pixels = [logits.reshape(30, 1, 1, 1) for logits in (student, teacher)]
    torch.testing.assert_close(value, pixel_kl(pixels[0], pixels[1], 4.0))


def test_two_logits_per_class_would_be_their_difference() -> None:
    """Eq. 1 is a softmax over the two states of a class."""
    states = values(1, 6, 2, scale=3.0)
    for sign, column in ((1.0, 0), (-1.0, 1)):
        share = (states / 10).softmax(dim=1)[:, column]
        difference = sign * (states[:, 0] - states[:, 1])
        torch.testing.assert_close((difference / 10).sigmoid(), share)


def test_the_gradient_flows_through_both_occurrences_of_the_students_probability() -> None:
    """d/dz KL(p || q) = p (1 - p) (z - z_T) / T^2, of which one occurrence is a part."""
    student = values(1, 6, 5, scale=3.0).requires_grad_()
    teacher = values(2, 6, 5, scale=3.0)
    one(student, teacher, temperature=2.0).backward()
    z = student.detach()
    p = (z / 2).sigmoid()
    torch.testing.assert_close(student.grad, p * (1 - p) * (z - teacher) / 4 / 30)


def test_the_usual_order_has_the_usual_gradient() -> None:
    student = values(1, 6, 5, scale=3.0).requires_grad_()
    teacher = values(2, 6, 5, scale=3.0)
    one(student, teacher, temperature=2.0, kl="forward").backward()
    expected = ((student.detach() / 2).sigmoid() - (teacher / 2).sigmoid()) / 2 / 30
    torch.testing.assert_close(student.grad, expected)


def test_answers_far_out_keep_a_value() -> None:
    """log(sigmoid) would be -inf, and 0 times it not a number."""
    student = torch.tensor([[1e4, -1e4]]).requires_grad_()
    terms = coin_kl(student, -student.detach(), 1.0)
    terms.sum().backward()
    assert terms.tolist() == [[1e4, 1e4]]
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


# Classes and subsets.


def test_a_class_of_several_teachers_has_the_mean_of_their_terms() -> None:
    student, teachers = values(1, 6, 5, scale=3.0), of_subsets()
    value = term(student, teachers, made(teachers, class_reduction="sum"))
    by_hand = torch.zeros((), dtype=torch.float64)
    for c in range(5):
        found = [
            coin_kl(student[:, c], teacher.logits[:, classes.index(c)], 10.0).mean()
            for teacher, classes in zip(teachers, ORDERS, strict=True)
            if c in classes
        ]
        assert len(found) == (2 if c == 2 else 1)
        by_hand = by_hand + torch.stack(found).mean()
    torch.testing.assert_close(value, by_hand)


def test_a_teacher_twice_is_the_teacher_once() -> None:
    student, teacher = values(1, 6, 5, scale=3.0), says(values(2, 6, 5))
    twice = made([teacher, teacher], replace(FACTS, teachers=("a", "b")))
    torch.testing.assert_close(
        term(student, [teacher, teacher], twice), one(student, teacher.logits)
    )


def test_the_order_of_teachers_and_of_their_classes_does_not_matter() -> None:
    student, teachers = values(1, 6, 5, scale=3.0), of_subsets()
    value = term(student, teachers, made(teachers))
    turned = [
        says(teacher.logits.flip(1), tuple(reversed(classes)))
        for teacher, classes in zip(teachers, ORDERS, strict=True)
    ][::-1]
    torch.testing.assert_close(term(student, turned, made(turned)), value)


def test_a_class_that_no_teacher_knows_is_an_error_that_names_it() -> None:
    teacher = says(values(1, 6, 3), (0, 2, 4))
    with pytest.raises(RecipeError, match=r"^rskd: no teacher knows amd, cataract$"):
        made([teacher])
    facts = replace(FACTS, student="some")
    of_some = says(values(2, 6, 2), (4, 0))
    RSKD().setup(of_some, [teacher], facts)  # it needs its own classes only


def test_a_student_of_some_classes_is_taught_these() -> None:
    teacher = values(2, 6, 5, scale=3.0)
    of_some = says(values(1, 6, 2, scale=3.0), (4, 0))
    loss = RSKD()
    loss.setup(of_some, [says(teacher)], FACTS)
    value = loss(of_some, [says(teacher)], batch(LABELS), LAST)
    expected = coin_kl(of_some.logits, teacher[:, [4, 0]], 10.0).mean()
    torch.testing.assert_close(value, expected)
    assert list(loss.notes()) == ["w:edema", "w:dr"]


def test_the_sum_over_classes_is_n_times_their_mean() -> None:
    student, teachers = values(1, 6, 5, scale=3.0), of_subsets()
    total = term(student, teachers, made(teachers, class_reduction="sum"))
    torch.testing.assert_close(total, 5 * term(student, teachers, made(teachers)))


def test_by_default_all_images_count_whatever_their_labels_say() -> None:
    student, teachers = values(1, 6, 5), of_subsets()
    loss = made(teachers)
    hidden = batch(torch.full_like(LABELS, -1))
    value = loss(says(student), teachers, hidden, LAST)
    torch.testing.assert_close(value, term(student, teachers, loss))


def test_subset_only_takes_the_images_that_show_a_class_of_the_teacher() -> None:
    student = values(1, 6, 5, scale=3.0)
    teachers = of_subsets()
    loss = made(teachers, scope="subset_only")
    student.requires_grad_()
    term(student, teachers, loss).backward()
    assert student.grad is not None
    touched = student.grad != 0
    # head (0, 1, 2) and tail (4, 2, 3), by LABELS: image 1 shows head only, 2 and 4 none
    assert touched[[0, 3, 5]].all()
    assert touched[1].tolist() == [True, True, True, False, False]
    assert not touched[[2, 4]].any()
    nothing = loss(says(student), teachers, batch(torch.zeros_like(LABELS)), LAST)
    assert nothing.item() == 0.0


# Weights.


def test_weights_are_1_before_the_first_scores() -> None:
    loss = made(of_subsets())
    assert loss.notes() == {f"w:{name}": 1.0 for name in CLASSES}
    loss.observe(START, {"head": scored([0.5] * 5), "tail": scored([0.5] * 5)})
    assert set(loss.notes().values()) == {1.0}


@pytest.mark.parametrize("delta", [0.0, 0.6, 0.9])
def test_they_are_the_formula(delta: float) -> None:
    for theirs, ours in np.random.default_rng(0).random((50, 2)):
        expected = oracles.dynamic_weight(theirs, ours, delta)
        assert dynamic_weight(theirs, ours, delta) == pytest.approx(expected)
        assert 0 <= expected <= 1


def test_they_are_1_up_to_delta_of_the_teachers_score_and_0_from_all_of_it_on() -> None:
    found = weights_after([0.8] * 5, [0.0, 0.48, 0.64, 0.8, 0.9])
    assert found == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.0], abs=1e-12)


def test_they_are_continuous_where_they_begin_to_fall_and_never_rise_with_the_score() -> None:
    at = 0.6 * 0.8
    assert dynamic_weight(0.8, at + 1e-9, 0.6) == pytest.approx(1.0, abs=1e-8)
    found = [dynamic_weight(0.8, score, 0.6) for score in np.linspace(0, 1, 201)]
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (1.0, 0.0)


def test_a_student_that_overtakes_is_not_pushed_away_from_its_teacher() -> None:
    """The formula would be negative."""
    assert (0.5 - 0.9) / (0.5 * 0.4) < 0
    assert dynamic_weight(0.5, 0.9, 0.6) == 0.0


def test_a_teacher_without_any_score_teaches_only_a_student_without_one() -> None:
    assert weights_after([0.0] * 5, [0.0, 0.1, 0.5, 1.0, 0.0]) == [1.0, 0.0, 0.0, 0.0, 1.0]


def test_a_class_without_a_score_keeps_its_weight() -> None:
    nan = math.nan
    ours = [0.8, 0.8, nan, 0.7, 0.7]
    assert weights_after([nan, 0.8, 0.8, 0.7, 0.7], ours) == [1.0, 0.0, 1.0, 0.0, 0.0]
    loss = watching([0.8] * 5)
    loss.observe(at_epoch(1), {"student": {"map": 0.9}})  # none of single classes
    loss.observe(at_epoch(1), {})
    assert set(loss.notes().values()) == {1.0}


def test_accuracy_is_another_score() -> None:
    found = weights_after([0.8] * 5, [0.64] * 5, score="accuracy")
    assert found == pytest.approx([0.5] * 5)
    loss = watching([0.8] * 5, score="accuracy")
    loss.observe(at_epoch(1), {"student": scored([0.64] * 5, "ap")})
    assert set(loss.notes().values()) == {1.0}


def test_the_teachers_scores_are_those_before_training_and_the_students_the_latest() -> None:
    loss = watching([0.8] * 5)
    for epoch, ours, expected in ((1, 0.64, 0.5), (2, 0.8, 0.0), (3, 0.1, 1.0)):
        again = {"student": scored([ours] * 5), "all": scored([0.2] * 5)}
        loss.observe(at_epoch(epoch), again)
        assert list(loss.notes().values()) == pytest.approx([expected] * 5, abs=1e-12)
    torch.testing.assert_close(loss.teacher_scores, torch.full((5,), 0.8, dtype=torch.float64))


def test_each_class_has_the_score_of_the_teachers_that_know_it() -> None:
    """Of several the mean, of those that have one."""
    loss = made(of_subsets())
    head, tail = scored([0.1, 0.2, 0.3, 0.4, 0.5]), scored([0.6, 0.7, 0.8, 0.9, 1.0])
    loss.observe(START, {"head": head, "tail": tail})
    assert loss.teacher_scores.tolist() == pytest.approx([0.1, 0.2, 0.55, 0.9, 1.0])
    tail["ap:myopia"] = math.nan
    loss.observe(START, {"head": head, "tail": tail})
    assert loss.teacher_scores[2].item() == pytest.approx(0.3)


def test_a_teacher_without_scores_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    loss = made(of_subsets())
    loss.observe(START, {"head": scored([0.8] * 5)})
    said = " ".join(capsys.readouterr().err.split())
    assert "rskd: 'tail' has no scores before the first epoch" in said
    loss.observe(at_epoch(1), {"student": scored([0.8] * 5)})
    assert list(loss.notes().values()) == [0.0, 0.0, 0.0, 1.0, 1.0]


def test_fixed_weights_stay_1_and_are_no_news() -> None:
    loss = watching([0.8] * 5, weights="fixed")
    loss.observe(at_epoch(1), {"student": scored([0.8] * 5)})
    assert loss.class_weights.tolist() == [1.0] * 5
    assert loss.notes() == {}


def test_weights_multiply_the_terms_of_their_classes() -> None:
    student, teacher = values(1, 6, 5, scale=3.0), says(values(2, 6, 5))
    loss = watching([0.8] * 5)
    loss.observe(at_epoch(1), {"student": scored([0.8, 0.64, 0.1, 0.8, 0.8])})
    value = term(student, [teacher], loss)
    terms = coin_kl(student, teacher.logits, 10.0).mean(dim=0)
    torch.testing.assert_close(value, (0.5 * terms[1] + terms[2]) / 5)
    student.requires_grad_()
    term(student, [teacher], loss).backward()
    assert student.grad is not None
    assert not student.grad[:, [0, 3, 4]].any()


def test_what_it_has_learned_survives_an_interruption_to_the_bit() -> None:
    """A stage that goes on builds its terms anew and loads their state; it is not told again."""
    student, teachers = values(1, 6, 5), of_subsets()
    first, second = made(teachers), made(teachers)
    first.observe(START, {"head": scored([1 / 3] * 5), "tail": scored([0.7] * 5)})
    first.observe(at_epoch(1), {"student": scored([0.3, 0.31, 0.4, 0.6, 0.65])})
    assert len(set(first.notes().values())) == 5
    assert first.notes() != second.notes()
    second.load_state_dict(first.state_dict())
    assert first.notes() == second.notes()
    assert torch.equal(term(student, teachers, first), term(student, teachers, second))
    later = {"student": scored([0.2, 0.3, 0.35, 0.5, 0.6])}
    for loss in (first, second):
        loss.observe(at_epoch(2), later)
    assert first.notes() == second.notes()


def test_it_wants_to_be_told_of_frozen_models() -> None:
    assert RSKD.needs_scores
    assert RSKD.needs_teacher


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"delta": 1.0}, "delta must be at least 0 and below 1"),
        ({"delta": -0.1}, "delta must be at least 0 and below 1"),
    ],
)
def test_a_parameter_out_of_range_is_an_error(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RSKD(**params)
