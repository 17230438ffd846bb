"""A model that begins where another ended, and a memory that begins at the class means."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from edgekd.errors import CheckpointError, RecipeError
from edgekd.models.oltr import OltrHead
from edgekd.recipe import Recipe
from edgekd.recipe_load import validate
from edgekd.rundir import RunDir
from edgekd.train.feeding import stage_feed
from edgekd.train.run import distill
from edgekd.train.setup import networks_of, prepare
from edgekd.train.starting import start_memory
from tests.tiny import tree

TIMM = {"arch": "timm:resnet10t", "args": {"channels": [4, 4, 8, 8], "stem_width": 4}}


def written(folder: Path) -> dict[str, Any]:
    made = tree(folder)
    made["task"] = {"name": "multilabel"}
    made["data"] = {"name": "synthetic_labels", "params": {"images": 240, "size": 32},
                    "input": {"size": 32}, "batch": 16}  # fmt: skip
    made["models"] = {"plain": TIMM, "student": {**TIMM, "head": "oltr", "start": "plain"}}
    made["stages"] = {
        "plain": {"train": "plain", "losses": {"bce": {"to": "plain"}}},
        "distill": {
            "train": "student",
            "losses": {"bce": {"to": "student"}, "oltr": {"to": "student"}},
        },
    }
    made["export"] = {"make": ["onnx-fp32"]}
    for key in ("variants", "seeds", "baseline"):
        made.pop(key, None)
    return made


def recipe(folder: Path) -> Recipe:
    return validate(written(folder), "tiny")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("start")
    found = RunDir(folder / "run")
    distill(recipe(folder), found)
    return found


def test_all_but_the_classifier_begins_with_the_other_models_weights(
    run: RunDir, tmp_path: Path
) -> None:
    made = recipe(tmp_path)
    data = prepare(made)
    student = networks_of(made, run, data.task, "distill", ["student"])["student"].net
    before = load_file(run.stage("plain") / "plain.safetensors")
    own = student.state_dict()
    body = [key for key in own if not key.startswith("fc.")]
    assert body
    assert all(torch.equal(own[key], before[key]) for key in body)
    # as in OLTR's code, what chooses from the memory begins as the classifier
    assert torch.equal(own["fc.hallucinator.weight"], before["fc.weight"])
    assert not torch.equal(own["fc.weight"], before["fc.weight"])


def test_centroids_begin_at_the_mean_feature_of_each_classs_images(
    run: RunDir, tmp_path: Path
) -> None:
    made = recipe(tmp_path)
    data = prepare(made)
    network = networks_of(made, run, data.task, "distill", ["student"])["student"]
    feed = stage_feed(made, data, made.stages["distill"], "distill")
    start_memory(network, feed, made.data.input, 12)
    network.eval()
    head = next(m for m in network.modules() if isinstance(m, OltrHead))
    for label in (0, 5):
        rows = [i for i in feed.indices if data.source.labels()[i, label] == 1]
        images = torch.stack([torch.tensor(data.store[i]).permute(2, 0, 1) / 255 for i in rows])
        with torch.no_grad():
            maps = network.net.forward_features((images - network.mean) / network.std)
        torch.testing.assert_close(head.centroids[label], maps.mean(dim=(2, 3)).mean(dim=0))


def test_a_memory_is_exported_with_the_network(run: RunDir) -> None:
    from edgekd.errors import GateFailed
    from edgekd.export.make import export

    with contextlib.suppress(GateFailed):  # so few test images may leave a gate undecided
        export(run.root)
    from edgekd.bundle import read_manifest

    parity = read_manifest(run.bundle).artifacts["onnx-fp32"].gate
    assert parity is not None
    assert {check.verdict for check in parity.checks if check.name == "parity"} == {"passed"}


def test_a_start_that_no_stage_has_trained_before_is_refused(tmp_path: Path) -> None:
    made = written(tmp_path)
    made["stages"] = dict(reversed(made["stages"].items()))
    with pytest.raises(RecipeError, match=r"models\.student\.start: no stage before the first one"):
        validate(made, "tiny")
    made["models"]["student"]["start"] = "plian"
    with pytest.raises(RecipeError, match="did you mean 'plain'"):
        validate(made, "tiny")


def test_another_architecture_cannot_be_begun_with(run: RunDir, tmp_path: Path) -> None:
    made = written(tmp_path)
    wider = {"channels": [8, 8, 8, 8], "stem_width": 4}
    made["models"]["student"] = {**made["models"]["student"], "args": wider}
    with pytest.raises(CheckpointError, match="plain is of another architecture"):
        networks_of(validate(made, "tiny"), run, prepare(recipe(tmp_path)).task, "distill",
                    ["student"])  # fmt: skip


def test_pretrained_weights_and_a_start_exclude_each_other(tmp_path: Path) -> None:
    made = written(tmp_path)
    made["models"]["student"]["pretrained"] = True
    with pytest.raises(RecipeError, match="`start` takes the place of `pretrained`"):
        validate(made, "tiny")
