"""VID: the formula, the variance that is learnt, its limits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from edgekd.losses.base import Outputs
from edgekd.losses.vid import VID, gaussian_nll
from tests.losses import kdml_oracles as oracles
from tests.losses.cases import CLOCK, FACTS, batch, outputs, random_maps
from tests.losses.umkd_oracles import slope

LOGITS = torch.zeros(3, 2)  # two classes: maps do not know of them


def network(seed: int, width: int, sides: tuple[int, int] = (4, 2)) -> Outputs:
    maps = {
        f"s{i}": random_maps(seed + i, channels=width + i, side=side)
        for i, side in enumerate(sides, 1)
    }
    return outputs(LOGITS, **maps)


def built(student: Outputs, *teachers: Outputs, **params) -> VID:
    torch.manual_seed(0)
    loss = VID(taps=("s1", "s2"), **params)
    loss.setup(student, teachers, FACTS)
    return loss.double()


def value(loss: VID, student: Outputs, *teachers: Outputs) -> Tensor:
    return loss(student, teachers, batch([0, 1, 1]), CLOCK)


def expected(loss: VID, student: dict, *teachers: Outputs) -> float:
    total = 0.0
    for gaussians, teacher in zip(loss.teachers, teachers, strict=True):
        for gaussian, tap in zip(gaussians, loss.taps, strict=True):
            weights = [p.detach().numpy() for p in gaussian.mean.parameters()]
            rho = gaussian.rho.detach().numpy()
            total += oracles.vid(student[tap], teacher.taps[tap].numpy(), weights, rho, loss.eps)
    return total


def arrays(of: Outputs) -> dict:
    return {tap: maps.detach().numpy() for tap, maps in of.taps.items()}


@pytest.mark.parametrize("sides", [(4, 2), (2, 4), (3, 3)])
def test_it_is_the_formula_summed_over_taps(sides: tuple[int, int]) -> None:
    student, teacher = network(1, 4), network(11, 6, sides)
    loss = built(student, teacher)
    with torch.no_grad():
        for gaussian in loss.teachers[0]:
            gaussian.rho.uniform_(-3.0, 3.0)
    wanted = expected(loss, arrays(student), teacher)
    assert value(loss, student, teacher).item() == pytest.approx(wanted, rel=1e-10)


def test_every_teacher_adds_a_full_term_with_adapters_of_its_own() -> None:
    student, one, two = network(1, 4), network(11, 6), network(21, 3, (3, 3))
    loss = built(student, one, two)
    assert [[len(g.rho) for g in gaussians] for gaussians in loss.teachers] == [[7, 8], [4, 5]]
    wanted = expected(loss, arrays(student), one, two)
    assert value(loss, student, one, two).item() == pytest.approx(wanted, rel=1e-10)


def test_its_gradients_are_the_formulas() -> None:
    student, teacher = network(1, 2, (2, 2)), network(11, 3, (2, 2))
    loss = built(student, teacher)
    maps, rho = student.taps["s1"].requires_grad_(), loss.teachers[0][0].rho
    value(loss, student, teacher).backward()

    def of_maps(array) -> float:
        return expected(loss, {**arrays(student), "s1": array}, teacher)

    def of_rho(array) -> float:
        with torch.no_grad():
            rho.copy_(torch.from_numpy(array))
        return expected(loss, arrays(student), teacher)

    for leaf, at in ((maps, of_maps), (rho, of_rho)):
        assert leaf.grad is not None
        wanted = torch.from_numpy(slope(at, leaf.detach().clone().numpy()))
        torch.testing.assert_close(leaf.grad, wanted, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("start", [5.0, 0.1, 1000.0])
def test_every_channel_starts_with_the_given_variance(start: float) -> None:
    student, teacher = network(1, 4), network(11, 6)
    loss = built(student, teacher, init_variance=start)
    for gaussian in loss.teachers[0]:
        torch.testing.assert_close(
            gaussian.variance(), torch.full_like(gaussian.rho, start), rtol=1e-5, atol=0
        )
    assert VID().init_variance == 5.0


def test_the_variances_are_parameters_and_are_saved() -> None:
    loss = built(network(1, 4), network(11, 6))
    names = {name for name, _ in loss.named_parameters()}
    assert {"teachers.0.0.rho", "teachers.0.1.rho"} <= names
    assert names == set(loss.state_dict())
    assert not any(name.endswith("bias") for name in names)


def test_the_best_variance_is_the_squared_error_and_the_loss_can_be_negative() -> None:
    mean, wanted = torch.full((2, 1, 3, 3), 0.5), torch.full((2, 1, 3, 3), 0.7)
    variance = torch.tensor([0.04], requires_grad=True)
    best = gaussian_nll(mean, variance, wanted)
    (slope_there,) = torch.autograd.grad(best, variance)
    assert slope_there.item() == pytest.approx(0.0, abs=1e-4)
    assert best.item() < 0
    for other in (0.03, 0.05):
        assert gaussian_nll(mean, torch.tensor([other]), wanted) > best


def test_with_a_variance_of_one_it_is_half_the_squared_error() -> None:
    mean, wanted = random_maps(1), random_maps(2)
    found = gaussian_nll(mean, torch.ones(6, dtype=torch.float64), wanted)
    torch.testing.assert_close(found, functional.mse_loss(mean, wanted) / 2)


@pytest.mark.parametrize("rho", [-200.0, 200.0, 1e4])
def test_extreme_variances_are_finite_in_single_precision(rho: float) -> None:
    student, teacher = network(1, 4), network(11, 6)
    loss = built(student, teacher).float()
    for gaussian in loss.teachers[0]:
        torch.nn.init.constant_(gaussian.rho, rho)
    single = [
        outputs(LOGITS, **{tap: maps.float() for tap, maps in of.taps.items()})
        for of in (student, teacher)
    ]
    found = value(loss, *single)
    found.backward()
    assert torch.isfinite(found)
    assert all(torch.isfinite(p.grad).all() for p in loss.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"eps": 0.0}, "eps must be above 0"),
        ({"init_variance": 1e-6}, "init_variance above eps"),
        ({"taps": ()}, "taps must be different"),
    ],
)
def test_a_parameter_out_of_range_is_an_error(params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VID(**params)
