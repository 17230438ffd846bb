"""Talk to the person: everything here goes to stderr, so that stdout stays data."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_console: Console | None = None


def console() -> Console:
    """The one stderr console (honours NO_COLOR and non-terminals)."""
    global _console
    if _console is None:
        from rich.console import Console

        _console = Console(stderr=True, highlight=False, soft_wrap=True)
    return _console


def be_quiet() -> None:
    """Say nothing from here on: another process speaks."""
    global _console
    from rich.console import Console

    _console = Console(stderr=True, quiet=True)


def say(message: str) -> None:
    """One line of progress talk."""
    console().print(message, markup=False)


def warn(message: str) -> None:
    """One line that the user should not miss."""
    console().print("[bold yellow]warning:[/] ", end="")
    console().print(message, markup=False)


def progress() -> Progress:
    """A progress bar on stderr, gone when done; nothing where stderr is no terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console(),
        transient=True,
        disable=not console().is_terminal,
    )
