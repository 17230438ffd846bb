"""MGD: random masks of channels or pixels, and the teacher's map made from the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError
from edgekd.losses.base import Outputs
from edgekd.losses.mgd import MGD, random_mask
from tests.losses import dspkd_oracles as oracles
from tests.losses.cases import CLOCK, FACTS, batch, outputs, random_maps
from tests.losses.umkd_oracles import slope


def network(seed: int, width: int = 6, side: int = 3, rows: int = 3) -> Outputs:
    return outputs(torch.zeros(rows, 2), last=random_maps(seed, rows, width, side))


def built(student: Outputs, *teachers: Outputs, **params) -> MGD:
    torch.manual_seed(0)
    loss = MGD(**params)
    loss.setup(student, teachers, FACTS)
    return loss.double()


def value(loss: MGD, student: Outputs, *teachers: Outputs, seed: int = 5) -> Tensor:
    torch.manual_seed(seed)
    return loss(student, teachers, batch([0] * len(student.logits)), CLOCK)


def layer(of: nn.Module) -> oracles.Layer:
    return of.weight.detach().numpy(), of.bias.detach().numpy()


def expected(loss: MGD, last: np.ndarray, *teachers: Outputs, seed: int = 5) -> float:
    torch.manual_seed(seed)
    total = 0.0
    for align, generate, teacher in zip(loss.aligners, loss.generators, teachers, strict=True):
        wanted = teacher.taps["last"]
        mask = random_mask(wanted, loss.mask, loss.ratio)  # of the aligned map's shape
        total += oracles.mgd(
            last,
            wanted.numpy(),
            mask.numpy(),
            None if isinstance(align, nn.Identity) else layer(align),
            [layer(generate[0]), layer(generate[2])],
            loss.alpha,
        )
    return total


@pytest.mark.parametrize("width", [6, 8])
@pytest.mark.parametrize(
    "params",
    [{}, {"mask": "channel", "ratio": 0.5}, {"mask": "pixel", "ratio": 0.65, "alpha": 2e-5}],
)
def test_it_is_the_formula(params: dict, width: int) -> None:
    student, teacher = network(1), network(2, width)
    loss = built(student, teacher, **params)
    wanted = expected(loss, student.taps["last"].numpy(), teacher)
    assert wanted > 1e-4
    assert value(loss, student, teacher).item() == pytest.approx(wanted, rel=1e-10)


def test_every_teacher_adds_a_full_term_with_a_mask_and_adapters_of_its_own() -> None:
    student, one, two = network(1), network(2, 8), network(3)
    loss = built(student, one, two, ratio=0.5)
    wanted = expected(loss, student.taps["last"].numpy(), one, two)
    assert value(loss, student, one, two).item() == pytest.approx(wanted, rel=1e-10)
    assert [type(align) for align in loss.aligners] == [nn.Conv2d, nn.Identity]


def test_its_gradient_is_the_formulas() -> None:
    student, teacher = network(1, 2), network(2, 3)
    loss = built(student, teacher, ratio=0.4, alpha=0.1)
    maps = student.taps["last"].requires_grad_()
    value(loss, student, teacher).backward()
    wanted = slope(lambda last: expected(loss, last, teacher), maps.detach().numpy())
    assert maps.grad is not None
    torch.testing.assert_close(maps.grad, torch.from_numpy(wanted), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("kind", "shape"), [("channel", (40, 50, 1, 1)), ("pixel", (40, 1, 7, 9))])
@pytest.mark.parametrize("ratio", [0.15, 0.7])
def test_a_mask_hides_whole_channels_or_whole_pixels_of_that_share(
    kind: str, shape: tuple[int, ...], ratio: float
) -> None:
    torch.manual_seed(0)
    mask = random_mask(torch.zeros(40, 50, 7, 9, dtype=torch.float64), kind, ratio)
    assert mask.shape == shape
    assert mask.dtype == torch.float64
    assert set(mask.unique().tolist()) == {0.0, 1.0}  # what is kept is not rescaled
    assert float((mask == 0).double().mean()) == pytest.approx(ratio, abs=0.04)
    assert mask.flatten(1).std(dim=1).min() > 0  # each image has a mask of its own


def test_masks_follow_the_seed_of_the_step() -> None:
    student, teacher = network(1), network(2)
    loss = built(student, teacher, ratio=0.5)
    first, again, other = (value(loss, student, teacher, seed=s).item() for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_with_a_ratio_of_0_nothing_is_random() -> None:
    student, teacher = network(1), network(2)
    loss = built(student, teacher, ratio=0.0)
    first, second = (value(loss, student, teacher, seed=seed).item() for seed in (1, 2))
    assert first == second


@pytest.mark.parametrize("mask", ["channel", "pixel"])
def test_with_a_ratio_of_1_the_map_is_made_of_nothing(mask: str) -> None:
    student, other, teacher = network(1), network(4), network(2)
    loss = built(student, teacher, ratio=1.0, mask=mask)
    made = loss.generators[0](torch.zeros(3, 6, 3, 3).double())
    wanted = 7e-5 * oracles.summed_error(made.detach().numpy(), teacher.taps["last"].numpy())
    for one in (student, other):
        assert value(loss, one, teacher).item() == pytest.approx(wanted, rel=1e-12)


def test_equal_features_behind_a_generator_that_does_nothing_give_zero() -> None:
    teacher = network(2)
    loss = built(teacher, teacher, ratio=0.0, alpha=1.0)
    loss.generators = nn.ModuleList([nn.Identity()])
    assert value(loss, teacher, teacher).item() == 0.0


def test_maps_of_two_sizes_are_an_error_that_names_them() -> None:
    with pytest.raises(RecipeError, match=r"mgd: at tap 'last' .* is 3x3, a teacher's 2x2"):
        built(network(1), network(2, side=2))


@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_a_ratio_out_of_range_is_an_error(ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio must be from 0 to 1"):
        MGD(ratio=ratio)
