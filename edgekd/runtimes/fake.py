"""A runtime without a model: for trying out and testing everything around one.

Its file ends in `.fake` and is JSON, all keys optional:

    {"size": 16, "classes": 3, "seed": 0, "precision": "f32"}

The logits are the mean colour of each image times a matrix drawn from `seed`.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType

import numpy as np

from edgekd.bundle import INPUT_NAME, OUTPUT_NAME
from edgekd.errors import BundleError, MissingOnHost
from edgekd.runtimes.base import Arrays, Probe, RunOptions, Runtime

DEFAULTS = {"size": 16, "classes": 3, "seed": 0, "precision": "f32"}


class Fake(Runtime):
    """`input` float32 (N, 3, size, size) -> `logits` float32 (N, classes), the same everywhere."""

    suffixes = (".fake",)

    def __init__(self, path: Path, options: RunOptions = RunOptions()) -> None:  # noqa: B008
        super().__init__(path, options)
        self._precision = ""
        self._matrix: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None = None

    @classmethod
    def probe(cls) -> Probe:
        return Probe(True, version="1", devices=("cpu",))

    def __enter__(self) -> Fake:
        if self.options.device.lower() not in ("", "cpu"):
            raise MissingOnHost(f"the fake runtime has no device '{self.options.device}'; it has: "
                                "cpu")  # fmt: skip
        try:
            given = json.loads(self.path.read_text(encoding="utf-8"))
            facts = {**DEFAULTS, **given}
            size, classes, seed = (int(facts[key]) for key in ("size", "classes", "seed"))
        except (OSError, ValueError, TypeError) as error:
            raise BundleError(f"{self.path} is not a fake model: {error}") from None
        batch = self.options.batch or -1
        self._matrix = np.random.default_rng(seed).normal(0, 4, (3, classes)).astype(np.float32)
        self.facts.device = "CPU"
        self.facts.threads = self.options.threads or 1
        self._precision = str(facts["precision"])
        self.facts.inputs = {INPUT_NAME: (batch, 3, size, size)}
        self.facts.types = {INPUT_NAME: "float32"}
        self.facts.outputs = {OUTPUT_NAME: (batch, classes)}
        return self

    def _inspect(self) -> None:
        self.facts.precision = self._precision

    def run(self, inputs: Arrays) -> Arrays:
        expected = self.facts.inputs[INPUT_NAME]
        images = inputs[INPUT_NAME]
        if images.shape[1:] != expected[1:] or expected[0] not in (-1, len(images)):
            raise ValueError(f"{INPUT_NAME}: got {images.shape}, expected {expected}")
        assert self._matrix is not None
        means = images.astype(np.float32).mean(axis=(2, 3))
        return {OUTPUT_NAME: (means @ self._matrix).astype(np.float32)}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._matrix = None
