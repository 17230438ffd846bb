"""Margins by class frequency: both forms, the margins, weights that begin late."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from edgekd.losses.base import Clock, Facts
from edgekd.losses.bce import BCE
from edgekd.losses.ldam import LDAM, margins
from tests.losses import multilabel_oracles as oracles
from tests.losses.multilabel_cases import (
    COUNTS,
    FACTS,
    LABELS,
    LAST,
    at_epoch,
    batch,
    says,
    values,
)

TARGETS = torch.tensor([0, 4, 3, 0, 1, 2])
SINGLE = replace(FACTS, task="classification")


def loss(
    logits: Tensor,
    labels: Tensor = LABELS,
    facts: Facts = FACTS,
    clock: Clock = LAST,
    **params: Any,
) -> Tensor:
    made = LDAM(**params)
    made.setup(says(logits), [], facts)
    return made(says(logits), [], batch(labels), clock)


def plain_bce(logits: Tensor) -> Tensor:
    return BCE()(says(logits), [], batch(LABELS), LAST)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_it_is_the_formula(scale: float) -> None:
    logits = values(1, 6, 5, scale=3.0)
    expected = oracles.ldam(logits.numpy(), LABELS.numpy(), COUNTS, scale=scale)
    assert loss(logits, scale=scale).item() == pytest.approx(expected, rel=1e-9)


def test_the_rarest_class_has_the_largest_margin() -> None:
    found = margins(torch.tensor(COUNTS, dtype=torch.float64), 0.5)
    assert found[4].item() == 0.5
    assert (found.diff() > 0).all()
    expected = torch.tensor(oracles.margins(COUNTS), dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def test_a_class_without_a_positive_does_not_make_the_margins_of_others_smaller() -> None:
    counts = torch.tensor((16.0, 0.0, 81.0))
    torch.testing.assert_close(margins(counts, 0.5), torch.tensor([0.5, 0.5, 0.5 * 2 / 3]))
    assert torch.isfinite(margins(torch.zeros(3), 0.5)).all()


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_without_margins_it_is_bce_of_scaled_logits(scale: float) -> None:
    logits = values(1, 6, 5)
    value = loss(logits, max_margin=0.0, scale=scale)
    torch.testing.assert_close(value, plain_bce(scale * logits))


def test_a_margin_never_makes_a_positive_cheaper_and_leaves_negatives_alone() -> None:
    logits, nothing = values(1, 6, 5), torch.zeros_like(LABELS)
    assert (loss(logits) > loss(logits, max_margin=0.0)).item()
    torch.testing.assert_close(loss(logits, nothing), loss(logits, nothing, max_margin=0.0))


def test_by_default_and_with_0_there_are_no_weights() -> None:
    logits = values(1, 6, 5)
    assert torch.equal(loss(logits), loss(logits, deferred=0.0))
    assert torch.equal(loss(logits), loss(logits, beta=0.5))


def test_drw_weights_positives_in_the_last_fifth_of_the_epochs() -> None:
    logits = values(1, 6, 5, scale=3.0)
    positive = oracles.weights("class_balanced", COUNTS)
    expected = oracles.ldam(logits.numpy(), LABELS.numpy(), COUNTS, positive=positive)
    assert loss(logits, deferred=0.8).item() == pytest.approx(expected, rel=1e-9)
    before = loss(logits, clock=at_epoch(80), deferred=0.8)
    assert torch.equal(before, loss(logits))
    after = loss(logits, clock=at_epoch(81), deferred=0.8)
    assert after.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("deferred", [None, 0.8])
def test_one_label_per_image_is_the_papers(scale: float, deferred: float | None) -> None:
    cosines = values(1, 6, 5).tanh()
    weights = oracles.weights("class_balanced", COUNTS) if deferred else None
    expected = oracles.ldam_single(
        cosines.numpy(), TARGETS.tolist(), COUNTS, scale=scale, per_class=weights
    )
    value = loss(cosines, TARGETS, SINGLE, scale=scale, deferred=deferred)
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_one_label_per_image_without_margins_is_cross_entropy() -> None:
    logits = values(1, 6, 5)
    value = loss(logits, TARGETS, SINGLE, max_margin=0.0)
    torch.testing.assert_close(value, functional.cross_entropy(logits, TARGETS))


def test_one_label_per_image_that_is_not_known_does_not_count() -> None:
    logits = values(1, 6, 5).requires_grad_()
    some = torch.tensor([0, -1, 3, -1, 1, 2])
    value = loss(logits, some, SINGLE)
    kept = [0, 2, 4, 5]
    torch.testing.assert_close(value, loss(logits[kept], some[kept], SINGLE))
    hidden = loss(logits, torch.full((6,), -1), SINGLE)
    hidden.backward()
    assert hidden.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"max_margin": -0.1}, "max_margin must not be negative"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"beta": 1.0}, "beta must be"),
        ({"deferred": 2.0}, "deferred must be a share"),
    ],
)
def test_a_parameter_out_of_range_is_an_error(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LDAM(**params)
