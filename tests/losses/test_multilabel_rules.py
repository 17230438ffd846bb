"""What holds for every loss on several labels per image."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from edgekd.losses.base import Loss, Outputs
from edgekd.losses.bce import BCE
from edgekd.losses.db import DB
from edgekd.losses.focal import Focal
from edgekd.losses.ldam import LDAM
from edgekd.losses.oltr import OLTR
from edgekd.losses.rskd import RSKD
from edgekd.models.network import Network
from edgekd.plugins import check_arguments, load
from edgekd.recipe import StageSpec
from edgekd.train.distiller import Distiller
from tests.losses.multilabel_cases import (
    COUNTS,
    KNOWN,
    LABELS,
    LAST,
    PAIR,
    SUBSETS,
    at_epoch,
    batch,
    says,
    values,
)

NAMES = {"bce": BCE, "focal": Focal, "ldam": LDAM, "db": DB, "rskd": RSKD, "oltr": OLTR}
LOSSES: dict[str, Callable[[], Loss]] = {
    **NAMES,
    "bce inverse": lambda: BCE(reweight="inverse"),
    "bce class_balanced": lambda: BCE(reweight="class_balanced", deferred=0.8),
    "ldam drw": lambda: LDAM(deferred=0.8),
    "db plain": lambda: DB(focal=False),
    "rskd forward": lambda: RSKD(kl="forward", t2=True, class_reduction="sum"),
    "rskd subset_only": lambda: RSKD(scope="subset_only"),
}
OF_LABELS = [name for name in LOSSES if not name.startswith("rskd")]
OF_ALL_IMAGES = ("rskd", "rskd forward")  # labels are not needed
every_loss = pytest.mark.parametrize("name", LOSSES)
every_loss_of_labels = pytest.mark.parametrize("name", OF_LABELS)


def network(
    seed: int,
    dtype: torch.dtype,
    scale: float = 3.0,
    rows: int = 6,
    classes: tuple[int, ...] | None = None,
) -> Outputs:
    width = 5 if classes is None else len(classes)
    logits = values(seed, rows, width, scale=scale, dtype=dtype)
    return says(logits, classes, distances=values(seed + 50, rows, width, dtype=dtype).abs())


def teachers(
    name: str, dtype: torch.dtype = torch.float64, scale: float = 3.0, rows: int = 6
) -> list[Outputs]:
    if name in OF_LABELS:
        return []
    return [
        network(10 + i, dtype, scale, rows, classes) for i, classes in enumerate(SUBSETS.values())
    ]


def built(name: str, dtype: torch.dtype = torch.float64) -> Loss:
    loss = LOSSES[name]()
    loss.setup(network(1, dtype), teachers(name, dtype), PAIR)
    return loss


def only(of: Outputs, rows: list[int]) -> Outputs:
    return says(of.logits[rows], of.classes, **{tap: value[rows] for tap, value in of.taps.items()})


def term(
    loss: Loss,
    student: Outputs,
    sources: list[Outputs],
    labels: Tensor = LABELS,
    rows: list[int] | None = None,
) -> Tensor:
    rows = list(range(len(labels))) if rows is None else rows
    theirs = [only(source, rows) for source in sources]
    return loss(only(student, rows), theirs, batch(labels[rows]), LAST)


def learning(student: Outputs) -> tuple[Outputs, list[Tensor]]:
    logits = student.logits.clone().requires_grad_()
    away = student.taps["distances"].clone().requires_grad_()
    return says(logits, student.classes, distances=away), [logits, away]


def gradients(leaves: list[Tensor]) -> list[Tensor]:
    return [leaf.grad for leaf in leaves if leaf.grad is not None]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_finds_it_by_its_name(name: str) -> None:
    cls = load("losses", name, Loss)
    assert cls is NAMES[name]
    assert "multilabel" in cls.tasks
    assert cls.tasks == {"multilabel"} or name == "ldam"
    assert cls.needs_teacher == (name == "rskd")


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("bce", {"reweight": "class_balanced", "beta": 0.999, "deferred": 0.8}),
        ("focal", {"gamma": 1}),
        ("ldam", {"deferred": None, "max_margin": 0.5, "scale": 1}),
        ("db", {"centre": 0.2, "negative_scale": 2, "focal": True}),
        ("rskd", {"kl": "forward", "weights": "fixed", "scope": "subset_only", "score": "ap"}),
        ("oltr", {"factor": 0.01}),
    ],
)
def test_a_recipe_can_set_its_parameters(name: str, params: dict[str, object]) -> None:
    NAMES[name](**check_arguments(NAMES[name], params, "params"))


@every_loss
def test_the_order_of_the_batch_does_not_matter(name: str) -> None:
    loss, student = built(name), network(1, torch.float64)
    value = term(loss, student, teachers(name))
    other = term(loss, student, teachers(name), rows=[3, 0, 5, 4, 2, 1])
    torch.testing.assert_close(other, value, rtol=1e-10, atol=1e-12)


@every_loss
def test_the_precision_stays_and_both_say_the_same(name: str) -> None:
    found = []
    for dtype in (torch.float64, torch.float32):
        value = term(built(name, dtype), network(1, dtype), teachers(name, dtype))
        assert value.dtype == dtype
        assert value.shape == ()
        found.append(value.item())
    assert found[0] > 1e-4
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@every_loss
def test_its_gradient_is_that_of_its_value(name: str) -> None:
    loss, sources = built(name), teachers(name)
    student, leaves = learning(network(1, torch.float64, scale=1.0))

    def value(logits: Tensor, away: Tensor) -> Tensor:
        # a part that it does not read has a gradient of 0, not none
        unused = 0.0 * (logits.sum() + away.sum())
        return unused + term(loss, says(logits, distances=away), sources)

    assert torch.autograd.gradcheck(value, tuple(leaves))
    term(loss, student, sources).backward()
    assert any(gradient.abs().max() > 1e-6 for gradient in gradients(leaves))


@every_loss
def test_the_student_learns_and_the_teachers_do_not(name: str) -> None:
    """Sources come detached; what is in the term itself has no parameters."""
    student, leaves = learning(network(1, torch.float64))
    loss = built(name)
    term(loss, student, teachers(name)).backward()
    assert any(gradient.any() for gradient in gradients(leaves))
    assert not list(loss.parameters())


@every_loss
def test_huge_logits_are_finite_and_so_is_the_gradient(name: str) -> None:
    student, leaves = learning(network(1, torch.float32, scale=1e4))
    assert student.logits.abs().max() > 1e4
    value = term(built(name, torch.float32), student, teachers(name, torch.float32, scale=1e4))
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(leaves))


@every_loss
@pytest.mark.parametrize("rows", [[0], [2], [3], [4], [5], [2, 4], [5, 0, 3]])
def test_a_batch_of_one_and_a_last_batch_are_finite(name: str, rows: list[int]) -> None:
    """Alone: some classes, none, some known, nothing known, all."""
    student, leaves = learning(network(1, torch.float32))
    value = term(built(name, torch.float32), student, teachers(name, torch.float32), rows=rows)
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(leaves))


@every_loss
def test_without_a_known_label_it_is_0_on_the_graph_unless_labels_are_not_needed(name: str) -> None:
    student, leaves = learning(network(1, torch.float64))
    value = term(built(name), student, teachers(name), torch.full_like(LABELS, -1))
    value.backward()
    assert (value.item() == 0.0) == (name not in OF_ALL_IMAGES)
    assert any(gradient.any() for gradient in gradients(leaves)) == (name in OF_ALL_IMAGES)


@every_loss_of_labels
def test_what_is_said_of_a_label_that_is_not_known_does_not_matter(name: str) -> None:
    student, leaves = learning(network(1, torch.float64))
    value = term(built(name), student, [])
    value.backward()
    unknown = LABELS < 0
    assert unknown.sum() == 7
    for gradient in gradients(leaves):
        assert not gradient[unknown].any()
    other = [torch.where(unknown, 7.0, leaf.detach()) for leaf in leaves]
    assert torch.equal(term(built(name), says(other[0], distances=other[1]), []), value)


@every_loss_of_labels
def test_an_image_of_which_nothing_is_known_changes_nothing(name: str) -> None:
    loss, student = built(name), network(1, torch.float64)
    without = term(loss, student, [], rows=[0, 1, 2, 3, 5])
    torch.testing.assert_close(term(loss, student, []), without)


@every_loss
def test_a_model_of_some_classes_is_as_if_there_were_no_others(name: str) -> None:
    """A teacher of a subset in training: logits of its classes, labels of all of them."""
    classes = (3, 0, 2)
    student = network(1, torch.float64, classes=classes)
    sources = [] if name in OF_LABELS else [network(2, torch.float64, classes=classes)]
    names = tuple(PAIR.classes[c] for c in classes)
    counts = tuple(COUNTS[c] for c in classes)
    alone = replace(PAIR, classes=names, class_counts=counts, teachers=("a",))
    found = []
    for facts, known, labels in (
        (replace(PAIR, teachers=("a",)), classes, LABELS),
        (alone, None, LABELS[:, list(classes)]),
    ):
        loss = LOSSES[name]()
        ours, theirs = replace(student, classes=known), [replace(s, classes=known) for s in sources]
        loss.setup(ours, theirs, facts)
        found.append(term(loss, ours, theirs, labels))
    assert found[0].item() > 1e-5
    torch.testing.assert_close(found[0], found[1])


@every_loss
def test_its_saved_state_gives_the_same_value_to_the_bit(name: str) -> None:
    student, sources = network(1, torch.float32), teachers(name, torch.float32)
    first, second = (built(name, torch.float32) for _ in range(2))
    # as if the first had learned from other counts and scores
    for buffer in first.buffers():
        if buffer.is_floating_point():
            buffer.copy_(buffer.nan_to_num(0.5) * 0.37)
    second.load_state_dict(first.state_dict())
    assert torch.equal(term(first, student, sources), term(second, student, sources))
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))


@pytest.mark.parametrize("name", [name for name in OF_LABELS if name != "oltr"])
def test_a_right_answer_is_cheaper_than_a_wrong_one(name: str) -> None:
    loss = built(name)
    right = 5.0 * (2.0 * KNOWN.double() - 1)
    found = [term(loss, says(sign * right), [], KNOWN).item() for sign in (1.0, -1.0)]
    assert 0 < found[0] < 0.2 * found[1]


class Toy(nn.Module):
    """A network with the tap that `oltr` asks for."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(outputs)
        self.features = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.norm(self.features(images)).mean(dim=(2, 3)))


@pytest.mark.parametrize("name", ["rskd", "rskd forward", "rskd subset_only"])
def test_no_teacher_has_a_gradient_or_other_statistics_after_a_step(name: str) -> None:
    """And the student has no parameter more than without the term."""
    networks = {key: Network(Toy(5)) for key in ("student", "one", "two")}
    plain = sum(p.numel() for p in networks["student"].parameters())
    stage = StageSpec.model_validate(
        {"train": ["student"], "frozen": ["one", "two"], "epochs": 1,
         "losses": {"rskd": {"from": ["one", "two"], "to": "student"}}}
    )  # fmt: skip
    distiller = Distiller(stage, networks, nn.ModuleDict({"term_rskd": LOSSES[name]()}))
    before = {key: deepcopy(networks[key].state_dict()) for key in ("one", "two")}
    images = batch(LABELS)
    images.images = torch.rand(6, 3, 8, 8)
    distiller.setup(images, replace(PAIR, teachers=("one", "two")))
    distiller.train()
    distiller.total(distiller(images, at_epoch(1))).backward()
    for key, state in before.items():
        assert all(parameter.grad is None for parameter in networks[key].parameters())
        for entry, value in networks[key].state_dict().items():
            assert torch.equal(value, state[entry])
    student = list(networks["student"].parameters())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in student)
    assert sum(p.numel() for p in student) == plain
    assert not distiller.adapters()
