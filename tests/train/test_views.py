"""Batches of four views, and adapters that a later stage takes over (SSD-KD needs both)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from edgekd.doctor import preflight
from edgekd.errors import RecipeError
from edgekd.losses.base import Batch
from edgekd.recipe import Recipe
from edgekd.recipe_data import StageData
from edgekd.recipe_load import validate
from edgekd.rundir import RunDir
from edgekd.train.run import distill
from edgekd.train.setup import prepare
from edgekd.train.views import with_views
from tests.tiny import tree


def recipe(folder: Path, **changes: Any) -> Recipe:
    made = tree(folder, params={"images": 80, "size": 32})
    views = {"views": "rotations"}
    head = {
        "train": [],
        "frozen": ["teacher"],
        "data": views,
        "losses": {"contrastive": {"to": "teacher"}},
    }
    stages = made["stages"]
    first = next(iter(stages))
    self_term = {"from": "teacher", "to": "student", "params": {"head_of": "head.contrastive"}}
    made["stages"] = {
        first: stages[first],
        "head": head,
        "distill": {
            "train": ["student"],
            "frozen": ["teacher"],
            "data": views,
            "losses": {"wce": {"to": "student"}, "ssdkd_self": self_term},
            **changes,
        },
    }
    for key in ("variants", "seeds", "baseline"):
        made.pop(key, None)
    return validate(made, "tiny")


def test_rows_are_the_images_and_their_turns_with_the_same_labels() -> None:
    images = torch.rand(3, 3, 4, 4)
    batch = with_views(Batch(images, torch.tensor([2, 0, 1])), StageData(views="rotations"))
    assert batch.targets.tolist() == [2, 0, 1] * 4
    for turn in range(4):
        rows = batch.images[3 * turn : 3 * turn + 3]
        assert torch.equal(rows, torch.rot90(images, turn, dims=(2, 3)))


def test_without_views_a_batch_stays_as_it_is() -> None:
    batch = Batch(torch.rand(3, 3, 4, 4), torch.arange(3))
    assert with_views(batch, StageData()) is batch


def test_a_head_that_one_stage_trained_is_the_one_that_the_next_uses(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    distill(recipe(tmp_path), run)
    state = load_file(run.stage("head") / "term.contrastive.safetensors")
    assert state
    assert all(torch.isfinite(value).all() for value in state.values())
    assert not list(run.stage("head").glob("teacher*"))  # no model has learned there
    again = RunDir(tmp_path / "again")
    distill(recipe(tmp_path), again)  # the stage comes from the shelf, the head with it
    kept = load_file(again.stage("head") / "term.contrastive.safetensors")
    assert all(torch.equal(kept[key], value) for key, value in state.items())


def test_the_teacher_stays_as_it_is_while_its_head_learns(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    distill(recipe(tmp_path), run)
    before = load_file(run.stage("teacher") / "teacher.safetensors")
    assert all(torch.equal(before[k], v) for k, v in load_file(run.weights("teacher")).items())


def test_the_dry_run_hands_heads_over_too(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    found = preflight(made, prepare(made))
    assert found["stages"]["distill"]["terms"].keys() == {"wce", "ssdkd_self"}


def test_a_term_that_asks_for_what_no_stage_keeps_is_refused(tmp_path: Path) -> None:
    term = {"from": "teacher", "to": "student", "params": {"head_of": "head.contrastiv"}}
    made = recipe(tmp_path, losses={"wce": {"to": "student"}, "ssdkd_self": term})
    with pytest.raises(RecipeError, match=r"distill\.losses\.ssdkd_self: 'head\.contrastiv'") as e:
        preflight(made, prepare(made))
    assert "did you mean 'head.contrastive'" in (e.value.hint or "")


def test_a_cache_of_teachers_does_not_know_turned_images(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cache: not with data\.views"):
        recipe(tmp_path, cache={"views": 2})
