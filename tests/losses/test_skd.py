"""Structured distillation: both parts, its nodes, widths and sizes that differ."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.losses._masks import pixel_kl, two_channels
from edgekd.losses.skd import SKD, pair_wise, pixel_wise, similarities
from tests.losses import segmentation_oracles as oracles
from tests.losses.cases import CLOCK, outputs
from tests.losses.segmentation_cases import BINARY, batch, masks, values
from tests.losses.umkd_oracles import slope

# (height, width) of both maps
SIZES = [((4, 4), (4, 4)), ((5, 7), (5, 7)), ((6, 4), (3, 5)), ((2, 3), (4, 6))]


def pair(channels: int = 1, seed: int = 1) -> tuple[Tensor, Tensor]:
    return (
        values(seed, 2, channels, 3, 5, scale=3.0),
        values(seed + 1, 2, channels, 3, 5, scale=3.0),
    )


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_the_pixel_wise_part_is_the_formula(channels: int) -> None:
    student, teacher = pair(channels)
    expected = oracles.pixel_wise(student.numpy(), teacher.numpy())
    assert pixel_wise(student, teacher).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_pixel_wise_part_is_a_divergence_and_the_teachers_entropy(channels: int) -> None:
    student, teacher = pair(channels)
    student.requires_grad_()
    entropy = pixel_wise(teacher, teacher)
    torch.testing.assert_close(
        pixel_wise(student, teacher), entropy + pixel_kl(student, teacher, 1.0)
    )
    grads = [
        torch.autograd.grad(value, student)[0]
        for value in (pixel_wise(student, teacher), pixel_kl(student, teacher, 1.0))
    ]
    torch.testing.assert_close(grads[0], grads[1])
    assert grads[0].any()


def test_one_channel_is_taken_as_two() -> None:
    student, teacher = pair()
    expected = pixel_wise(two_channels(student), two_channels(teacher))
    torch.testing.assert_close(pixel_wise(student, teacher), expected)


def test_doubling_the_batch_changes_nothing() -> None:
    student, teacher = pair(3)
    twice = pixel_wise(student.repeat(2, 1, 1, 1), teacher.repeat(2, 1, 1, 1))
    torch.testing.assert_close(twice, pixel_wise(student, teacher))


@pytest.mark.parametrize("scale", [0.2, 0.5, 0.7])
@pytest.mark.parametrize(("ours", "theirs"), SIZES)
def test_the_pair_wise_part_is_the_formula_whatever_the_widths_and_sizes(
    ours: tuple[int, int], theirs: tuple[int, int], scale: float
) -> None:
    student, teacher = values(1, 2, 4, *ours), values(2, 2, 7, *theirs)
    expected = oracles.pair_wise(student.numpy(), teacher.numpy(), scale)
    assert expected > 1e-3
    assert pair_wise(student, teacher, scale).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("side", "nodes"), [(2, 4), (4, 4), (5, 9), (6, 4), (7, 9), (1, 1)])
def test_half_the_side_makes_two_nodes_a_side_and_one_more_where_it_is_odd(
    side: int, nodes: int
) -> None:
    assert similarities(values(1, 1, 3, side, side), 0.5).shape == (1, nodes, nodes)


@pytest.mark.parametrize(("side", "scale"), [(1, 0.5), (4, 1.0)])
def test_one_node_has_no_pairs(side: int, scale: float) -> None:
    student, teacher = values(1, 2, 3, side, side).requires_grad_(), values(2, 2, 5, side, side)
    value = pair_wise(student, torch.zeros_like(teacher), scale)
    value.backward()
    assert value.item() == 0.0
    assert student.grad is not None
    assert not student.grad.any()


def test_the_pair_wise_gradient_is_the_formulas() -> None:
    student, teacher = values(1, 1, 3, 3, 4).requires_grad_(), values(2, 1, 2, 3, 4)
    pair_wise(student, teacher, 0.5).backward()
    expected = slope(lambda s: oracles.pair_wise(s, teacher.numpy()), student.detach().numpy())
    torch.testing.assert_close(student.grad, torch.from_numpy(expected), rtol=1e-6, atol=1e-9)


def test_the_pair_wise_part_is_zero_for_equal_maps_and_blind_to_scale_and_channel_order() -> None:
    student, teacher = values(1, 2, 4, 5, 7), values(2, 2, 4, 5, 7)
    assert pair_wise(student, student, 0.5).item() == 0.0
    value = pair_wise(student, teacher, 0.5)
    scaled = torch.tensor([1e-3, 1e3], dtype=torch.float64)[:, None, None, None] * student
    torch.testing.assert_close(pair_wise(scaled, teacher, 0.5), value)
    torch.testing.assert_close(pair_wise(student[:, [2, 0, 3, 1]], teacher, 0.5), value)
    assert pair_wise(student, student.flip(3), 0.5).item() > 1e-3


def test_maps_of_zeros_are_finite_and_hand_on_no_gradient() -> None:
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    value = pair_wise(student, values(2, 2, 3, 4, 4, dtype=torch.float32), 0.5)
    value.backward()
    assert torch.isfinite(value)
    assert student.grad is not None
    assert not student.grad.any()


def test_it_is_the_weighted_sum_over_teachers() -> None:
    student = outputs(pair()[0], decoder=values(4, 2, 4, 2, 3))
    teachers = [
        outputs(pair(seed=i)[1], decoder=values(i, 2, width, 2, 3)) for i, width in ((5, 4), (6, 7))
    ]
    loss = SKD()
    loss.setup(student, teachers, BINARY)
    value = loss(student, teachers, batch(masks(9, 2, 3, 5)), CLOCK)
    expected = 0.0
    for teacher in teachers:
        expected += 10 * oracles.pixel_wise(student.logits.numpy(), teacher.logits.numpy())
        maps = student.taps["decoder"].numpy(), teacher.taps["decoder"].numpy()
        expected += oracles.pair_wise(*maps)
    assert value.item() == pytest.approx(expected, rel=1e-10)
    assert loss.taps == ("decoder",)


@pytest.mark.parametrize("scale", [0.0, 1.5])
def test_a_scale_out_of_range_is_an_error(scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be above 0 and at most 1"):
        SKD(scale=scale)


def test_it_needs_a_map() -> None:
    with pytest.raises(ValueError, match="`pooled` is no map"):
        SKD(tap="pooled")
