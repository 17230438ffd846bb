"""SRRL: the formula, the way through the teacher's classifier, its weights left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.losses.base import Outputs
from edgekd.losses.srrl import SRRL
from tests.losses import kdml_oracles as oracles
from tests.losses.cases import CLOCK, FACTS, batch, classified, linear_head, random_maps
from tests.losses.umkd_oracles import slope

TARGETS = [0, 1, 1]


def network(seed: int, channels: int = 6, side: int = 4, classes: int = 5) -> Outputs:
    head = linear_head(seed, channels, classes)
    return classified(random_maps(seed, channels=channels, side=side), head)


def built(student: Outputs, *teachers: Outputs, **params: float) -> SRRL:
    torch.manual_seed(0)
    loss = SRRL(**params)
    loss.setup(student, teachers, FACTS)
    for connect in loss.connectors:  # gains of 1 and shifts of 0 would hide a mistake
        nn.init.uniform_(connect[1].weight, 0.5, 2.0)
        nn.init.uniform_(connect[1].bias, -1.0, 1.0)
    return loss.double()


def value(loss: SRRL, student: Outputs, *teachers: Outputs) -> Tensor:
    return loss(student, teachers, batch(TARGETS), CLOCK)


def expected(loss: SRRL, student: Outputs, *teachers: Outputs) -> float:
    total = 0.0
    for connect, teacher in zip(loss.connectors, teachers, strict=True):
        weights = [p.detach().numpy() for p in connect.parameters()]
        head = teacher.head.weight.numpy(), teacher.head.bias.numpy()
        total += oracles.srrl(
            student.taps["last"].detach().numpy(),
            teacher.taps["last"].numpy(),
            (weights[0], weights[1], weights[2]),
            head,
            teacher.logits.numpy(),
            loss.alpha,
            loss.beta,
        )
    return total


@pytest.mark.parametrize("params", [{}, {"alpha": 0.0}, {"beta": 0.0}, {"alpha": 3.0, "beta": 0.5}])
@pytest.mark.parametrize("side", [4, 3])
@pytest.mark.parametrize("classes", [2, 5])
def test_it_is_the_formula_whatever_the_width_and_size(
    side: int, classes: int, params: dict
) -> None:
    student, teacher = network(1, classes=classes), network(2, 8, side, classes)
    loss = built(student, teacher, **params)
    wanted = expected(loss, student, teacher)
    assert wanted > 1e-3
    assert value(loss, student, teacher).item() == pytest.approx(wanted, rel=1e-10)


def test_every_teacher_adds_a_full_term_with_a_connector_of_its_own() -> None:
    student, one, two = network(1), network(2, 8), network(3, 7)
    loss = built(student, one, two)
    assert [connect[0].out_channels for connect in loss.connectors] == [8, 7]
    found = value(loss, student, one, two).item()
    assert found == pytest.approx(expected(loss, student, one, two), rel=1e-10)


def test_the_two_parts_add_up() -> None:
    student, teacher = network(1), network(2, 8)
    parts = [
        value(built(student, teacher, alpha=a, beta=b), student, teacher).item()
        for a, b in ((1, 0), (0, 1), (1, 1))
    ]
    assert parts[2] == pytest.approx(parts[0] + parts[1], rel=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_its_gradient_is_the_formulas_also_through_the_classifier_alone(alpha: float) -> None:
    student, teacher = network(1, side=2), network(2, 8, 2)
    loss = built(student, teacher, alpha=alpha)
    maps = student.taps["last"].requires_grad_()
    value(loss, student, teacher).backward()

    def at(array) -> float:
        return expected(loss, classified(torch.from_numpy(array), linear_head(1)), teacher)

    assert maps.grad is not None
    assert maps.grad.abs().max() > 1e-3
    wanted = torch.from_numpy(slope(at, maps.detach().numpy()))
    torch.testing.assert_close(maps.grad, wanted, rtol=1e-5, atol=1e-8)


def test_it_is_zero_behind_a_connector_that_gives_the_teachers_map() -> None:
    teacher = network(2)
    loss = SRRL()
    loss.connectors.append(nn.Identity())
    assert value(loss, teacher, teacher).item() == pytest.approx(0.0, abs=1e-20)


@pytest.mark.parametrize("joint", [False, True])
def test_in_a_stage_the_teachers_classifier_gets_no_gradient(joint: bool) -> None:
    """Frozen or trained beside the student: what passes through its head ends at the student."""
    from tests.train.test_distiller import batch as images
    from tests.train.test_distiller import make

    train, frozen = (["s", "t"], []) if joint else (["s"], ["t"])
    srrl = {"from": "t", "to": "s", "params": {"alpha": 0.0}}
    distiller = make({"srrl": srrl}, train=train, frozen=frozen)
    distiller.train()
    distiller.total(distiller(images(), CLOCK)).backward()
    assert all(parameter.grad is None for parameter in distiller.networks["t"].parameters())
    reached = distiller.networks["s"].net.one[0].weight.grad
    assert reached is not None
    assert reached.abs().max() > 0
    assert all(parameter.grad is not None for parameter in distiller.adapters())


def test_it_is_not_for_segmentation() -> None:
    assert SRRL.tasks == {"classification", "grading", "multilabel"}
