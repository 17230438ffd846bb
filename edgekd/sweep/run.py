"""The sweep itself: keep some processes busy until the trials, the budget or the user ends it."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, Protocol

from edgekd.errors import EdgekdError
from edgekd.log import say, warn
from edgekd.sweep.estimate import Estimates, duration, missing, position
from edgekd.sweep.plan import Trial
from edgekd.sweep.state import Ended, Session, SweepDir, holder
from edgekd.sweep.workers import Job, start, visible_gpus

WAIT_S = 0.3
TRIES = 3  # how often a trial is started that something keeps killing


class Source(Protocol):
    """Where trials come from: a fixed list, or a search that thinks of the next one."""

    def trials(self) -> Sequence[Trial]:
        """All that are known so far, in order."""

    def next(self, busy: Sequence[Trial]) -> Trial | None:
        """One to start now beside those that are running here, if there is one."""

    def waits(self) -> bool:
        """Is another process still running some of them?"""

    def left(self) -> int:
        """How many are not finished yet."""

    def ended(self, trial: Trial, ended: Ended) -> None:
        """Take note of how one ended."""


class Grid:
    """A fixed list of trials."""

    def __init__(self, trials: Sequence[Trial], folder: SweepDir) -> None:
        self._trials = list(trials)
        self.folder = folder
        self.tries: dict[str, int] = {}
        self.given_up: set[str] = set()

    def trials(self) -> Sequence[Trial]:
        return self._trials

    def next(self, busy: Sequence[Trial]) -> Trial | None:
        """The first that may start now.

        One whose next stage is being trained for another trial would only wait for it.
        """
        wanted = {key for trial in busy for key in missing(trial, self.folder).values()}
        for trial in self._open(busy):
            needed = list(missing(trial, self.folder).values())[:1]
            if not wanted.intersection(needed):
                return trial
        return None

    def waits(self) -> bool:
        return any(self.folder.status(trial) == "running" for trial in self._trials)

    def left(self) -> int:
        return sum(not self.folder.is_done(trial) for trial in self._trials)

    def ended(self, trial: Trial, ended: Ended) -> None:
        self.tries[trial.name] = self.tries.get(trial.name, 0) + 1
        again = ended.signal and self.tries[trial.name] < TRIES
        if ended.outcome == "failed" and not again:
            self.given_up.add(trial.name)

    def _open(self, busy: Sequence[Trial]) -> list[Trial]:
        names = {trial.name for trial in busy} | self.given_up
        return [
            trial
            for trial in self._trials
            if trial.name not in names and self.folder.status(trial) not in ("done", "running")
        ]


class Stop:
    """While active, Ctrl-C and SIGTERM count; the sweep passes them on to its processes."""

    def __init__(self) -> None:
        self.times = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.times += 1


def work(
    source: Source,
    folder: SweepDir,
    *,
    jobs: int,
    budget_s: float | None,
    show: Callable[[Sequence[Job]], object],
) -> None:
    """Run the source's trials until there are no more, the budget is spent, or the user stops.

    Raises EdgekdError where the budget was spent before, KeyboardInterrupt after the runs have
    saved. A trial that fails is noted and the others go on.
    """
    session = Session(folder)
    check_budget(source, session.spent, budget_s)
    gpus = visible_gpus() if jobs > 1 else []  # one job alone may use them all
    active: list[Job] = []
    passed_on = 0
    with Stop() as stop, _never_left_alone(active):
        while True:
            _reap(active, source, folder)
            session.beat()
            is_spent = budget_s is not None and session.spent >= budget_s
            if is_spent and not any(job.is_asked_to_stop for job in active) and active:
                say(f"the budget of {duration(budget_s)} is spent: runs save and stop")
                _stop(active)
            if stop.times > passed_on:
                passed_on = stop.times
                if active:
                    again = "" if passed_on > 1 else " (again to stop at once)"
                    say(f"stopping: {len(active)} runs save after this step{again} ...")
                # a run that the budget has stopped already is not told to stop at once
                _stop([job for job in active if passed_on > 1 or not job.is_asked_to_stop])
            is_refused = False
            if not (is_spent or stop.times):
                is_refused = not _fill(active, jobs, source, folder, gpus)
            show(active)
            is_over = not (is_refused or source.waits())
            if not active and (is_spent or stop.times or is_over):
                break
            time.sleep(WAIT_S)
    session.beat(now=True)
    show(active)
    if passed_on:
        raise KeyboardInterrupt


def check_budget(source: Source, spent: float, budget_s: float | None) -> None:
    """Raises EdgekdError where earlier sessions have used up the budget and something is left."""
    left = source.left()
    if budget_s is not None and left and spent >= budget_s:
        raise EdgekdError(
            f"the budget of {duration(budget_s)} is spent already: this sweep has worked for "
            f"{duration(spent)}, {left} runs are left",
            hint=f"give more, e.g. --budget {int(spent // 60) + 30}m, or none",
        )


@contextlib.contextmanager
def _never_left_alone(active: list[Job]) -> Iterator[None]:
    """Let the runs save and stop where the sweep itself fails."""
    try:
        yield
    except BaseException:
        _stop(active)
        raise


def _fill(active: list[Job], slots: int, source: Source, folder: SweepDir, gpus: list[str]) -> bool:
    """Start what may start; False where another process was quicker, so that it is worth a look."""
    while len(active) < slots:
        trial = source.next([job.trial for job in active])
        if trial is None:
            return True
        free = min(set(range(slots)) - {job.slot for job in active})
        job = start(trial, folder, slot=free, jobs=slots, gpus=gpus)
        if job is None:
            return False
        active.append(job)
        say(f"{trial.name}: started")
    return True


def _reap(active: list[Job], source: Source, folder: SweepDir) -> None:
    for job in list(active):
        ended = job.poll()
        if ended is None:
            continue
        active.remove(job)
        if ended.outcome == "done" and not folder.is_done(job.trial):
            ended = Ended("failed", ended.seconds, "it ended well, but its run is not complete")
        folder.record(job.trial.name, ended)
        source.ended(job.trial, ended)
        if ended.outcome == "failed":
            warn(f"{job.trial.name}: {ended.message} ({job.log})")
        else:
            say(f"{job.trial.name}: {ended.outcome} after {duration(ended.seconds)}")


def _stop(active: Sequence[Job]) -> None:
    for job in active:
        job.stop()


def listing(trials: Sequence[Trial], folder: SweepDir) -> list[dict[str, Any]]:
    """Every trial with its status, position and estimate."""
    estimates = Estimates(trials, folder)
    found = []
    for trial in trials:
        status = folder.status(trial)
        ended, where = folder.ended(trial.name), position(trial, folder)
        message = ended.message if ended and status == "failed" else None
        if status == "running":
            message = f"process {holder(folder.claim(trial.name))}"
        left = None if status == "done" else estimates.seconds_left(trial)
        found.append(
            {
                "trial": trial.name,
                "status": status,
                "position": where.text if where and status != "done" else None,
                "seconds_left": None if left is None else round(left, 1),
                "message": message,
            }
        )
    return found


def parse_budget(text: str) -> float:
    """`90s`, `45m`, `2h`, `1h30m` in seconds. Raises EdgekdError for anything else."""
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0, 0, 0)
    total = 3600.0 * hours + 60.0 * minutes + seconds
    if total <= 0:
        raise EdgekdError(f"--budget {text}: expected a time like 45m, 2h or 1h30m")
    return total


def raise_failures(trials: Sequence[Trial], folder: SweepDir) -> None:
    """Raises EdgekdError that names the trials whose last attempt failed."""
    failed = [
        (trial.name, ended.message)
        for trial in trials
        if folder.status(trial) == "failed" and (ended := folder.ended(trial.name))
    ]
    if failed:
        lines = [f"{len(failed)} of {len(trials)} runs failed"]
        lines += [f"  {name}: {message}" for name, message in failed[:10]]
        raise EdgekdError(
            "\n".join(lines),
            hint=f"logs are in {folder.root / 'logs'}; the same command tries them again",
        )
