"""Channel-wise distillation: the formula, what it does not see, logits and maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.losses.base import Outputs
from edgekd.losses.cwd import CWD, channel_kl
from tests.losses import segmentation_oracles as oracles
from tests.losses.cases import CLOCK, outputs
from tests.losses.segmentation_cases import BINARY, batch, masks, values
from tests.losses.umkd_oracles import convolved, slope

LABELS = masks(9, 2, 3, 5)


def built(student: Outputs, teachers: list[Outputs], **params: object) -> CWD:
    loss = CWD(**params)
    loss.setup(student, teachers, BINARY)
    return loss.double()


def on_logits(student: Tensor, *teachers: Tensor, tau: float = 4.0) -> Tensor:
    ours, theirs = outputs(student), [outputs(teacher) for teacher in teachers]
    return built(ours, theirs, temperature=tau)(ours, theirs, batch(LABELS), CLOCK)


@pytest.mark.parametrize("tau", [1.0, 4.0])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_on_logits_it_is_the_formula(channels: int, tau: float) -> None:
    student, teacher = (values(i, 2, channels, 3, 5, scale=3.0) for i in (1, 2))
    expected = oracles.cwd(student.numpy(), teacher.numpy(), tau)
    assert expected > 1e-3
    assert on_logits(student, teacher, tau=tau).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("channels", [1, 3])
def test_its_gradient_is_the_formulas(channels: int) -> None:
    student = values(1, 2, channels, 2, 3, scale=2.0).requires_grad_()
    teacher = values(2, 2, channels, 2, 3, scale=2.0)
    on_logits(student, teacher).backward()
    expected = slope(lambda s: oracles.cwd(s, teacher.numpy()), student.detach().numpy())
    torch.testing.assert_close(student.grad, torch.from_numpy(expected), rtol=1e-6, atol=1e-9)
    assert student.grad is not None
    assert student.grad.abs().max() > 1e-3


def test_a_constant_per_channel_changes_nothing() -> None:
    student, teacher = (values(i, 2, 3, 3, 5) for i in (1, 2))
    shift = values(3, 2, 3, 1, 1, scale=10.0)
    value = on_logits(student, teacher)
    torch.testing.assert_close(on_logits(student + shift, teacher), value)
    torch.testing.assert_close(on_logits(student, teacher + shift), value)


def test_it_is_zero_only_where_the_distributions_are_equal() -> None:
    student, teacher = (values(i, 2, 3, 3, 5) for i in (1, 2))
    assert on_logits(student, student + values(3, 2, 3, 1, 1)).item() == pytest.approx(0, abs=1e-12)
    assert on_logits(student, teacher).item() > 1e-3
    assert on_logits(2 * student, student).item() > 1e-3
    assert on_logits(student, student[:, [1, 0, 2]]).item() > 1e-3


@pytest.mark.parametrize(("ours", "theirs"), [((3, 5), (3, 5)), ((6, 4), (3, 5)), ((2, 3), (4, 6))])
def test_on_maps_the_students_go_through_a_convolution_to_the_teachers_width(
    ours: tuple[int, int], theirs: tuple[int, int]
) -> None:
    logits = torch.zeros(2, 1, 3, 5)
    student = outputs(logits, decoder=values(1, 2, 4, *ours, scale=3.0))
    teachers = [
        outputs(logits, decoder=values(2, 2, 6, *theirs, scale=3.0)),
        outputs(logits, decoder=values(3, 2, 4, *theirs, scale=3.0)),
    ]
    loss = built(student, teachers, tap="decoder")
    assert loss.taps == ("decoder",)
    wider, same = loss.adapters
    assert isinstance(wider, nn.Conv2d)
    assert isinstance(same, nn.Identity)
    assert [tuple(p.shape) for p in loss.parameters()] == [(6, 4, 1, 1)]
    maps = student.taps["decoder"].numpy()
    adapted = convolved(maps, wider.weight.detach().numpy())
    expected = oracles.cwd(adapted, teachers[0].taps["decoder"].numpy())
    expected += oracles.cwd(maps, teachers[1].taps["decoder"].numpy())
    value = loss(student, teachers, batch(LABELS), CLOCK)
    assert value.item() == pytest.approx(expected, rel=1e-9)
    value.backward()
    assert wider.weight.grad is not None
    assert wider.weight.grad.abs().max() > 1e-6


def test_on_logits_it_has_no_adapters_and_every_teacher_adds_a_term() -> None:
    student, one, two = (values(i, 2, 1, 3, 5) for i in (1, 2, 3))
    made = built(outputs(student), [outputs(one), outputs(two)])
    assert made.taps == ()
    assert not list(made.parameters())
    expected = on_logits(student, one) + on_logits(student, two)
    torch.testing.assert_close(on_logits(student, one, two), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_huge_logits_are_finite_and_so_is_the_gradient(channels: int) -> None:
    student, teacher = (
        values(i, 2, channels, 3, 5, scale=1e4, dtype=torch.float32) for i in (1, 2)
    )
    student.requires_grad_()
    value = channel_kl(student, teacher, 4.0)
    value.backward()
    assert torch.isfinite(value)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_one_pixel_has_nothing_to_say() -> None:
    assert channel_kl(values(1, 2, 3, 1, 1), values(2, 2, 3, 1, 1), 4.0).item() == 0.0


def test_a_temperature_of_0_is_an_error() -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        CWD(temperature=0.0)
    with pytest.raises(ValueError, match="`pooled` is no map"):
        CWD(tap="pooled")
