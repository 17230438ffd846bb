"""`hardware.compile`: the same numbers, few graphs, and a clear word where it cannot be used."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekd.cli import main
from edgekd.errors import RecipeError
from edgekd.models.build import build_network
from edgekd.models.network import Network
from edgekd.recipe import ModelSpec
from edgekd.recipe_load import load
from edgekd.rundir import RunDir
from edgekd.train import hardware, loop
from edgekd.train.checkpoint import save_weights
from edgekd.train.run import distill
from tests import tiny

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler here"
)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is compiled here is found by the next run here and stays nowhere else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        patch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
        yield
    torch.compiler.reset()


SMALL = """
from torch import nn


def build(num_classes, width):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 4, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes),
    )
"""


def one_stage(folder: Path) -> Path:
    """Distillation with a tap from a teacher in a file; its last batch is smaller."""
    tree = tiny.tree(folder, params={"images": 147, "size": 32}, batch=16)
    (folder / "nets.py").write_text(SMALL, encoding="utf-8")
    for model in tree["models"].values():
        model["taps"] = {"s1": "2"}
    tree["stages"]["distill"]["losses"]["fitnet"]["params"] = {"tap": "s1"}
    network = build_network(ModelSpec.model_validate(tree["models"]["teacher"]), outputs=4)
    save_weights(network.net, folder / "teacher.safetensors")
    tree["models"]["teacher"]["pretrained"] = str(folder / "teacher.safetensors")
    del tree["stages"]["teacher"]
    tree["stages"]["distill"]["epochs"] = 2
    return tiny.write(folder, tree)


@needs_compiler
def test_it_gives_the_same_numbers_from_few_graphs_also_when_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torch._dynamo.utils import counters

    path = one_stage(tmp_path)

    def train(name: str, *overrides: str) -> list[dict[str, Any]]:
        run = RunDir(tmp_path / name / "run")
        distill(load(path, overrides=overrides), run)
        text = (run.stage("distill") / "metrics.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    plain = train("plain")
    assert plain[0]["train_images"] % 16 > 1
    counters.clear()
    original = loop._Run.step

    def stop(self: Any, *arguments: Any) -> Any:
        if arguments[3:5] == (2, 3):  # epoch, step
            raise KeyboardInterrupt
        return original(self, *arguments)

    use = ("hardware.compile=true", "hardware.checkpoint_every_s=1e-9")
    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            train("compiled", *use)
    compiled = train("compiled", *use)
    said = capsys.readouterr().err
    assert "compiling student, teacher" in said
    assert "resuming at epoch 2, step 3" in said
    for one, other in zip(plain, compiled, strict=True):
        assert one["terms"] == pytest.approx(other["terms"], rel=5e-3)
        assert one["val"]["student"]["nll"] == pytest.approx(other["val"]["student"]["nll"], 1e-3)
    # student in training, student when scored, teacher; before and after the interruption
    assert 0 < counters["frames"]["total"] == counters["frames"]["ok"] <= 8
    assert not counters["graph_break"]


def test_a_machine_without_a_compiler_is_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = one_stage(tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert main(["doctor", str(path), "hardware.compile=true"]) == 4
    message = capsys.readouterr().err
    assert "there is no 'no-such-compiler' here" in message
    assert "hardware.compile=false" in message


@torch.library.custom_op("edgekd_tests::opaque", mutates_args=())
def opaque(x: Tensor) -> Tensor:
    """An operator of which torch.compile knows nothing, as compiled extensions have them."""
    return x.mean((2, 3))


class Opaque(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return opaque(x)


@needs_compiler
def test_a_network_that_cannot_be_compiled_is_named_before_training() -> None:
    networks = {"odd": Network(Opaque())}
    images = torch.rand(4, 3, 8, 8)
    with pytest.raises(RecipeError, match=r"cannot compile 'odd': .*opaque") as caught:
        hardware.check_compile(networks, images, torch.device("cpu"))
    assert caught.value.hint == "hardware.compile=false"


def test_a_network_that_fails_in_its_first_batch_is_named_too() -> None:
    networks = {"odd": Network(Opaque())}
    spec = hardware.HardwareSpec(compile=True)
    with (
        hardware.compiled(networks, "stages.x", spec),
        pytest.raises(RecipeError, match="cannot compile 'odd'"),
    ):
        networks["odd"](torch.rand(4, 3, 8, 8))
