"""Binary cross-entropy: the formula, unknown labels, class weights, when they begin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from edgekd.losses._labels import class_weights, is_past
from edgekd.losses.base import Clock, Facts
from edgekd.losses.bce import BCE
from tests.losses import multilabel_oracles as oracles
from tests.losses.multilabel_cases import (
    COUNTS,
    EQUAL,
    FACTS,
    KNOWN,
    LABELS,
    LAST,
    at_epoch,
    batch,
    says,
    values,
)

Kind = Literal["inverse", "sqrt", "class_balanced"]
every_kind = pytest.mark.parametrize("kind", ["inverse", "sqrt", "class_balanced"])


def loss(
    logits: Tensor,
    labels: Tensor = LABELS,
    facts: Facts = FACTS,
    clock: Clock = LAST,
    **params: Any,
) -> Tensor:
    made = BCE(**params)
    made.setup(says(logits), [], facts)
    return made(says(logits), [], batch(labels), clock)


def test_it_is_the_formula() -> None:
    logits = values(1, 6, 5, scale=3.0)
    expected = oracles.bce(logits.numpy(), LABELS.numpy())
    assert expected > 0.5
    assert loss(logits).item() == pytest.approx(expected, rel=1e-12)


def test_with_all_labels_known_it_is_torchs() -> None:
    logits = values(1, 4, 5, scale=3.0)
    expected = functional.binary_cross_entropy_with_logits(logits, KNOWN.double())
    torch.testing.assert_close(loss(logits, KNOWN), expected)


def test_the_mean_is_over_known_labels_not_over_images() -> None:
    logits = values(1, 2, 5)
    labels = torch.tensor([[1, -1, -1, -1, -1], [0, 0, 0, 0, 0]])
    terms = [functional.softplus(-logits[0, 0]), *functional.softplus(logits[1])]
    torch.testing.assert_close(loss(logits, labels), torch.stack(terms).mean())


@every_kind
def test_the_weight_is_on_the_positive_part_only(kind: Kind) -> None:
    logits = values(1, 6, 5, scale=3.0)
    weights = oracles.weights(kind, COUNTS)
    expected = oracles.bce(logits.numpy(), LABELS.numpy(), weights)
    assert loss(logits, reweight=kind).item() == pytest.approx(expected, rel=1e-9)
    nothing = torch.zeros_like(LABELS)
    torch.testing.assert_close(loss(logits, nothing, reweight=kind), loss(logits, nothing))


@every_kind
def test_weights_are_1_on_average_and_larger_for_the_rarer(kind: Kind) -> None:
    weights = class_weights(kind, torch.tensor(COUNTS, dtype=torch.float64), 0.9999)
    assert weights.mean().item() == pytest.approx(1.0)
    assert (weights.diff() > 0).all()
    expected = torch.tensor(oracles.weights(kind, COUNTS), dtype=torch.float64)
    torch.testing.assert_close(weights, expected, rtol=1e-9, atol=0.0)


@every_kind
def test_equal_counts_are_no_weights(kind: Kind) -> None:
    logits = values(1, 6, 5, scale=3.0)
    torch.testing.assert_close(loss(logits, facts=EQUAL, reweight=kind), loss(logits))


@every_kind
def test_a_class_without_a_positive_has_a_weight_and_does_not_set_the_others(kind: Kind) -> None:
    none = torch.tensor((*COUNTS, 0), dtype=torch.float64)
    weights = class_weights(kind, none, 0.9999)
    assert torch.isfinite(weights).all()
    torch.testing.assert_close(weights[:5], class_weights(kind, none[:5], 0.9999))
    assert class_weights(kind, torch.zeros(3), 0.9999).tolist() == [1.0, 1.0, 1.0]


def test_class_balanced_goes_from_no_weights_to_the_inverse_as_beta_grows() -> None:
    """arXiv 1901.05555: beta 0 counts every class once, beta near 1 every image."""
    counts = torch.tensor(COUNTS, dtype=torch.float64)
    none, all_of_it = (class_weights("class_balanced", counts, beta) for beta in (0.0, 1 - 1e-9))
    torch.testing.assert_close(none, torch.ones(5, dtype=torch.float64))
    inverse = class_weights("inverse", counts, 0.0)
    torch.testing.assert_close(all_of_it, inverse, rtol=1e-5, atol=0.0)


def test_deferred_weights_begin_after_that_share_of_the_epochs() -> None:
    logits = values(1, 6, 5, scale=3.0)
    plain, weighted = loss(logits), loss(logits, reweight="inverse")
    assert not torch.isclose(plain, weighted)
    for epoch, expected in ((1, plain), (8, plain), (9, weighted), (10, weighted)):
        value = loss(logits, clock=at_epoch(epoch, 10), reweight="inverse", deferred=0.8)
        torch.testing.assert_close(value, expected)


def test_a_share_of_epochs_is_not_off_by_one_through_rounding() -> None:
    assert 0.29 * 100 < 29
    assert [is_past(0.29, at_epoch(epoch)) for epoch in (28, 29, 30)] == [False, False, True]
    assert is_past(0.0, at_epoch(1))
    assert not is_past(1.0, at_epoch(100))
    # LDAM's code: the weights begin with the 161st of 200 epochs
    assert [is_past(0.8, at_epoch(epoch, 200)) for epoch in (160, 161)] == [False, True]


def test_a_model_of_some_classes_takes_their_labels_and_their_counts_in_its_order() -> None:
    logits, classes = values(1, 6, 3), (4, 0, 2)
    of_some, made = says(logits, classes), BCE(reweight="inverse")
    made.setup(of_some, [], FACTS)
    facts = replace(FACTS, class_counts=(1, 40, 9))
    expected = loss(logits, LABELS[:, [4, 0, 2]], facts, reweight="inverse")
    torch.testing.assert_close(made(of_some, [], batch(LABELS), LAST), expected)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"beta": 1.0}, "beta must be at least 0 and below 1"),
        ({"reweight": "sqrt", "deferred": 1.5}, "deferred must be a share of the epochs"),
        ({"deferred": 0.8}, "no weights to defer, set `reweight`"),
    ],
)
def test_a_parameter_out_of_range_is_an_error(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BCE(**params)
