"""`update: alternate` and `stop`: how a stage steps, and when it ends."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekd.errors import RecipeError
from edgekd.losses.base import Clock
from edgekd.recipe_load import validate
from edgekd.rundir import RunDir
from edgekd.train.checkpoint import Best, Progress
from edgekd.train.choose import Choice, has_stalled, note_progress
from edgekd.train.distiller import Distiller
from edgekd.train.run import distill
from tests import tiny
from tests.train.test_distiller import batch, make

CLOCK = Clock(1, 1, 0, 1)
PEERS = {
    "ce_a": {"loss": "ce", "to": "a"},
    "ce_b": {"loss": "ce", "to": "b"},
    "b_a": {"loss": "kd", "from": "b", "to": "a"},
    "a_b": {"loss": "kd", "from": "a", "to": "b"},
}


def peers() -> Distiller:
    return make(PEERS, train=("a", "b"), frozen=())


def state(distiller: Distiller, name: str) -> dict[str, torch.Tensor]:
    return copy.deepcopy(distiller.networks[name].state_dict())


def test_only_one_models_terms_are_computed_and_only_it_gets_a_gradient() -> None:
    distiller = peers().train()
    values = distiller(batch(), CLOCK, "a")
    assert set(values) == {"ce_a", "b_a"}
    distiller.total(values).backward()
    assert all(p.grad is not None for p in distiller.networks["a"].parameters())
    assert all(p.grad is None for p in distiller.networks["b"].parameters())


def test_the_others_answer_as_in_training_but_their_statistics_stay() -> None:
    """Each model's BatchNorm counts every batch once, in its own turn."""
    distiller = peers().train()
    before = state(distiller, "b")
    joint = distiller(batch(), CLOCK)
    distiller.networks["a"].load_state_dict(peers().networks["a"].state_dict())
    distiller.networks["b"].load_state_dict(before)
    alone = distiller(batch(), CLOCK, "a")
    assert torch.equal(alone["b_a"], joint["b_a"])
    for key, value in state(distiller, "b").items():
        assert torch.equal(value, before[key])
    assert all(
        module.track_running_stats
        for module in distiller.networks["b"].modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    )


def test_the_second_peer_sees_the_first_after_its_step() -> None:
    """Deep mutual learning (arXiv 1706.00384) updates its peers in turn within an iteration."""
    distiller = peers().train()
    joint = distiller(batch(), CLOCK)
    optimizer = torch.optim.SGD(distiller.networks["a"].parameters(), lr=0.5)
    distiller.total(distiller(batch(), CLOCK, "a")).backward()
    optimizer.step()
    after = distiller(batch(), CLOCK, "b")
    assert torch.equal(after["ce_b"], joint["ce_b"])  # b itself has not moved
    assert not torch.equal(after["a_b"], joint["a_b"])


def recipe(folder: Path, **stage: Any) -> Any:
    tree = tiny.tree(folder)
    tree["models"]["student_b"] = tree["models"]["student"]
    tree["ensembles"] = {"pair": ["student", "student_b"]}
    tree["stages"] = {
        "mutual": {
            "train": ["student", "student_b"],
            "losses": {
                "ce": {"to": "student"},
                "ce_b": {"loss": "ce", "to": "student_b"},
                "p_a": {"loss": "kd", "from": "student_b", "to": "student"},
                "p_b": {"loss": "kd", "from": "student", "to": "student_b"},
            },
            "optimizer": {"lr": 3e-3, "clip": 5.0},
            "epochs": 3,
            **stage,
        }
    }
    tree["export"] = {"model": "pair", "also": ["student"], "make": ["onnx-fp32"]}
    return validate(tree, "tiny")


def weights(run: RunDir, name: str) -> bytes:
    return run.weights(name).read_bytes()


def test_a_stage_of_peers_trains_alike_twice_and_unlike_jointly(tmp_path: Path) -> None:
    runs = {}
    for name, update in (("one", "alternate"), ("two", "alternate"), ("joint", "joint")):
        runs[name] = RunDir(tmp_path / name / "run")
        distill(recipe(tmp_path, update=update), runs[name])
    for model in ("student", "student_b"):
        assert weights(runs["one"], model) == weights(runs["two"], model)
        assert weights(runs["one"], model) != weights(runs["joint"], model)
    scores = json.loads(runs["one"].scores.read_text())
    assert set(scores) == {"student", "student_b", "pair"}
    rows = (runs["one"].stage("mutual") / "metrics.jsonl").read_text().splitlines()
    assert set(json.loads(rows[0])["terms"]) == {"ce", "ce_b", "p_a", "p_b"}


def test_what_never_gets_its_turn_is_refused(tmp_path: Path) -> None:
    tree = tiny.tree(tmp_path)
    distill_stage = {**tree["stages"]["distill"], "update": "alternate"}
    tree["stages"]["distill"] = distill_stage
    distill_stage["losses"] = {
        "ce": {"to": "student"},
        "ce_t": {"loss": "ce", "to": "teacher"},
    }
    with pytest.raises(RecipeError, match=r"'ce_t' teaches 'teacher'.*frozen"):
        validate(tree, "tiny")
    distill_stage["losses"] = {
        "ce": {"to": "student"},
        "kd": {"from": "teacher", "to": "student", "stop_gradient": False},
    }
    with pytest.raises(RecipeError, match=r"losses.kd.stop_gradient"):
        validate(tree, "tiny")


def test_an_ensemble_that_comes_later_leaves_what_artifacts_said(tmp_path: Path) -> None:
    """They are of the same weights; an export that is up to date would not ask them again."""
    run = RunDir(tmp_path / "x" / "run")
    distill(recipe(tmp_path), run)
    kept = run.predictions("onnx-int8", "test")
    kept.write_bytes(run.predictions("student", "test").read_bytes())
    tree = recipe(tmp_path).model_dump(mode="json", by_alias=True)
    tree["ensembles"]["again"] = ["student_b", "student"]
    again = distill(validate(tree, "tiny"), run)
    assert again.reused == ["mutual"]
    assert kept.is_file()
    assert run.predictions("again", "test").is_file()
    tree["stages"]["mutual"]["epochs"] = 2
    distill(validate(tree, "tiny"), run)  # other weights
    assert not kept.exists()


def test_an_alternating_stage_does_not_accumulate(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="accumulate"):
        recipe(tmp_path, update="alternate", accumulate=2)


def test_patience_counts_epochs_since_any_model_got_better() -> None:
    choice = Choice("accuracy", True, "best", patience=2, stop_score="nll", stop_higher=False)
    state = Progress()
    told = []
    for epoch, (a, b) in enumerate([(1.0, 1.0), (0.9, 1.1), (0.95, 1.2), (0.9, 1.3)], 1):
        state.epoch = epoch
        note_progress(state, choice, {"a": {"nll": a}, "b": {"nll": b}}, ["a", "b"])
        state.epoch = epoch + 1
        told.append(has_stalled(state, choice))
    assert state.waiting == {"a": Best(2, 0.9), "b": Best(1, 1.0)}
    assert told == [False, False, False, True]


def test_without_patience_a_stage_never_stalls() -> None:
    choice = Choice("accuracy", True, "best")
    state = Progress(epoch=50)
    note_progress(state, choice, {"a": {"nll": 1.0}}, ["a"])
    assert not has_stalled(state, choice)


def test_a_stage_ends_early_and_says_after_how_many_epochs(tmp_path: Path) -> None:
    early = recipe(
        tmp_path, epochs=30, stop={"patience": 1}, optimizer={"name": "sgd", "lr": 1e-12}
    )
    run = RunDir(tmp_path / "early" / "run")
    distill(early, run)
    done = json.loads((run.stage("mutual") / "done.json").read_text())
    assert done["epochs"] < 30
    again = distill(early, run)
    assert again.reused == ["mutual"]


def test_a_score_to_stop_by_must_be_one_of_the_curve(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'nlll'.*after every "):
        distill(recipe(tmp_path, stop={"patience": 1, "score": "nlll"}), RunDir(tmp_path / "r"))
