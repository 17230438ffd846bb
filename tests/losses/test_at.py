"""Attention transfer: the formula, what it does not see, maps without any activity."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.losses._maps import same_size, unit_rows
from edgekd.losses.at import AT, attention
from edgekd.losses.base import Outputs
from edgekd.plugins import check_arguments
from tests.losses import kdml_oracles as oracles
from tests.losses.cases import CLOCK, FACTS, batch, outputs, random_maps
from tests.losses.umkd_oracles import slope

LOGITS = torch.zeros(3, 2)  # two classes: maps do not know of them
SIZES = [(4, 4), (4, 2), (2, 4), (5, 3)]


def of(maps: Tensor) -> Outputs:
    return outputs(LOGITS, s2=maps)


def at(student: Tensor, *teachers: Tensor, p: int = 2) -> Tensor:
    loss, theirs = AT(taps=("s2",), p=p), [of(teacher) for teacher in teachers]
    loss.setup(of(student), theirs, FACTS)
    return loss(of(student), theirs, batch([0, 1, 1]), CLOCK)


@pytest.mark.parametrize("p", [1, 2, 3, 4])
@pytest.mark.parametrize(("ours", "theirs"), SIZES)
def test_it_is_the_formula_whatever_the_widths_and_sizes(ours: int, theirs: int, p: int) -> None:
    student, teacher = random_maps(1, side=ours), random_maps(2, channels=9, side=theirs)
    expected = oracles.at(student.numpy(), teacher.numpy(), p)
    assert expected > 1e-4
    assert float(at(student, teacher, p=p)) == pytest.approx(expected, rel=1e-10)


def test_it_is_the_sum_over_the_four_stages_and_over_teachers() -> None:
    def network(seed: int) -> dict[str, Tensor]:
        return {f"s{i}": random_maps(seed + i, channels=2 * i, side=9 - 2 * i) for i in range(1, 5)}

    student, one, two = network(10), network(20), network(30)
    value = AT()(
        outputs(LOGITS, **student),
        [outputs(LOGITS, **one), outputs(LOGITS, **two)],
        batch([0, 1, 1]),
        CLOCK,
    )
    expected = sum(
        oracles.at(student[tap].numpy(), teacher[tap].numpy())
        for teacher in (one, two)
        for tap in ("s1", "s2", "s3", "s4")
    )
    assert float(value) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("ours", "theirs"), [(3, 3), (4, 2), (2, 3)])
def test_its_gradient_is_the_formulas(ours: int, theirs: int) -> None:
    student = random_maps(1, rows=2, channels=3, side=ours).requires_grad_()
    teacher = random_maps(2, rows=2, channels=4, side=theirs)
    at(student, teacher).backward()
    expected = slope(lambda s: oracles.at(s, teacher.numpy()), student.detach().numpy())
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.from_numpy(expected), rtol=1e-6, atol=1e-9)


def test_scaling_each_image_and_shuffling_channels_changes_nothing() -> None:
    student, teacher = random_maps(1), random_maps(2, channels=5)
    value = float(at(student, teacher))
    scale = torch.tensor([1e-3, 7.0, 1e3], dtype=torch.float64)[:, None, None, None]
    assert float(at(scale * student, teacher)) == pytest.approx(value, rel=1e-10)
    assert float(at(student, scale.flip(0) * teacher)) == pytest.approx(value, rel=1e-10)
    assert float(at(student[:, [3, 5, 0, 1, 4, 2]], teacher)) == pytest.approx(value, rel=1e-12)


def test_it_is_zero_for_equal_maps_and_sees_where_not_what() -> None:
    maps = random_maps(1)
    assert float(at(maps, maps)) == 0.0
    assert float(at(-maps, maps)) == 0.0  # as active, in the same places
    assert float(at(maps.flip(3), maps)) > 1e-3


def test_an_attention_has_length_1() -> None:
    lengths = attention(random_maps(1), 2).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("same", ["student", "teacher", "both"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maps_of_zeros_are_finite_and_hand_on_no_gradient(same: str, dtype: torch.dtype) -> None:
    student, teacher = random_maps(1, dtype=dtype), random_maps(2, dtype=dtype)
    if same != "teacher":
        student = torch.zeros_like(student)
    if same != "student":
        teacher = torch.zeros_like(teacher)
    student.requires_grad_()
    value = at(student, teacher)
    value.backward()
    assert torch.isfinite(value)
    assert student.grad is not None
    assert student.grad.abs().max() < 10
    if same == "both":
        assert value.item() == 0.0


def test_one_image_that_is_zero_leaves_the_others_their_gradient() -> None:
    student, teacher = random_maps(1, dtype=torch.float32), random_maps(2, dtype=torch.float32)
    student[1] = 0.0
    student.requires_grad_()
    at(student, teacher).backward()
    assert student.grad is not None
    assert not student.grad[1].any()
    assert student.grad[[0, 2]].abs().amax(dim=(1, 2, 3)).gt(0).all()


def test_a_row_of_zeros_has_no_length_and_no_gradient() -> None:
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    found = unit_rows(rows)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0], [0.6, 0.8]]))
    found.sum().backward()
    assert rows.grad is not None
    assert not rows.grad[0].any()
    assert rows.grad[1].any()


def test_the_larger_map_is_averaged_to_the_smaller_in_height_and_width() -> None:
    wide, high = random_maps(1)[:, :, :2], random_maps(2)[:, :, :, :3]  # 2x4 and 4x3
    ours, theirs = same_size(wide, high)
    assert ours.shape[2:] == theirs.shape[2:] == (2, 3)
    expected = oracles.one_size(wide.numpy(), high.numpy())
    torch.testing.assert_close((ours, theirs), tuple(torch.from_numpy(maps) for maps in expected))
    equal = same_size(wide, wide)
    assert all(maps is wide for maps in equal)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"p": 0}, "p must be at least 1"),
        ({"taps": ()}, "taps must be different"),
        ({"taps": ("s1", "s1")}, "taps must be different"),
        ({"taps": ("s1", "pooled")}, "`pooled` is no map"),
    ],
)
def test_a_parameter_out_of_range_is_an_error(params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AT(**params)


def test_the_taps_come_from_the_recipe() -> None:
    assert AT().taps == ("s1", "s2", "s3", "s4")
    found = AT(**check_arguments(AT, {"taps": ["s3", "last"], "p": 4}, "params"))
    assert (found.taps, found.p) == (("s3", "last"), 4)
