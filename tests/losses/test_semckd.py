"""SemCKD: the formula, the weights of layers, full batches only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError
from edgekd.losses.base import Loss, Outputs
from edgekd.losses.semckd import SemCKD
from tests.losses import kdml_oracles as oracles
from tests.losses.cases import CLOCK, FACTS, batch, outputs, random_maps
from tests.losses.umkd_oracles import slope

ROWS = 5


def network(
    seed: int, widths: tuple[int, ...] = (3, 4), sides: tuple[int, ...] = (4, 2), rows: int = ROWS
) -> Outputs:
    """Two stages and logits of two classes, which maps do not know of."""
    maps = {
        f"s{i}": 0.3 * random_maps(seed + i, rows, width, side)
        for i, (width, side) in enumerate(zip(widths, sides, strict=True), 1)
    }
    return outputs(torch.zeros(rows, 2), **maps)


def built(student: Outputs, *teachers: Outputs, soft: float = 1.0, rows: int = ROWS) -> SemCKD:
    torch.manual_seed(0)
    loss = SemCKD(taps=tuple(student.taps), soft=soft)
    loss.setup(student, teachers, replace(FACTS, batch=rows))
    for layer in loss.modules():  # gains of 1 and shifts of 0 would hide a mistake
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 2.0)
            nn.init.uniform_(layer.bias, -1.0, 1.0)
    return loss.double()


def value(loss: SemCKD, student: Outputs, *teachers: Outputs) -> Tensor:
    return loss(student, teachers, batch([0] * len(student.logits)), CLOCK)


def weights_of(layers: nn.Module) -> list[np.ndarray]:
    return [parameter.detach().numpy() for parameter in layers.parameters()]


def attention(loss: SemCKD, student: Outputs, teacher: Outputs, number: int = 0) -> Tensor:
    return loss.teachers[number].weights(list(student.taps.values()), list(teacher.taps.values()))


def maps_of(of: Outputs) -> list[np.ndarray]:
    return [maps.detach().numpy() for maps in of.taps.values()]


def expected(loss: SemCKD, student: list[np.ndarray], *teachers: Outputs) -> float:
    total = 0.0
    for calibration, teacher in zip(loss.teachers, teachers, strict=True):
        total += oracles.semckd(
            student,
            maps_of(teacher),
            [tuple(weights_of(embed)) for embed in calibration.queries],
            [tuple(weights_of(embed)) for embed in calibration.keys],
            [weights_of(project) for project in calibration.projectors],
            loss.soft,
        )
    return total


@pytest.mark.parametrize("soft", [1.0, 0.1])
def test_it_is_the_formula(soft: float) -> None:
    student, teacher = network(1), network(11, (5, 2), (3, 2))
    loss = built(student, teacher, soft=soft)
    calibration = loss.teachers[0]
    found = attention(loss, student, teacher)
    wanted = oracles.semckd_weights(
        maps_of(student),
        maps_of(teacher),
        [tuple(weights_of(embed)) for embed in calibration.queries],
        [tuple(weights_of(embed)) for embed in calibration.keys],
        soft,
    )
    assert wanted.std() > 1e-3  # layers do not count alike
    torch.testing.assert_close(found.detach(), torch.from_numpy(wanted))
    loss_value = value(loss, student, teacher).item()
    assert loss_value == pytest.approx(expected(loss, maps_of(student), teacher), rel=1e-10)


def test_every_teacher_adds_a_full_term_with_adapters_of_its_own() -> None:
    student, one, two = network(1), network(11, (5, 2)), network(21, (2, 3), (3, 3))
    loss = built(student, one, two)
    assert len(loss.teachers) == 2
    wanted = expected(loss, maps_of(student), one, two)
    assert value(loss, student, one, two).item() == pytest.approx(wanted, rel=1e-10)


def test_its_gradient_is_the_formulas() -> None:
    student, teacher = network(1, (2, 2), (2, 2)), network(11, (2, 2), (2, 2))
    loss = built(student, teacher)
    maps = student.taps["s1"].requires_grad_()
    value(loss, student, teacher).backward()
    others = maps_of(student)[1:]
    wanted = slope(lambda s: expected(loss, [s, *others], teacher), maps.detach().numpy())
    assert maps.grad is not None
    torch.testing.assert_close(maps.grad, torch.from_numpy(wanted), rtol=1e-4, atol=1e-8)


def test_the_weights_of_the_teachers_layers_sum_to_1_for_every_image_and_layer() -> None:
    student, teacher = network(1), network(11, (5, 2), (3, 2))
    found = attention(built(student, teacher), student, teacher)
    assert found.shape == (ROWS, 2, 2)
    assert (found > 0).all()
    torch.testing.assert_close(found.sum(2), torch.ones(ROWS, 2, dtype=torch.float64))


def test_a_very_soft_choice_is_the_mean_over_all_pairs() -> None:
    student, teacher = network(1), network(11, (5, 2), (3, 2))
    loss = built(student, teacher, soft=1e9)
    errors = loss.teachers[0].errors(list(student.taps.values()), list(teacher.taps.values()))
    torch.testing.assert_close(value(loss, student, teacher), errors.mean())


@pytest.mark.parametrize(("rows", "layers"), [(8, [8, 4, 2]), (64, [64, 32, 16]), (2, [2, 4, 2])])
def test_the_embedding_halves_the_batch_twice_and_keeps_two_units(
    rows: int, layers: list[int]
) -> None:
    student = network(1)
    first, _, second = built(student, student, rows=rows).teachers[0].queries[0].layers
    assert [first.in_features, first.out_features, second.out_features] == layers


def test_places_in_the_batch_matter() -> None:
    student, teacher = network(1), network(11)
    loss = built(student, teacher)
    order = [3, 0, 4, 2, 1]
    shuffled = [
        outputs(of.logits, **{tap: maps[order] for tap, maps in of.taps.items()})
        for of in (student, teacher)
    ]
    assert abs(value(loss, *shuffled).item() - value(loss, student, teacher).item()) > 1e-6


@pytest.mark.parametrize("rows", [1, 4, 6])
def test_a_batch_of_another_size_is_an_error_that_says_what_to_set(rows: int) -> None:
    loss = built(network(1), network(11))
    with pytest.raises(RecipeError, match=f"semckd: .* batches of 5 images, .* {rows}$") as error:
        value(loss, network(1, rows=rows), network(11, rows=rows))
    assert error.value.hint == "data.drop_last=true of this stage"


def test_it_asks_for_full_batches_and_others_do_not() -> None:
    assert SemCKD.needs_full_batches
    assert not Loss.needs_full_batches


@pytest.mark.parametrize("dead", ["student", "teacher", "both"])
def test_maps_of_zeros_are_finite_in_single_precision(dead: str) -> None:
    networks = [
        outputs(of.logits, **{tap: maps.float() for tap, maps in of.taps.items()})
        for of in (network(1), network(11))
    ]
    for of, name in zip(networks, ("student", "teacher"), strict=True):
        if dead in (name, "both"):
            of.taps.update({tap: torch.zeros_like(maps) for tap, maps in of.taps.items()})
    loss = built(*networks).float()
    leaves = [maps.requires_grad_() for maps in networks[0].taps.values()]
    found = value(loss, *networks)
    found.backward()
    assert torch.isfinite(found)
    for leaf in (*leaves, *loss.parameters()):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [({"soft": 0.0}, "soft must be positive"), ({"taps": ("s1", "pooled")}, "`pooled` is no map")],
)
def test_a_parameter_out_of_range_is_an_error(params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SemCKD(**params)
