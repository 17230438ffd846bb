"""One process per trial: how it is started, how it is asked to stop, how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekd.host import usable_cores
from edgekd.sweep.plan import Trial
from edgekd.sweep.state import Ended, SweepDir, claim

INTERRUPTED = 130
THREADS = "OMP_NUM_THREADS"
GPUS = "CUDA_VISIBLE_DEVICES"
# `-m` would run a json.py of the working folder; PYTHONSAFEPATH, too, is not known to Python 3.10
START = """import sys
sys.path[:] = [place for place in sys.path if place] + [sys.argv.pop(1)]
from edgekd.cli import entry
entry()"""


@dataclass
class Job:
    """A trial's process. `slot` counts the jobs that run at the same time from 0."""

    trial: Trial
    process: subprocess.Popen[bytes]
    slot: int
    log: Path
    log_start: int  # where this attempt begins in the log
    claimed: int
    started: float = field(default_factory=time.monotonic)
    is_asked_to_stop: bool = False

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def stop(self) -> None:
        """Ask the run to save and stop; a second time, to stop at once."""
        self.is_asked_to_stop = True
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def poll(self) -> Ended | None:
        """How it ended, once it has."""
        code = self.process.poll()
        if code is None:
            return None
        os.close(self.claimed)
        seconds = round(self.seconds, 1)
        if code == 0:
            return Ended("done", seconds, trained=_trained(self.log.with_suffix(".json")))
        if code == INTERRUPTED or (self.is_asked_to_stop and code < 0):
            return Ended("stopped", seconds)
        if code < 0:
            name = signal.Signals(-code).name
            return Ended("failed", seconds, f"killed by {name}", signal=-code)
        return Ended("failed", seconds, _last_error(self.log, self.log_start))


def start(trial: Trial, folder: SweepDir, *, slot: int, jobs: int, gpus: list[str]) -> Job | None:
    """Start a trial's process; None where another process has the trial.

    The process is in a session of its own, so that Ctrl-C reaches it only through `Job.stop`, and
    it inherits the claim, so that it is known to run even when the sweep itself was killed.
    """
    claimed = claim(folder.claim(trial.name))
    if claimed is None:
        return None
    if folder.is_done(trial):  # by another process, since this one looked
        os.close(claimed)
        return None
    log = folder.log(trial)
    log.parent.mkdir(parents=True, exist_ok=True)
    arguments = command(trial, folder)
    with log.open("ab") as stderr, log.with_suffix(".json").open("wb") as stdout:
        position = stderr.tell()
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=environment(slot=slot, jobs=jobs, gpus=gpus),
            pass_fds=(claimed,),
            start_new_session=True,
        )
    os.ftruncate(claimed, 0)
    os.write(claimed, f"{process.pid}\n".encode())
    return Job(trial, process, slot, log, position, claimed)


def command(trial: Trial, folder: SweepDir) -> list[str]:
    """What a job runs: `edgekd distill` of the trial's resolved recipe, which it writes."""
    run = folder.run(trial)
    own = str(Path(__file__).resolve().parents[2])  # last: for an edgekd that is not installed
    return [sys.executable, "-c", START, own, "distill", str(folder.write_recipe(trial)),
            "--out", str(run.root), "--shared", str(run.shared), "--json"]  # fmt: skip


def environment(*, slot: int, jobs: int, gpus: list[str]) -> dict[str, str]:
    """The environment of one job: its share of the cores, and a GPU of its own where there are.

    Jobs that each use all cores are many times slower than jobs that share them out.
    """
    found = {**os.environ, "PYTHONSAFEPATH": "1"}
    if THREADS not in found:
        found[THREADS] = str(max(1, (usable_cores() or 1) // jobs))
    if gpus:
        found[GPUS] = gpus[slot % len(gpus)]
    return found


def slots(jobs: int | None) -> int:
    """How many runs at the same time: as asked, else one per GPU, else one."""
    return jobs or max(1, len(visible_gpus()))


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, as CUDA names them; none without a driver."""
    named = os.environ.get(GPUS)
    if named is not None:
        return [name for name in named.split(",") if name.strip() and name.strip() != "-1"]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return [str(number) for number in range(count)]


def _trained(path: Path) -> list[str]:
    """The stages that the run trained itself, from what `distill --json` printed."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return [str(name) for name in found["trained"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _last_error(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    for place in range(len(lines) - 1, -1, -1):
        if lines[place].startswith("error: "):
            hints = [line for line in lines[place:] if line.startswith("hint: ")]
            hint = f" ({hints[0].removeprefix('hint: ')})" if hints else ""
            return lines[place].removeprefix("error: ") + hint
    spoken = [line.strip() for line in lines if line.strip()]
    return spoken[-1] if spoken else "ended without a word"
