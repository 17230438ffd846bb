"""What an inference runtime is: a context manager with one blocking `run`.

A runtime never measures time (the bench does) and touches nothing before `__enter__`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Probe:
    """What a runtime says of itself on this machine, or why it cannot run here."""

    available: bool
    version: str = ""
    devices: tuple[str, ...] = ()
    reason: str = ""  # one line, when not available


@dataclass(frozen=True)
class RunOptions:
    """How to load a model. `batch` fixes the batch size; 0 keeps it dynamic."""

    device: str = ""  # "" = the runtime's default device
    threads: int = 0  # 0 = the runtime's own choice
    batch: int = 0
    precision: str = "fp32"  # what the artifact was made for; fp32 must run as f32


@dataclass
class Facts:
    """What really runs, known once the model is loaded; `precision` and notes after `inspect`."""

    device: str = ""
    # f32, bf16, f16, i8: what most of the arithmetic really runs in; "" where that is not known
    precision: str = ""
    threads: int = 0  # 0 = not known
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)  # -1 for a dynamic axis
    outputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)  # numpy's name of each input's type
    notes: list[str] = field(default_factory=list)  # one line each; what a reader should know


class Runtime(ABC):
    """One inference runtime; the file's name is its name."""

    suffixes: tuple[str, ...] = ()  # file endings it loads, e.g. (".onnx",)

    def __init__(self, path: Path, options: RunOptions = RunOptions()) -> None:
        self.path = path
        self.options = options
        self.facts = Facts()
        self._is_inspected = False

    @classmethod
    @abstractmethod
    def probe(cls) -> Probe:
        """Say version and devices, or why not. Never raises, never loads a model."""

    @classmethod
    def why_not(cls, path: Path) -> str:
        """Why this file does not run on this machine though the runtime is here; "" if it does.

        One line. Only what is bound to the host that made it says anything; nothing is loaded.
        """
        return ""

    @abstractmethod
    def __enter__(self) -> Runtime:
        """Load and compile; fills `facts` but for what `inspect` finds out.

        Raises BundleError for an unreadable file, MissingOnHost for an absent package or device.
        """

    def inspect(self) -> Facts:
        """Find out in what precision the loaded model runs; fills `precision` and notes, once.

        It is no part of loading, which is timed: it may load the model a second time.
        """
        if not self._is_inspected:
            self._inspect()
            self._is_inspected = True
        return self.facts

    def _inspect(self) -> None:  # noqa: B027 - a runtime that knows once it has loaded needs none
        """What `inspect` does the first time: nothing, unless it costs something to find out."""

    @abstractmethod
    def run(self, inputs: Arrays) -> Arrays:
        """Run one batch, blocking; arrays by input name in, by output name out (own memory)."""

    @abstractmethod
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Free the model."""
