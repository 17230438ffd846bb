"""The critic of SKD and IFVD: its formulas, and that each side learns from its own part only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd import catalog
from edgekd.losses.adversarial import Adversarial, Critic, slope_penalty
from edgekd.losses.base import Batch, Loss, Outputs
from edgekd.losses.ifvd import IFVD
from edgekd.losses.skd import SKD
from edgekd.models.network import Network
from edgekd.plugins import load
from edgekd.recipe import OptimizerSpec, StageSpec
from edgekd.recipe_load import load as load_recipe
from edgekd.train.distiller import Distiller
from edgekd.train.optim import build_optimizer
from edgekd.train.terms import build_terms
from tests.losses import adversarial_oracles as oracles
from tests.losses.adversarial_oracles import Weights
from tests.losses.cases import CLOCK, outputs
from tests.losses.segmentation_cases import BINARY, UNKNOWN, values
from tests.losses.umkd_oracles import slope

SIZES = [(5, 5), (6, 9)]  # of one halving each
every_width = pytest.mark.parametrize("channels", [1, 3])


def said(
    channels: int = 1, size: tuple[int, int] = (6, 9), rows: int = 3, teachers: int = 1,
    dtype: torch.dtype = torch.float64, scale: float = 3.0,
) -> tuple[Outputs, list[Outputs], Batch]:  # fmt: skip
    """What a student and its teachers say of some images without a label."""
    logits = [values(i, rows, channels, *size, scale=scale, dtype=dtype) for i in range(9)]
    images = values(50, rows, 3, *size).abs().clamp(max=1).float()
    labels = torch.full((rows, *size), UNKNOWN)
    return outputs(logits[0]), [outputs(z) for z in logits[1 : 1 + teachers]], Batch(images, labels)


def built(
    student: Outputs, teachers: list[Outputs], *, seed: int = 0, width: int = 2, size: int = 64
) -> Adversarial:
    torch.manual_seed(seed)
    loss = Adversarial(width=width, size=size)
    loss.setup(student, teachers, BINARY)
    return loss.to(student.logits.dtype)


def term(loss: Loss, student: Outputs, teachers: list[Outputs], batch: Batch) -> Tensor:
    torch.manual_seed(7)
    return loss(student, teachers, batch, CLOCK)


def shares(rows: int) -> np.ndarray:
    """Where the penalty is taken in `term`, with one teacher."""
    torch.manual_seed(7)
    return torch.rand(rows, 1, 1, 1, dtype=torch.float64)[:, 0, 0, 0].numpy()


def weights_of(critic: nn.Module) -> Weights:
    first, bias, last = (parameter.detach().numpy() for parameter in critic.parameters())
    return Weights(first, bias, last[0])


def learning(student: Outputs) -> Outputs:
    return outputs(student.logits.clone().requires_grad_())


# The formulas.


@every_width
@pytest.mark.parametrize("size", SIZES)
def test_the_critic_is_its_formula(channels: int, size: tuple[int, int]) -> None:
    student, teachers, batch = said(channels, size)
    (critic,) = built(student, teachers).critics
    maps = torch.tensor(np.stack([oracles.map_of(z) for z in student.logits.numpy()]))
    found = critic(maps, batch.images.double())
    expected = [
        oracles.number(weights_of(critic), one, image)
        for one, image in zip(maps.numpy(), batch.images.double().numpy(), strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-10)


@every_width
@pytest.mark.parametrize("size", SIZES)
def test_the_value_is_the_critics_loss_and_the_students(
    channels: int, size: tuple[int, int]
) -> None:
    student, teachers, batch = said(channels, size)
    loss = built(student, teachers)
    weights, images = weights_of(loss.critics[0]), batch.images.double().numpy()
    z = student.logits.numpy(), teachers[0].logits.numpy()
    expected = oracles.of_student(weights, z[0], images)
    expected += oracles.of_critic(weights, *z, images, shares(3))
    assert term(loss, student, teachers, batch).item() == pytest.approx(expected, rel=1e-10)


def test_what_the_critic_says_of_the_student_cancels_in_the_value() -> None:
    student, teachers, batch = said()
    loss = built(student, teachers)
    weights, images = weights_of(loss.critics[0]), batch.images.double().numpy()
    z = student.logits.numpy(), teachers[0].logits.numpy()
    expected = 10 * oracles.penalty(weights, *z, images, shares(3))
    expected -= oracles.mean_number(weights, z[1], images)
    assert term(loss, student, teachers, batch).item() == pytest.approx(expected, rel=1e-10)


@every_width
def test_the_student_follows_its_own_part_alone(channels: int) -> None:
    student, teachers, batch = said(channels, (5, 5), rows=2)
    loss = built(student, teachers)
    leaf = learning(student)
    term(loss, leaf, teachers, batch).backward()
    weights, images = weights_of(loss.critics[0]), batch.images.double().numpy()
    expected = slope(lambda z: oracles.of_student(weights, z, images), student.logits.numpy())
    torch.testing.assert_close(leaf.logits.grad, torch.from_numpy(expected), rtol=1e-6, atol=1e-10)


def test_the_critic_follows_its_own_part_alone() -> None:
    student, teachers, batch = said(1, (5, 5), rows=2)
    loss = built(student, teachers)
    term(loss, student, teachers, batch).backward()
    (critic,) = loss.critics
    weights, images = weights_of(critic), batch.images.double().numpy()
    given = student.logits.numpy(), teachers[0].logits.numpy(), images, shares(2)
    by_hand = {
        "layers.0.weight": lambda w: Weights(w, weights.bias, weights.last),
        "layers.0.bias": lambda b: Weights(weights.first, b, weights.last),
        "layers.2.weight": lambda k: Weights(weights.first, weights.bias, k[0]),
    }
    for name, parameter in critic.named_parameters():
        changed: Callable[[np.ndarray], Weights] = by_hand[name]
        expected = slope(
            lambda at, changed=changed: oracles.of_critic(changed(at), *given),
            parameter.detach().numpy(),
        )
        torch.testing.assert_close(parameter.grad, torch.from_numpy(expected), rtol=1e-5, atol=1e-8)


# The penalty.


@pytest.mark.parametrize("length", [0.0, 0.5, 1.0, 7.0])
def test_the_penalty_of_a_linear_critic_is_the_length_of_its_weights_wherever_it_is_asked(
    length: float,
) -> None:
    """D(x) = <w, x> is equally steep everywhere: (||w|| - 1)^2."""
    w = values(1, 2, 4, 5)
    w = (w * length / np.sqrt((w.numpy() ** 2).sum())).requires_grad_()
    maps, others = values(2, 3, 2, 4, 5), values(3, 3, 2, 4, 5)
    share = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)[:, None, None, None]
    value = slope_penalty(lambda x: (x * w).sum((1, 2, 3)), maps, others, share)
    assert value.item() == pytest.approx((length - 1) ** 2, abs=1e-11)
    (gradient,) = torch.autograd.grad(value, w)
    expected = 2 * (length - 1) * w.detach() / length if length else torch.zeros_like(w)
    torch.testing.assert_close(gradient, expected)


def test_the_penalty_is_taken_between_the_two_maps_of_each_image() -> None:
    """D(x) = sum x^2 / 2 is as steep as x is long."""
    maps, others = values(2, 3, 2, 4, 5), values(3, 3, 2, 4, 5)
    share = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)[:, None, None, None]
    value = slope_penalty(lambda x: x.pow(2).sum((1, 2, 3)) / 2, maps, others, share)
    expected = 0.0
    for s, t, part in zip(maps.numpy(), others.numpy(), (0.0, 0.3, 1.0), strict=True):
        length = np.sqrt(sum(v**2 for v in (part * t + (1 - part) * s).ravel()))
        expected += (length - 1) ** 2 / 3
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_the_penalty_reaches_the_critic_only() -> None:
    maps, others = values(2, 3, 2, 4, 5).requires_grad_(), values(3, 3, 2, 4, 5).requires_grad_()
    w = values(1, 2, 4, 5).requires_grad_()
    share = torch.full((3, 1, 1, 1), 0.5, dtype=torch.float64)
    slope_penalty(lambda x: (x.pow(2) * w).sum((1, 2, 3)), maps, others, share).backward()
    assert maps.grad is None
    assert others.grad is None
    assert w.grad is not None
    assert w.grad.any()


def test_without_gradients_it_still_has_a_value() -> None:
    student, teachers, batch = said()
    loss = built(student, teachers)
    with torch.no_grad():
        value = term(loss, student, teachers, batch)
    assert not value.requires_grad
    assert value.item() == pytest.approx(term(loss, student, teachers, batch).item())


# Who learns.


@every_width
def test_teachers_learn_nothing_even_where_their_outputs_are_not_detached(channels: int) -> None:
    student, teachers, batch = said(channels, teachers=2)
    loss = built(student, teachers)
    leaves = [learning(teacher) for teacher in teachers]
    term(loss, learning(student), leaves, batch).backward()
    assert all(leaf.logits.grad is None for leaf in leaves)


@every_width
@pytest.mark.parametrize("size", [(3, 3), (9, 13), (40, 40)])
def test_the_student_and_every_weight_of_the_critics_learn(
    channels: int, size: tuple[int, int]
) -> None:
    student, teachers, batch = said(channels, size, teachers=2)
    loss = built(student, teachers)
    leaf = learning(student)
    term(loss, leaf, teachers, batch).backward()
    assert leaf.logits.grad is not None
    assert leaf.logits.grad.abs().max() > 1e-8
    for name, parameter in loss.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # a bias learns only from pixels that both maps do not put on the same side of 0
        is_deep_bias = name.endswith("bias") and size == (40, 40)
        assert is_deep_bias or parameter.grad.abs().max() > 1e-10, name


def test_one_channel_is_taken_as_two() -> None:
    """A softmax over one channel is 1 all over, whatever the student says."""
    student, teachers, batch = said()
    loss = built(student, teachers)
    pair = [outputs(torch.cat([0 * o.logits, o.logits], 1)) for o in (student, *teachers)]
    value = term(loss, student, teachers, batch)
    torch.testing.assert_close(term(loss, pair[0], pair[1:], batch), value)


def test_a_student_that_is_its_teacher_is_told_apart_by_nothing() -> None:
    student, _, batch = said()
    loss = built(student, [student])
    z = student.logits.numpy()
    (critic,) = loss.critics
    images = batch.images.double().numpy()
    expected = 10 * oracles.penalty(weights_of(critic), z, z, images, np.zeros(3))
    expected += oracles.of_student(weights_of(critic), z, images)
    assert term(loss, student, [student], batch).item() == pytest.approx(expected, rel=1e-10)


def test_the_critic_learns_to_tell_them_apart_and_the_student_to_look_like_the_teacher() -> None:
    z = torch.full((4, 1, 8, 8), -2.0)
    z[:, :, 2:6, 2:6] = 2.0
    teacher = outputs(z)
    logits = torch.zeros(4, 1, 8, 8, requires_grad=True)
    torch.manual_seed(0)
    loss = Adversarial(width=8)
    loss.setup(outputs(logits.detach()), [teacher], BINARY)
    batch = Batch(torch.zeros(4, 3, 8, 8), torch.zeros(4, 8, 8, dtype=torch.long))
    groups = [{"params": [logits], "lr": 0.05}, {"params": loss.parameters(), "lr": 0.01}]
    optimizer = torch.optim.Adam(groups)
    before = (logits.sigmoid() - z.sigmoid()).abs().mean().item()
    for _ in range(60):
        optimizer.zero_grad()
        loss(outputs(logits), [teacher], batch, CLOCK).backward()
        optimizer.step()
    after = (logits.sigmoid() - z.sigmoid()).abs().mean().item()
    assert after < 0.5 * before


# What holds for every loss.


def test_a_recipe_finds_it_by_its_name_for_segmentation_only() -> None:
    cls = load("losses", "adversarial", Loss)
    assert cls is Adversarial
    assert cls.tasks == {"segmentation"}
    assert cls.needs_teacher


def test_neither_skd_nor_ifvd_has_it_by_itself() -> None:
    assert not list(SKD().parameters())
    assert not list(IFVD().parameters())


@every_width
def test_the_order_of_the_batch_does_not_matter(channels: int) -> None:
    """Each image has a share of its own: where both maps are one, shares mean nothing."""
    student, _, batch = said(channels)
    order = [2, 0, 1]
    loss = built(student, [student])
    turned = outputs(student.logits[order])
    other = term(loss, turned, [turned], Batch(batch.images[order], batch.targets[order]))
    torch.testing.assert_close(other, term(loss, student, [student], batch))


def test_double_precision_stays_and_both_precisions_say_the_same() -> None:
    double, single = said(), said(dtype=torch.float32)
    assert term(built(*double[:2]), *double).dtype == torch.float64
    assert term(built(*single[:2]), *single).dtype == torch.float32
    found = []
    for student, teachers, batch in (double, single):  # random shares are others in each
        loss = built(student, teachers)
        loss.penalty = 0.0
        value = term(loss, student, teachers, batch)
        assert value.shape == ()
        found.append(value.item())
    assert found[1] == pytest.approx(found[0], rel=1e-4)


@every_width
def test_huge_logits_are_finite_and_so_are_the_gradients(channels: int) -> None:
    student, teachers, batch = said(channels, dtype=torch.float32, scale=1e4)
    loss, leaf = built(student, teachers), learning(student)
    value = term(loss, leaf, teachers, batch)
    value.backward()
    assert torch.isfinite(value)
    gradients = [leaf.logits.grad, *(parameter.grad for parameter in loss.parameters())]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)


@every_width
def test_one_image_suffices(channels: int) -> None:
    student, teachers, batch = said(channels, rows=1)
    assert torch.isfinite(term(built(student, teachers), student, teachers, batch))


def test_every_teacher_adds_a_term_with_a_critic_of_its_own() -> None:
    student, teachers, batch = said(teachers=2)
    loss = built(student, teachers)
    assert len(loss.critics) == 2
    torch.manual_seed(7)
    expected = 0.0
    z, images = student.logits.numpy(), batch.images.double().numpy()
    for critic, teacher in zip(loss.critics, teachers, strict=True):
        share = torch.rand(3, 1, 1, 1, dtype=torch.float64).flatten().numpy()
        weights = weights_of(critic)
        expected += oracles.of_student(weights, z, images)
        expected += oracles.of_critic(weights, z, teacher.logits.numpy(), images, share)
    assert term(loss, student, teachers, batch).item() == pytest.approx(expected, rel=1e-10)


def test_its_saved_state_gives_the_same_value_to_the_bit() -> None:
    student, teachers, batch = said(dtype=torch.float32)
    first, second = (built(student, teachers, seed=seed) for seed in (0, 1))
    assert term(first, student, teachers, batch) != term(second, student, teachers, batch)
    second.load_state_dict(first.state_dict())
    values = [term(loss, student, teachers, batch) for loss in (first, second)]
    assert torch.equal(*values)


# The critic's size, and the recipe.


@pytest.mark.parametrize(
    ("side", "layers"), [(64, 4), (65, 4), (200, 4), (32, 3), (8, 1), (5, 1), (4, 0), (1, 0)]
)
def test_the_map_is_halved_down_to_four_pixels_and_no_more_than_four_times(
    side: int, layers: int
) -> None:
    critic = Critic(2, (side, side), 3)
    assert sum(isinstance(layer, nn.LeakyReLU) for layer in critic.layers) == layers
    maps = torch.rand(2, 2, side, side)
    assert critic(maps, torch.rand(2, 3, side, side)).shape == (2,)


def test_large_maps_and_their_images_are_averaged_first() -> None:
    student, teachers, batch = said(size=(12, 18))
    loss = built(student, teachers, size=6)
    small = Batch(nn.functional.avg_pool2d(batch.images, (2, 3)), batch.targets)
    assert [p.shape[2:] for p in loss.parameters() if p.ndim == 4] == [(4, 4), (3, 3)]
    maps = nn.functional.avg_pool2d(student.logits.sigmoid(), (2, 3))
    pooled = torch.special.logit(maps)  # whose probabilities are the averages
    theirs = torch.special.logit(nn.functional.avg_pool2d(teachers[0].logits.sigmoid(), (2, 3)))
    torch.testing.assert_close(
        term(loss, student, teachers, batch), term(loss, outputs(pooled), [outputs(theirs)], small)
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [({"size": 0}, "at least 1"), ({"width": 0}, "at least 1"), ({"penalty": -1}, "negative")],
)
def test_parameters_out_of_range_are_errors(params: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adversarial(**params)  # type: ignore[arg-type]


def stage_of(weight: float) -> tuple[Distiller, Batch]:
    """Networks of one convolution each in a stage with the term."""
    stage = StageSpec.model_validate({
        "train": ["s"], "frozen": ["t"],
        "losses": {"adversarial": {"from": "t", "to": "s", "weight": weight,
                                   "params": {"width": 2}, "rates": {"critics": 4}}},
    })  # fmt: skip
    terms = build_terms(stage, "stages.x", (), "segmentation")
    torch.manual_seed(0)
    networks = {name: Network(nn.Conv2d(3, 1, 3, padding=1)) for name in ("s", "t")}
    distiller = Distiller(stage, networks, terms)
    batch = said((1), (6, 9))[2]
    distiller.setup(batch, BINARY)
    return distiller, batch


def test_in_a_stage_student_and_critic_move_in_one_step_each_at_its_own_rate() -> None:
    distiller, batch = stage_of(1.0)
    optimizer = build_optimizer(OptimizerSpec(lr=1e-4), distiller)
    before = {name: value.clone() for name, value in distiller.state_dict().items()}
    distiller.total(distiller(batch, CLOCK)).backward()
    optimizer.step()
    for name, value in distiller.state_dict().items():
        moved = (value - before[name]).abs().max().item()
        rate = 0.0 if ".t." in name or name.endswith(("mean", "std")) else 1e-4
        rate = 4e-4 if "critics" in name else rate
        assert moved == pytest.approx(rate, rel=1e-2), name  # Adam's first step


def test_the_weight_scales_both_parts() -> None:
    gradients = []
    for weight in (1.0, 0.1):
        distiller, batch = stage_of(weight)
        torch.manual_seed(7)
        distiller.total(distiller(batch, CLOCK)).backward()
        found = dict(distiller.named_parameters()).items()
        gradients.append({name: p.grad for name, p in found if p.requires_grad})
    for name, gradient in gradients[0].items():
        assert gradient is not None
        torch.testing.assert_close(0.1 * gradient, gradients[1][name])


@pytest.mark.parametrize("method", ["skd", "ifvd"])
def test_the_recipes_give_the_critic_the_published_rate_and_weight(method: str) -> None:
    path = catalog.find("kdml/table10-lgg-comparison")
    stage = load_recipe(path, variant=f"{method}-adversarial").stages["distill"]
    term = stage.losses["adversarial"]
    assert term.weight == {"skd": 0.1, "ifvd": 0.001}[method]
    assert stage.optimizer.lr * term.rates["critics"] == pytest.approx(4e-4)
    plain = load_recipe(path, variant=method).stages["distill"]
    assert "adversarial" not in plain.losses
    assert set(stage.losses) == {*plain.losses, "adversarial"}
