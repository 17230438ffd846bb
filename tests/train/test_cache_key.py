"""A cached answer is served for what was asked and for nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from edgekd.recipe_load import load
from edgekd.train import cache_build
from tests import tiny
from tests.tiny_onnx import write_classifier
from tests.train.cached import Opened, recipe_of, tree

Said = Callable[[], str]


@pytest.mark.parametrize(
    "override",
    ["stages.distill.epochs=7", "stages.distill.losses.kd.weight=2", "models.student.args.width=8",
     "task.name=classification", "hardware.compile=true"],
)  # fmt: skip
def test_what_changes_no_answer_finds_the_views_again(
    first: tuple[Path, Opened], said: Said, override: str
) -> None:
    folder, opened = first
    said()
    again = Opened(recipe_of(folder, override, views=2), folder / "runs")
    assert "2 views of 43 images: 0 computed, 2 found" in said()
    index = opened.feed.indices[3:5]
    for name in ("logits", "pooled"):
        ours, theirs = (o.feed.known(index, 2)["teacher"][name] for o in (opened, again))
        assert torch.equal(ours, theirs)


def test_more_views_are_added_to_those_that_are_there(tmp_path: Path, said: Said) -> None:
    Opened(recipe_of(tmp_path, views=1), tmp_path / "runs")
    said()
    Opened(recipe_of(tmp_path, views=3), tmp_path / "runs")
    assert "2 computed, 1 found" in said()


@pytest.mark.parametrize(
    "override",
    [
        "seed=2",
        "data.params.seed=1",
        "data.params.noise=0.2",
        "data.input={size: 24, resize: 32}",
        "data.augment=[hflip]",
        "data.augment=[hflip, color-jitter:0.1]",
        "data.batch=8",
        "data.split=7-2-1",
        "data.limit=50",
        "stages.distill.data.fraction=0.5",
        "models.teacher.args.width=8",
        "models.teacher.mean=[0.5, 0.5, 0.5]",
        "models.teacher.taps.last=s3",
        "hardware.precision=bf16-mixed",
        "hardware.channels_last=false",
        "stages.distill.losses.pooled=null",
    ],
)
def test_anything_that_changes_an_answer_changes_the_key(
    first: tuple[Path, Opened], tmp_path: Path, said: Said, override: str
) -> None:
    folder, _ = first
    (tmp_path / ".teacher-cache").symlink_to(folder / "runs" / ".teacher-cache")
    said()
    Opened(recipe_of(folder, override, views=2), tmp_path)
    assert "2 computed, 0 found" in said()


def test_a_teacher_with_other_weights_is_another_teacher(
    first: tuple[Path, Opened], said: Said
) -> None:
    folder, opened = first
    said()
    moved = Opened(recipe_of(folder, views=2), folder / "runs", nudge=0.5)
    assert "2 computed, 0 found" in said()
    index = opened.feed.indices[:4]
    difference = (
        moved.feed.known(index, 1)["teacher"]["logits"]
        - opened.feed.known(index, 1)["teacher"]["logits"]
    )
    torch.testing.assert_close(difference[:, 0], torch.full((4,), 0.5), atol=1e-4, rtol=1e-4)


def test_an_edited_network_or_plug_in_file_is_noticed(tmp_path: Path, said: Said) -> None:
    recipe = recipe_of(tmp_path)
    Opened(recipe, tmp_path / "runs")
    for file, old, new in (
        ("nets.py", "ReLU", "GELU"),
        ("losses/pooled.py", "near +", "2 * near +"),
    ):
        text = (tmp_path / file).read_text(encoding="utf-8")
        (tmp_path / file).write_text(text.replace(old, new), encoding="utf-8")
        said()
        Opened(recipe, tmp_path / "runs")
        assert "3 computed, 0 found" in said(), file


SOURCE = """
import numpy as np

from edgekd.data.base import DataSource, Sample


class Mine(DataSource):
    classes = ("a", "b")

    def __len__(self):
        return 40

    def __getitem__(self, index):
        image = np.full((32, 32, 3), 100 + 3 * index, dtype=np.uint8)
        return Sample(image, index % 2, str(index), str(index))

    def targets(self):
        return np.arange(40) % 2

    def ids(self):
        return [str(index) for index in range(40)]

    groups = ids
"""


def test_an_edited_data_source_is_noticed(tmp_path: Path, said: Said) -> None:
    """Its files, labels and groups are the same; only the pixels that it makes differ."""
    given = tree(tmp_path)
    given["data"] |= {"name": "mine", "params": {}, "split": "8-1-1"}
    (tmp_path / "data").mkdir()
    given["plugins"].append(str(tmp_path / "data"))
    for source in (SOURCE, SOURCE.replace("3 * index", "2 * index")):
        (tmp_path / "data" / "mine.py").write_text(source, encoding="utf-8")
        said()
        Opened(load(tiny.write(tmp_path, given)), tmp_path / "runs")
        assert "3 computed, 0 found" in said()


def test_a_changed_image_file_is_noticed(tmp_path: Path, said: Said) -> None:
    given = tree(tmp_path)
    given["data"] |= {"name": "folder", "params": {}, "split": "8-1-1", "root": str(tmp_path / "x")}
    for number in range(40):
        path = tmp_path / "x" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (5 * number, 90, 120)).save(path)
    recipe = load(tiny.write(tmp_path, given))
    Opened(recipe, tmp_path / "runs")
    said()
    Opened(recipe, tmp_path / "runs")
    assert "0 computed, 3 found" in said()
    Image.new("RGB", (32, 32), (0, 90, 255)).save(path)
    Opened(recipe, tmp_path / "runs")
    assert "3 computed, 0 found" in said()


def test_another_library_version_is_not_believed(
    first: tuple[Path, Opened], monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    folder, _ = first
    monkeypatch.setattr(cache_build, "version", lambda package: "9.9")
    said()
    Opened(recipe_of(folder, views=2), folder / "runs")
    assert "2 computed, 0 found" in said()


def test_an_onnx_teacher_is_known_by_its_file(tmp_path: Path, said: Said) -> None:
    given = tree(tmp_path)
    del given["stages"]["distill"]["losses"]["pooled"]
    path = tmp_path / "teacher.onnx"
    given["models"]["teacher"] = {"arch": f"onnx:{path}"}
    given["stages"].pop("teacher")
    given["export"]["reference"] = None
    found = []
    for seed in (1, 1, 2):
        write_classifier(path, size=32, classes=4, seed=seed)
        opened = Opened(load(tiny.write(tmp_path, given)), tmp_path / "runs")
        found.append("0 found" not in said())
        assert opened.feed.known(opened.feed.indices[:3], 1)["teacher"]["logits"].shape == (3, 4)
    assert found == [False, True, False]


def test_what_no_key_can_know_is_found_by_computing_a_few_entries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    monkeypatch.setattr(cache_build, "teacher_key", lambda *_: "key")
    recipe = recipe_of(tmp_path)
    Opened(recipe, tmp_path / "runs")
    said()
    moved = Opened(recipe, tmp_path / "runs", nudge=0.5)
    assert "'teacher' no longer says what was cached" in (text := said())
    assert "3 computed, 0 found" in text
    indices = moved.feed.indices[:8]
    with torch.no_grad():
        now = moved.distiller.ask("teacher", moved.batch(indices, 1).images).logits
    known = moved.feed.known(torch.from_numpy(indices), 1)["teacher"]["logits"]
    torch.testing.assert_close(known, now, rtol=1e-4, atol=1e-5)


def test_fresh_computes_all_views_again(first: tuple[Path, Opened], said: Said) -> None:
    folder, _ = first
    said()
    Opened(recipe_of(folder, views=2), folder / "runs", fresh=True)
    assert "2 computed, 0 found" in said()
