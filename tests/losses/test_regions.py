"""Region logits: the cells of the grids, their order, the two pyramids."""

from __future__ import annotations

import pytest
import torch

from edgekd.errors import RecipeError
from edgekd.losses._regions import check_windows, region_logits
from tests.losses import umkd_oracles as oracles
from tests.losses.cases import linear_head, random_maps

HEAD = linear_head(9)
WINDOWS = (1, 2, 4)


@pytest.mark.parametrize("pyramid", ["direct", "from_finest"])
@pytest.mark.parametrize("windows", [(1, 2, 4), (1, 2), (1,), (1, 3)])
@pytest.mark.parametrize("side", [4, 7])
def test_they_are_the_logits_of_the_cells(
    side: int, windows: tuple[int, ...], pyramid: str
) -> None:
    maps = random_maps(1, 2, side=side)
    expected = oracles.region_logits(
        maps.numpy(), HEAD.weight.numpy(), HEAD.bias.numpy(), windows, pyramid == "from_finest"
    )
    value = region_logits(maps, HEAD, windows, pyramid=pyramid)
    assert value.shape == (2, 5, sum(window**2 for window in windows))
    torch.testing.assert_close(value, torch.from_numpy(expected), rtol=1e-10, atol=1e-12)


def test_their_order_is_whole_then_row_by_row() -> None:
    maps = torch.arange(16.0).reshape(1, 1, 4, 4)
    value = region_logits(maps, lambda pooled: pooled, WINDOWS)[0, 0]
    assert value.tolist() == [7.5, 2.5, 4.5, 10.5, 12.5, *range(16)]


@pytest.mark.parametrize("side", [4, 5, 7])
def test_the_first_of_the_direct_pyramid_are_the_models_logits(side: int) -> None:
    maps = random_maps(1, side=side)
    logits = HEAD(maps.mean((2, 3)))
    torch.testing.assert_close(region_logits(maps, HEAD, WINDOWS)[:, :, 0], logits)
    alone = region_logits(maps, HEAD, (1,))
    torch.testing.assert_close(alone[:, :, 0], logits)


@pytest.mark.parametrize(("side", "same"), [(4, True), (8, True), (7, False)])
def test_pyramids_differ_only_where_cells_overlap(side: int, same: bool) -> None:
    maps = random_maps(1, side=side)
    first, second = (
        region_logits(maps, HEAD, WINDOWS, pyramid=p) for p in ("direct", "from_finest")
    )
    assert torch.allclose(first, second) is same
    torch.testing.assert_close(first[:, :, 5:], second[:, :, 5:])


def test_for_a_linear_head_cells_of_features_are_cells_of_logits() -> None:
    maps = random_maps(1, side=7)
    dense = torch.einsum("cd,bdhw->bchw", HEAD.weight, maps) + HEAD.bias[:, None, None]
    torch.testing.assert_close(
        region_logits(maps, HEAD, WINDOWS), region_logits(dense, lambda pooled: pooled, WINDOWS)
    )


def test_the_gradient_reaches_the_map() -> None:
    maps = random_maps(1, 2, 3).requires_grad_()
    head = linear_head(9, 3)
    assert torch.autograd.gradcheck(lambda x: region_logits(x, head, WINDOWS), (maps,))


@pytest.mark.parametrize(("side", "window"), [(1, 2), (3, 4)])
def test_a_window_larger_than_the_map_is_an_error_that_names_both(side: int, window: int) -> None:
    with pytest.raises(RecipeError, match=f"udd.*{window}x{window}.*{side}x{side}"):
        check_windows(random_maps(1, side=side), WINDOWS, "udd")


def test_windows_as_large_as_the_map_fit() -> None:
    check_windows(random_maps(1, side=4), WINDOWS, "udd")
