"""From an encoded picture to a decision, each step apart, in milliseconds per image."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from edgekd.bench.timing import describe
from edgekd.bundle import OUTPUT_NAME
from edgekd.image import decode, preprocess
from edgekd.results import Latency
from edgekd.runtimes.session import Session

NAMES = ("decode", "preprocess", "infer", "postprocess", "total")
DECODE_DICOM = "decode_dicom"
WARMUP = 3


def measure_phases(
    session: Session,
    pictures: Sequence[bytes],
    *,
    batch: int = 1,
    rounds: int = 50,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, Latency]:
    """Time `rounds` batches of the pictures in turn; each figure is one image's share of a batch.

    The pictures are in memory, so reading from disk is not part of it. Postprocessing is what the
    task does: probabilities and the decision. Empty for a foreign file, whose preprocessing is
    unknown.
    """
    if session.input is None or session.task is None:
        return {}
    spent: list[list[float]] = []
    for number in range(rounds + WARMUP):
        encoded = [pictures[(number * batch + place) % len(pictures)] for place in range(batch)]
        marks = [clock()]
        images = [decode(data) for data in encoded]
        marks.append(clock())
        inputs = np.stack([preprocess(image, session.input) for image in images])
        marks.append(clock())
        logits = session.run({session.input_name: inputs})[OUTPUT_NAME]
        marks.append(clock())
        session.task.decide(session.task.activate(logits))
        marks.append(clock())
        if number >= WARMUP:
            steps = [end - begin for begin, end in pairwise(marks)]
            spent.append([step / 1e6 / batch for step in (*steps, marks[-1] - marks[0])])
    columns = np.array(spent).T
    return {name: describe(column) for name, column in zip(NAMES, columns, strict=True)}


def measure_dicom(
    files: Sequence[Path], clock: Callable[[], int] = time.perf_counter_ns
) -> dict[str, Latency]:
    """From opening a DICOM file to its pixels: each once, the first also before that to warm up.

    How long that takes depends on the files (size, compression), so none are drawn for it. The
    system may hold them in memory. Empty without files.
    """
    spent = []
    for path in [*files[:1], *files]:
        begin = clock()
        decode(path)
        spent.append((clock() - begin) / 1e6)
    return {DECODE_DICOM: describe(np.array(spent[1:]))} if files else {}
