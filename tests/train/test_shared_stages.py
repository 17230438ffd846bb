"""Two runs that want the same stage at the same time: one trains it, and nothing is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.rundir import sha256
from tests import tiny

RUN = """
import sys, time
from pathlib import Path
import edgekd.doctor
from edgekd.train import loop

edgekd.doctor._try_export = lambda *_: None
original, flags = loop._Run.step, Path(sys.argv[1])

def step(self, *arguments):
    epoch, step = arguments[3:5]
    if self.spec.epochs == 2 and (epoch, step) == (2, 1) and flags.is_dir():
        (flags / "is-training").touch()
        while not (flags / "go-on").exists():
            time.sleep(0.02)
    return original(self, *arguments)

loop._Run.step = step
from edgekd.cli import main
sys.exit(main(sys.argv[2:]))
"""


def start(flags: Path, path: Path, out: Path, *overrides: str) -> subprocess.Popen[str]:
    """Distil in a process; with a folder of flags it pauses in the second epoch of the teacher."""
    arguments = [str(flags), "distill", str(path), "--out", str(out), "--json", *overrides,
                 "hardware.checkpoint_every_s=1e-9", "stages.distill.epochs=1"]  # fmt: skip
    with out.with_suffix(".log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", RUN, *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def said(out: Path) -> str:
    return out.with_suffix(".log").read_text()


@pytest.mark.parametrize("is_killed", [False, True], ids=["both go on", "the first is killed"])
def test_a_stage_that_two_runs_want_is_trained_once(tmp_path: Path, is_killed: bool) -> None:
    path = tiny.write(tmp_path, tiny.tree(tmp_path))
    flags, runs = tmp_path / "flags", tmp_path / "runs"
    flags.mkdir()
    runs.mkdir()
    one, two = runs / "one", runs / "two"
    first = start(flags, path, one)
    wait_for((flags / "is-training").exists)
    second = start(tmp_path / "none", path, two, "stages.distill.losses.kd=null")
    wait_for(lambda: "teacher: waiting for another run" in said(two))
    if is_killed:
        first.send_signal(signal.SIGKILL)
    else:
        (flags / "go-on").touch()
    answer = json.loads(second.communicate(timeout=120)[0])
    assert second.returncode == 0
    first.communicate(timeout=120)
    teacher = two / "stages" / "teacher"
    rows = (teacher / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == [1, 2]
    if is_killed:  # the second took over what the first had trained
        assert answer["trained"] == ["teacher", "distill"]
        assert "teacher: resuming at epoch 2, step 1" in said(two)
        again = start(tmp_path / "none", path, one)
        assert json.loads(again.communicate(timeout=120)[0])["reused"] == ["teacher"]
    else:
        assert answer["trained"] == ["distill"]
        assert "teacher: trained by another run meanwhile" in said(two)
    files = [run / "stages" / "teacher" / "teacher.safetensors" for run in (one, two)]
    assert sha256(files[0]) == sha256(files[1])
    if not is_killed:
        return
    undisturbed = runs.parent / "elsewhere" / "three"
    undisturbed.parent.mkdir()
    alone = start(tmp_path / "none", path, undisturbed)
    assert json.loads(alone.communicate(timeout=120)[0])["trained"] == ["teacher", "distill"]
    assert sha256(files[0]) == sha256(undisturbed / "stages" / "teacher" / "teacher.safetensors")
