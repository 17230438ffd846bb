"""SSD-KD's relations among images and channels, and D-KD."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import RecipeError
from edgekd.losses.base import Outputs
from edgekd.losses.ce import CrossEntropy
from edgekd.losses.rkd import RKD
from edgekd.losses.ssdkd_logits import SSDKDLogits
from edgekd.losses.ssdkd_relations import SSDKDRelations, channel_distance
from tests.losses import ssdkd_oracles as oracles
from tests.losses.cases import CLOCK, batch, outputs, random_maps
from tests.losses.ssdkd_cases import (
    COUNTS,
    IMAGES,
    TARGETS,
    VIEWS,
    made,
    network,
    pooled,
    relations,
    value,
)
from tests.losses.umkd_oracles import slope


@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_the_distance_of_channels_is_the_formula_whatever_the_chunk(chunk: int) -> None:
    ours, theirs = random_maps(1, 7, 4, 3), random_maps(2, 7, 4, 2)
    wanted = oracles.channel_distance(ours.numpy(), theirs.numpy())
    found = channel_distance(ours, theirs, chunk=chunk)
    assert found.item() == pytest.approx(wanted, abs=2e-6)  # 1e-12 under the root
    assert wanted > 1e-2


def test_its_gradient_of_channels_is_the_formulas() -> None:
    ours, theirs = random_maps(1, 3, 3, 2).requires_grad_(), random_maps(2, 3, 3, 2)
    channel_distance(ours, theirs, chunk=2).backward()
    wanted = slope(lambda m: oracles.channel_distance(m, theirs.numpy()), ours.detach().numpy())
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, torch.from_numpy(wanted), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_channels_are_zero_and_their_gradient_is_finite(dtype: torch.dtype) -> None:
    maps = random_maps(1, dtype=dtype)
    ours = maps.clone().requires_grad_()
    found = channel_distance(ours, maps)
    found.backward()
    assert found.item() == pytest.approx(0.0, abs=1e-12)
    assert ours.grad is not None
    assert torch.isfinite(ours.grad).all()


def related(loss: SSDKDRelations, student: Outputs, *teachers: Outputs) -> float:
    total = 0.0
    for regress, teacher in zip(loss.regressors, teachers, strict=True):
        weight, bias, gain, shift = (p.detach().numpy() for p in regress.parameters())
        ours = oracles.regressed(student.taps["last"].numpy(), (weight, bias), gain, shift)
        total += oracles.relations(
            (pooled(student), pooled(teacher)),
            (ours, teacher.taps["last"].numpy()),
            loss.rkd.distance,
            loss.rkd.angle,
            loss.channels,
        )
    return total


@pytest.mark.parametrize("params", [{}, {"channels": 1e4}, {"distance": 1.0, "angle": 0.0}])
def test_relations_are_the_formula(params: dict) -> None:
    student, one, two = network(1), network(2, 8), network(3, 5)
    for teachers in ([one], [one, two]):
        loss = relations(student, *teachers, **params)
        wanted = related(loss, student, *teachers)
        # 1e-12 under a root that is multiplied by 1000 or more
        assert value(loss, student, *teachers).item() == pytest.approx(wanted, abs=0.02)
        assert wanted > 10


def test_equal_features_and_a_regressor_that_does_nothing_give_zero() -> None:
    teacher = network(2)
    loss = relations(teacher, teacher)
    loss.regressors = nn.ModuleList([nn.Identity()])
    assert value(loss, teacher, teacher).item() == pytest.approx(0.0, abs=1e-8)


def test_without_channels_relations_are_rkd() -> None:
    student, teacher = network(1), network(2, 8)
    found = value(relations(student, teacher, channels=0.0), student, teacher)
    torch.testing.assert_close(found, RKD()(student, [teacher], VIEWS, CLOCK))


def test_relations_need_no_views() -> None:
    """D-KD is cross-entropy, KD and these, of batches as they come."""
    student, teacher = network(1), network(2, 8)
    five = [
        outputs(n.logits[:5], **{k: v[:5] for k, v in n.taps.items()}) for n in (student, teacher)
    ]
    loss = relations(*five)
    assert value(loss, *five, of=batch([0, 1, 2, 3, 4])).item() == pytest.approx(
        related(loss, *five), abs=0.02
    )


def test_dropping_the_turned_views_leaves_the_terms_of_d_kd() -> None:
    """Of one temperature: `wce` is `ce`, and the predictions are `kd`."""
    from edgekd.losses.kd import KD

    student, teacher = network(1), network(2, 8)
    loss = made("wce")[0]
    plain = CrossEntropy(class_weights="balanced")
    plain.setup(student, [], COUNTS)
    plain.double()
    few = [outputs(n.logits[:IMAGES]) for n in (student, teacher)]
    torch.testing.assert_close(value(loss, student), value(plain, few[0], of=batch(TARGETS)))
    torch.testing.assert_close(
        value(SSDKDLogits(normal=1.0, rotated=0.0, temperature=5.0), student, teacher),
        value(KD(temperature=5.0), *few, of=batch(TARGETS)),
    )


def test_maps_that_no_regressor_fits_are_an_error_that_names_the_loss() -> None:
    with pytest.raises(
        RecipeError, match=r"ssdkd_relations: at tap 'last' .* is 3x3, a teacher's 5"
    ):
        relations(network(1), network(2, side=5))
