"""What a sweep shows while it works: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from edgekd.log import console
from edgekd.sweep.estimate import Estimates, Position, duration, position
from edgekd.sweep.plan import Trial
from edgekd.sweep.state import SweepDir
from edgekd.sweep.workers import Job

if TYPE_CHECKING:
    from rich.table import Table

MOST_ROWS = 24
REFRESH_S = 1.0


@contextlib.contextmanager
def live(
    trials: Callable[[], Sequence[Trial]], folder: SweepDir, jobs: int
) -> Iterator[Callable[[Sequence[Job]], object]]:
    """Gives the function that the scheduler calls again and again with what is running."""
    if not console().is_terminal:
        yield lambda active: None
        return
    from rich.live import Live

    shown = [0.0]
    with Live(console=console(), auto_refresh=False, transient=True) as screen:

        def show(active: Sequence[Job]) -> None:
            if time.monotonic() - shown[0] >= REFRESH_S:
                shown[0] = time.monotonic()
                screen.update(picture(list(trials()), folder, active, jobs), refresh=True)

        yield show


def picture(trials: Sequence[Trial], folder: SweepDir, active: Sequence[Job], jobs: int) -> Table:
    """The trials with status, position, score and time; those that run come first."""
    from rich.table import Table

    estimates = Estimates(trials, folder)
    running = {job.trial.name: job for job in active}
    entries = [(trial, folder.status(trial)) for trial in trials]
    order = {"running": 0, "failed": 1, "begun": 2, "to do": 3, "done": 4}
    entries.sort(key=lambda entry: order[entry[1]])
    table = Table(box=None, pad_edge=False, caption=summary(trials, folder, jobs, estimates),
                  caption_justify="left")  # fmt: skip
    for name in ("run", "status", "position", "validation", "time", "left"):
        table.add_column(name, justify="right" if name in ("time", "left") else "left")
    for trial, status in entries[:MOST_ROWS]:
        job = running.get(trial.name)
        left = None if status == "done" else estimates.seconds_left(trial)
        where = position(trial, folder)
        ended = folder.ended(trial.name)
        spent = job.seconds if job else ended.seconds if ended else None
        table.add_row(
            trial.name,
            status,
            where.text if where and status != "done" else "",
            _score(trial, where),
            "" if spent is None else duration(spent),
            "" if status == "done" else duration(left),
        )
    if len(entries) > MOST_ROWS:
        table.add_row(f"... and {len(entries) - MOST_ROWS} more")
    return table


def _score(trial: Trial, where: Position | None) -> str:
    if where is None:
        return ""
    scores = where.scores.get(trial.recipe.export.model) or next(iter(where.scores.values()), {})
    name = trial.recipe.task.primary or next(iter(scores), None)
    value = scores.get(name) if name else None
    return "" if value is None else f"{name} {value:.3f}"


def summary(trials: Sequence[Trial], folder: SweepDir, jobs: int, estimates: Estimates) -> str:
    """How many are where, and how long the rest will take."""
    counts: dict[str, int] = {}
    for trial in trials:
        status = folder.status(trial)
        counts[status] = counts.get(status, 0) + 1
    text = ", ".join(f"{count} {status}" for status, count in counts.items())
    left = [trial for trial in trials if folder.status(trial) != "done"]
    if not left:
        return text
    total = estimates.total_left(left)
    if total is None:
        return f"{text}; too early for an estimate"
    at_once = min(jobs, len(left))
    return f"{text}; about {duration(total / at_once)} left with {jobs} job{'s' * (jobs > 1)}"
