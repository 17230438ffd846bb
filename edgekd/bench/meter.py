"""One interface for whatever says how much power a machine draws.

A counter gives joules since some start, a gauge gives watts now. Nothing is ever written: a
reader opens files and libraries, and says why where it cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

FORMAT_UNVERIFIED = "format unverified"  # no public source says what the text looks like
SUM_UNVERIFIED = "sum unverified"  # nor that these rails together are everything


def _nothing() -> None:
    """Most meters need neither start nor stop."""


@dataclass(frozen=True)
class Meter:
    """What is read, and how often.

    `read` returns joules (a counter) or watts (a gauge); it raises OSError or ValueError where a
    single reading fails, which is then left out.
    """

    source: str  # the reader and what it covers, e.g. `ina3221 VDD_IN`
    read: Callable[[], float]
    is_counter: bool
    period_s: float  # reading more often would only repeat the chip's own average
    doubt: str = ""  # FORMAT_UNVERIFIED or SUM_UNVERIFIED
    start: Callable[[], None] = _nothing
    stop: Callable[[], None] = _nothing

    @property
    def label(self) -> str:
        """The source with its doubt: `tegrastats VDD_IN, format unverified`."""
        return f"{self.source}, {self.doubt}" if self.doubt else self.source
