"""UMKD's low-pass filters: the experts' without parameters, the student's with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.losses._low_pass import LowPass, low_pass
from tests.losses import umkd_oracles as oracles
from tests.losses.cases import random_maps


@pytest.mark.parametrize(("channels", "side"), [(8, 6), (8, 7), (6, 8), (4, 12), (3, 6)])
def test_the_experts_filter_is_the_formula(channels: int, side: int) -> None:
    maps = random_maps(1, 2, channels, side)
    expected = torch.from_numpy(oracles.low_pass(maps.numpy()))
    torch.testing.assert_close(low_pass(maps), expected, rtol=1e-10, atol=1e-12)


def test_it_takes_maps_that_are_not_square_and_other_grids() -> None:
    maps = random_maps(1, 2, 5, 9)[:, :, :7]
    expected = torch.from_numpy(oracles.low_pass(maps.numpy(), (1, 4)))
    torch.testing.assert_close(low_pass(maps, (1, 4)), expected, rtol=1e-10, atol=1e-12)


def test_a_constant_stays_and_one_bin_is_the_mean() -> None:
    ones = torch.ones(2, 8, 7, 7)
    torch.testing.assert_close(low_pass(ones), ones)
    maps = random_maps(1, 2, 8, 7) + 5
    flat = maps[:, :2].mean((2, 3), keepdim=True).expand(2, 2, 7, 7)
    torch.testing.assert_close(low_pass(maps)[:, :2], flat)


def test_nothing_below_zero_passes() -> None:
    assert torch.count_nonzero(low_pass(-torch.ones(2, 8, 6, 6))) == 0


def test_as_many_bins_as_pixels_are_the_map_itself() -> None:
    maps = random_maps(1, 2, 4, 6)
    torch.testing.assert_close(low_pass(maps, (6,)), maps.relu())


def test_the_students_filter_has_the_papers_size_at_64_channels() -> None:
    assert sum(p.numel() for p in LowPass(64).parameters()) == 91_776


def randomised(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            tensor.data = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) - 0.3
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_var is not None
            layer.running_var += 1.0
    return module.eval()


@pytest.mark.parametrize("stride", [1, 2])
def test_the_students_filter_is_the_formula(stride: int) -> None:
    """UMKD, equation 5, with the convolutions of the authors' code."""
    module = randomised(LowPass(4, stride=stride))
    maps = random_maps(1, 2, 4, 6)
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    shapes = [tuple(layer.weight.shape[1:]) for layer in convolutions]
    assert shapes == [(4, 3, 3), (4, 3, 3), (8, 1, 1), *[(1, 3, 3), (4, 1, 1)] * 2]

    def conv(x, layer, stride=1):
        bias = None if layer.bias is None else layer.bias.detach().numpy()
        return oracles.convolved(x, layer.weight.detach().numpy(), bias, stride)

    def norm(x, layer):
        mean, var, scale, shift = (
            t.detach().numpy()[:, None, None]
            for t in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
        )
        return (x - mean) / (var + layer.eps) ** 0.5 * scale + shift

    smooth = oracles.low_pass(conv(maps.numpy(), convolutions[0]))
    fine = conv(maps.numpy(), convolutions[1], stride)
    smooth = oracles.resized(smooth, *fine.shape[2:])
    x = norm(conv(oracles.np.concatenate([smooth, fine], 1), convolutions[2]), norms[0])
    x = x * (x + 3).clip(0, 6) / 6  # hard swish
    for deep, wide, last in zip(convolutions[3::2], convolutions[4::2], norms[1:], strict=True):
        x = oracles.relu(norm(conv(conv(x, deep), wide), last))
    torch.testing.assert_close(module(maps), torch.from_numpy(x), rtol=1e-9, atol=1e-10)
