"""Teachers' outputs from files: the same numbers as live ones, never those of something else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgekd.cli import main
from edgekd.errors import RecipeError
from edgekd.losses.base import Batch, Clock
from edgekd.train.distiller import Distiller
from tests import tiny
from tests.train.cached import Opened, recipe_of, tree
from tests.train.test_resume import run_and_kill, weights

Said = Callable[[], str]


@pytest.fixture(autouse=True)
def no_trial_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekd.doctor._try_export", lambda *_: None)


# The same numbers


def test_with_a_view_per_epoch_a_cached_run_is_the_live_run(tmp_path: Path) -> None:
    path = tiny.write(tmp_path, tree(tmp_path, views=5))
    runs = tmp_path / "runs"
    for run, cache in (("cached", "{views: 5}"), ("live", "null")):
        command = ["distill", str(path), "--out", str(runs / run), f"stages.distill.cache={cache}"]
        assert main(command) == 0
    cached, live = (load_file(runs / run / "models/student.safetensors")
                    for run in ("cached", "live"))  # fmt: skip
    assert cached.keys() == live.keys()
    for name, values in cached.items():
        torch.testing.assert_close(values, live[name], rtol=1e-3, atol=1e-4)
    views = sorted(path.name for path in (runs / ".teacher-cache").glob("*/*.json"))
    assert views == ["view-1.json", "view-2.json", "view-3.json"]  # epochs, not views


def test_terms_from_files_are_those_of_a_live_step(first: tuple[Path, Opened]) -> None:
    _, opened = first
    runs = []
    hook = opened.distiller.networks["teacher"].register_forward_hook(lambda *_: runs.append(1))
    for epoch in (1, 2, 3):
        live = opened.batch(opened.feed.indices[5:21], epoch)
        known = opened.feed.known(torch.from_numpy(opened.feed.indices[5:21]), epoch)
        assert known["teacher"]["logits"].shape == (16, 4)
        assert known["teacher"]["pooled"].shape == (16, 64)
        values = []
        for batch in (live, Batch(live.images, live.targets, known)):
            torch.manual_seed(0)  # the student has dropout
            values.append(opened.distiller.train()(batch, Clock(epoch, 3, 0, 30)))
        assert list(values[0]) == ["ce", "kd", "dkd", "pooled"]
        for term, value in values[0].items():
            assert values[1][term].item() == pytest.approx(value.item(), rel=1e-5), term
    hook.remove()
    assert len(runs) == 3  # in the live steps only


def test_epochs_take_turns_over_the_views(first: tuple[Path, Opened]) -> None:
    _, opened = first
    assert [opened.feed.view(epoch) for epoch in range(1, 6)] == [1, 2, 1, 2, 1]
    assert [opened.live.view(epoch) for epoch in range(1, 6)] == [1, 2, 3, 4, 5]
    orders = [opened.feed.plan(opened.seed, epoch) for epoch in (1, 3)]
    assert not np.array_equal(np.concatenate(orders[0]), np.concatenate(orders[1]))


@pytest.mark.parametrize(
    "override",
    [
        "balance: true",
        "fraction: 0.5",
        "drop_last: true",
        "augment: [random-crop]",
        "labelled: 0.3",
    ],
)
def test_every_way_of_feeding_finds_its_rows(tmp_path: Path, override: str) -> None:
    opened = Opened(recipe_of(tmp_path, f"stages.distill.data={{{override}}}"), tmp_path / "runs")
    feed = opened.feed
    for indices in feed.plan(opened.seed, 2):
        known = feed.known(torch.from_numpy(indices), 2)["teacher"]
        with torch.no_grad():
            now = opened.distiller.ask("teacher", opened.batch(indices, 2).images)
        torch.testing.assert_close(known["logits"], now.logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(known["pooled"], now.taps["pooled"], rtol=1e-4, atol=1e-5)


def test_an_image_that_is_not_trained_on_has_no_row(first: tuple[Path, Opened]) -> None:
    _, opened = first
    with pytest.raises(IndexError):
        opened.feed.known(torch.from_numpy(opened.data.split.test[:2]), 1)


def test_mixed_precision_is_cached_as_it_is_trained(tmp_path: Path, said: Said) -> None:
    recipe = recipe_of(tmp_path, "hardware.precision=bf16-mixed")
    opened = Opened(recipe, tmp_path / "runs")
    indices = opened.feed.indices[:16]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        now = opened.distiller.ask("teacher", opened.batch(indices, 1).images)
    known = opened.feed.known(torch.from_numpy(indices), 1)["teacher"]["logits"]
    torch.testing.assert_close(known, now.logits, rtol=1e-5, atol=1e-5)
    said()
    Opened(recipe, tmp_path / "runs")
    assert "0 computed, 3 found" in said()


def test_a_killed_cached_run_continues_to_the_same_bits(tmp_path: Path) -> None:
    path = tiny.write(tmp_path, tree(tmp_path, views=2, images=120))
    whole, killed = tmp_path / "one" / "whole", tmp_path / "two" / "killed"
    assert main(["distill", str(path), "--out", str(whole)]) == 0
    assert run_and_kill(path, killed, 2, 2, signal.SIGKILL) == -signal.SIGKILL
    assert main(["distill", str(path), "--out", str(killed)]) == 0
    assert weights(killed) == weights(whole)


# The files


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "harm", "message"),
    [
        ("view-2.logits.npy", cut, "has"),
        ("view-2.logits.npy", alter, "is not what was written"),
        ("view-2.pooled.npy", Path.unlink, "No such file"),
        ("view-2.json", cut, "view 2 is damaged"),
    ],
)
def test_a_damaged_view_is_found_said_and_computed_again(
    tmp_path: Path, said: Said, file: str, harm: Any, message: str
) -> None:
    recipe = recipe_of(tmp_path)
    opened = Opened(recipe, tmp_path / "runs")
    (path,) = (tmp_path / "runs" / ".teacher-cache").glob(f"*/{file}")
    before = path.read_bytes()
    del opened  # its files are mapped into memory, and must not shrink under it
    harm(path)
    said()
    Opened(recipe, tmp_path / "runs")
    text = said()
    assert "view 2 is damaged" in text
    assert message in text
    assert "1 computed, 2 found" in text
    assert path.read_bytes() == before


def test_an_interrupted_command_goes_on_with_the_next_view(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    recipe = recipe_of(tmp_path)
    ask = Distiller.ask
    seen = []

    def interrupted(self: Distiller, name: str, images: torch.Tensor) -> Any:
        seen.append(name)
        if len(seen) == 5:  # the middle of the second view
            os.kill(os.getpid(), signal.SIGINT)
        return ask(self, name, images)

    with monkeypatch.context() as patch:
        patch.setattr(Distiller, "setup", lambda *_: None)  # it asks as well
        patch.setattr(Distiller, "ask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Opened(recipe, tmp_path / "runs")
    folder = next((tmp_path / "runs" / ".teacher-cache").glob("*/view-1.json")).parent
    names = {path.name for path in folder.iterdir()}
    assert names == {"view-1.json", "view-1.logits.npy", "view-1.pooled.npy"}
    (folder / ".view-2.logits.npy.abc.tmp").write_text("of a command that was killed")
    said()
    Opened(recipe, tmp_path / "runs")
    assert "2 computed, 1 found" in said()
    assert not list(folder.glob(".*"))


TOGETHER = """
import os, sys, time
from pathlib import Path
from edgekd.recipe_load import load
from edgekd.train import cache_build
from tests.train.cached import Opened

write = cache_build._Builder.write

def slow(self, *given):
    time.sleep(1.0)
    write(self, *given)

cache_build._Builder.write = slow
folder = Path(sys.argv[1])
recipe = load(folder / "tiny.yaml", overrides=["data.workers=1"])
(folder / "ready" / str(os.getpid())).touch()
until = time.monotonic() + 60
while len(list((folder / "ready").iterdir())) < 2 and time.monotonic() < until:
    time.sleep(0.02)
Opened(recipe, folder / "runs")
"""


def test_two_processes_compute_a_cache_once(tmp_path: Path) -> None:
    """One computes, with a worker process, and the other waits and then reads."""
    recipe = recipe_of(tmp_path, views=2)
    (tmp_path / "ready").mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", TOGETHER, str(tmp_path)],
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        texts = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], texts
    assert sum("waiting for another run that caches 'teacher'" in text for text in texts) == 1
    assert sum("2 computed, 0 found" in text for text in texts) == 1
    assert sum("0 computed, 2 found" in text for text in texts) == 1
    alone = Opened(recipe, tmp_path / "alone")
    assert alone.feed.cache is not None
    for path in (tmp_path / "runs" / ".teacher-cache").glob("*/*.npy"):
        (other,) = (tmp_path / "alone" / ".teacher-cache").glob(f"*/{path.name}")
        assert other.read_bytes() == path.read_bytes()  # workers change nothing


# What cannot be cached


def test_a_term_that_needs_a_feature_map_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tree(tmp_path)
    given["stages"]["distill"]["losses"]["fitnet"] = {"from": "teacher", "to": "student"}  # s2
    path = tiny.write(tmp_path, given)
    assert main(["distill", str(path), "--out", str(tmp_path / "runs" / "x")]) == 2
    text = capsys.readouterr().err
    assert "stages.distill.cache: term 'fitnet' needs s2 of 'teacher'" in text
    assert "stages.distill.cache=null" in text
    assert not (tmp_path / "runs" / "x" / "stages").exists()


def test_only_frozen_models_are_cached(tmp_path: Path) -> None:
    """A hint between two models in training runs live beside a cached teacher."""
    given = tree(tmp_path)
    given["models"]["peer"] = dict(given["models"]["student"])
    given["stages"]["distill"]["train"].append("peer")
    given["stages"]["distill"]["losses"] |= {
        "hint": {"loss": "fitnet", "from": "peer", "to": "student", "params": {"tap": "s2"}},
        "peer": {"loss": "ce", "to": "peer"},
    }
    path = tiny.write(tmp_path, given)
    assert main(["distill", str(path), "--out", str(tmp_path / "runs" / "x")]) == 0
    assert len(list((tmp_path / "runs" / ".teacher-cache").glob("*/view-1.json"))) == 1


def test_a_stage_without_a_cache_is_fed_as_before(tmp_path: Path) -> None:
    opened = Opened(recipe_of(tmp_path, "stages.distill.cache=null"), tmp_path / "runs")
    assert opened.feed is opened.live
    assert opened.feed.known(torch.arange(3), 1) == {}
    assert not (tmp_path / "runs").exists()
    with pytest.raises(RecipeError, match="no frozen teacher"):
        recipe_of(tmp_path, "stages.teacher.cache={views: 2}")
