"""Checkpoints of other people's training scripts: what is accepted, and what is said if not."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgekd.cli import main
from edgekd.errors import CheckpointError
from edgekd.models.build import build_network
from edgekd.models.network import Network
from edgekd.models.weights import load_weights
from edgekd.recipe import ModelSpec, Recipe
from edgekd.train.stages import learns_first
from tests import tiny


def network(classes: int = 3) -> Network:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, classes))
    return Network(net)


def prefixed(prefix: str) -> dict[str, Any]:
    return {f"{prefix}{key}": value for key, value in network().net.state_dict().items()}


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "net.", "module._orig_mod."])
def test_usual_wrappers_are_seen_through(tmp_path: Path, prefix: str, wrapper: str | None) -> None:
    torch.manual_seed(1)
    expected, found = network(), network()
    state = {f"{prefix}{key}": value for key, value in expected.net.state_dict().items()}
    contents = state if wrapper is None else {wrapper: state, "epoch": 7, "optimizer": {"lr": 0.1}}
    torch.save(contents, tmp_path / "w.pth")
    load_weights(found, tmp_path / "w.pth")
    torch.testing.assert_close(found.net.state_dict(), expected.net.state_dict())


def test_a_prefix_that_is_the_networks_own_stays(tmp_path: Path) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(2, 3)

    first, second = Network(Wrapped()), Network(Wrapped())
    torch.save(first.net.state_dict(), tmp_path / "w.pth")
    load_weights(second, tmp_path / "w.pth")
    torch.testing.assert_close(second.net.state_dict(), first.net.state_dict())


def write(path: Path, kind: str) -> None:
    if kind == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1", encoding="utf-8")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"weight": 1}))
    else:
        whole = network().net
        contents = {
            "whole": whole,
            "whole inside": {"state_dict": whole},
            "unknown key": {"net": whole.state_dict(), "epoch": 7},
            "half a prefix": {**prefixed("net."), "criterion.weight": torch.ones(3)},
        }
        torch.save(contents[kind], path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", "is not a weights file"),
        ("pickle", r"cannot be read as weights \(tensors only\)$"),
        ("whole", "holds a pickled torch.nn.modules.container.Sequential"),
        ("whole inside", "holds a pickled torch.nn.modules.container.Sequential"),
        ("unknown key", r"found 'net' \(OrderedDict\), 'epoch' \(int\)"),
        ("half a prefix", r"0.weight is not in the file, but (net.0.weight|criterion.weight) is"),
    ],
)
def test_anything_else_is_one_clear_line(tmp_path: Path, kind: str, message: str) -> None:
    write(tmp_path / "w.pth", kind)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(network(), tmp_path / "w.pth")
    assert "\n" not in caught.value.message
    assert "weights_only" not in caught.value.message
    assert "\x1b" not in caught.value.message


def test_a_classifier_of_other_classes_is_refused_where_nobody_would_train_it(
    tmp_path: Path,
) -> None:
    torch.save(network(7).net.state_dict(), tmp_path / "seven.pth")
    with pytest.raises(CheckpointError, match="has 7 outputs, the data has 3 classes"):
        load_weights(network(3), tmp_path / "seven.pth")
    load_weights(network(3), tmp_path / "seven.pth", new_head=True)


def test_a_frozen_teacher_must_know_the_classes_of_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny.tree(tmp_path)
    teacher = recipe["models"]["teacher"]
    seven = build_network(ModelSpec.model_validate(teacher), outputs=7)
    torch.save(seven.net.state_dict(), tmp_path / "seven.pth")
    teacher["pretrained"] = str(tmp_path / "seven.pth")
    assert learns_first(Recipe.model_validate(recipe), "teacher")
    del recipe["stages"]["teacher"]
    assert not learns_first(Recipe.model_validate(recipe), "teacher")
    assert main(["doctor", str(tiny.write(tmp_path, recipe))]) == 2
    assert "has 7 outputs, the data has 4 classes" in capsys.readouterr().err
