"""Several labels per image through the whole line: teachers of some classes, thresholds, a bundle
that decides on a device as it did in training."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from edgekd.bundle import read_manifest
from edgekd.errors import GateFailed, RecipeError
from edgekd.recipe import Recipe
from edgekd.recipe_load import load
from edgekd.results import Predictions
from edgekd.rundir import RunDir
from tests.tiny import tree

IMAGES = 240


def recipe_tree(folder: Path) -> dict[str, Any]:
    made = tree(folder)
    net = made["models"]["student"]
    made["task"] = {"name": "multilabel", "thresholds": "f1", "shots": {"head": 30, "tail": 8}}
    made["data"] = {
        "name": "synthetic_labels",
        "params": {"images": IMAGES, "size": 32},
        "split": "6-2-2",
        "test_seed": 0,
        "split_seed": "seed",
        "input": {"size": 32},
        "batch": 16,
        "class_groups": {"many": "head", "few": FEW},
    }
    made["models"] = {"many": {**net, "classes": "many"}, "few": {**net, "classes": "few"},
                      "student": net}  # fmt: skip
    made["stages"] = {
        "many": {"train": "many", "data": {"having": "many"}, "losses": {"bce": {"to": "many"}}},
        "few": {"train": "few", "data": {"having": "few"}, "losses": {"bce": {"to": "few"}}},
        "student": {
            "train": "student",
            "frozen": ["many", "few"],
            "losses": {
                "bce": {"to": "student"},
                "rskd": {"from": ["many", "few"], "to": "student"},
            },
            "epochs": 2,
        },
    }
    made["export"] = {"model": "student", "make": ["onnx-fp32"]}
    for key in ("variants", "seeds", "baseline"):
        made.pop(key, None)
    return made


def dump(written: dict[str, Any]) -> str:
    return str(yaml.safe_dump(written, sort_keys=False))  # stages come one after the other


def classes_of() -> tuple[str, ...]:
    from edgekd.data.synthetic_labels import SyntheticLabels

    return tuple(SyntheticLabels(images=IMAGES, size=32).classes)


FEW = list(classes_of()[1:])


def made(folder: Path, **changes: Any) -> Recipe:
    written = {**recipe_tree(folder), **changes}
    (folder / "recipe.yaml").write_text(dump(written), encoding="utf-8")
    return load(folder / "recipe.yaml")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    from edgekd.export.make import export
    from edgekd.train.run import distill

    folder = tmp_path_factory.mktemp("labels")
    found = RunDir(folder / "run")
    distill(made(folder), found)
    with contextlib.suppress(GateFailed):  # so few test images may leave a gate undecided
        export(found.root)
    return found


def test_a_teacher_answers_for_its_own_classes_only(run: RunDir) -> None:
    few, student = (Predictions.load(run.predictions(m, "test")) for m in ("few", "student"))
    assert few.ids == student.ids
    assert few.logits.shape[1] == few.targets.shape[1] == len(FEW)
    assert student.logits.shape[1] == len(classes_of())
    assert (few.targets == student.targets[:, 1:]).all()


def test_the_weights_of_the_classes_are_kept_with_every_epoch(run: RunDir) -> None:
    lines = (run.stage("student") / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 2
    names = [f"rskd/w:{name}" for name in classes_of()]
    assert sorted(rows[0]["notes"]) == sorted(names)
    assert set(rows[0]["notes"].values()) == {1.0}  # nobody has seen the student yet
    assert all(0 <= weight <= 1 for weight in rows[1]["notes"].values())


def test_thresholds_are_those_of_validation_images_and_go_into_the_bundle(run: RunDir) -> None:
    from edgekd.tasks._cuts import cut
    from edgekd.tasks.multilabel import MultiLabel

    kept = json.loads(run.thresholds.read_text())
    manifest = read_manifest(run.bundle)
    assert manifest.learned.thresholds == pytest.approx(kept["student"])
    said = Predictions.load(run.predictions("student", "val"))
    probabilities = MultiLabel(classes=classes_of()).activate(said.logits)
    for column, threshold in enumerate(kept["student"]):
        own = cut(probabilities[:, column], said.targets[:, column] == 1, "f1")
        assert threshold == pytest.approx(0.5 if own is None else own)


def test_the_model_card_says_from_which_probability_on_a_class_is_there(run: RunDir) -> None:
    card = (run.bundle / "model-card.md").read_text(encoding="utf-8")
    first = read_manifest(run.bundle).learned.thresholds[0]
    assert f"chosen on validation images: {classes_of()[0]} {first:.4f}, " in card
    assert f"output `logits`: float32 (N, {len(classes_of())})" in card


def test_a_device_decides_by_them_as_training_did(run: RunDir, tmp_path: Path) -> None:
    from PIL import Image

    from edgekd.data.synthetic_labels import SyntheticLabels
    from edgekd.predict import predict

    source = SyntheticLabels(images=IMAGES, size=32)
    said = Predictions.load(run.predictions("student", "test"))
    rows = [list(source.ids()).index(name) for name in said.ids[:12]]
    for place, row in enumerate(rows):
        Image.fromarray(source[row].image).save(tmp_path / f"{place:02}.png")
    cuts = np.array(read_manifest(run.bundle).learned.thresholds)
    wanted = 1 / (1 + np.exp(-said.logits[:12].astype(float))) >= cuts
    for row, shown in zip(predict(run.bundle, [tmp_path]), wanted, strict=True):
        assert sorted(row.labels or []) == sorted(np.array(classes_of())[shown])
        assert row.label == (row.labels[0] if row.labels else "none")


def test_the_bench_scores_as_training_did(run: RunDir) -> None:
    from edgekd.bench.accuracy import find_images, score
    from edgekd.runtimes.session import open_session, resolve

    manifest = read_manifest(run.bundle)
    with open_session(resolve(run.bundle)) as session:
        found, _ = score(session, find_images(None, manifest), batch=16)
    trained = json.loads(run.scores.read_text())["student"]["test"]
    for name in ("map", "map_head", "map_tail", "macro_f1", "recall"):
        before = trained[name]["value"]
        value = found[name].value
        assert (value is None) == (before is None), name
        assert value is None or value == pytest.approx(before, abs=1e-6), name


def test_other_class_groups_do_not_train_a_stage_anew(tmp_path: Path) -> None:
    from edgekd.stage_keys import stage_keys

    first = stage_keys(made(tmp_path), "data")
    more = recipe_tree(tmp_path)
    more["data"]["class_groups"]["other"] = FEW[:2]
    (tmp_path / "more.yaml").write_text(dump(more), encoding="utf-8")
    assert stage_keys(load(tmp_path / "more.yaml"), "data") == first
    more["data"]["class_groups"]["few"] = FEW[1:]
    (tmp_path / "more.yaml").write_text(dump(more), encoding="utf-8")
    other = stage_keys(load(tmp_path / "more.yaml"), "data")
    assert other["many"] == first["many"]
    assert other["few"] != first["few"]


def test_other_thresholds_are_chosen_without_training(tmp_path: Path) -> None:
    from edgekd.stage_keys import scored_key, stage_keys

    plain = made(tmp_path)
    task = {**recipe_tree(tmp_path)["task"], "thresholds": {"sensitivity": 0.9}}
    other = made(tmp_path, task=task)
    keys = stage_keys(plain, "data")
    assert stage_keys(other, "data") == keys
    assert scored_key(other, "data", keys) != scored_key(plain, "data", keys)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("models.few.classes", "fwe", "there is no class group 'fwe'; did you mean 'few'?"),
        ("stages.few.data.having", "fwe", "there is no class group 'fwe'; did you mean 'few'?"),
        ("export.model", "few", "export.model: 'few' knows some of the classes only"),
        ("stages.many.data.having", None, None),
    ],
)
def test_class_groups_that_do_not_fit_are_refused(
    tmp_path: Path, key: str, value: str | None, message: str | None
) -> None:
    from edgekd.recipe_load import set_key

    written = recipe_tree(tmp_path)
    set_key(written, key, value, "test")
    path = tmp_path / "bad.yaml"
    path.write_text(dump(written), encoding="utf-8")
    if message is None:
        load(path)
        return
    with pytest.raises(RecipeError, match=message.replace("?", r"\?")):
        load(path)


def test_a_group_that_names_an_unknown_class_says_so(tmp_path: Path) -> None:
    from edgekd.train.setup import prepare

    written = recipe_tree(tmp_path)
    written["data"]["class_groups"]["few"] = ["no-such-sign"]
    (tmp_path / "bad.yaml").write_text(dump(written), encoding="utf-8")
    with pytest.raises(
        RecipeError, match=r"data\.class_groups\.few: there is no class 'no-such-sign'"
    ):
        prepare(load(tmp_path / "bad.yaml"))


def test_a_task_of_one_class_per_image_refuses_data_of_several(tmp_path: Path) -> None:
    from edgekd.train.setup import prepare

    written = recipe_tree(tmp_path)
    written["task"] = {"name": "classification"}
    (tmp_path / "bad.yaml").write_text(dump(written), encoding="utf-8")
    with pytest.raises(RecipeError, match="'classification' is for one class per image") as error:
        prepare(load(tmp_path / "bad.yaml"))
    assert error.value.hint == "task.name=multilabel"


def test_the_splits_seed_follows_the_runs_seed(tmp_path: Path) -> None:
    recipe = made(tmp_path, seed=7)
    assert recipe.data.split_seed == 7


def test_an_image_set_of_one_class_that_everybody_shows_gets_others_besides(
    tmp_path: Path,
) -> None:
    from edgekd.train.feeding import stage_feed
    from edgekd.train.setup import prepare

    written = recipe_tree(tmp_path)
    written["data"]["class_groups"]["few"] = FEW[:1]
    (tmp_path / "one.yaml").write_text(dump(written), encoding="utf-8")
    recipe = load(tmp_path / "one.yaml")
    data = prepare(recipe)
    feed = stage_feed(recipe, data, recipe.stages["few"], "few")
    assert feed.labels is not None
    shown = feed.labels[feed.indices, 1] == 1
    assert shown.sum() * 2 == len(shown)
