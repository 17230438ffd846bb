"""Sweeps whose runs take no training: a small process that behaves like `edgekd distill`.

It notes every start, trains an epoch every `EPOCH_S` seconds into `metrics.jsonl`, goes on where it
was stopped, obeys SIGTERM, fails or dies where it is told to, and leaves a finished run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

EPOCHS = 4
WORKER = Path(__file__)


def tree(folder: Path, **changes: Any) -> Path:
    """A recipe file with three variants and two seeds; its stages are never really trained."""
    recipe = {
        "edgekd": 1,
        "name": "fake",
        "task": {"name": "classification"},
        "data": {"name": "synthetic", "params": {"images": 60, "size": 16}, "split": "official",
                 "input": {"size": 16}},
        "models": {"teacher": {"arch": "timm:resnet18"}, "student": {"arch": "timm:resnet10t"}},
        "stages": {
            "teacher": {"train": ["teacher"], "losses": {"ce": {"to": "teacher"}}},
            "distill": {
                "train": ["student"],
                "frozen": ["teacher"],
                "losses": {
                    "ce": {"to": "student"},
                    "kd": {"from": "teacher", "to": "student", "params": {"temperature": 4.0}},
                },
            },
        },
        "export": {"reference": "teacher"},
        "seeds": [1, 2],
        "baseline": "alone",
        "variants": {
            "alone": {"stages.distill.losses.kd": None},
            "warm": {"stages.distill.losses.kd.params.temperature": 8.0},
        },
        **changes,
    }  # fmt: skip
    path = folder / "fake.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def use(monkeypatch: pytest.MonkeyPatch, notes: Path, **behaviour: str) -> None:
    """Let sweeps of this process, and of those it starts, run this file's worker."""
    from edgekd.sweep import workers

    monkeypatch.setattr(workers, "command", command)
    monkeypatch.setenv("FAKE_NOTES", str(notes))
    for key, value in behaviour.items():
        monkeypatch.setenv(key, value)


def command(trial: Any, folder: Any) -> list[str]:
    folder.write_recipe(trial)
    return [sys.executable, str(WORKER), str(folder.recipe(trial)), str(folder.run(trial).root),
            trial.name]  # fmt: skip


def starts(notes: Path) -> list[str]:
    """The names of the trials in the order of their starts."""
    return [line.split()[0] for line in notes.read_text().splitlines()] if notes.exists() else []


def epochs(notes: Path) -> list[str]:
    """Every epoch that was trained, as `trial/epoch`."""
    path = notes.with_suffix(".epochs")
    return path.read_text().split() if path.exists() else []


def sweep_process(*arguments: str) -> subprocess.Popen[bytes]:
    """`edgekd sweep` with the fake worker in a process of its own, so that it can be killed."""
    code = (  # a shell that runs the tests in the background has switched SIGINT off
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from tests.sweep import fake; from edgekd.sweep import workers; "
        "workers.command = fake.command; from edgekd.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, "sweep", *arguments],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def _work(recipe_path: Path, root: Path, name: str) -> int:
    import signal

    from edgekd import recipe_load
    from edgekd.rundir import RunDir, write_text
    from edgekd.sweep.plan import DataKeys, make_trial

    notes = Path(os.environ["FAKE_NOTES"])
    with notes.open("a") as file:
        file.write(f"{name} {os.getpid()} {os.environ['OMP_NUM_THREADS']}\n")
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    if name in os.environ.get("FAKE_FAILS", "").split(","):
        print("talk\nerror: the disk is made of cheese\nhint: eat it", file=sys.stderr)
        return 2
    recipe = recipe_load.load(recipe_path)
    run = RunDir(root)
    write_text(run.recipe, recipe_load.to_yaml(recipe))
    metrics = run.stage("distill") / "metrics.jsonl"
    metrics.parent.mkdir(parents=True, exist_ok=True)
    done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    for epoch in range(done + 1, EPOCHS + 1):
        time.sleep(float(os.environ.get("EPOCH_S", "0.02")))
        if name == os.environ.get("FAKE_DIES") and epoch == 2 and len(starts(notes)) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        row = {"epoch": epoch, "epochs": EPOCHS, "seconds": 0.1,
               "val": {"student": {"accuracy": 0.1 * epoch}}}  # fmt: skip
        with metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")
        with notes.with_suffix(".epochs").open("a") as file:
            file.write(f"{name}/{epoch}\n")
        if asked:
            return 130
    trial = make_trial(name, "", recipe, DataKeys())
    weight = recipe.stages["distill"].losses["ce"].weight
    value = 0.5 + 0.01 * recipe.seed + 0.1 * ("kd" in recipe.stages["distill"].losses)
    value -= 0.1 * (weight - 1.2) ** 2
    score = {"value": value, "direction": "higher"}
    parts = {part: {"accuracy": score, "macc": score} for part in ("val", "test")}
    write_text(run.scores, json.dumps({"student": parts, "teacher": parts}))
    facts = {"scored": trial.scored, "split": {"train": 1, "val": 1, "test": 1}}
    write_text(run.environment, json.dumps(facts))
    print(json.dumps({"trained": ["distill"]}))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    sys.exit(_work(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
