"""The records that cross between commands: scores, predictions, measurements."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, model_validator

from edgekd.errors import DataError

MEASURED, NOT_MEASURED = "measured", "not measured"


class Record(BaseModel):
    """Base of all stored records: immutable, and unknown keys are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Score(Record):
    """One metric of one model on one part of the data, with its bootstrap interval over groups.

    `value`, `low` and `high` are in the metric's own unit (accuracy in [0, 1]); `low`/`high` are
    None where no interval was computed. `value` is None where the metric is undefined.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    direction: Literal["higher", "lower"] = "higher"
    images: int
    groups: int


Scores = dict[str, Score]

SHOTS = ("head", "medium", "tail")  # classes with many, some and few training images


class Learned(Record):
    """What a task knows from images besides its classes, each per class (C,) or empty.

    Counts, shots and groups come from training images, thresholds from validation images.
    """

    counts: tuple[int, ...] = ()  # training images that show the class
    shots: tuple[str, ...] = ()  # of SHOTS
    thresholds: tuple[float, ...] = ()  # probability from which on the class is there
    groups: dict[str, tuple[int, ...]] = {}  # classes, by their numbers, that a recipe has named

    def of_classes(self, count: int) -> Learned:
        """Itself; raises ValueError where it is about another number of classes."""
        for key in ("counts", "shots", "thresholds"):
            found = getattr(self, key)
            if found and len(found) != count:
                raise ValueError(f"{len(found)} {key} for {count} classes")
        return self

    def only(self, columns: Sequence[int]) -> Learned:
        """The same for some of the classes; groups are of all classes, and left out."""
        parts = {
            key: tuple(getattr(self, key)[column] for column in columns)
            for key in ("counts", "shots", "thresholds")
            if getattr(self, key)
        }
        return Learned(**parts)


@dataclass(frozen=True)
class Predictions:
    """What one model said about one part of the data. Kept in the run, never in a bundle.

    The first axis counts images; what a target and a logit stand for is the task's (tasks/base.py).
    """

    ids: list[str]
    groups: list[str]
    targets: npt.NDArray[np.int64]  # (N, ...)
    logits: npt.NDArray[np.float32]  # (N, ...)

    def save(self, path: Path) -> None:
        """Write atomically as .npz without pickled objects."""
        from edgekd.rundir import replace_file

        with replace_file(path, "wb") as file:
            np.savez_compressed(
                file,
                ids=np.array(self.ids, dtype=np.str_),
                groups=np.array(self.groups, dtype=np.str_),
                targets=self.targets,
                logits=self.logits,
            )

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what `save` wrote."""
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(
                    ids=[str(name) for name in file["ids"]],
                    groups=[str(name) for name in file["groups"]],
                    # masks keep their small integers: eight times as large they are gigabytes
                    targets=file["targets"]
                    if file["targets"].ndim > 1
                    else file["targets"].astype(np.int64),
                    logits=file["logits"].astype(np.float32),
                )
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: not a predictions file of edgekd: {error}") from None


LayerKind = Literal["convolution", "normalisation", "activation", "linear"]


class CkaMap(Record):
    """How alike the layers of two models represent the same images (train/cka.py).

    `matrix[i][j]` is the CKA of layer i of `first` and layer j of `second`, both in order of
    execution: at most 1, and as an unbiased estimate it can fall a little below 0. It is None for a
    layer that says the same of every image.
    """

    schema_version: Literal[1] = 1
    first: str
    second: str
    layers_first: list[str]
    layers_second: list[str]
    kinds_first: list[LayerKind]
    kinds_second: list[LayerKind]
    matrix: list[list[float | None]]
    images: int  # that were compared
    asked: int  # at most so many were to be
    batch: int
    part: str
    sha256_first: str  # of the weights
    sha256_second: str
    data: str | None  # the key of the data that the run was scored on

    @model_validator(mode="after")
    def _has_a_figure_for_each_pair(self) -> CkaMap:
        rows, columns = len(self.layers_first), len(self.layers_second)
        shapes = [len(self.kinds_first), len(self.matrix), *map(len, self.matrix)]
        if shapes != [rows, rows, *[columns] * rows] or len(self.kinds_second) != columns:
            raise ValueError(f"expected a matrix of {rows} x {columns} layers")
        return self

    @property
    def deepest_features(self) -> tuple[int, int] | None:
        """The last layers before any classifier: an index into each model's layers."""
        depths = [
            [index for index, kind in enumerate(kinds) if kind != "linear"]
            for kinds in (self.kinds_first, self.kinds_second)
        ]
        return (depths[0][-1], depths[1][-1]) if all(depths) else None

    def nearest(self, layer: int) -> int | None:
        """Which layer of `second` is most like this one of `first`."""
        known = [(value, index) for index, value in enumerate(self.matrix[layer])
                 if value is not None]  # fmt: skip
        return max(known)[1] if known else None


class Latency(Record):
    """Distribution of one phase over the measured repeats, in milliseconds."""

    p50: float
    p90: float
    p95: float
    p99: float
    mean: float
    std: float
    min: float
    max: float


class Measurement(Record):
    """One artifact timed on one host by one runtime: a row of `bench/<host>.jsonl`."""

    schema_version: int = 1
    utc: str
    host: dict[str, Any]
    model: str
    role: str  # student, teacher, or model for a foreign file
    artifact: str  # onnx-fp32, openvino-int8, ...
    file: str
    sha256: str
    runtime: str
    runtime_version: str
    device: str
    precision_asked: str  # fp32, fp16, int8
    precision_ran: str  # what the runtime says it executed, e.g. f32, bf16, i8
    threads: int
    batch: int
    input_shape: list[int]
    warmup_runs: int
    warmup_s: float
    repeats: int
    seconds: float
    latency_ms: Latency  # one `run` call: infer, host copies included
    latency_p50_low: float  # 95 % interval of the median
    latency_p50_high: float
    samples_ms: list[float]  # at most 500 of the repeats, evenly taken, for the picture
    throughput_ips: float  # images per second at this batch size
    load_s: float
    first_ms: float
    peak_memory_mb: float | None
    phases_ms: dict[str, Latency]  # decode, preprocess, infer, postprocess, total
    scores: Scores | None = None
    gate: str | None = None  # verdict of the artifact's gate at the time
    notes: list[str] = []
    # while it was timed (bench/clocks.py): after the warm-up, and after the last repeat
    power_mode: str | None = None  # nvpmodel's mode, governor, preference; None: not readable
    cpu_mhz_before: float | None = None  # of the fastest core
    cpu_mhz: float | None = None
    gpu_mhz_before: float | None = None
    gpu_mhz: float | None = None
    emc_mhz: float | None = None  # memory of a Jetson
    temperature_before_c: float | None = None  # of the hottest sensor
    temperature_c: float | None = None
    throttle_events: int | None = None  # meanwhile
    format_unverified: list[str] = []  # fields read from text that no public source describes
    # a pass of its own after the timing (bench/energy.py), per image, less the power at rest
    energy_status: str = NOT_MEASURED  # or `measured`, `not told apart from rest`, or why not
    energy_mj: float | None = None
    energy_mj_low: float | None = None  # 95 % interval
    energy_mj_high: float | None = None
    energy_gross_mj: float | None = None  # the power at rest included
    idle_w: float | None = None
    load_w: float | None = None
    energy_s: float | None = None  # how long the load lasted
    energy_images: int | None = None  # in that time
    power_readings: int | None = None  # the fewer of those at rest and under load
    power_source: str | None = None  # which meter, what it covers, and what is doubtful about it


def append_jsonl(path: Path, record: Record) -> None:
    """Append one record as one line and flush it to disk.

    A last line that was torn (power cut, full disk) is cut off first, so that the new row does
    not grow onto it.
    """
    import os

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        file.seek(0)
        written = file.read()
        whole = written.rfind(b"\n") + 1
        if whole < len(written):
            file.truncate(whole)
        file.write(record.model_dump_json().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_measurements(path: Path) -> Iterator[Measurement]:
    """Yield the measurements of one .jsonl file; a torn last line (power cut) is passed over.

    A byte that is not UTF-8 (another program's note, a worn card) spoils no more than its own text.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            yield Measurement.model_validate_json(line)
        except ValueError as error:
            if number == len(lines):
                return
            raise DataError(f"{path}:{number}: not a measurement: {error}") from None


def dump_json(value: Any) -> str:
    """JSON with sorted keys and no NaN (null instead), the same bytes for the same value."""

    def clean(item: Any) -> Any:
        if isinstance(item, BaseModel):
            return clean(item.model_dump(mode="json"))
        if isinstance(item, dict):
            return {str(key): clean(entry) for key, entry in item.items()}
        if isinstance(item, (list, tuple)):
            return [clean(entry) for entry in item]
        if isinstance(item, np.generic):
            return clean(item.item())
        if isinstance(item, float) and not np.isfinite(item):
            return None
        if isinstance(item, Path):
            return str(item)
        return item

    return json.dumps(clean(value), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
