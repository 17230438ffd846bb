"""HF-MGD: where the teacher looks, and what of it is hidden."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.losses.base import Outputs
from edgekd.losses.hf_mgd import HFMGD, hf_attention, hf_mask
from tests.losses import dspkd_oracles as oracles
from tests.losses.cases import random_maps
from tests.losses.hf_cases import LAST, SIDES, arrays, built, hidden, levels_of, network, value
from tests.losses.umkd_oracles import slope


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("fusion", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("size", [(3, 3), (2, 4), (9, 9)])
def test_the_attention_map_is_the_formula(
    size: tuple[int, int], fusion: float, kernel: int
) -> None:
    maps = levels_of(network(1))
    wanted = oracles.hf_attention(arrays(maps), *size, kernel, fusion)
    found = hf_attention(maps, size, kernel=kernel, fusion=fusion)
    torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=1e-10, atol=1e-12)
    assert found.shape == (3, 1, *size)
    assert torch.equal(found.amin((2, 3)), torch.zeros(3, 1, dtype=torch.float64))
    assert torch.equal(found.amax((2, 3)), torch.ones(3, 1, dtype=torch.float64))


@pytest.mark.parametrize("params", [{}, {"phi": 0.2}, {"quantile": 0.25}, {"quantile": 0.6}])
def test_the_mask_is_the_formula(params: dict) -> None:
    maps = levels_of(network(1))
    attention = oracles.hf_attention(arrays(maps), 5, 5)
    wanted = oracles.hf_mask(attention, **params)
    assert 0 < wanted.mean() < 1
    assert torch.equal(hf_mask(maps, (5, 5), **params), torch.from_numpy(wanted))


def test_with_one_level_the_attention_is_that_levels() -> None:
    maps = levels_of(network(1))
    found = hf_attention(maps[:1], (3, 3))
    assert torch.equal(found, hf_attention(maps, (3, 3), fusion=1.0))
    assert not torch.equal(found, hf_attention(maps, (3, 3), fusion=0.5))


def test_the_mask_is_binary_and_not_differentiable() -> None:
    maps = [level.requires_grad_() for level in levels_of(network(1))]
    mask = hf_mask(maps, (3, 3))
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert not mask.requires_grad


def test_a_bright_spot_of_the_teacher_is_hidden_and_the_rest_is_not() -> None:
    maps = [torch.full((1, 4, side, side), 0.1) for side in (8, 4, 2, 1)]
    maps[0][:, :, :4, 4:] = 3.0
    mask = hf_mask(maps, (4, 4), kernel=1)
    assert (mask[0, 0, :2, 2:] == 0).all()
    assert mask.sum() == 12


def test_what_is_hidden_becomes_less_with_phi() -> None:
    maps = levels_of(network(1))
    shares = [hidden(hf_mask(maps, (5, 5), phi=phi)) for phi in np.linspace(-0.1, 1.1, 25)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1.0
    assert shares[-1] == 0.0


@pytest.mark.parametrize(("quantile", "count"), [(0.0, 0), (0.2, 5), (0.5, 13), (1.0, 25)])
def test_a_quantile_hides_that_part_of_every_image(quantile: float, count: int) -> None:
    mask = hf_mask(levels_of(network(1)), (5, 5), quantile=quantile)
    assert (mask == 0).sum((1, 2, 3)).tolist() == [count] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("params", [{}, {"phi": -1.0}, {"quantile": 0.5}])
@pytest.mark.parametrize("level", [0.0, 0.1, -3.0, 1e6])
def test_nothing_is_hidden_where_the_attention_is_constant(
    level: float, params: dict, dtype: torch.dtype
) -> None:
    maps = [torch.full((2, 3, side, side), level, dtype=dtype) for side in SIDES]
    for i, one in enumerate(maps):
        one[1] = random_maps(i, 1, 3, one.shape[2])[0]
    mask = hf_mask(maps, (3, 3), **params)
    assert hidden(mask[:1]) == 0
    assert hidden(mask[1:]) > 0  # each image by itself


def test_a_scale_of_all_maps_changes_no_mask() -> None:
    maps = levels_of(network(1))
    assert torch.equal(hf_mask([5 * m for m in maps], (3, 3)), hf_mask(maps, (3, 3)))


# A mask that learns.


def learnt(loss: HFMGD, teacher: Outputs) -> np.ndarray:
    module = loss.masks[0]
    kernels = [reduce.weight.detach().numpy() for reduce in module.reduce]
    weights = module.fusion.detach().sigmoid().numpy()
    maps = arrays(levels_of(teacher))
    return oracles.learnt_attention(maps, kernels, weights, LAST, LAST)


@pytest.mark.parametrize("params", [{}, {"quantile": 0.4}])
def test_a_learnt_mask_is_hard_forward_and_soft_backward(params: dict) -> None:
    student, teacher = network(1), network(11, 8)
    loss = built(student, teacher, hf="ste", **params)
    for reduce in loss.masks[0].reduce:
        nn.init.normal_(reduce.weight)
    mask = loss.mask(0, teacher)
    attention = learnt(loss, teacher)
    wanted = oracles.hf_mask(attention, loss.phi, loss.quantile)
    assert torch.equal(mask.detach(), torch.from_numpy(wanted))

    factors = random_maps(5, 3, 1, LAST)
    (mask * factors).sum().backward()
    kernel = loss.masks[0].reduce[1].weight
    limits = [0.5] * 3
    if loss.quantile:
        limits = [sorted(a.ravel(), reverse=True)[round(0.4 * LAST**2) - 1] for a in attention]

    def soft(array: np.ndarray) -> float:
        with torch.no_grad():
            kernel.copy_(torch.from_numpy(array))
        now = learnt(loss, teacher)
        total = 0.0
        for place in np.ndindex(*now.shape):
            height = (limits[place[0]] - now[place]) / 0.1
            total += float(factors[place]) / (1 + math.exp(-height))
        return total

    assert kernel.grad is not None
    assert kernel.grad.abs().max() > 1e-3
    wanted = slope(soft, kernel.detach().numpy().copy(), step=1e-6)
    torch.testing.assert_close(kernel.grad, torch.from_numpy(wanted), rtol=1e-4, atol=1e-6)


def test_a_learnt_mask_begins_with_the_mean_over_channels_and_the_given_weight() -> None:
    loss = built(network(1), network(11, 8), hf="ste", fusion=0.3)
    module = loss.masks[0]
    torch.testing.assert_close(module.fusion.sigmoid(), torch.full((3,), 0.3).double())
    for reduce in module.reduce:
        assert torch.allclose(reduce.weight, torch.tensor(1 / reduce.in_channels).double())
    assert not built(network(1), network(11, 8)).masks


def test_a_learnt_mask_learns_through_the_loss_and_a_fixed_one_has_nothing_to_learn() -> None:
    student, teacher = network(1), network(11, 8)
    loss = built(student, teacher, hf="ste", alpha=0.1)
    value(loss, student, teacher).backward()
    for name, parameter in loss.masks.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-10, name
