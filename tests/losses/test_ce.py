"""Cross-entropy: the formula, hidden labels, class weights."""

from __future__ import annotations

import pytest
import torch

from edgekd.losses.ce import CrossEntropy
from tests.losses import oracles
from tests.losses.cases import CLOCK, FACTS, batch, outputs, random_logits

TARGETS = [0, 1, 2, 3, 4, 0, 1, 2]


def test_it_is_the_formula() -> None:
    logits = random_logits(1)
    value = CrossEntropy()(outputs(logits), (), batch(TARGETS), CLOCK)
    assert float(value) == pytest.approx(oracles.cross_entropy(logits.numpy(), TARGETS), rel=1e-12)


def test_hidden_labels_do_not_count() -> None:
    logits = random_logits(1)
    hidden = [0, -1, 2, -1, -1, -1, -1, -1]
    value = CrossEntropy()(outputs(logits), (), batch(hidden), CLOCK)
    expected = oracles.cross_entropy(logits[[0, 2]].numpy(), [0, 2])
    assert float(value) == pytest.approx(expected, rel=1e-12)


def test_a_batch_without_any_label_gives_zero_and_a_zero_gradient() -> None:
    logits = random_logits(1).requires_grad_()
    value = CrossEntropy()(outputs(logits), (), batch([-1] * 8), CLOCK)
    value.backward()
    assert value.item() == 0.0
    assert logits.grad is not None
    assert torch.count_nonzero(logits.grad) == 0


def test_balanced_weights_are_inverse_to_the_class_counts() -> None:
    loss = CrossEntropy(class_weights="balanced")
    facts = FACTS.__class__("classification", ("a", "b"), (30, 10), 8)
    loss.setup(outputs(torch.zeros(2, 2)), (), facts)
    assert loss.weights is not None
    assert loss.weights.tolist() == pytest.approx([40 / (2 * 30), 40 / (2 * 10)])


def test_logits_of_any_size_are_finite() -> None:
    value = CrossEntropy()(outputs(random_logits(1).float() * 1e4), (), batch(TARGETS), CLOCK)
    assert torch.isfinite(value)
