"""Several processes train one stage: what they give is what one process gives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from edgekd.errors import RecipeError
from edgekd.recipe import HardwareSpec
from edgekd.recipe_load import validate
from edgekd.results import Predictions
from edgekd.rundir import RunDir
from edgekd.train.run import distill
from edgekd.train.together import Ranks, check_several, is_follower
from tests.tiny import tree

ROOT = Path(__file__).parents[2]
NETS = """
import torch
from torch import nn


def block(a, b):  # no BatchNorm: it goes by the images of one process
    return nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(2, b), nn.ReLU())


class Net(nn.Module):
    def __init__(self, num_classes, width):
        super().__init__()
        self.s1, self.s2 = block(3, width), block(width, 2 * width)
        self.s3 = block(2 * width, 4 * width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes)

    def forward(self, x):
        return self.fc(self.pool(self.s3(self.s2(self.s1(x)))).flatten(1))


def build(num_classes, width=8):
    return Net(num_classes, width)
"""


def recipe_tree(folder: Path, epochs: int = 2) -> dict[str, Any]:
    """Terms that couple the images of a batch, and means; the last batch is uneven."""
    made = tree(folder, batch=15)
    (folder / "nets.py").write_text(NETS, encoding="utf-8")
    made["stages"] = {
        "teacher": {"train": ["teacher"], "losses": {"ce": {"to": "teacher"}}, "epochs": 1},
        "distill": {
            "train": ["student"],
            "frozen": ["teacher"],
            "losses": {
                "ce": {"to": "student", "params": {"class_weights": "balanced"}},
                "kd": {"from": "teacher", "to": "student"},
                "rkd": {"from": "teacher", "to": "student", "weight": 0.1},
                "sp": {"from": "teacher", "to": "student", "params": {"tap": "s3"}},
                "fitnet": {"from": "teacher", "to": "student", "params": {"tap": "s2"}},
            },
            "epochs": epochs,
        },
    }
    made["hardware"] = {"accelerator": "cpu", "checkpoint_every_s": 0.05}
    for key in ("variants", "seeds", "baseline"):
        made.pop(key, None)
    return made


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgekd", "distill", str(folder / "r.yaml"), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def rows(run: RunDir, stage: str) -> list[dict[str, Any]]:
    lines = (run.stage(stage) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_two_processes_train_and_score_as_one_does_also_after_a_kill(tmp_path: Path) -> None:
    written = recipe_tree(tmp_path)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
    one, two = RunDir(tmp_path / "one"), RunDir(tmp_path / "two")
    distill(validate(written, "tiny"), one)
    words = ("hardware.devices=2", "--out", str(two.root))
    first = start(tmp_path, *words)
    begun = two.stage("distill") / "last"
    for _ in range(1200):  # killed in the middle of the second stage
        if begun.exists() or first.poll() is not None:
            break
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = start(tmp_path, *words)
    printed, said = second.communicate(timeout=300)
    assert second.returncode == 0, said
    assert printed == f"{two.root}\n"  # one of the two speaks
    assert said.count("student: accuracy") == 1
    for stage in ("teacher", "distill"):
        for alone, together in zip(rows(one, stage), rows(two, stage), strict=True):
            assert together["train_images"] == alone["train_images"]
            assert together["loss"] == pytest.approx(alone["loss"], rel=1e-5)
            assert together["terms"] == pytest.approx(alone["terms"], rel=1e-4, abs=1e-7)
            assert together["val"].keys() == alone["val"].keys()
    for part in ("val", "test"):
        alone, together = (Predictions.load(r.predictions("student", part)) for r in (one, two))
        assert together.ids == alone.ids  # nobody counts twice
        np.testing.assert_allclose(together.logits, alone.logits, rtol=1e-3, atol=1e-4)


def test_every_image_of_a_batch_is_somebodys() -> None:
    batches = [np.arange(15), np.arange(100, 107), np.arange(3)]
    plan = Ranks(0, 2).plan(batches)
    assert [len(batch) for batch in plan] == [15, 7]  # the last has too few for two
    mine = [Ranks(rank, 2).mine(plan) for rank in (0, 1)]
    for whole, *parts in zip(plan, *mine, strict=True):
        assert np.concatenate(parts).tolist() == whole.tolist()
        assert tuple(map(len, parts)) == Ranks(0, 2).shares(len(whole))


def test_one_process_takes_everything_as_it_is() -> None:
    batches = [np.arange(15), np.arange(3)]
    assert Ranks().plan(batches) == batches
    assert not Ranks().agree(False, torch.device("cpu"))
    assert Ranks().agree(True, torch.device("cpu"))


def test_the_first_process_leads_and_the_others_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    several = HardwareSpec(devices=2)
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert not is_follower(several)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert is_follower(several)
    assert not is_follower(HardwareSpec())  # one of many independent runs on a cluster


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("quantize", "int8", r"stages\.distill\.quantize: not on several devices"),
        ("data", {"views": "rotations"}, r"stages\.distill\.data\.views: not on several devices"),
    ],
)
def test_what_one_process_must_do_by_itself_is_refused(
    tmp_path: Path, key: str, value: Any, message: str
) -> None:
    written = recipe_tree(tmp_path)
    written["stages"]["distill"][key] = value
    written["hardware"]["devices"] = 2
    with pytest.raises(RecipeError, match=message):
        check_several(validate(written, "tiny"))


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    written = recipe_tree(tmp_path)
    written["hardware"]["devices"] = 8
    with pytest.raises(RecipeError, match="two images or more for each device"):
        check_several(validate(written, "tiny"))


def test_an_unknown_strategy_is_refused(tmp_path: Path) -> None:
    written = recipe_tree(tmp_path)
    written["hardware"]["strategy"] = "fsdp"
    with pytest.raises(RecipeError, match="'fsdp' is not one of auto, ddp"):
        distill(validate(written, "tiny"), RunDir(tmp_path / "run"))
