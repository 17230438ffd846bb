"""What holds for every loss on masks, and for the general ones that segmentation uses too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edgekd.losses.at import AT
from edgekd.losses.base import Loss, Outputs
from edgekd.losses.cwd import CWD
from edgekd.losses.dsd import DSD
from edgekd.losses.emkd import EMKD
from edgekd.losses.feature_mse import FeatureMSE
from edgekd.losses.fitnet import FitNet
from edgekd.losses.focal_dice import FocalDice
from edgekd.losses.ifvd import IFVD
from edgekd.losses.kd_pixel import KDPixel
from edgekd.losses.skd import SKD, pixel_wise
from edgekd.plugins import load
from tests.losses.cases import CLOCK, outputs
from tests.losses.segmentation_cases import BINARY, UNKNOWN, batch, masks, values

OF_MASKS = {
    "focal_dice": FocalDice,
    "kd_pixel": KDPixel,
    "skd": SKD,
    "ifvd": IFVD,
    "cwd": CWD,
    "dsd": DSD,
    "emkd": EMKD,
}
LOSSES: dict[str, Callable[[], Loss]] = {
    **OF_MASKS,
    "cwd decoder": lambda: CWD(tap="decoder"),
    "at": lambda: AT(taps=("decoder",)),
    "fitnet": lambda: FitNet(tap="decoder"),
    "fitnet plain": lambda: FitNet(tap="decoder", final_relu=False, batch_norm=False),
    "feature_mse": lambda: FeatureMSE(tap="narrow"),  # of one width in all networks
}
OF_LABELS = ("focal_dice", "ifvd")
# not those with a regressor of random weights between student and teacher
OF_DISTANCES = [name for name in LOSSES if name not in ("focal_dice", "fitnet", "fitnet plain")]
ROWS, HEIGHT, WIDTH = 5, 9, 13  # neither even nor square
TAPS = {"s1": (5, 7), "s2": (3, 4), "s3": (2, 3), "s4": (2, 2), "last": (2, 2), "decoder": (4, 5)}
SHIFTS = ("regressors.0.0.bias", "regressors.1.0.bias")  # in front of fitnet's batch norm
every_loss = pytest.mark.parametrize("name", LOSSES)
every_width = pytest.mark.parametrize("channels", [1, 3])


def network(seed: int, width: int, channels: int, dtype: torch.dtype, scale: float) -> Outputs:
    maps = {
        tap: values(seed + 10 * i, ROWS, width + i, *size, dtype=dtype).clamp(min=-0.5)
        for i, (tap, size) in enumerate(TAPS.items())
    }
    maps["narrow"] = values(seed + 7, ROWS, 3, 4, 5, dtype=dtype)
    logits = values(seed + 5, ROWS, channels, HEIGHT, WIDTH, scale=scale, dtype=dtype)
    return outputs(logits, **maps)


def pair(
    channels: int = 1, dtype: torch.dtype = torch.float64, scale: float = 3.0
) -> tuple[Outputs, list[Outputs]]:
    made = [
        network(100 * i, width, channels, dtype, scale) for i, width in ((1, 4), (2, 6), (3, 5))
    ]
    return made[0], made[1:]


def labels_of(channels: int) -> Tensor:
    """A part of the pixels unknown, an empty mask, a full one, an image without labels."""
    labels = masks(9, ROWS, HEIGHT, WIDTH, classes=max(2, channels))
    labels[0, :3] = UNKNOWN
    labels[1] = 0
    labels[2] = 1
    labels[3] = UNKNOWN
    return labels


def built(name: str, channels: int = 1, seed: int = 0, dtype: torch.dtype = torch.float64) -> Loss:
    torch.manual_seed(seed)
    loss = LOSSES[name]()
    loss.setup(*pair(channels), BINARY)
    return loss.to(dtype)


def only(of: Outputs, rows: list[int]) -> Outputs:
    return outputs(of.logits[rows], **{name: tap[rows] for name, tap in of.taps.items()})


def term(
    loss: Loss,
    student: Outputs,
    teachers: list[Outputs],
    rows: list[int] | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    rows = list(range(ROWS)) if rows is None else rows
    if labels is None:
        labels = labels_of(student.logits.shape[1])
    theirs = [only(teacher, rows) for teacher in teachers]
    return loss(only(student, rows), theirs, batch(labels[rows]), CLOCK)


def learning(student: Outputs) -> tuple[Outputs, list[Tensor]]:
    leaves = {name: tap.clone().requires_grad_() for name, tap in student.taps.items()}
    logits = student.logits.clone().requires_grad_()
    return outputs(logits, **leaves), [logits, *leaves.values()]


def gradients(leaves: list[Tensor]) -> list[Tensor]:
    return [leaf.grad for leaf in leaves if leaf.grad is not None]


@pytest.mark.parametrize("name", OF_MASKS)
def test_a_recipe_finds_it_by_its_name_for_segmentation_only(name: str) -> None:
    cls = load("losses", name, Loss)
    assert cls is OF_MASKS[name]
    assert cls.tasks == {"segmentation"}
    assert cls.needs_teacher == (name != "focal_dice")


@pytest.mark.parametrize("name", ["at", "fitnet", "feature_mse"])
def test_the_general_ones_are_for_segmentation_too(name: str) -> None:
    assert "segmentation" in load("losses", name, Loss).tasks


@every_loss
@every_width
def test_the_order_of_the_batch_does_not_matter(name: str, channels: int) -> None:
    loss = built(name, channels)
    value = term(loss, *pair(channels))
    other = term(loss, *pair(channels), [3, 0, 4, 2, 1])
    torch.testing.assert_close(other, value, rtol=1e-10, atol=1e-12)


@every_loss
def test_double_precision_stays(name: str) -> None:
    assert term(built(name), *pair()).dtype == torch.float64
    single = term(built(name, dtype=torch.float32), *pair(dtype=torch.float32))
    assert single.dtype == torch.float32
    assert single.shape == ()


@every_loss
def test_both_precisions_say_the_same(name: str) -> None:
    value = term(built(name), *pair()).item()
    single = term(built(name, dtype=torch.float32), *pair(dtype=torch.float32)).item()
    assert single == pytest.approx(value, rel=1e-4)


@every_loss
@every_width
def test_student_and_adapters_learn(name: str, channels: int) -> None:
    loss = built(name, channels)
    student, leaves = learning(pair(channels)[0])
    value = term(loss, student, pair(channels)[1])
    value.backward()
    assert value.item() > 1e-4
    assert any(gradient.abs().max() > 1e-8 for gradient in gradients(leaves))
    for key, parameter in loss.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        in_front_of_norm = name == "fitnet" and key in SHIFTS
        assert in_front_of_norm or parameter.grad.abs().max() > 1e-10, key


@every_loss
@every_width
def test_huge_logits_are_finite_and_so_is_the_gradient(name: str, channels: int) -> None:
    student, teachers = pair(channels, torch.float32, scale=1e4)
    assert student.logits.abs().max() > 1e4
    student, leaves = learning(student)
    value = term(built(name, channels, dtype=torch.float32), student, teachers)
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(leaves))


@every_loss
@every_width
@pytest.mark.parametrize("rows", [[0], [1], [2], [3], [1, 3], [4, 0, 2]])
def test_a_batch_of_one_and_a_last_batch_are_finite(
    name: str, channels: int, rows: list[int]
) -> None:
    """Alone: partly labelled, an empty mask, a full one, no label at all."""
    loss = built(name, channels, dtype=torch.float32)
    student, teachers = pair(channels, torch.float32)
    student, leaves = learning(student)
    value = term(loss, student, teachers, rows)
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(leaves))


@every_loss
def test_without_labels_only_those_of_labels_are_0(name: str) -> None:
    student, leaves = learning(pair()[0])
    hidden = torch.full((ROWS, HEIGHT, WIDTH), UNKNOWN)
    value = term(built(name), student, pair()[1], labels=hidden)
    assert (value.item() == 0.0) == (name in OF_LABELS)
    value.backward()
    assert any(gradient.any() for gradient in gradients(leaves)) == (name not in OF_LABELS)


@pytest.mark.parametrize("name", OF_DISTANCES)
@every_width
def test_a_student_that_is_its_teacher_has_nothing_to_learn(name: str, channels: int) -> None:
    student, leaves = learning(pair(channels)[0])
    same = [pair(channels)[0]]
    loss = LOSSES[name]()
    loss.setup(student, same, BINARY)
    value = term(loss.double(), student, same)
    value.backward()
    least = 0.0 if name != "skd" else 10 * pixel_wise(student.logits, student.logits).item()
    assert value.item() == pytest.approx(least, abs=1e-12)
    assert all(gradient.abs().max() < 1e-12 for gradient in gradients(leaves))


@every_loss
def test_its_saved_state_gives_the_same_value_to_the_bit(name: str) -> None:
    student, teachers = pair(dtype=torch.float32)
    first, second = (built(name, seed=seed, dtype=torch.float32) for seed in (0, 1))
    for _ in range(2):  # what batch norms have counted is part of the state
        term(first, student, teachers)
    second.load_state_dict(first.state_dict())
    for loss in (first.eval(), second.eval()):
        assert not loss.training
    assert torch.equal(term(first, student, teachers), term(second, student, teachers))
    made = [term(loss.train(), student, teachers) for loss in (first, second)]
    assert torch.equal(*made)


@every_loss
def test_one_teacher_suffices(name: str) -> None:
    student, teachers = pair()
    loss = LOSSES[name]()
    loss.setup(student, teachers[:1], BINARY)
    assert torch.isfinite(term(loss.double(), student, teachers[:1]))


@pytest.mark.parametrize("name", ["kd_pixel", "skd", "dsd", "emkd"])
def test_one_channel_is_not_a_constant(name: str) -> None:
    """A softmax over one channel would be, and its gradient 0."""
    student, leaves = learning(pair()[0])
    term(built(name), student, pair()[1]).backward()
    assert leaves[0].grad is not None
    assert leaves[0].grad.abs().max() > 1e-8


def test_fitnet_without_norm_and_relu_is_a_1x1_convolution_and_a_mean_squared_error() -> None:
    student, teachers = pair()
    loss = built("fitnet plain")
    assert isinstance(loss, FitNet)
    for regressor in loss.regressors:
        assert isinstance(regressor, nn.Sequential)
        (convolution,) = regressor
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.kernel_size == (1, 1)
    expected = sum(
        (regressor(student.taps["decoder"]) - teacher.taps["decoder"]).pow(2).mean().item()
        for regressor, teacher in zip(loss.regressors, teachers, strict=True)
    )
    assert term(loss, student, teachers).item() == pytest.approx(expected)


def test_fitnets_norm_stays_the_default() -> None:
    layers = [type(layer) for layer in built("fitnet").regressors[0]]  # type: ignore[union-attr]
    assert layers == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
