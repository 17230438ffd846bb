"""What holds for every distillation loss, and what the older ones have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from edgekd.losses.base import Loss, Outputs
from edgekd.losses.common_features import CommonFeatures
from edgekd.losses.dkd import DKD, dkd_parts
from edgekd.losses.fitnet import FitNet
from edgekd.losses.hf_mgd import HFMGD
from edgekd.losses.kd import KD, kd_kl
from edgekd.losses.mgd import MGD
from edgekd.losses.normkd import NormKD
from edgekd.losses.rkd import RKD
from edgekd.losses.sdd import SDD
from edgekd.losses.ssdkd_relations import SSDKDRelations
from edgekd.losses.udd import UDD
from edgekd.losses.wsld import WSLD
from tests.losses.cases import (
    CLOCK,
    FACTS,
    KDML_LOSSES,
    batch,
    classified,
    linear_head,
    random_logits,
    random_maps,
)

TARGETS = [1, 0, 4, 2, 2]
LOSSES: dict[str, Callable[[], Loss]] = {
    "kd": KD,
    "dkd": DKD,
    "fitnet": lambda: FitNet(tap="s1"),
    "rkd": RKD,
    "sdd kd": lambda: SDD(form="kd"),
    "sdd dkd": lambda: SDD(form="dkd"),
    "udd paper": UDD,
    "udd official": lambda: UDD(variant="official", row_order="fixed"),
    "common_features": lambda: CommonFeatures(hidden=8),
    "common_features low_pass": lambda: CommonFeatures(tap="s1", filter="low_pass", hidden=8),
    **KDML_LOSSES,
    "hf_mgd": lambda: HFMGD(levels=("s1", "s2", "s4")),
    "hf_mgd learning": lambda: HFMGD(levels=("s1", "s4"), hf="ste", learnable_alpha=True),
    "mgd": lambda: MGD(ratio=0.0),  # no random mask
    "normkd": NormKD,
    "wsld": WSLD,
    "ssdkd_relations": SSDKDRelations,
}
FIVE = replace(FACTS, batch=len(TARGETS))
# biases in front of a batch norm, which takes them out again: fitnet's, the student's filter's
SHIFTS = ("regressors.0.0.bias", "regressors.1.0.bias", "filter.sharp.bias")
every_loss = pytest.mark.parametrize("name", LOSSES)
# not those whose adapters read places of a full batch
every_loss_of_any_batch = pytest.mark.parametrize(
    "name", [name for name, make in LOSSES.items() if not make().needs_full_batches]
)


def network(
    seed: int,
    width: int,
    dtype: torch.dtype = torch.float64,
    head_scale: float = 1.0,
    classes: int = 5,
) -> Outputs:
    last = random_maps(seed, 5, width, dtype=dtype)
    head = linear_head(seed, width, classes, head_scale).to(dtype)
    shallow = random_maps(seed + 50, 5, width, 6, dtype)
    narrow = random_maps(seed + 80, 5, 6, 5, dtype)  # of one width in all networks
    return classified(last, head, s1=shallow, s2=narrow, s4=last)


def pair(
    dtype: torch.dtype = torch.float64, head_scale: float = 1.0, classes: int = 5
) -> tuple[Outputs, list[Outputs]]:
    made = [network(i, width, dtype, head_scale, classes) for i, width in ((1, 6), (2, 8), (3, 7))]
    return made[0], made[1:]


def built(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> Loss:
    torch.manual_seed(seed)
    loss = LOSSES[name]()
    loss.setup(*pair(), FIVE)
    return loss.to(dtype)


def only(of: Outputs, rows: list[int]) -> Outputs:
    """The same network's outputs for some images, in that order."""
    taps = {name: tap[rows] for name, tap in of.taps.items()}
    return Outputs(of.logits[rows], taps, of.head)


def term(loss: Loss, student: Outputs, experts: list[Outputs], rows: list[int]) -> Tensor:
    targets = batch([TARGETS[row] for row in rows])
    return loss(only(student, rows), [only(expert, rows) for expert in experts], targets, CLOCK)


def learning(student: Outputs) -> tuple[Outputs, list[Tensor]]:
    """A student whose maps and logits take gradients."""
    leaves = {name: tap.clone().requires_grad_() for name, tap in student.taps.items()}
    logits = student.logits.clone().requires_grad_()
    return Outputs(logits, leaves, student.head), [logits, *leaves.values()]


ALL = [0, 1, 2, 3, 4]


@every_loss_of_any_batch
def test_the_order_of_the_batch_does_not_matter(name: str) -> None:
    loss = built(name)
    value = term(loss, *pair(), ALL)
    other = term(loss, *pair(), [3, 0, 4, 2, 1])
    torch.testing.assert_close(other, value, rtol=1e-10, atol=1e-12)


@every_loss
def test_double_precision_stays(name: str) -> None:
    assert term(built(name), *pair(), ALL).dtype == torch.float64
    single = term(built(name, dtype=torch.float32), *pair(torch.float32), ALL)
    assert single.dtype == torch.float32
    assert single.shape == ()


@every_loss
def test_student_and_adapters_learn_and_experts_do_not(name: str) -> None:
    loss = built(name)
    student, leaves = learning(pair()[0])
    experts = pair()[1]
    term(loss, student, experts, ALL).backward()
    assert any(leaf.grad is not None and leaf.grad.any() for leaf in leaves)
    for key, parameter in loss.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert key.endswith(SHIFTS) or parameter.grad.abs().max() > 1e-10, key


@every_loss
def test_huge_logits_are_finite_and_so_is_the_gradient(name: str) -> None:
    student, experts = pair(torch.float32, head_scale=1e4)
    assert student.logits.abs().max() > 1e4
    student, leaves = learning(student)
    value = term(built(name, dtype=torch.float32), student, experts, ALL)
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves if leaf.grad is not None)


@every_loss_of_any_batch
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [[0], [2, 1], [4, 0, 3]])
def test_a_batch_of_one_and_a_last_batch_are_finite(
    name: str, rows: list[int], dtype: torch.dtype
) -> None:
    loss = built(name, dtype=dtype)
    student, experts = pair(dtype)
    student, leaves = learning(student)
    value = term(loss, student, experts, rows)
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves if leaf.grad is not None)


@every_loss
def test_its_saved_state_gives_the_same_value_to_the_bit(name: str) -> None:
    student, experts = pair(torch.float32)
    first, second = (built(name, seed, torch.float32) for seed in (0, 1))
    for _ in range(2):  # what batch norms have counted is part of the state
        term(first, student, experts, ALL)
    second.load_state_dict(first.state_dict())
    for loss in (first.eval(), second.eval()):
        assert not loss.training
    assert torch.equal(term(first, student, experts, ALL), term(second, student, experts, ALL))
    values = [term(loss.train(), student, experts, ALL) for loss in (first, second)]
    assert torch.equal(*values)


@every_loss
def test_one_expert_suffices(name: str) -> None:
    student, experts = pair()
    loss = LOSSES[name]()
    loss.setup(student, experts[:1], FIVE)
    assert torch.isfinite(term(loss.double(), student, experts[:1], ALL))


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "normkd"])  # refuses them
def test_two_classes_suffice(name: str) -> None:
    student, experts = pair(classes=2)
    student, leaves = learning(student)
    value = built(name)(student, experts, batch([1, 0, 1, 0, 0]), CLOCK)
    value.backward()
    assert value.item() > 1e-4
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert any(gradient.any() for gradient in gradients)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_no_constant_weights_of_dkd_are_kd_but_one_weight_per_image_is() -> None:
    """DKD, arXiv 2203.08679, equation 7."""
    student, teacher = random_logits(1, rows=5), random_logits(2, rows=5)
    targets = torch.tensor(TARGETS)
    tckd, nckd = dkd_parts(student, teacher, targets, 4.0)
    share = 1 - (teacher / 4.0).softmax(1).gather(1, targets[:, None])[:, 0]
    value = 16 * (tckd + share * nckd).mean()
    torch.testing.assert_close(value, kd_kl(student, teacher, 4.0))
    equal = [float(kd_kl(student[[i]], teacher[[i]], 4.0)) / 16 for i in range(5)]
    ratios = torch.tensor(equal) / (tckd + nckd)
    assert ratios.max() - ratios.min() > 0.01


def test_with_two_classes_dkd_is_plain_kd() -> None:
    student, teacher = random_logits(1, classes=2), random_logits(2, classes=2)
    tckd, _ = dkd_parts(student, teacher, torch.tensor([0, 1] * 4), 4.0)
    torch.testing.assert_close(16 * tckd.mean(), kd_kl(student, teacher, 4.0))


@pytest.mark.parametrize(("name", "way_out"), [("dkd", "use `kd`"), ("sdd dkd", "`form: kd`; use")])
def test_with_two_classes_the_user_is_told_what_to_use_instead_of_dkd(
    name: str, way_out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    LOSSES[name]().setup(*pair(classes=2), FIVE)
    said = " ".join(capsys.readouterr().err.split())
    assert "there are no other classes to compare" in said
    assert way_out in said
