"""EMKD: its three parts, images that lack a region, high powers of small and large maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.losses.base import Outputs
from edgekd.losses.emkd import EMKD, affinity, contrast, importance
from tests.losses import segmentation_oracles as oracles
from tests.losses.cases import CLOCK, outputs
from tests.losses.segmentation_cases import BINARY, UNKNOWN, batch, masks, values
from tests.losses.umkd_oracles import slope

SIZES = [((4, 4), (4, 4)), ((3, 5), (3, 5)), ((6, 4), (3, 5)), ((2, 3), (5, 6))]


@pytest.mark.parametrize("p", [1, 2, 4])
@pytest.mark.parametrize(("ours", "theirs"), SIZES)
def test_the_importance_part_is_the_formula_whatever_the_widths_and_sizes(
    ours: tuple[int, int], theirs: tuple[int, int], p: int
) -> None:
    student, teacher = values(1, 2, 4, *ours), values(2, 2, 7, *theirs)
    expected = oracles.importance(student.numpy(), teacher.numpy(), p)
    assert expected > 1e-3
    assert importance(student, teacher, p).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("size", [(2, 3), (4, 4)])
def test_the_gradient_of_the_importance_part_is_the_formulas(size: tuple[int, int]) -> None:
    student, teacher = values(1, 2, 3, *size).requires_grad_(), values(2, 2, 2, 2, 3)
    importance(student, teacher, 4).backward()
    expected = slope(lambda s: oracles.importance(s, teacher.numpy()), student.detach().numpy())
    torch.testing.assert_close(student.grad, torch.from_numpy(expected), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1e4, 1e12])
def test_high_powers_of_small_and_large_maps_stay_finite(scale: float) -> None:
    student, teacher = (values(i, 2, 3, 4, 4, dtype=torch.float32) for i in (1, 2))
    value = importance(student, teacher, 4)
    scaled = (scale * student).requires_grad_()
    found = importance(scaled, teacher, 4)
    torch.testing.assert_close(found, value)
    found.backward()
    assert scaled.grad is not None
    assert torch.isfinite(scaled.grad).all()
    assert scaled.grad.any()


def test_one_image_does_not_change_the_scale_of_another() -> None:
    student, teacher = values(1, 2, 3, 4, 4), values(2, 2, 3, 4, 4)
    scale = torch.tensor([1e-6, 1e6], dtype=torch.float64)[:, None, None, None]
    torch.testing.assert_close(
        importance(scale * student, teacher, 4), importance(student, teacher, 4)
    )


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(("ours", "theirs"), SIZES)
def test_the_region_part_is_the_formula_whatever_the_widths_and_sizes(
    ours: tuple[int, int], theirs: tuple[int, int], classes: int
) -> None:
    student, teacher = values(1, 3, 4, *ours), values(2, 3, 7, *theirs)
    labels = masks(3, 3, 7, 9, classes=classes)
    expected = oracles.affinity(student.numpy(), teacher.numpy(), labels.numpy())
    assert expected > 1e-4
    assert affinity(student, teacher, labels).item() == pytest.approx(expected, rel=1e-9)


def test_several_foreground_classes_are_one_region() -> None:
    student, teacher, labels = values(1, 2, 3, 4, 4), values(2, 2, 3, 4, 4), masks(3, 2, 4, 4)
    several = torch.where(labels > 0, masks(4, 2, 4, 4, classes=3) + 1, 0)
    assert several.max() > 1
    assert torch.equal(affinity(student, teacher, several), affinity(student, teacher, labels))


def test_the_gradient_of_the_region_part_is_the_formulas() -> None:
    student, teacher = values(1, 2, 3, 3, 2).requires_grad_(), values(2, 2, 2, 3, 2)
    labels = masks(3, 2, 6, 4)
    affinity(student, teacher, labels).backward()
    expected = slope(
        lambda s: oracles.affinity(s, teacher.numpy(), labels.numpy()), student.detach().numpy()
    )
    torch.testing.assert_close(student.grad, torch.from_numpy(expected), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("label", [0, 1])
def test_an_image_that_lacks_a_region_adds_nothing_and_counts(label: int) -> None:
    student, teacher, labels = values(1, 2, 3, 4, 4), values(2, 2, 3, 4, 4), masks(3, 2, 4, 4)
    alone = affinity(student[:1], teacher[:1], labels[:1]).item()
    assert alone > 1e-4
    labels[1] = label
    assert affinity(student, teacher, labels).item() == pytest.approx(alone / 2, rel=1e-10)
    assert affinity(student[1:], teacher[1:], labels[1:]).item() == 0.0


def test_an_unlabelled_image_does_not_count() -> None:
    student, teacher, labels = values(1, 2, 3, 4, 4), values(2, 2, 3, 4, 4), masks(3, 2, 4, 4)
    alone = affinity(student[:1], teacher[:1], labels[:1])
    labels[1] = UNKNOWN
    torch.testing.assert_close(affinity(student, teacher, labels), alone)
    student.requires_grad_()
    nothing = affinity(student, teacher, torch.full_like(labels, UNKNOWN))
    nothing.backward()
    assert nothing.item() == 0.0
    assert student.grad is not None
    assert not student.grad.any()


def test_unlabelled_pixels_are_in_no_region() -> None:
    student, teacher, labels = values(1, 2, 3, 4, 4), values(2, 2, 3, 4, 4), masks(3, 2, 4, 4)
    labels[:, 1] = UNKNOWN
    expected = oracles.affinity(student.numpy(), teacher.numpy(), labels.numpy())
    value = affinity(student, teacher, labels)
    assert value.item() == pytest.approx(expected, rel=1e-10)
    other = student.clone()
    other[:, :, 1] = 9.0
    torch.testing.assert_close(affinity(other, teacher, labels), value)


def test_a_region_that_vanishes_at_the_size_of_one_map_adds_nothing() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[0, 1, 1] = 1  # of 4x4 places the pixels 0, 2, 4 and 6 are read
    fine, coarse = values(1, 1, 3, 8, 8), values(2, 1, 3, 4, 4)
    assert contrast(fine, labels)[1].tolist() == [True]
    assert contrast(coarse, labels)[1].tolist() == [False]
    assert affinity(fine, coarse, labels).item() == 0.0
    assert affinity(fine, values(3, 1, 3, 8, 8), labels).item() > 1e-4


@pytest.mark.parametrize("zero", ["student", "teacher", "both"])
def test_maps_of_zeros_are_finite_and_hand_on_no_huge_gradient(zero: str) -> None:
    student, teacher = (values(i, 2, 3, 4, 4, dtype=torch.float32) for i in (1, 2))
    if zero != "teacher":
        student = torch.zeros_like(student)
    if zero != "student":
        teacher = torch.zeros_like(teacher)
    student.requires_grad_()
    value = importance(student, teacher, 4) + affinity(student, teacher, masks(3, 2, 4, 4))
    value.backward()
    assert torch.isfinite(value)
    assert student.grad is not None
    assert student.grad.abs().max() < 10


def network(seed: int, width: int, channels: int) -> Outputs:
    low, last = values(seed, 2, width, 5, 7), values(seed + 1, 2, 2 * width, 2, 3)
    return outputs(values(seed + 2, 2, channels, 9, 11, scale=5.0), s1=low, last=last, s2=low)


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_the_weighted_sum_over_taps_and_teachers(channels: int) -> None:
    student, teachers = network(10, 2, channels), [network(i, i % 7, channels) for i in (23, 34)]
    labels = masks(3, 2, 9, 11, classes=max(2, channels))
    loss = EMKD()
    loss.setup(student, teachers, BINARY)
    value = loss(student, teachers, batch(labels), CLOCK)
    expected = 0.0
    for teacher in teachers:
        expected += 0.1 * oracles.kd_pixel(student.logits.numpy(), teacher.logits.numpy(), 4.0)
        for tap in ("s1", "last"):
            ours, theirs = student.taps[tap].numpy(), teacher.taps[tap].numpy()
            expected += 0.9 * oracles.importance(ours, theirs)
            expected += 0.9 * oracles.affinity(ours, theirs, labels.numpy())
    assert value.item() == pytest.approx(expected, rel=1e-9)
    same = loss(student, [student], batch(labels), CLOCK)
    assert same.item() == 0.0


def test_its_parts_have_weights() -> None:
    student, teacher = network(10, 2, 1), network(22, 3, 1)
    labels = masks(3, 2, 9, 11)

    def value(**params: float) -> Tensor:
        off = {f"{part}_weight": 0.0 for part in ("prediction", "importance", "region")}
        return EMKD(**{**off, **params})(student, [teacher], batch(labels), CLOCK)

    names = ("prediction_weight", "importance_weight", "region_weight")
    parts = [value(**{name: 1.0}) for name in names]
    assert all(part.item() > 1e-4 for part in parts)
    torch.testing.assert_close(
        value(prediction_weight=2.0, importance_weight=3.0, region_weight=5.0),
        2 * parts[0] + 3 * parts[1] + 5 * parts[2],
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"p": 0}, "p must be at least 1"),
        ({"low": "last"}, "taps must be different"),
        ({"high": "pooled"}, "`pooled` is no map"),
    ],
)
def test_a_parameter_out_of_range_is_an_error(params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EMKD(**params)


def test_the_taps_are_an_early_and_a_late_one() -> None:
    assert EMKD().taps == ("s1", "last")
    assert EMKD(low="s2", high="decoder").taps == ("s2", "decoder")
