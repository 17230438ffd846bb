"""HF-MGD: the teacher's map made from what is not hidden, and what becomes of the student."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.errors import RecipeError
from edgekd.losses.base import Outputs
from edgekd.losses.hf_mgd import HFMGD, hf_mask
from tests.losses import dspkd_oracles as oracles
from tests.losses.cases import CLOCK
from tests.losses.hf_cases import LAST, arrays, built, hidden, levels_of, network, value
from tests.losses.oracles import mse
from tests.losses.umkd_oracles import slope


def layer(of: nn.Module) -> oracles.Layer:
    return of.weight.detach().numpy(), of.bias.detach().numpy()


def expected(
    loss: HFMGD, last: np.ndarray, *teachers: Outputs, masks: list[np.ndarray] | None = None
) -> float:
    total = 0.0
    for i, teacher in enumerate(teachers):
        wanted = teacher.taps["last"]
        attention = oracles.hf_attention(
            arrays(levels_of(teacher)), *wanted.shape[2:], loss.kernel, loss.fusion
        )
        mask = oracles.hf_mask(attention, loss.phi, loss.quantile) if masks is None else masks[i]
        align, generate = loss.aligners[i], loss.generators[i]
        total += oracles.hf_mgd(
            last,
            wanted.numpy(),
            mask,
            None if isinstance(align, nn.Identity) else layer(align),
            [layer(generate[0]), layer(generate[2])],
            loss.start,
            loss.lambda_orig,
        )
    return total


@pytest.mark.parametrize("width", [6, 8])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"alpha": 0.1, "lambda_orig": 0.0},
        {"alpha": 0.0},
        {"alpha": 0.1, "phi": 0.3, "fusion": 0.8, "kernel": 1},
        {"alpha": 0.1, "quantile": 0.4},
        {"alpha": 0.1, "bottleneck": 3},
    ],
)
def test_it_is_the_formula(params: dict, width: int) -> None:
    student, teacher = network(1), network(11, width)
    loss = built(student, teacher, **params)
    wanted = expected(loss, student.taps["last"].numpy(), teacher)
    assert wanted > 1e-3
    assert value(loss, student, teacher).item() == pytest.approx(wanted, rel=1e-10)


def test_phi_above_1_masks_nothing() -> None:
    student, teacher = network(1), network(2, 8)
    assert hidden(hf_mask(levels_of(teacher), (3, 3), phi=1.01)) == 0
    loss = built(student, teacher, phi=1.01, alpha=0.1)
    ones = [np.ones((3, 1, LAST, LAST))]
    wanted = expected(loss, student.taps["last"].numpy(), teacher, masks=ones)
    assert value(loss, student, teacher).item() == pytest.approx(wanted, rel=1e-10)


def test_every_teacher_adds_a_full_term_with_its_own_mask_and_adapters() -> None:
    student, one, two = network(1), network(11, 8), network(21, 5)
    loss = built(student, one, two, alpha=0.1)
    wanted = expected(loss, student.taps["last"].numpy(), one, two)
    assert value(loss, student, one, two).item() == pytest.approx(wanted, rel=1e-10)


def test_its_gradient_is_the_formulas() -> None:
    student, teacher = network(1, 2, 2), network(11, 3, 2)
    loss = built(student, teacher, alpha=0.1, bottleneck=2)
    maps = student.taps["last"].requires_grad_()
    value(loss, student, teacher).backward()
    wanted = slope(lambda last: expected(loss, last, teacher), maps.detach().numpy())
    assert maps.grad is not None
    torch.testing.assert_close(maps.grad, torch.from_numpy(wanted), rtol=1e-6, atol=1e-8)


def test_alpha_is_seven_times_the_mean_over_elements_for_2048_channels_of_7x7() -> None:
    """The sum over an image's elements is their number times the mean, 2048 * 49 of them there."""
    student, teacher = network(1), network(11, 8)
    loss = built(student, teacher, lambda_orig=0.0, phi=2.0)
    last = student.taps["last"]
    made = loss.generators[0](loss.aligners[0](last)).detach().numpy()
    mean = mse(made, teacher.taps["last"].numpy())
    wanted = 7e-5 * 8 * LAST * LAST * mean
    assert value(loss, student, teacher).item() == pytest.approx(wanted, rel=1e-10)
    assert round(7e-5 * 2048 * 7 * 7, 1) == 7.0


def test_the_generator_of_2048_channels_has_75_million_parameters_unless_it_is_narrower() -> None:
    from edgekd.losses._generation import generator

    with torch.device("meta"):
        full, narrow = generator(2048, nn.GELU()), generator(2048, nn.GELU(), 256)
    assert sum(p.numel() for p in full.parameters()) == 75_501_568
    assert sum(p.numel() for p in narrow.parameters()) == 2 * 2048 * 256 * 9 + 2048 + 256


def test_a_students_map_of_the_teachers_width_is_not_aligned() -> None:
    loss = built(network(1, 6), network(11, 6), network(21, 8))
    assert [type(align) for align in loss.aligners] == [nn.Identity, nn.Conv2d]


def test_equal_features_behind_a_generator_that_does_nothing_give_zero() -> None:
    teacher = network(1)
    loss = built(teacher, teacher, phi=2.0, alpha=1.0)
    loss.generators = nn.ModuleList([nn.Identity()])
    assert value(loss, teacher, teacher).item() == 0.0
    loss.phi = 0.5
    assert value(loss, teacher, teacher).item() > 0  # what is hidden is missing


def test_without_the_original_part_the_reading_is_mgds() -> None:
    student, teacher = network(1), network(11, 8)
    parts = [
        value(built(student, teacher, alpha=a, lambda_orig=o), student, teacher).item()
        for a, o in ((0.1, 0.0), (0.0, 2.0), (0.1, 2.0))
    ]
    assert parts[2] == pytest.approx(parts[0] + parts[1], rel=1e-12)


# A weight that learns.


def test_a_learnt_alpha_begins_where_it_is_told_and_adds_nothing_at_first() -> None:
    student, teacher = network(1), network(11, 8)
    plain, learning = (built(student, teacher, learnable_alpha=on) for on in (False, True))
    assert plain.notes() == {}
    assert learning.notes()["alpha"] == pytest.approx(7e-5, rel=1e-5)
    assert value(learning, student, teacher).item() == pytest.approx(
        value(plain, student, teacher).item(), rel=1e-5
    )


def test_a_learnt_alpha_does_not_decay_to_nothing() -> None:
    """Alone, `alpha L - 1/2 log alpha` is least at alpha = 1 / (2 L)."""
    student, teacher = network(1), network(11, 8)
    loss = built(student, teacher, learnable_alpha=True, alpha=0.01, lambda_orig=0.0)
    error = expected(loss, student.taps["last"].numpy(), teacher) / loss.start
    for _ in range(40):
        (step,) = torch.autograd.grad(value(loss, student, teacher), loss.rho)
        with torch.no_grad():
            loss.rho -= step
    assert loss.notes()["alpha"] == pytest.approx(1 / (2 * error), rel=1e-2)


# What may go wrong.


def test_maps_of_two_sizes_are_an_error_that_names_them() -> None:
    with pytest.raises(RecipeError, match="student's map is 3x3, a teacher's 4x4") as error:
        built(network(1), network(2), network(11, 8, last=4))
    assert error.value.message.startswith("hf_mgd: at tap 'last'")
    assert error.value.hint is not None


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"quantile": 1.5}, "quantile"),
        ({"kernel": 2}, "kernel must be odd"),
        ({"fusion": 1.5}, "fusion"),
        ({"fusion": 1.0, "hf": "ste"}, "with `hf: ste` between them"),
        ({"levels": ("s2", "s1")}, "in this order"),
        ({"levels": ()}, "levels"),
        ({"alpha": 0.0, "learnable_alpha": True}, "alpha must be above 0"),
        ({"bottleneck": 0}, "bottleneck"),
    ],
)
def test_a_parameter_out_of_range_is_an_error(params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HFMGD(**params)


# In a stage, and after it.


def test_the_student_that_goes_on_is_the_plain_network_and_says_what_it_said(
    tmp_path: Path,
) -> None:
    """The second stage begins with the first one's student; its adapters stay behind."""
    from edgekd.models.weights import load_weights
    from edgekd.train.checkpoint import save_weights
    from tests.train.test_distiller import batch as images
    from tests.train.test_distiller import make, net

    losses = {
        "ce": {"to": "s"},
        "hf": {
            "loss": "hf_mgd",
            "from": "t",
            "to": "s",
            "params": {"levels": ["s1", "s2"], "hf": "ste", "learnable_alpha": True},
        },
    }
    first = make(losses)
    first.train()
    optimizer = torch.optim.SGD([p for p in first.parameters() if p.requires_grad], lr=0.01)
    first.total(first(images(), CLOCK)).backward()
    assert all(p.grad is not None and p.grad.any() for p in first.adapters())
    assert all(p.grad is None for p in first.networks["t"].parameters())
    optimizer.step()
    trained = first.networks["s"].eval()
    assert trained.state_dict().keys() == net(7).state_dict().keys()
    save_weights(trained.net, tmp_path / "s.safetensors")
    second = make({"normkd": {"from": "t", "to": "s"}})
    load_weights(second.networks["s"], tmp_path / "s.safetensors")
    second.eval()
    with torch.no_grad():
        said = second.networks["s"](images().images), trained(images().images)
    assert torch.equal(*said)
