"""The stage graph: what it guarantees for every term."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError
from edgekd.losses.base import Batch, Clock, Facts, Loss, Outputs
from edgekd.models.network import Network
from edgekd.recipe import StageSpec
from edgekd.train.distiller import Distiller
from edgekd.train.terms import build_terms

CLOCK = Clock(1, 1, 0, 1)
FACTS = Facts("classification", ("a", "b", "c"), (5, 5, 5), 4)


class Net(nn.Module):
    """Two stages, BatchNorm, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.two(self.one(x))).flatten(1))


def net(seed: int) -> Network:
    torch.manual_seed(seed)
    return Network(Net(), taps={"s1": "one", "s2": "two", "last": "pool:input"})


def batch(rows: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.rand(rows, 3, 16, 16, generator=generator), torch.arange(rows) % 3)


def make(
    losses: dict, *, train: Sequence[str] = ("s",), frozen: Sequence[str] = ("t",)
) -> Distiller:
    stage = StageSpec.model_validate(
        {"train": list(train), "frozen": list(frozen), "losses": losses}
    )
    terms = build_terms(stage, "stages.x", (), "classification")
    networks = {name: net(seed) for seed, name in enumerate([*train, *frozen])}
    distiller = Distiller(stage, networks, terms)
    distiller.setup(batch(2), FACTS)
    return distiller


ALL = {
    "ce": {"to": "s"},
    "kd": {"from": "t", "to": "s"},
    "dkd": {"from": "t", "to": "s"},
    "fitnet": {"from": "t", "to": "s", "weight": 100.0},
}


def test_every_term_is_returned_unweighted_and_by_name() -> None:
    distiller = make(ALL)
    values = distiller(batch(), CLOCK)
    assert list(values) == ["ce", "kd", "dkd", "fitnet"]
    total = values["ce"] + values["kd"] + values["dkd"] + 100 * values["fitnet"]
    torch.testing.assert_close(distiller.total(values), total)


def test_a_frozen_model_that_no_term_looks_at_is_not_run() -> None:
    distiller = make({"ce": {"to": "s"}})
    runs: list[int] = []
    distiller.networks["t"].register_forward_hook(lambda *_: runs.append(1))
    distiller(batch(), CLOCK)
    assert not runs


def test_g1_a_step_changes_nothing_in_a_frozen_model() -> None:
    distiller = make(ALL)
    teacher = distiller.networks["t"]
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    distiller.train()
    optimizer = torch.optim.SGD([p for p in distiller.parameters() if p.requires_grad], lr=0.1)
    distiller.total(distiller(batch(), CLOCK)).backward()
    optimizer.step()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    assert not teacher.training
    assert distiller.networks["s"].training


def test_g2_a_permutation_of_the_batch_changes_no_term() -> None:
    distiller = make(ALL).eval()
    whole = batch()
    order = torch.tensor([2, 0, 3, 1])
    shuffled = Batch(whole.images[order], whole.targets[order])
    torch.testing.assert_close(distiller(shuffled, CLOCK), distiller(whole, CLOCK))


def test_g3_every_adapter_parameter_gets_a_finite_gradient() -> None:
    distiller = make(ALL)
    distiller.train()
    distiller.total(distiller(batch(), CLOCK)).backward()
    adapters = distiller.adapters()
    assert len(adapters) == 4  # one convolution and one BatchNorm
    for parameter in adapters:
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


def test_g4_adapters_are_not_part_of_the_student() -> None:
    distiller = make(ALL)
    student = distiller.networks["s"].state_dict()
    assert student.keys() == net(0).state_dict().keys()


def test_g6_a_state_dict_round_trip_gives_the_same_loss_bit_for_bit() -> None:
    first = make(ALL).eval()
    second = make(ALL).eval()
    for parameter in second.parameters():
        nn.init.normal_(parameter)
    second.load_state_dict(first.state_dict())
    expected, found = first(batch(), CLOCK), second(batch(), CLOCK)
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_one_image_is_enough() -> None:
    values = make(ALL).eval()(batch(1), CLOCK)
    assert all(torch.isfinite(value) for value in values.values())


def test_peers_teach_each_other_without_a_way_back() -> None:
    losses = {
        "one": {"loss": "kd", "from": "b", "to": "a"},
        "two": {"loss": "kd", "from": "a", "to": "b"},
    }
    distiller = make(losses, train=("a", "b"), frozen=())
    values = distiller(batch(), CLOCK)
    values["one"].backward()
    assert any(p.grad is not None for p in distiller.networks["a"].parameters())
    assert all(p.grad is None for p in distiller.networks["b"].parameters())


def test_stop_gradient_can_be_lifted() -> None:
    losses = {
        "one": {"loss": "kd", "from": "b", "to": "a", "stop_gradient": False},
        "two": {"loss": "kd", "from": "a", "to": "b"},
    }
    distiller = make(losses, train=("a", "b"), frozen=())
    distiller(batch(), CLOCK)["one"].backward()
    assert any(p.grad is not None for p in distiller.networks["b"].parameters())


class HeadProbe(Loss):
    """Sends the student's pooled features through the teacher's head."""

    taps = ("pooled",)

    def forward(
        self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
    ) -> Tensor:
        return teachers[0].head(student.taps["pooled"]).pow(2).mean()


def test_a_gradient_passes_through_a_sources_head_but_not_into_it() -> None:
    stage = StageSpec.model_validate(
        {
            "train": ["a", "b"],
            "losses": {"x": {"from": "b", "to": "a"}, "y": {"from": "a", "to": "b"}},
        }
    )
    terms = nn.ModuleDict({"term_x": HeadProbe(), "term_y": HeadProbe()})
    distiller = Distiller(stage, {"a": net(0), "b": net(1)}, terms)
    distiller(batch(), CLOCK)["x"].backward()
    assert all(p.grad is None for p in distiller.networks["b"].parameters())
    first = distiller.networks["a"].net.one[0].weight  # type: ignore[union-attr]
    assert first.grad is not None
    assert torch.count_nonzero(first.grad) > 0
    assert all(p.requires_grad for p in distiller.networks["b"].parameters())


def test_losses_run_in_fp32_under_autocast() -> None:
    seen = {}

    class Spy(Loss):
        taps = ("s1",)

        def forward(
            self, student: Outputs, teachers: Sequence[Outputs], batch: Batch, clock: Clock
        ) -> Tensor:
            seen["logits"], seen["tap"] = student.logits.dtype, student.taps["s1"].dtype
            seen["inside"] = (student.logits @ student.logits.T).dtype
            return student.logits.sum()

    stage = StageSpec.model_validate({"train": ["s"], "losses": {"x": {"to": "s"}}})
    distiller = Distiller(stage, {"s": net(0)}, nn.ModuleDict({"term_x": Spy()}))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distiller(batch(), CLOCK)
    assert set(seen.values()) == {torch.float32}


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"kdd": {"from": "t", "to": "s"}}, "there is no 'kdd'"),
        ({"kd": {"to": "s"}}, "needs a teacher"),
        ({"ce": {"from": "t", "to": "s"}}, "takes no teacher"),
        ({"kd": {"from": "t", "to": "s", "params": {"temprature": 4}}}, "kd.params.temprature"),
        (
            {"kd": {"from": "t", "to": "s", "params": {"temperature": "hot"}}},
            "kd.params.temperature",
        ),
        ({"kd": {"from": "t", "to": "s", "params": {"temperature": -1}}}, "must be positive"),
        ({"fitnet": {"from": "t", "to": "s", "params": {"tap": "s9"}}}, "no tap 's9'"),
    ],
)
def test_a_term_that_cannot_work_is_refused_before_training(losses: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make(losses)


def test_a_loss_for_another_task_is_refused() -> None:
    stage = StageSpec.model_validate({"train": ["s"], "losses": {"ce": {"to": "s"}}})
    with pytest.raises(RecipeError, match="not for task 'segmentation'"):
        build_terms(stage, "stages.x", (), "segmentation")


def test_a_term_that_outweighs_the_task_is_named_with_its_multiple() -> None:
    udd = {"from": "t", "to": "s", "weight": 2.0, "params": {"windows": [1]}}
    distiller = make({"ce": {"to": "s", "weight": 0.5}, "udd": udd, "kd": {"from": "t", "to": "s"}})
    assert distiller.outweighing({"ce": 1.0, "udd": 2.4, "kd": 900.0}) == {}  # 4.8 of 0.5
    assert distiller.outweighing({"ce": 1.0, "udd": 3.0, "kd": 900.0}) == {"udd": 12.0}
    assert distiller.outweighing({"ce": 0.0, "udd": 3.0, "kd": 0.0}) == {"udd": float("inf")}
    official = {**udd, "params": {"windows": [1], "variant": "official"}}
    distiller = make({"ce": {"to": "s"}, "udd": official})
    assert distiller.outweighing({"ce": 1.0, "udd": 300.0}) == {}
