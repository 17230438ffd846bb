"""What a recipe of UMKD may get wrong, told before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.cli import main
from tests import tiny

EXPERTS = ["expert_a", "expert_b"]


@pytest.fixture(autouse=True)
def no_trial_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekd.doctor._try_export", lambda *_: None)


def recipe(folder: Path, losses: dict[str, Any], experts: list[str] = EXPERTS) -> dict[str, Any]:
    """Two tiny experts and a student on images of 32 pixels: s1 has 16x16, `last` 4x4."""
    tree = tiny.tree(folder, params={"images": 60, "size": 32})
    teacher = tree["models"].pop("teacher")
    tree["stages"].pop("teacher")
    stages: dict[str, Any] = {}
    for name in experts:
        tree["models"][name] = dict(teacher)
        stages[name] = {"train": [name], "losses": {"ce": {"to": name}}}
    terms = {name: {"from": experts, "to": "student", **term} for name, term in losses.items()}
    distill = {"train": ["student"], "frozen": experts}
    stages["distill"] = {**distill, "losses": {"ce": {"to": "student"}, **terms}}
    tree["stages"] = stages
    tree["export"]["reference"] = experts[0]
    return tree


def doctor(folder: Path, tree: dict[str, Any], *overrides: str) -> int:
    return main(["doctor", str(tiny.write(folder, tree)), *overrides])


UMKD: dict[str, Any] = {
    "sfa": {"loss": "common_features", "params": {"tap": "s1", "filter": "low_pass", "hidden": 8}},
    "cfa": {"loss": "common_features", "params": {"tap": "s3", "hidden": 8}},
    "udd": {},
}


@pytest.mark.parametrize("experts", [EXPERTS, ["expert_a"], [*EXPERTS, "expert_c"]])
def test_one_two_or_three_experts_dry_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], experts: list[str]
) -> None:
    assert doctor(tmp_path, recipe(tmp_path, UMKD, experts)) == 0
    assert "terms ce, sfa, cfa, udd" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"udd": {"params": {"windows": [1, 2, 8]}}},
         "udd: a window of 8x8 cells does not fit the last map of 4x4"),
        ({"sdd": {"params": {"windows": [1, 5]}}}, "sdd: a window of 5x5 cells does not fit"),
        ({"udd": {"params": {"windows": []}}}, "losses.udd.params: windows must be different"),
        ({"sdd": {"params": {"windows": [2, 4]}}}, "windows must begin with 1, the whole image"),
        ({"udd": {"params": {"variant": "offical"}}}, "udd.params.variant: Input should be"),
        ({"cfa": {"loss": "common_features", "params": {"tap": "s9"}}}, "has no tap 's9'"),
        ({"cfa": {"loss": "common_features", "params": {"tap": "s3", "filter": "low_pass"}}},
         "6 bins do not fit the map of 4x4 at tap 's3'"),
        ({"cfa": {"loss": "common_features", "params": {"tap": "s1", "tap_activation": "pre"}}},
         "has no tap 's1.pre'"),
        ({"rkd": {"params": {"chunk": 0}}}, "losses.rkd.params: chunk must be at least 1"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], losses: dict[str, Any], message: str
) -> None:
    assert doctor(tmp_path, recipe(tmp_path, losses)) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in said
    assert message in said


def test_an_expert_whose_maps_have_another_size_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = recipe(tmp_path, {"cfa": UMKD["cfa"]})
    tree["models"]["expert_b"]["taps"] = {**tree["models"]["expert_b"]["taps"], "s3": "s2"}
    assert doctor(tmp_path, tree) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "at tap 's3' the student's map is 4x4, an expert's 8x8" in said
    assert "choose another `tap`" in said


def test_an_expert_of_other_classes_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = recipe(tmp_path, {"udd": {}})
    fixed = "def build_seven(width=16):\n    return Net(7, width)\n"
    (tmp_path / "nets.py").write_text(tiny.NETS + fixed, encoding="utf-8")
    tree["models"]["expert_b"]["arch"] = f"file:{tmp_path / 'nets.py'}:build_seven"
    assert doctor(tmp_path, tree) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "'expert_b' returns (2, 7) for 2 images, expected logits of shape (2, 4)" in said


def test_two_classes_warn_that_a_part_of_dkd_is_always_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    official = {"params": {"variant": "official"}}
    tree = recipe(tmp_path, {"dkd": {}, "sdd": {}, "udd": official})
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 40), ("val", 10), ("test", 10)):
        arrays[f"{part}_images"] = random.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays)
    tree["data"] |= {"name": "medmnist", "params": {}, "root": str(tmp_path / "pneumoniamnist.npz")}
    assert doctor(tmp_path, tree) == 0
    said = " ".join(capsys.readouterr().err.split())
    for loss in ("dkd", "sdd", "udd"):
        assert f"warning: {loss}: with two classes NCKD is always 0" in said


def test_batches_of_one_image_train(tmp_path: Path) -> None:
    tree = recipe(tmp_path, {**UMKD, "rkd": {}, "sdd": {}})
    tree["data"] |= {"batch": 1, "limit": 30, "augment": []}
    for stage in tree["stages"].values():
        stage["epochs"] = 1
    assert main(["distill", str(tiny.write(tmp_path, tree)), "--out", str(tmp_path / "run")]) == 0
