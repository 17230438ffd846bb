"""Double similarity: both parts, stages of several sizes, what two classes leave of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.losses._masks import two_channels
from edgekd.losses.base import Outputs
from edgekd.losses.dsd import DSD, category_similarity, pixel_similarity
from edgekd.plugins import check_arguments
from tests.losses import segmentation_oracles as oracles
from tests.losses.cases import CLOCK, outputs
from tests.losses.segmentation_cases import BINARY, batch, masks, values
from tests.losses.umkd_oracles import slope

PYRAMID = ((9, 7), (5, 4), (3, 2), (2, 2))
FLAT = ((3, 4),) * 3


def stages(seed: int, sizes: tuple[tuple[int, int], ...], width: int = 3) -> list[Tensor]:
    return [values(seed + i, 2, width + i, *size) for i, size in enumerate(sizes)]


def arrays(maps: list[Tensor]) -> list:
    return [stage.detach().numpy() for stage in maps]


@pytest.mark.parametrize("sizes", [PYRAMID, FLAT, PYRAMID[:2]])
def test_psd_is_the_formula_whatever_the_widths_and_sizes(
    sizes: tuple[tuple[int, int], ...],
) -> None:
    student, teacher = stages(10, sizes), stages(20, sizes, width=5)
    expected = oracles.psd(arrays(student), arrays(teacher))
    assert expected > 1e-3
    assert pixel_similarity(student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_networks_of_different_sizes_meet_at_the_smallest() -> None:
    student, teacher = stages(10, ((4, 6), (3, 5))), stages(20, ((5, 5), (4, 2)))
    expected = oracles.psd(arrays(student), arrays(teacher))
    assert pixel_similarity(student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_the_gradient_of_psd_is_the_formulas() -> None:
    student, teacher = stages(10, ((3, 4), (2, 2))), stages(20, ((3, 4), (2, 2)))
    student[0].requires_grad_()
    pixel_similarity(student, teacher).backward()
    second, theirs = student[1].numpy(), arrays(teacher)
    expected = slope(lambda s: oracles.psd([s, second], theirs), student[0].detach().numpy())
    torch.testing.assert_close(student[0].grad, torch.from_numpy(expected), rtol=1e-6, atol=1e-9)


def test_psd_is_zero_for_equal_maps_and_blind_to_scale_sign_and_channel_order() -> None:
    student, teacher = stages(10, PYRAMID), stages(20, PYRAMID)
    assert pixel_similarity(student, student).item() == 0.0
    value = pixel_similarity(student, teacher)
    changed = [
        stage.flip(1) * factor for stage, factor in zip(student, (1, -7, 1e-3, 50), strict=True)
    ]
    torch.testing.assert_close(pixel_similarity(changed, teacher), value)
    assert pixel_similarity(student[::-1], student).item() > 1e-3


@pytest.mark.parametrize("tau", [1.0, 4.0])
@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 3), (1, 3), (1, 1)])
def test_csd_is_the_formula(height: int, width: int, channels: int, tau: float) -> None:
    student, teacher = (values(i, 2, channels, height, width, scale=5.0) for i in (1, 2))
    expected = oracles.csd(student.numpy(), teacher.numpy(), tau)
    found = category_similarity(student, teacher, tau).item()
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-20)
    assert (expected > 1e-8) == (height * width > 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_gradient_of_csd_is_the_formulas(channels: int) -> None:
    student = values(1, 1, channels, 3, 4, scale=9.0).requires_grad_()
    teacher = values(2, 1, channels, 3, 4, scale=9.0)
    category_similarity(student, teacher, 4.0).backward()
    expected = slope(lambda s: oracles.csd(s, teacher.numpy()), student.detach().numpy())
    torch.testing.assert_close(student.grad, torch.from_numpy(expected), rtol=1e-6, atol=1e-9)
    assert student.grad is not None
    assert student.grad.any()


def test_one_channel_is_taken_as_two_and_says_one_number_an_image() -> None:
    student, teacher = (values(i, 2, 1, 4, 4, scale=5.0) for i in (1, 2))
    value = category_similarity(student, teacher, 4.0)
    torch.testing.assert_close(
        category_similarity(two_channels(student), two_channels(teacher), 4.0), value
    )
    # all products with the constant channel are 1 / positions, whatever the logits
    concentrations = [
        torch.nn.functional.avg_pool2d(z, 2).flatten(1).div(4).softmax(1).pow(2).sum(1)
        for z in (student, teacher)
    ]
    torch.testing.assert_close(value, (concentrations[0] - concentrations[1]).pow(2).mean() / 4)


def test_csd_is_zero_for_equal_logits_and_blind_to_a_constant_per_channel() -> None:
    student, teacher = (values(i, 2, 3, 5, 4, scale=5.0) for i in (1, 2))
    assert category_similarity(student, student, 4.0).item() == 0.0
    shifted = student + values(3, 2, 3, 1, 1)
    torch.testing.assert_close(
        category_similarity(shifted, teacher, 4.0), category_similarity(student, teacher, 4.0)
    )


def network(seed: int, width: int, channels: int) -> Outputs:
    maps = stages(seed, PYRAMID, width)
    logits = values(seed + 5, 2, channels, 9, 7, scale=5.0)
    return outputs(logits, **{f"s{i + 1}": stage for i, stage in enumerate(maps)})


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_the_weighted_sum_over_teachers(channels: int) -> None:
    student, teachers = network(10, 2, channels), [network(i, i % 7, channels) for i in (22, 33)]
    loss = DSD()
    loss.setup(student, teachers, BINARY)
    value = loss(student, teachers, batch(masks(9, 2, 9, 7)), CLOCK)
    expected = 0.0
    for teacher in teachers:
        ours, theirs = ([of.taps[f"s{i}"] for i in range(1, 5)] for of in (student, teacher))
        expected += 1000 * oracles.psd(arrays(ours), arrays(theirs))
        expected += 10 * oracles.csd(student.logits.numpy(), teacher.logits.numpy())
    assert value.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("zero", ["student", "teacher", "both"])
def test_maps_of_zeros_are_finite_and_hand_on_no_huge_gradient(zero: str) -> None:
    student, teacher = stages(10, FLAT), stages(20, FLAT)
    if zero != "teacher":
        student = [torch.zeros_like(stage) for stage in student]
    if zero != "student":
        teacher = [torch.zeros_like(stage) for stage in teacher]
    for stage in student:
        stage.requires_grad_()
    value = pixel_similarity(student, teacher)
    value.backward()
    assert torch.isfinite(value)
    assert all(stage.grad is not None and stage.grad.abs().max() < 10 for stage in student)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"taps": ("s1",)}, "taps must be two or more"),
        ({"taps": ("s1", "s1")}, "taps must be different"),
        ({"temperature": 0.0}, "temperature must be positive"),
    ],
)
def test_a_parameter_out_of_range_is_an_error(params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DSD(**params)


def test_the_taps_come_from_the_recipe() -> None:
    assert DSD().taps == ("s1", "s2", "s3", "s4")
    assert DSD(**check_arguments(DSD, {"taps": ["s4", "decoder"]}, "params")).taps == (
        "s4",
        "decoder",
    )
