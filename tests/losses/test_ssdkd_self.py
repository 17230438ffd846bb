"""SSD-KD's self-supervision: a head that is trained, handed on, and learnt from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.errors import RecipeError
from edgekd.losses._views import own_image, ranks, similarities
from edgekd.losses.base import Batch
from edgekd.losses.contrastive import Contrastive
from edgekd.losses.ssdkd_self import SSDKDSelf
from tests.losses import ssdkd_oracles as oracles
from tests.losses.cases import CLOCK, FACTS, outputs, random_logits
from tests.losses.ssdkd_cases import (
    IMAGES,
    contrastive,
    layers,
    network,
    pooled,
    self_term,
    value,
)
from tests.losses.umkd_oracles import slope


def test_the_contrastive_task_is_the_formula() -> None:
    teacher = network(2, 8)
    loss = contrastive(teacher)
    wanted = oracles.contrastive(pooled(teacher), layers(loss.head))
    assert value(loss, teacher).item() == pytest.approx(wanted, rel=1e-10)
    assert not Contrastive.needs_teacher
    assert Contrastive.is_kept  # for a term of a later stage


def test_the_contrastive_task_teaches_the_head_and_never_the_network() -> None:
    teacher = network(2, 8)
    teacher.taps["pooled"].requires_grad_()
    loss = contrastive(teacher)
    value(loss, teacher).backward()
    assert teacher.taps["pooled"].grad is None
    assert all(p.grad is not None and p.grad.any() for p in loss.parameters())


def test_a_head_that_learns_tells_images_apart() -> None:
    images = random_logits(3, rows=IMAGES, classes=8)
    views = images.repeat(4, 1) + 0.3 * random_logits(4, rows=4 * IMAGES, classes=8)
    teacher = outputs(torch.zeros(12, 5), pooled=views)
    loss = contrastive(teacher)
    before = value(loss, teacher).item()
    for _ in range(30):
        steps = torch.autograd.grad(value(loss, teacher), list(loss.parameters()))
        with torch.no_grad():
            for parameter, step in zip(loss.parameters(), steps, strict=True):
                parameter -= 0.1 * step
    assert value(loss, teacher).item() < before - 0.05
    found = similarities(loss.head(views), IMAGES)
    assert ranks(found, own_image(IMAGES, found.device)).sum() == 0


@pytest.mark.parametrize("params", [{}, {"temperature": 0.1, "keep": 0.4}, {"keep": 1.0}])
def test_self_supervision_is_the_formula(params: dict) -> None:
    student, teacher = network(1), network(2, 8)
    loss = self_term(student, teacher, **params)
    wanted = oracles.ssdkd_self(
        pooled(student),
        pooled(teacher),
        layers(loss.student_head),
        layers(contrastive(teacher).head),
        loss.temperature,
        loss.keep,
    )
    assert wanted > 1e-4
    assert value(loss, student, teacher).item() == pytest.approx(wanted, rel=1e-9)


def test_its_gradient_is_the_formulas() -> None:
    student, teacher = network(1, 3), network(2, 4)
    loss = self_term(student, teacher)
    features = student.taps["pooled"].requires_grad_()
    value(loss, student, teacher).backward()
    heads = layers(loss.student_head), layers(loss.teacher_head)
    wanted = slope(
        lambda f: oracles.ssdkd_self(f, pooled(teacher), *heads), features.detach().numpy()
    )
    assert features.grad is not None
    torch.testing.assert_close(features.grad, torch.from_numpy(wanted), rtol=1e-5, atol=1e-9)


def test_rows_of_similarities_sum_to_1_and_have_a_column_per_image() -> None:
    student, teacher = network(1), network(2, 8)
    loss = self_term(student, teacher)
    found = similarities(loss.student_head(student.taps["pooled"]), IMAGES) / loss.temperature
    assert found.shape == (3 * IMAGES, IMAGES)
    torch.testing.assert_close(found.softmax(1).sum(1), torch.ones(9).double())


def test_a_student_whose_head_sees_what_the_teachers_sees_has_nothing_to_learn() -> None:
    teacher = network(2)
    loss = self_term(teacher, teacher)
    loss.student_head.load_state_dict(loss.teacher_head.state_dict())
    assert value(loss, teacher, teacher).item() == pytest.approx(0.0, abs=1e-14)


def test_the_teachers_head_is_the_one_of_the_earlier_stage_and_stays_as_it_is() -> None:
    student, teacher = network(1), network(2, 8)
    head = contrastive(teacher)
    loss = self_term(student, teacher)
    for mine, theirs in zip(loss.teacher_head.parameters(), head.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    value(loss, student, teacher).backward()
    assert all(p.grad is None and not p.requires_grad for p in loss.teacher_head.parameters())
    assert all(p.grad is not None and p.grad.any() for p in loss.student_head.parameters())


def test_the_term_names_the_one_whose_head_it_wants_and_does_not_go_on_without() -> None:
    student, teacher = network(1), network(2, 8)
    loss = SSDKDSelf(head_of="head.contrastive")
    loss.setup(student, [teacher], FACTS)
    assert loss.adopts == "head.contrastive"
    with pytest.raises(RecipeError, match=r"'head\.contrastive' has not handed over the teacher's"):
        value(loss, student, teacher)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"weights": torch.zeros(3)},
        contrastive(network(2, 7)).state_dict(),
        {"head.0.weight": torch.zeros(8, 8), "head.0.bias": torch.zeros(8)},
    ],
)
def test_a_head_of_another_teacher_or_loss_is_an_error(state: dict) -> None:
    loss = SSDKDSelf(head_of="head.contrastive")
    loss.setup(network(1), [network(2, 8)], FACTS)
    with pytest.raises(RecipeError, match="holds no head for this teacher"):
        loss.adopt(state)


def test_there_is_a_head_for_one_teacher_only() -> None:
    with pytest.raises(RecipeError, match="one teacher, `from` names 2"):
        SSDKDSelf(head_of="a.b").setup(network(1), [network(2), network(3)], FACTS)


def four_views(images: Tensor, targets: Tensor) -> Batch:
    turned = torch.cat([torch.rot90(images, quarter, (2, 3)) for quarter in range(4)])
    return Batch(turned, targets.repeat(4))


def test_the_teachers_head_goes_from_its_own_stage_into_the_students() -> None:
    from tests.train.test_distiller import batch as images
    from tests.train.test_distiller import make, net

    plain = images()
    views = four_views(plain.images, plain.targets)
    first = make({"kd": {"from": "t", "to": "s"}, "contrastive": {"to": "t"}})
    first.train()
    before = {key: v.clone() for key, v in first.networks["t"].state_dict().items()}
    first.total(first(views, CLOCK)).backward()
    head = first.terms["term_contrastive"]
    with torch.no_grad():
        for parameter in head.parameters():
            assert parameter.grad is not None
            parameter -= 0.1 * parameter.grad
    for key, old in first.networks["t"].state_dict().items():
        assert torch.equal(old, before[key]), key  # the teacher itself does not move
    losses = {
        "wce": {"to": "s", "weight": 0.1},
        "logits": {"loss": "ssdkd_logits", "from": "t", "to": "s"},
        "self": {
            "loss": "ssdkd_self", "from": "t", "to": "s", "weight": 10.0,
            "params": {"head_of": "head.contrastive"},
        },
        "relations": {"loss": "ssdkd_relations", "from": "t", "to": "s"},
    }  # fmt: skip
    second = make(losses)
    second.terms["term_self"].adopt(head.state_dict())
    second.train()
    values = second(views, CLOCK)
    second.total(values).backward()
    assert all(torch.isfinite(v) and v > 0 for v in values.values())
    assert all(p.grad is None for p in second.networks["t"].parameters())
    assert all(p.grad is not None for p in second.networks["s"].parameters())
    for parameter in second.adapters():
        assert (parameter.grad is not None) == parameter.requires_grad
    assert second.networks["s"].state_dict().keys() == net(0).state_dict().keys()
