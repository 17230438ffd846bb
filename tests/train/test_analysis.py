"""`edgekd analyze` on a run of seconds: what is compared, stored, done again and refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgekd.cli import main
from edgekd.errors import DataError, EdgekdError
from edgekd.image import center_crop
from edgekd.models.assemble import assemble
from edgekd.models.weights import load_weights, read_weights
from edgekd.recipe import Recipe
from edgekd.recipe_load import load, to_yaml
from edgekd.results import CkaMap
from edgekd.rundir import RunDir, sha256, write_text
from edgekd.train import analysis
from edgekd.train.analysis import analyze, cka_of, pairs_of
from edgekd.train.checkpoint import save_weights
from edgekd.train.cka import MinibatchCka, layer_grams
from edgekd.train.setup import prepare
from tests import tiny

Ran = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """What is left of a run, with a model that no stage has. Do not write into it."""
    folder = tmp_path_factory.mktemp("analysis")
    tree = tiny.tree(folder, params={"images": 90, "size": 16}, input={"size": 16})
    tree["models"]["idle"] = tree["models"]["student"]
    recipe = Recipe.model_validate(tree)
    run = RunDir(folder / "run")
    write_text(run.recipe, to_yaml(recipe))
    data = prepare(recipe)
    write_text(run.environment, json.dumps({"data": data.key}))
    for name in ("teacher", "student"):  # as they begin: training takes long, and says no more here
        network = assemble(recipe, name, data.task)
        network.net.s1[1].running_mean += 0.1
        save_weights(network.net, run.weights(name))
    return run


@pytest.fixture
def run(trained: RunDir, tmp_path: Path) -> RunDir:
    """A copy of one's own."""
    shutil.copytree(trained.root, tmp_path / "run")
    return RunDir(tmp_path / "run")


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str]) -> Ran:
    """A command's exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["analyze", *arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return call


def recipe_of(run: RunDir, **changes: Any) -> Recipe:
    recipe = load(run.recipe)
    return Recipe.model_validate({**recipe.model_dump(by_alias=True), **changes})


def test_the_map_is_that_of_the_models_that_were_scored(trained: RunDir) -> None:
    recipe = load(trained.recipe)
    one = cka_of(trained, recipe, "teacher", "student", images=12, batch=5, part="val")
    data = prepare(recipe)
    part = data.split.val
    drawn = part[np.linspace(0, len(part) - 1, min(12, len(part))).round().astype(int)]
    drawn = np.random.default_rng(0).permutation(drawn)
    expected = MinibatchCka()
    networks = [assemble(recipe, name, data.task) for name in ("teacher", "student")]
    for name, network in zip(("teacher", "student"), networks, strict=True):
        load_weights(network, trained.weights(name))
    used = 0
    for start in range(0, len(drawn), 5):
        pixels = np.stack([center_crop(data.store[int(i)], 16) for i in drawn[start : start + 5]])
        if len(pixels) >= 4:
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
            expected.add(*(layer_grams(network, images)[1] for network in networks))
            used += len(pixels)
    assert np.allclose(one.matrix, expected.matrix(), atol=1e-5)
    assert one.images == used
    assert one.layers_first == [f"s{s}.{i}" for s in (1, 2, 3) for i in range(3)] + ["fc"]
    assert one.kinds_first[-2:] == ["activation", "linear"]
    assert one.deepest_features == (8, 8)
    assert not trained.cka("teacher", "student").exists()


def test_a_pair_is_the_other_way_round_transposed_and_itself_is_one(run: RunDir) -> None:
    recipe = load(run.recipe)
    pairs = [("teacher", "student"), ("student", "teacher"), ("student", "student")]
    ours, theirs, same = analyze(run, recipe, pairs, images=20, batch=10)
    assert np.allclose(ours.matrix, np.transpose(theirs.matrix))
    assert np.allclose(np.diag(same.matrix), 1)
    assert same.layers_first == same.layers_second
    assert ours == cka_of(run, recipe, "teacher", "student", 20, 10)


def test_what_is_up_to_date_is_not_computed_again(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load(run.recipe)
    (first,) = analyze(run, recipe, images=12, batch=6)
    path = run.cka("teacher", "student")
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(analysis, "prepare", lambda _: pytest.fail("computed again"))
        assert analyze(run, recipe, images=12, batch=6) == [first]
    assert CkaMap.model_validate_json(before) == first
    path.write_text("{torn", encoding="utf-8")
    assert analyze(run, recipe, images=12, batch=6) == [first]
    assert path.read_bytes() == before  # the same figures in the same bytes
    assert analyze(run, recipe, images=12, batch=12)[0].batch == 12  # other settings
    change_weights(run.weights("student"))
    (again,) = analyze(run, recipe, images=12, batch=12)
    assert again.sha256_second == sha256(run.weights("student")) != first.sha256_second
    assert again.matrix != first.matrix


def change_weights(path: Path) -> None:
    state = read_weights(path)
    save_file({name: value + (name == "s1.0.weight") for name, value in state.items()}, path)


def test_a_last_batch_that_is_too_small_is_left_out_and_said(run: RunDir, ran: Ran) -> None:
    code, _, err = ran(str(run.root), "--images", "11", "--batch", "8")
    assert code == 0
    assert "the last 3 of 11 images are left out" in err
    stored = CkaMap.model_validate_json(run.cka("teacher", "student").read_text())
    assert (stored.images, stored.asked) == (8, 11)


def test_images_are_drawn_evenly_and_mixed() -> None:
    batches = analysis._batches(np.arange(100, 200), 10, 5, "test")
    drawn = np.concatenate(batches)
    assert sorted(drawn) == [100, 111, 122, 133, 144, 155, 166, 177, 188, 199]
    assert sorted(drawn) != drawn.tolist()
    assert [len(one) for one in batches] == [5, 5]
    assert len(np.unique(np.concatenate(analysis._batches(np.arange(30), 99, 7, "test")))) == 28
    with pytest.raises(DataError, match="the test part has 3 images"):
        analysis._batches(np.arange(3), 10, 5, "test")


def test_the_command_says_the_figures_and_json_says_where_they_are(run: RunDir, ran: Ran) -> None:
    code, out, err = ran(str(run.root), "--images", "16")
    assert code == 0
    assert "cka of teacher (10 layers) and student (10 layers) on 16 test images" in err
    assert re.search(r"teacher, student +10 x 10 +16 test +s3.2, s3.2 +-?\d\.\d{3}", out)
    code, out, err = ran(str(run.root), "--images", "16", "--json")
    assert code == 0
    assert "cka of teacher and student: already there" in err
    (found,) = json.loads(out)["cka"]
    stored = CkaMap.model_validate_json(Path(found["file"]).read_text(encoding="utf-8"))
    assert found["layers"] == [10, 10]
    assert found["deepest_features"] == {"first": "s3.2", "second": "s3.2",
                                         "cka": stored.matrix[8][8]}  # fmt: skip
    assert found["nearest"]["cka"] == max(v for v in stored.matrix[8] if v is not None)


def test_the_pairs_and_settings_of_the_recipe(trained: RunDir) -> None:
    assert pairs_of(load(trained.recipe)) == [("teacher", "student")]
    wanted = {"cka": [["student", "teacher"]], "images": 9, "batch": 9, "part": "train"}
    recipe = recipe_of(trained, analysis=wanted)
    assert pairs_of(recipe) == [("student", "teacher")]
    without = recipe_of(trained, export={"model": "student"})
    with pytest.raises(EdgekdError, match="teacher, student, idle") as raised:
        pairs_of(without)
    assert raised.value.hint == "--cka teacher,student"


def test_the_recipes_settings_hold_unless_told_otherwise(run: RunDir) -> None:
    wanted = {"cka": [["student", "teacher"]], "images": 9, "batch": 9, "part": "train"}
    (one,) = analyze(run, recipe_of(run, analysis=wanted), batch=8, images=8)
    assert (one.first, one.part, one.asked, one.batch) == ("student", "train", 8, 8)


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--cka", "teacher,studnet"], "there is no model 'studnet'", "did you mean 'student'?"),
        (["--cka", "teacher"], "--cka teacher: expected two models", "--cka teacher,student"),
        (["--cka", "teacher,idle"], "has no weights of 'idle'", "it has student, teacher"),
        (["--part", "tset"], "part 'tset': expected train, val or test", ""),
        (["--batch", "3"], "--batch", ""),
    ],
)
def test_a_mistake_is_one_clear_line(
    trained: RunDir, ran: Ran, arguments: list[str], message: str, hint: str
) -> None:
    code, out, err = ran(str(trained.root), *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert hint in err
    assert not (trained.root / "analysis").exists()


def test_a_folder_that_is_no_run(tmp_path: Path, ran: Ran) -> None:
    for folder, message in ((tmp_path, "is not a run"), (tmp_path / "nowhere", "no such run")):
        code, _, err = ran(str(folder))
        assert code == 2
        assert message in err


def test_an_onnx_teacher_has_no_layers_to_look_at(run: RunDir) -> None:
    recipe = load(run.recipe)
    file = recipe.models["teacher"].model_copy(update={"arch": "onnx:teacher.onnx"})
    recipe = recipe.model_copy(update={"models": {**recipe.models, "teacher": file}})
    with pytest.raises(EdgekdError, match="'teacher' is an ONNX file"):
        analyze(run, recipe)


def test_other_data_than_the_runs_are_refused(run: RunDir) -> None:
    known = json.loads(run.environment.read_text(encoding="utf-8"))
    run.environment.write_text(json.dumps({**known, "data": "other"}), encoding="utf-8")
    with pytest.raises(DataError, match="no longer those that"):
        analyze(run, load(run.recipe))
