"""Distribution-balanced loss: the formula, and each trap of the code that is in use."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from edgekd.losses.base import Facts
from edgekd.losses.bce import BCE
from edgekd.losses.db import DB
from tests.losses import multilabel_oracles as oracles
from tests.losses.multilabel_cases import COUNTS, FACTS, LABELS, LAST, batch, says, values

PLAIN: dict[str, Any] = {"rebalance": False, "kappa": 0.0, "negative_scale": 1.0, "focal": False}
COCO: dict[str, Any] = {"centre": 0.2, "negative_scale": 2.0}


def loss(logits: Tensor, labels: Tensor = LABELS, facts: Facts = FACTS, **params: Any) -> Tensor:
    made = DB(**params)
    made.setup(says(logits), [], facts)
    return made(says(logits), [], batch(labels), LAST)


def test_it_is_the_formula_with_the_parameters_of_voc() -> None:
    logits = values(1, 6, 5, scale=3.0)
    expected = oracles.db(logits.numpy(), LABELS.numpy(), COUNTS, 60)
    assert expected > 0.1
    assert loss(logits).item() == pytest.approx(expected, rel=1e-9)


def test_it_is_the_formula_with_those_of_coco() -> None:
    logits = values(1, 6, 5, scale=3.0)
    expected = oracles.db(logits.numpy(), LABELS.numpy(), COUNTS, 60, mu=0.2, lam=2.0)
    assert loss(logits, **COCO).item() == pytest.approx(expected, rel=1e-9)


def test_without_its_parts_it_is_bce() -> None:
    logits = values(1, 6, 5, scale=3.0)
    expected = BCE()(says(logits), [], batch(LABELS), LAST)
    torch.testing.assert_close(loss(logits, **PLAIN), expected)
    # a focal loss with gamma 0 and balance 1 is none
    unfocused: dict[str, Any] = {**PLAIN, "focal": True, "gamma": 0.0, "balance": 1.0}
    torch.testing.assert_close(loss(logits, **unfocused), expected)


def test_an_image_that_shows_no_class_has_the_weights_limit_and_a_gradient() -> None:
    """Its r_c is 1/n_c divided by 0."""
    logits = values(1, 2, 5).requires_grad_()
    nothing = torch.zeros(2, 5, dtype=torch.int64)
    only: dict[str, Any] = {**PLAIN, "rebalance": True}
    value = loss(logits, nothing, **only)
    expected = 1.1 * BCE()(says(logits), [], batch(nothing), LAST)
    torch.testing.assert_close(value, expected)
    value.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(loss(logits, nothing, slope=0.0))  # 0 times infinity


def test_a_class_in_no_image_or_in_all_has_a_finite_bias() -> None:
    """log(N / n_c - 1) is infinite at both ends."""
    facts = replace(FACTS, class_counts=(60, 0, 30, 1, 59), images=60)
    made = DB()
    logits = values(1, 6, 5)
    made.setup(says(logits), [], facts)
    assert torch.isfinite(made.bias).all()
    none, one = made.bias[1], made.bias[3]
    every, almost_every = made.bias[0], made.bias[4]
    assert none == one
    assert every == almost_every
    torch.testing.assert_close(none, -every)
    assert none > 0
    assert made.bias[2] == 0  # half of the images
    assert torch.isfinite(made(says(logits), [], batch(LABELS), LAST))


@pytest.mark.parametrize("images", [1, 2])
def test_one_image_is_enough(images: int) -> None:
    facts = replace(FACTS, class_counts=(1, 0, 0, 1, 0), images=images)
    assert torch.isfinite(loss(values(1, 1, 5), LABELS[:1], facts))


def test_the_logits_are_not_changed_in_place() -> None:
    """The code in use adds the bias to the network's own tensor, which other terms read too."""
    logits = values(1, 6, 5)
    before = logits.clone()
    loss(logits)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("focal", [True, False])
def test_it_is_one_number_focal_or_not(focal: bool) -> None:
    """The code in use returns (B, n) of the focal form."""
    assert loss(values(1, 6, 5), focal=focal).shape == ()


def test_the_rarest_class_of_an_image_weighs_most_and_one_alone_most_of_all() -> None:
    made = DB()
    made.setup(says(values(1, 1, 5)), [], FACTS)
    alone, shared = torch.zeros(1, 5).bool(), torch.zeros(1, 5).bool()
    alone[0, 0] = True
    shared[0, [0, 2, 4]] = True
    weights = made._weights(shared)[0]
    assert (weights.diff() > 0).all()
    assert made._weights(alone)[0, 0] > weights[0]  # seldom drawn for class 0 if 4 is there too
    assert (weights > 0.1).all()
    assert (weights < 1.1).all()


def test_negatives_far_out_are_tolerated() -> None:
    """The gradient of a negative falls faster than that of a positive as it is answered right."""
    logits = torch.full((2, 5), -2.0, dtype=torch.float64).requires_grad_()
    tolerant: dict[str, Any] = {**PLAIN, "negative_scale": 5.0}
    loss(logits, torch.zeros(2, 5, dtype=torch.int64), **tolerant).backward()
    assert logits.grad is not None
    expected = torch.sigmoid(torch.tensor(-10.0, dtype=torch.float64)).item() / 10
    torch.testing.assert_close(logits.grad, torch.full_like(logits.grad, expected))


def test_the_bias_is_larger_for_the_rarer_class() -> None:
    made = DB()
    made.setup(says(values(1, 1, 5)), [], FACTS)
    assert (made.bias.diff() > 0).all()


def test_the_weight_of_an_image_does_not_see_labels_that_are_not_known() -> None:
    logits = values(1, 1, 5)
    hidden = torch.tensor([[1, -1, 0, 0, 0]])
    terms = [loss(logits, torch.tensor([[1, y, 0, 0, 0]])).item() for y in (0, 1)]
    without = oracles.db(logits.numpy(), hidden.numpy(), COUNTS, 60)
    assert loss(logits, hidden).item() == pytest.approx(without, rel=1e-9)
    assert terms[0] != terms[1]


def test_a_model_of_some_classes_has_their_counts() -> None:
    logits, classes = values(1, 6, 3), (4, 0, 2)
    of_some, made = says(logits, classes), DB()
    made.setup(of_some, [], FACTS)
    expected = oracles.db(logits.numpy(), LABELS[:, [4, 0, 2]].numpy(), (1, 40, 9), 60)
    value = made(of_some, [], batch(LABELS), LAST)
    assert value.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"negative_scale": 0.0}, "negative_scale and balance must be positive"),
        ({"balance": 0.0}, "negative_scale and balance must be positive"),
        ({"floor": -1.0}, "floor and gamma must not be negative"),
        ({"gamma": -1.0}, "floor and gamma must not be negative"),
    ],
)
def test_a_parameter_out_of_range_is_an_error(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DB(**params)
