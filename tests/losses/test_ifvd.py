"""Intra-class variation: the formula, classes that are absent, labels at the map's size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.losses._masks import class_masks, region_means, resized_labels
from edgekd.losses.ifvd import IFVD, variation
from tests.losses import segmentation_oracles as oracles
from tests.losses.cases import CLOCK, outputs
from tests.losses.segmentation_cases import BINARY, UNKNOWN, batch, masks, values
from tests.losses.umkd_oracles import slope

# (height, width) of the student's map, the teacher's, the labels
SIZES = [
    ((4, 4), (4, 4), (4, 4)),
    ((3, 5), (3, 5), (6, 10)),
    ((3, 5), (4, 3), (11, 7)),
    ((5, 5), (3, 3), (2, 2)),
]


def loss(student: Tensor, teacher: Tensor, labels: Tensor, channels: int = 1) -> Tensor:
    ours, theirs = (
        outputs(torch.zeros(len(maps), channels, *labels.shape[1:]), decoder=maps)
        for maps in (student, teacher)
    )
    made = IFVD()
    made.setup(ours, [theirs], BINARY)
    return made(ours, [theirs], batch(labels), CLOCK)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(("ours", "theirs", "size"), SIZES)
def test_it_is_the_formula_whatever_the_widths_and_sizes(
    ours: tuple[int, int], theirs: tuple[int, int], size: tuple[int, int], classes: int
) -> None:
    student, teacher = values(1, 3, 4, *ours), values(2, 3, 6, *theirs)
    labels = masks(3, 3, *size, classes=classes)
    channels = 1 if classes == 2 else classes
    expected = oracles.ifvd(student.numpy(), teacher.numpy(), labels.numpy(), classes)
    assert expected > 1e-3
    assert loss(student, teacher, labels, channels).item() == pytest.approx(expected, rel=1e-10)


def test_its_gradient_is_the_formulas() -> None:
    student, teacher = values(1, 2, 3, 3, 2).requires_grad_(), values(2, 2, 2, 3, 2)
    labels = masks(3, 2, 6, 4)
    loss(student, teacher, labels).backward()
    expected = slope(
        lambda s: oracles.ifvd(s, teacher.numpy(), labels.numpy()), student.detach().numpy()
    )
    torch.testing.assert_close(student.grad, torch.from_numpy(expected), rtol=1e-6, atol=1e-9)


def test_unlabelled_pixels_are_in_no_mean() -> None:
    student, teacher = values(1, 3, 4, 3, 5), values(2, 3, 6, 3, 5)
    labels = masks(3, 3, 3, 5)
    labels[0, 1], labels[1, :, 2:], labels[2] = UNKNOWN, UNKNOWN, UNKNOWN
    expected = oracles.ifvd(student.numpy(), teacher.numpy(), labels.numpy())
    value = loss(student, teacher, labels)
    assert value.item() == pytest.approx(expected, rel=1e-10)
    other = torch.where((labels < 0)[:, None], 7.0, student)
    torch.testing.assert_close(loss(other, teacher, labels), value)


def test_a_batch_without_labels_gives_0_that_hangs_on_the_graph() -> None:
    student = values(1, 2, 3, 4, 4).requires_grad_()
    value = loss(student, values(2, 2, 3, 4, 4), torch.full((2, 8, 8), UNKNOWN))
    value.backward()
    assert value.item() == 0.0
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize("label", [0, 1])
def test_masks_with_one_class_only(label: int) -> None:
    student, teacher = values(1, 2, 3, 3, 5), values(2, 2, 5, 3, 5)
    labels = torch.full((2, 6, 10), label)
    expected = oracles.ifvd(student.numpy(), teacher.numpy(), labels.numpy())
    assert loss(student, teacher, labels).item() == pytest.approx(expected, rel=1e-10)
    # a class too many does not matter
    torch.testing.assert_close(loss(student, teacher, labels, 5), loss(student, teacher, labels))


def test_scaling_each_image_changes_nothing_but_scaling_a_pixel_does() -> None:
    student, teacher, labels = values(1, 2, 4, 3, 5), values(2, 2, 6, 3, 5), masks(3, 2, 3, 5)
    value = loss(student, teacher, labels)
    scale = torch.tensor([1e-3, 1e3], dtype=torch.float64)[:, None, None, None]
    torch.testing.assert_close(loss(scale * student, teacher, labels), value)
    torch.testing.assert_close(loss(student, scale * teacher, labels), value)
    pixel = student.clone()
    pixel[0, :, 1, 2] *= 10
    assert abs(loss(pixel, teacher, labels).item() - value.item()) > 1e-4


def test_it_is_zero_for_equal_maps_and_for_classes_of_one_pixel() -> None:
    student, teacher, labels = values(1, 2, 4, 3, 5), values(2, 2, 6, 3, 5), masks(3, 2, 3, 5)
    assert loss(student, student, labels).item() == 0.0
    each_its_own = torch.arange(15).reshape(1, 3, 5).repeat(2, 1, 1)
    assert loss(student, teacher, each_its_own, 15).item() == pytest.approx(0.0, abs=1e-20)


def test_the_variation_of_a_class_without_any_is_1() -> None:
    maps = torch.tensor([[[[1.0, 2.0, 0.0]], [[1.0, 2.0, 3.0]]]])  # features (1,1) (2,2) (0,3)
    found = variation(maps, class_masks(torch.tensor([[[1, 1, 0]]]), 2, maps.dtype))
    torch.testing.assert_close(found, torch.ones(1, 1, 3))


@pytest.mark.parametrize("zero", ["student", "teacher", "both"])
def test_maps_of_zeros_are_finite_and_hand_on_no_huge_gradient(zero: str) -> None:
    student, teacher = (values(i, 2, 3, 4, 4, dtype=torch.float32) for i in (1, 2))
    if zero != "teacher":
        student = torch.zeros_like(student)
    if zero != "student":
        teacher = torch.zeros_like(teacher)
    student.requires_grad_()
    value = loss(student, teacher, masks(3, 2, 4, 4))
    value.backward()
    assert torch.isfinite(value)
    assert student.grad is not None
    assert student.grad.abs().max() < 10


def test_every_teacher_adds_a_term() -> None:
    labels, student = masks(3, 2, 3, 5), values(1, 2, 4, 3, 5)
    teachers = [values(2, 2, 6, 3, 5), values(4, 2, 3, 2, 5)]
    logits = torch.zeros(2, 1, 3, 5)
    value = IFVD(tap="s3")(
        outputs(logits, s3=student),
        [outputs(logits, s3=teacher) for teacher in teachers],
        batch(labels),
        CLOCK,
    )
    expected = sum(oracles.ifvd(student.numpy(), t.numpy(), labels.numpy()) for t in teachers)
    assert value.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("size", [(4, 4), (2, 2), (3, 5), (1, 1), (7, 9), (16, 8)])
def test_labels_are_resized_as_torch_does_it_and_unknown_ones_stay(size: tuple[int, int]) -> None:
    labels = masks(1, 2, 8, 6, classes=4) - 1
    found = resized_labels(labels, size)
    assert found.dtype == torch.int64
    expected = torch.nn.functional.interpolate(labels[:, None].double(), size, mode="nearest")
    assert torch.equal(found, expected[:, 0].long())
    assert (found.numpy() == oracles.nearest(labels.numpy(), *size)).all()


def test_masks_and_means_of_regions() -> None:
    labels = torch.tensor([[[0, 1], [UNKNOWN, 1]], [[0, 0], [0, 0]]])
    found = class_masks(labels, 3, torch.float64)
    assert found.shape == (2, 3, 2, 2)
    assert found.sum(dim=(2, 3)).tolist() == [[1, 2, 0], [4, 0, 0]]
    maps = torch.arange(16, dtype=torch.float64).reshape(2, 2, 2, 2)
    means = region_means(maps, found)
    assert means[0].tolist() == [[0, 4], [2, 6], [0, 0]]
    assert means[1].tolist() == [[9.5, 13.5], [0, 0], [0, 0]]
