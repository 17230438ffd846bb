"""Focal loss on several labels: the formula, gamma 0, its gradient far out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.losses.bce import BCE
from edgekd.losses.focal import Focal, focal_factor
from tests.losses import multilabel_oracles as oracles
from tests.losses.multilabel_cases import KNOWN, LABELS, LAST, batch, says, values


def loss(logits: Tensor, labels: Tensor = LABELS, gamma: float = 2.0) -> Tensor:
    return Focal(gamma=gamma)(says(logits), [], batch(labels), LAST)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_it_is_the_formula(gamma: float) -> None:
    logits = values(1, 6, 5, scale=3.0)
    expected = oracles.focal(logits.numpy(), LABELS.numpy(), gamma)
    assert expected > 0.1
    assert loss(logits, gamma=gamma).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gamma_0_is_bce_to_the_bit(dtype: torch.dtype) -> None:
    logits = values(1, 6, 5, scale=30.0, dtype=dtype)
    assert torch.equal(loss(logits, gamma=0.0), BCE()(says(logits), [], batch(LABELS), LAST))


def test_what_is_right_already_counts_less_the_larger_gamma_is() -> None:
    logits = 3.0 * (2.0 * KNOWN.double() - 1)
    found = [loss(logits, KNOWN, gamma).item() for gamma in (0.0, 1.0, 2.0)]
    # all labels alike: each gamma more multiplies by 1 - p_t
    rest = torch.sigmoid(torch.tensor(-3.0)).item()
    assert found[1] / found[0] == pytest.approx(rest, rel=1e-6)
    assert found[2] / found[1] == pytest.approx(rest, rel=1e-6)


def test_the_factor_is_exact_where_the_answer_is_almost_sure() -> None:
    """1 - sigmoid(40) is 0 in single precision; e^-40 is not."""
    far = torch.tensor(40.0)
    assert 1 - far.sigmoid() == 0
    assert focal_factor(far, 1.0).item() == pytest.approx(torch.tensor(-40.0).exp().item())


def test_the_gradient_goes_through_the_factor_too() -> None:
    """d/dz of -(1-p)^2 log p at y = 1 is (1-p)^2 (2 p log p + p - 1)."""
    logits = values(1, 1, 5).requires_grad_()
    loss(logits, torch.ones(1, 5, dtype=torch.int64)).backward()
    p = logits.detach().sigmoid()
    expected = (1 - p) ** 2 * (2 * p * p.log() + p - 1) / 5
    torch.testing.assert_close(logits.grad, expected)


def test_a_negative_gamma_is_an_error() -> None:
    with pytest.raises(ValueError, match="gamma must not be negative"):
        Focal(gamma=-1.0)
