"""SSD-KD: four views of every image, which rows count, labels and predictions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from edgekd.errors import RecipeError
from edgekd.losses._views import kept, own_image, ranks, similarities
from edgekd.losses.base import Loss, Outputs
from edgekd.losses.ce import CrossEntropy
from edgekd.losses.kd import kd_kl
from edgekd.losses.ssdkd_logits import SSDKDLogits
from edgekd.losses.ssdkd_relations import SSDKDRelations
from edgekd.losses.ssdkd_self import SSDKDSelf
from edgekd.plugins import load
from tests.losses import ssdkd_oracles as oracles
from tests.losses.cases import CLOCK, batch, outputs, random_logits
from tests.losses.oracles import cross_entropy
from tests.losses.ssdkd_cases import (
    COUNTS,
    IMAGES,
    TARGETS,
    TERMS,
    made,
    network,
    value,
)

every_term = pytest.mark.parametrize("name", TERMS)

# Views and the rows that count.


def test_the_own_image_of_a_turned_row_is_that_of_its_place_in_its_block() -> None:
    assert own_image(3, torch.device("cpu")).tolist() == [0, 1, 2] * 3


def test_similarities_are_cosines_of_turned_rows_with_images_as_they_are() -> None:
    rows = random_logits(1, rows=12, classes=4)
    found = similarities(rows, 3)
    torch.testing.assert_close(found, torch.from_numpy(oracles.cosines(rows.numpy())))
    assert found.shape == (9, 3)


def test_a_rank_is_how_many_classes_are_above_the_right_one() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [1.0, 1.0, 0.0]])
    assert ranks(scores, torch.tensor([0, 1, 2, 1])).tolist() == [0, 2, 1, 0]
    assert ranks(scores, torch.tensor([-1, -1, 1, 2])).tolist() == [0, 0, 2, 2]


@pytest.mark.parametrize(
    ("share", "rows"),
    [(0.0, [1, 4]), (0.3, [1, 2, 4]), (0.75, [1, 2, 3, 4, 5]), (1.0, [0, 1, 2, 3, 4, 5])],
)
def test_all_correct_rows_are_kept_and_of_the_others_those_of_best_rank(
    share: float, rows: list[int]
) -> None:
    assert kept(torch.tensor([4, 0, 1, 2, 0, 2]), share).tolist() == rows


def test_of_one_rank_the_first_are_kept() -> None:
    assert kept(torch.tensor([1, 1, 1, 1]), 0.5).tolist() == [0, 1]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.75, 1.0])
def test_kept_rows_are_the_oracles(share: float) -> None:
    for seed in range(20):
        scores, right = random_logits(seed, rows=9), [(seed + r) % 5 for r in range(9)]
        wanted = oracles.keep_rows(scores.numpy(), right, share)
        assert kept(ranks(scores, torch.tensor(right)), share).tolist() == wanted


@every_term
def test_a_recipe_finds_each_part_by_its_name(name: str) -> None:
    assert load("losses", name, Loss) is type(made(name)[0])


@pytest.mark.parametrize("name", [name for name in TERMS if name != "ssdkd_relations"])
@pytest.mark.parametrize("targets", [[1, 0, 4], [1, 0, 4, 2, 3], [1, 0, 4, 2], [0, 1] * 3 + [1, 0]])
def test_a_batch_without_four_views_is_an_error_that_says_what_to_set(
    name: str, targets: list[int]
) -> None:
    loss, student, teachers = made(name)
    with pytest.raises(RecipeError, match=f"{name}: a batch of {len(targets)} rows") as error:
        value(loss, student, *teachers, of=batch(targets))
    assert error.value.hint == "data.views=rotations of this stage"


@every_term
def test_the_order_of_the_images_does_not_matter(name: str) -> None:
    loss, student, teachers = made(name)
    if hasattr(loss, "keep"):
        loss.keep = 1.0  # where the cut goes through rows of one rank, the first count
    order = torch.tensor([2, 0, 1])
    rows = torch.cat([order + IMAGES * view for view in range(4)])

    def turned(of: Outputs) -> Outputs:
        return outputs(of.logits[rows], **{name: tap[rows] for name, tap in of.taps.items()})

    shuffled = batch([TARGETS[i] for i in order.tolist()] * 4)
    found = value(loss, turned(student), *(turned(t) for t in teachers), of=shuffled)
    torch.testing.assert_close(found, value(loss, student, *teachers), rtol=1e-9, atol=1e-12)


@every_term
@pytest.mark.parametrize("images", [1, 2])
def test_one_image_suffices_and_huge_outputs_are_finite(name: str, images: int) -> None:
    loss, student, teachers = made(name, images)
    loss = loss.float()
    scale = 1.0 if name == "ssdkd_relations" else 1e4
    taps = {tap: (scale * v).float().requires_grad_() for tap, v in student.taps.items()}
    logits = (1e4 * student.logits).float().requires_grad_()
    theirs = [
        outputs(1e4 * t.logits.float(), **{k: v.float() for k, v in t.taps.items()})
        for t in teachers
    ]
    found = value(loss, outputs(logits, **taps), *theirs, of=batch(TARGETS[:images] * 4))
    found.backward()
    assert torch.isfinite(found)
    for leaf in [logits, *taps.values(), *loss.parameters()]:
        assert leaf.grad is None or torch.isfinite(leaf.grad).all()


@every_term
def test_adapters_that_learn_get_a_gradient(name: str) -> None:
    loss, student, teachers = made(name)
    leaves = {k: v.clone().requires_grad_() for k, v in student.taps.items()}
    logits = student.logits.clone().requires_grad_()
    value(loss, outputs(logits, **leaves), *teachers).backward()
    for key, parameter in loss.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            # a bias in front of a batch norm is taken out again
            assert key == "regressors.0.0.bias" or parameter.grad.abs().max() > 1e-10, key


@every_term
def test_its_saved_state_gives_the_same_value_to_the_bit(name: str) -> None:
    (first, student, teachers), second = made(name), made(name)[0]
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(1.0)
    second.load_state_dict(first.state_dict())
    assert torch.equal(value(first, student, *teachers), value(second, student, *teachers))


# Cross-entropy of the images as they are.


def test_cross_entropy_is_weighted_by_the_class_counts_and_of_the_first_quarter_only() -> None:
    loss, student, _ = made("wce")
    total, norm = 0.0, 0.0
    for row, y in zip(student.logits[:IMAGES].numpy(), TARGETS, strict=True):
        weight = 100 / COUNTS.class_counts[y]
        total += weight * cross_entropy(row[None], [y])
        norm += weight
    assert value(loss, student).item() == pytest.approx(total / norm, rel=1e-6)  # weights are fp32
    balanced = CrossEntropy(class_weights="balanced")
    balanced.setup(student, [], COUNTS)
    balanced.double()
    normal = outputs(student.logits[:IMAGES])
    torch.testing.assert_close(
        value(loss, student), balanced(normal, [], batch(TARGETS), CLOCK), rtol=1e-12, atol=0
    )


def test_turned_rows_do_not_learn_from_cross_entropy() -> None:
    loss, student, _ = made("wce")
    student.logits.requires_grad_()
    value(loss, student).backward()
    assert student.logits.grad is not None
    assert student.logits.grad[:IMAGES].any()
    assert not student.logits.grad[IMAGES:].any()


# Predictions.


@pytest.mark.parametrize(
    "params", [{}, {"keep": 0.5}, {"keep": 0.0}, {"temperature": 1.0, "normal": 0.0, "rotated": 2}]
)
def test_predictions_are_the_formula(params: dict) -> None:
    student, teacher = network(1), network(2)
    named = {"tau": params.get("temperature", 4.0), **params}
    named.pop("temperature", None)
    wanted = oracles.ssdkd_logits(
        student.logits.numpy(), teacher.logits.numpy(), TARGETS * 4, **named
    )
    found = value(SSDKDLogits(**params), student, teacher)
    assert found.item() == pytest.approx(wanted, rel=1e-10)


def test_the_teacher_of_the_tests_is_wrong_on_some_turned_rows_and_right_on_others() -> None:
    found = ranks(network(2).logits[IMAGES:], torch.tensor(TARGETS * 3))
    assert 0 < int((found == 0).sum()) < 9


def test_with_all_rows_kept_every_row_counts_and_labels_do_not() -> None:
    student, teacher = network(1), network(2)
    wanted = 0.9 * kd_kl(student.logits[:3], teacher.logits[:3], 4.0)
    wanted = wanted + 2.7 * kd_kl(student.logits[3:], teacher.logits[3:], 4.0)
    for targets in (TARGETS, [-1, -1, -1], [2, 2, 2]):
        found = value(SSDKDLogits(), student, teacher, of=batch(targets * 4))
        torch.testing.assert_close(found, wanted)


def test_rows_of_unknown_label_count() -> None:
    student, teacher = network(1), network(2)
    found = value(SSDKDLogits(keep=0.0), student, teacher, of=batch([-1] * 12))
    torch.testing.assert_close(found, value(SSDKDLogits(keep=1.0), student, teacher))


def test_gradcheck_of_predictions() -> None:
    teacher = network(2)
    assert torch.autograd.gradcheck(
        lambda z: value(SSDKDLogits(keep=0.5), outputs(z), teacher),
        (network(1).logits.requires_grad_(),),
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SSDKDLogits(temperature=0.0), "temperature"),
        (lambda: SSDKDLogits(keep=1.5), "keep"),
        (lambda: SSDKDSelf(head_of="head"), "head_of must name a stage and its term"),
        (lambda: SSDKDSelf(head_of="a.b", temperature=0.0), "temperature"),
        (lambda: SSDKDSelf(head_of="a.b", keep=-1.0), "keep"),
        (lambda: SSDKDRelations(tap="pooled"), "`pooled` is no map"),
    ],
)
def test_a_parameter_out_of_range_is_an_error(make: Callable[[], Loss], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
