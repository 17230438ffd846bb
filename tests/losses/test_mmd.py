"""MMD: the formula, its two norms and kernels, its invariants, single precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.losses._mmd import mmd
from tests.losses import umkd_oracles as oracles
from tests.losses.cases import random_logits

SMALL, USEFUL = oracles.SIGMAS[:3], oracles.SIGMAS[3:]


def rows(seed: int, count: int = 4, features: int = 12) -> Tensor:
    return random_logits(seed, rows=count, classes=features)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_it_is_the_formula(count: int) -> None:
    x, y = rows(1, count), rows(2, count)
    expected = oracles.mmd(x.numpy(), y.numpy())
    assert float(mmd(x, y)) == pytest.approx(expected, rel=1e-10)
    assert float(mmd(x, y, norm="paper")) == pytest.approx(count * expected, rel=1e-10)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_linear_kernel_is_the_distance_of_the_means(count: int) -> None:
    x, y = rows(1, count), rows(2, count)
    expected = oracles.linear_mmd(x.numpy(), y.numpy())
    assert float(mmd(x, y, kernel="linear")) == pytest.approx(expected, rel=1e-10)
    paper = mmd(x, y, kernel="linear", norm="paper")
    assert float(paper) == pytest.approx(count * expected, rel=1e-10)


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_its_invariants(kernel: str) -> None:
    x, y = rows(1), rows(2)
    value = float(mmd(x, y, kernel=kernel))
    lengths = torch.tensor([[0.1], [3.0], [50.0], [1.0]], dtype=torch.float64)
    assert value > 0.1
    assert float(mmd(y, x, kernel=kernel)) == pytest.approx(value)
    assert float(mmd(x[[2, 0, 3, 1]], y, kernel=kernel)) == pytest.approx(value)
    assert float(mmd(x * lengths, y, kernel=kernel)) == pytest.approx(value)
    assert float(mmd(x, x[[1, 0, 3, 2]], kernel=kernel)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_rounding_never_makes_it_negative(kernel: str) -> None:
    for seed in range(50):
        x = rows(seed, 5)
        assert 0.0 <= float(mmd(x, x[[3, 1, 4, 0, 2]], kernel=kernel)) < 1e-12


def test_the_three_narrow_kernels_only_add_a_constant() -> None:
    x, y = rows(1).requires_grad_(), rows(2)
    value = mmd(x, y)
    value.backward()
    arrays = x.detach().numpy(), y.numpy()
    assert value.item() - oracles.mmd(*arrays, USEFUL) == pytest.approx(3 * 2 / 4, rel=1e-6)
    assert x.grad is not None
    wide = oracles.slope(lambda a: oracles.mmd(a, arrays[1], USEFUL), arrays[0])
    torch.testing.assert_close(x.grad, torch.from_numpy(wide), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
@pytest.mark.parametrize("norm", ["v", "paper"])
def test_gradcheck(kernel: str, norm: str) -> None:
    x, y = rows(1, 3, 5).requires_grad_(), rows(2, 3, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: mmd(a, b, kernel=kernel, norm=norm), (x, y))


@pytest.mark.parametrize("apart", [3e-3, 3e-2, 1.0])
def test_single_precision_holds_for_rows_that_are_close(apart: float) -> None:
    x = rows(1, 4, 200).abs()
    y = x + apart * rows(2, 4, 200)
    x, y = x.float(), y.float()
    expected = oracles.mmd(x.double().numpy(), y.double().numpy())
    assert float(mmd(x, y)) == pytest.approx(expected, rel=1e-4)


def test_a_row_of_zeros_is_finite_and_so_is_its_gradient() -> None:
    x = rows(1).float()
    x[1] = 0.0
    x.requires_grad_()
    value = mmd(x, rows(2).float())
    value.backward()
    assert torch.isfinite(value)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_the_gradient_of_equal_inputs_is_finite() -> None:
    x = rows(1).requires_grad_()
    mmd(x, x.detach().clone()).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
