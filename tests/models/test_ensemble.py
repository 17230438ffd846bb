"""Several networks as one graph: the most confident member wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from edgekd.errors import RecipeError
from edgekd.export.onnx_from_torch import to_onnx
from edgekd.models.assemble import arch_of, assemble
from edgekd.models.complexity import count
from edgekd.models.ensemble import EnsembleNet
from edgekd.recipe import Recipe
from edgekd.recipe_load import validate
from edgekd.tasks.base import softmax
from edgekd.tasks.classification import Classification
from tests import tiny
from tests.toy_tasks import MultiLabel

CLASSES = ("a", "b", "c", "d")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    tree = tiny.tree(tmp_path)
    tree["ensembles"] = {"pair": ["teacher", "student"]}
    return validate(tree, "tiny")


def logits(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (rows, 4)).astype(np.float32)


def test_the_members_highest_probability_decides_each_class() -> None:
    """KDML: p[c] = max_k p_k[c], scaled to sum to 1 for reporting."""
    task = Classification(classes=CLASSES)
    first, second = logits(50, 1), logits(50, 2)
    highest = np.maximum(softmax(first), softmax(second))
    joined = task.combine_logits([first, second])
    np.testing.assert_allclose(
        task.activate(joined), highest / highest.sum(axis=1, keepdims=True), atol=1e-6
    )
    np.testing.assert_array_equal(task.decide(task.activate(joined)), highest.argmax(axis=1))
    combined = task.combine([softmax(first), softmax(second)])
    np.testing.assert_allclose(task.activate(joined), combined, atol=1e-6)


def test_it_is_the_student_that_is_most_confident_in_its_class_that_wins() -> None:
    task = Classification(classes=CLASSES)
    sure = np.array([[4.0, 0.0, 0.0, 0.0]], np.float32)
    unsure = np.array([[0.0, 0.3, 0.0, 0.0]], np.float32)
    assert task.decide(task.combine_logits([sure, unsure])).tolist() == [0]
    assert task.decide(task.combine_logits([unsure, sure])).tolist() == [0]


def test_an_ensemble_of_equals_answers_as_each_of_them() -> None:
    task = Classification(classes=CLASSES)
    one = logits(20, 3)
    np.testing.assert_allclose(
        task.activate(task.combine_logits([one, one])), softmax(one), atol=1e-6
    )


def test_labels_that_do_not_exclude_each_other_take_the_maximum_of_each() -> None:
    """Above a half that is the union: found by one member, found."""
    task = MultiLabel(classes=CLASSES)
    task.exclusive = False
    first, second = logits(20, 1), logits(20, 2)
    joined = task.activate(task.combine_logits([first, second]))
    assert np.array_equal(
        joined > 0.5, (task.activate(first) > 0.5) | (task.activate(second) > 0.5)
    )


def test_one_graph_computes_what_the_task_says(recipe: Recipe, tmp_path: Path) -> None:
    task = Classification(classes=CLASSES)
    network = assemble(recipe, "pair", task).eval()
    images = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        members = [member(images).numpy() for member in network.net.members]
        joined = network(images).numpy()
    np.testing.assert_allclose(joined, task.combine_logits(members), atol=1e-5)
    path = tmp_path / "pair.onnx"
    to_onnx(network, path, size=32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": images.numpy()})
    np.testing.assert_allclose(found, joined, atol=1e-4)


def test_it_costs_what_its_members_cost(recipe: Recipe) -> None:
    task = Classification(classes=CLASSES)
    costs: dict[str, Any] = {
        name: count(assemble(recipe, name, task), 32) for name in ("teacher", "student", "pair")
    }
    for key in ("params", "macs"):
        pair = getattr(costs["pair"], key)
        alone = sum(getattr(costs[name], key) for name in ("teacher", "student"))
        assert pair == pytest.approx(alone, rel=0.01)  # the input's normalisation is in it
    assert arch_of(recipe, "pair").startswith("ensemble of ")


def test_each_member_normalises_its_input_by_itself(recipe: Recipe) -> None:
    network = assemble(recipe, "pair", Classification(classes=CLASSES))
    assert isinstance(network.net, EnsembleNet)
    assert network.mean.abs().max() == 0
    assert all(member.mean.abs().max() > 0 for member in network.net.members)


@pytest.mark.parametrize(
    ("ensembles", "message"),
    [
        ({"pair": ["student"]}, "two or more different models"),
        ({"pair": ["student", "student"]}, "two or more different models"),
        ({"pair": ["student", "teachr"]}, "did you mean 'teacher'"),
        ({"student": ["student", "teacher"]}, "a model has this name"),
        ({"odd": ["student", "ghost"]}, "ensembles.odd: no stage trains or uses model 'ghost'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, ensembles: dict[str, Any], message: str) -> None:
    tree = tiny.tree(tmp_path)
    tree["models"]["ghost"] = tree["models"]["student"]
    with pytest.raises(RecipeError, match=message):
        validate({**tree, "ensembles": ensembles}, "tiny")
