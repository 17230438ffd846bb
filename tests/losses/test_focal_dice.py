"""Focal and Dice: the formulas, empty and full masks, unlabelled pixels, several classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.losses.base import Loss
from edgekd.losses.focal_dice import FocalDice
from edgekd.plugins import check_arguments, load
from tests.losses import segmentation_oracles as oracles
from tests.losses.cases import CLOCK, outputs
from tests.losses.segmentation_cases import BINARY, UNKNOWN, batch, masks, values
from tests.losses.umkd_oracles import slope

SIZES = [(4, 4), (3, 5), (1, 7)]


def loss(logits: Tensor, labels: Tensor, **params: float) -> Tensor:
    made = FocalDice(**params)
    made.setup(outputs(logits), [], BINARY)
    return made(outputs(logits), [], batch(labels), CLOCK)


def partly_labelled(classes: int = 2) -> Tensor:
    """Two images with unknown pixels, one without any label."""
    labels = masks(5, 3, 3, 5, classes=classes)
    labels[0, 1] = UNKNOWN
    labels[1, :, 2:] = UNKNOWN
    labels[2] = UNKNOWN
    return labels


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_binary_mask_follows_the_formulas(height: int, width: int, gamma: float) -> None:
    logits, labels = values(1, 2, 1, height, width, scale=3.0), masks(2, 2, height, width)
    fl = oracles.binary_focal(logits.numpy(), labels.numpy(), gamma)
    dl = oracles.dice(logits.numpy(), labels.numpy())
    assert min(fl, dl) > 1e-3
    assert loss(logits, labels, gamma=gamma).item() == pytest.approx(fl + dl, rel=1e-10)
    parts = {"focal_weight": 0.3, "dice_weight": 0.7}
    found = loss(logits, labels, gamma=gamma, **parts).item()
    assert found == pytest.approx(0.3 * fl + 0.7 * dl, rel=1e-10)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("eps", [1e-3, 1.0])
def test_several_classes_follow_the_formulas(classes: int, eps: float) -> None:
    logits = values(1, 2, classes, 3, 5, scale=3.0)
    labels = masks(2, 2, 3, 5, classes=classes)
    fl = oracles.focal(logits.numpy(), labels.numpy())
    dl = oracles.dice(logits.numpy(), labels.numpy(), eps)
    assert loss(logits, labels, eps=eps).item() == pytest.approx(fl + dl, rel=1e-10)
    assert loss(logits, labels, eps=eps, dice_weight=0).item() == pytest.approx(fl, rel=1e-10)


@pytest.mark.parametrize("classes", [1, 3])
def test_its_gradient_is_the_formulas(classes: int) -> None:
    logits = values(1, 3, classes, 3, 5, scale=2.0).requires_grad_()
    labels = partly_labelled(max(2, classes))

    def value(z: object) -> float:
        return oracles.focal(z, labels.numpy()) + oracles.dice(z, labels.numpy())

    loss(logits, labels).backward()
    expected = torch.from_numpy(slope(value, logits.detach().numpy()))
    torch.testing.assert_close(logits.grad, expected, rtol=1e-6, atol=1e-9)


def test_one_channel_is_the_softmax_of_two_of_which_one_is_0() -> None:
    logits, labels = values(1, 2, 1, 3, 5, scale=3.0), masks(2, 2, 3, 5)
    expanded = torch.cat([torch.zeros_like(logits), logits], dim=1)
    torch.testing.assert_close(loss(logits, labels), loss(expanded, labels))


@pytest.mark.parametrize("classes", [1, 3])
def test_unlabelled_pixels_and_images_do_not_count(classes: int) -> None:
    logits = values(1, 3, classes, 3, 5, scale=3.0)
    labels = partly_labelled(max(2, classes))
    expected = oracles.focal(logits.numpy(), labels.numpy())
    expected += oracles.dice(logits.numpy(), labels.numpy())
    value = loss(logits, labels)
    assert value.item() == pytest.approx(expected, rel=1e-10)
    torch.testing.assert_close(loss(logits[:2], labels[:2]), value)
    other = torch.where((labels < 0)[:, None], 50.0, logits)
    torch.testing.assert_close(loss(other, labels), value)


def test_unlabelled_pixels_get_no_gradient() -> None:
    logits, labels = values(1, 3, 1, 3, 5).requires_grad_(), partly_labelled()
    loss(logits, labels).backward()
    assert logits.grad is not None
    assert not logits.grad[:, 0][labels < 0].any()
    assert logits.grad[:, 0][labels >= 0].abs().min() > 0


def test_a_batch_without_labels_gives_0_that_hangs_on_the_graph() -> None:
    logits = values(1, 2, 1, 3, 5).requires_grad_()
    value = loss(logits, torch.full((2, 3, 5), UNKNOWN))
    value.backward()
    assert value.item() == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("label", "logit"), [(0, -1e4), (1, 1e4)])
def test_an_empty_or_a_full_answer_to_the_same_mask_costs_nothing(
    label: int, logit: float, dtype: torch.dtype
) -> None:
    logits = torch.full((2, 1, 5, 3), logit, dtype=dtype)
    assert loss(logits, torch.full((2, 5, 3), label)).item() == 0.0


@pytest.mark.parametrize(("label", "logit"), [(0, 1e4), (1, -1e4)])
def test_the_wrong_answer_costs_what_the_formula_says_and_teaches(label: int, logit: float) -> None:
    logits = torch.full((1, 1, 5, 3), logit, requires_grad=True)
    value = loss(logits, torch.full((1, 5, 3), label))
    value.backward()
    assert value.item() == pytest.approx(1e4 + 1 - 1 / (15 + 1), rel=1e-6)  # -log p is 1e4
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad * logit > 0).all()


def test_an_empty_mask_charges_every_pixel_found() -> None:
    """Dice alone, eps 1: n pixels found for certain cost n / (n + 1)."""
    logits = torch.full((1, 1, 4, 4), -1e4)
    logits[0, 0, 1, :3] = 1e4
    value = loss(logits, torch.zeros(1, 4, 4, dtype=torch.long), focal_weight=0)
    assert value.item() == pytest.approx(3 / 4)


def test_a_class_that_an_image_lacks_counts_with_0_if_it_is_not_found() -> None:
    labels = torch.tensor([[[0, 0, 1, 1]]])
    logits = torch.full((1, 3, 1, 4), -1e4)
    logits[0, 0, 0, :3] = 1e4  # one of two pixels of class 1
    logits[0, 1, 0, 3] = 1e4
    value = loss(logits, labels, focal_weight=0)
    assert value.item() == pytest.approx((1 - 3 / 4) / 2)


@pytest.mark.parametrize("classes", [1, 2, 4])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_huge_logits_are_finite_and_so_is_the_gradient(classes: int, gamma: float) -> None:
    logits = values(1, 2, classes, 5, 3, scale=1e4, dtype=torch.float32).requires_grad_()
    value = loss(logits, masks(2, 2, 5, 3, classes=max(2, classes)), gamma=gamma)
    value.backward()
    assert torch.isfinite(value)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("params", [{"gamma": -1.0}, {"eps": 0.0}])
def test_a_parameter_out_of_range_is_an_error(params: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="gamma must not be negative, and eps must be positive"):
        FocalDice(**params)


def test_a_recipe_finds_it_by_its_name() -> None:
    cls = load("losses", "focal_dice", Loss)
    made = cls(**check_arguments(cls, {"gamma": 1, "dice_weight": 0.5}, "params"))
    assert isinstance(made, FocalDice)
    assert (made.gamma, made.eps, made.focal_weight, made.dice_weight) == (1.0, 1.0, 1.0, 0.5)
    assert not cls.needs_teacher
    assert cls.tasks == {"segmentation"}
