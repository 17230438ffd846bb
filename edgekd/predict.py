"""Ask an exported model about pictures: a class for each, or a mask. Torch-free."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import BundleError, DataError, MissingOnHost
from edgekd.image import SUFFIXES, UInt8, decode, is_picture, to_square
from edgekd.mask_answer import MaskFolder, answer
from edgekd.recipe_data import InputSpec
from edgekd.runtimes.base import Arrays, Facts
from edgekd.runtimes.session import Session, Target, logits_of, open_session, resolve

Picture = Path | bytes | UInt8
SEGMENTATION = "segmentation"  # the task that answers with masks
NONE = "none"  # the label of a picture that shows no class
MASK_KEYS = {"areas", "pixels", "mask_file", "overlay_file"}


@dataclass(frozen=True)
class Prediction:
    """One picture's answer, or the reason why there is none (`error`).

    `latency_ms` has decode (from opening the file), preprocess, infer, postprocess and total, the
    sum: from the file to this record. Of what a batch does at once it is one picture's share.
    """

    file: str  # "" for a picture that came from memory
    label: str = ""  # of a mask: the foreground class of the largest area, or background
    probability: float = 0.0  # of `label`; of a mask: the highest of any pixel
    # where a picture may show several classes: those that it shows, the surest first; `label` is
    # the first of them, or none
    labels: list[str] | None = None
    probabilities: dict[str, float] = field(default_factory=dict)  # by class; of a mask as above
    # by class that has an operating point: whether it is reached, whatever `label` is
    flags: dict[str, bool] = field(default_factory=dict)
    runtime: str = ""
    artifact: str = ""
    error: str | None = None
    latency_ms: dict[str, float] = field(default_factory=dict)
    # what to type where `error` is that this machine lacks a package, "" if that is not known
    needs: str | None = None
    # of a mask, by foreground class: share of the picture's pixels, and how many
    areas: dict[str, float] = field(default_factory=dict)
    pixels: dict[str, int] = field(default_factory=dict)
    mask_file: str | None = None  # written by `masks`
    overlay_file: str | None = None
    # (H, W) of the decoded picture: 0 is background, 1 the one class, or the classes' numbers
    mask: UInt8 | None = field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; without `needs`, which `error` says too, and without the pixels of a mask.

        What only masks have is left out where there is none.
        """
        left_out = {"needs", "mask"} | (set() if self.areas else MASK_KEYS)
        left_out |= {"labels"} if self.labels is None else set()
        fields = asdict(replace(self, mask=None))
        return {key: value for key, value in fields.items() if key not in left_out}


def predict(
    target: Path,
    inputs: Sequence[Path],
    *,
    artifact: str | None = None,
    runtime: str | None = None,
    device: str = "",
    threads: int = 0,
    batch: int = 1,
    masks: Path | None = None,
) -> Iterator[Prediction]:
    """Ask about files and all pictures below folders (sorted), one result each, in that order.

    A model of masks also writes each picture's mask and overlay below the folder `masks`, if that
    is given (mask_answer.MaskFolder).

    A picture that cannot be read becomes a result with `error`, so that one does not stop a
    thousand, and so does one that needs a package which is not here; a single given file raises
    DataError or MissingOnHost instead. Also raises DataError at once for a path that is not there,
    a folder without pictures or one in which no masks can go, BundleError for `masks` of a model
    without and for outputs that are not finite, and what `open_session` raises.
    """
    files = find_pictures(inputs)
    is_single = len(inputs) == 1 and inputs[0].is_file()
    found = resolve(target)
    if found.manifest is None:
        raise BundleError(f"{target} is a model file without a bundle: its classes are not known",
                          hint=f"edgekd bench {target}")  # fmt: skip
    folder = None
    if masks is not None:
        if found.manifest.task != SEGMENTATION:
            raise BundleError(f"--masks: {found.manifest.name} is a model for "
                              f"{found.manifest.task}, it gives no masks",
                              hint="leave --masks out")  # fmt: skip
        folder = MaskFolder(masks, inputs)
    options = {"artifact": artifact, "runtime": runtime, "device": device, "threads": threads}
    return _predict(found, files, options, batch, is_single, folder)


def find_pictures(inputs: Sequence[Path]) -> list[Path]:
    """Files as given; folders replaced by the pictures below them (`is_picture`), sorted.

    What lies in a hidden folder (a recycle bin, a thumbnail cache) is passed over.
    """
    files = []
    for given in inputs:
        if given.is_dir():
            below = (path for path in given.rglob("*") if not _is_hidden(path.relative_to(given)))
            pictures = sorted(path for path in below if is_picture(path) and path.is_file())
            if not pictures:
                raise DataError(f"{given}: no pictures in this folder; they end in "
                                f"{', '.join(sorted(SUFFIXES))}, or are DICOM")  # fmt: skip
            files += pictures
        elif given.is_file():
            files.append(given)
        else:
            raise DataError(f"{given}: no such picture or folder")
    return files


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _predict(
    target: Target, files: list[Path], options: dict[str, Any], batch: int, is_single: bool,
    masks: MaskFolder | None,
) -> Iterator[Prediction]:  # fmt: skip
    with open_session(target, batch=batch, **options) as session:
        for start in range(0, len(files), batch):
            for row in _classify(session, files[start : start + batch], batch, is_single):
                yield row if masks is None or row.mask is None else _written(row, masks)


def _written(row: Prediction, masks: MaskFolder) -> Prediction:
    assert row.mask is not None
    try:
        files = masks.write(Path(row.file), row.mask, binary=len(row.areas) == 1)
    except (DataError, MissingOnHost) as error:  # the picture changed or went meanwhile
        return Prediction(row.file, error=error.message)
    return replace(row, mask_file=str(files.mask), overlay_file=str(files.overlay))


class _Timed:
    """A session that adds up the seconds in which it runs: what is left of a call is preparing."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.seconds = 0.0

    @property
    def facts(self) -> Facts:
        return self._session.facts

    def run(self, inputs: Arrays) -> Arrays:
        begin = time.perf_counter()
        outputs = self._session.run(inputs)
        self.seconds += time.perf_counter() - begin
        return outputs


def classify(session: Session, picture: Picture) -> Prediction:
    """One picture: a path, the bytes of a file, or uint8 RGB (H, W, 3).

    Raises DataError, MissingOnHost, and BundleError for outputs that are not finite.
    """
    return next(_classify(session, [picture], 1, is_single=True))


def _classify(
    session: Session, files: Sequence[Picture], batch: int, is_single: bool
) -> Iterator[Prediction]:
    assert session.task is not None  # only bundles come here
    assert session.input is not None
    squares: list[UInt8] = []
    shapes: list[tuple[int, int]] = []  # the pictures' own height and width
    spent: list[tuple[float, float]] = []  # to decode and to resize each, in seconds
    broken: dict[int, DataError | MissingOnHost] = {}
    for place, file in enumerate(files):
        try:
            square, shape, seconds = _read(file, session.input)
        except (DataError, MissingOnHost) as error:
            if is_single:
                raise
            broken[place] = error
        else:
            squares.append(square)
            shapes.append(shape)
            spent.append(seconds)
    rows = iter([])  # type: ignore[var-annotated]
    if squares:
        timed, begin = _Timed(session), time.perf_counter()
        logits = logits_of(timed, np.stack(squares), batch)
        ran = time.perf_counter()
        if not np.isfinite(logits).all():
            raise BundleError(f"{session.artifact.name} gives outputs that are not finite",
                              hint="edgekd verify BUNDLE")  # fmt: skip
        probabilities = session.task.activate(logits)
        decisions = session.task.decide(probabilities)
        ended = time.perf_counter()
        shares = (ran - begin - timed.seconds, timed.seconds, ended - ran)
        rows = iter(zip(probabilities, decisions, shapes, spent, strict=True))
    for place, file in enumerate(files):
        name = str(file) if isinstance(file, Path) else ""
        if place in broken:
            why = broken[place]
            needs = (why.hint or "") if isinstance(why, MissingOnHost) else None
            yield Prediction(name, error=why.message, needs=needs)
            continue
        row, decision, shape, own = next(rows)
        prepare, infer, postprocess = (share / len(squares) for share in shares)
        begin = time.perf_counter()
        said = _said(session, row, decision, shape)
        postprocess += time.perf_counter() - begin
        yield Prediction(
            file=name,
            **said,
            runtime=session.runtime_name,
            artifact=session.artifact.name,
            latency_ms=_milliseconds(own[0], own[1] + prepare, infer, postprocess),
        )


def _said(
    session: Session, row: npt.NDArray[Any], decision: Any, shape: tuple[int, int]
) -> dict[str, Any]:
    """The fields of a Prediction that hold the answer, from one picture's probabilities."""
    assert session.task is not None
    assert session.input is not None
    assert session.manifest is not None
    names = session.task.classes
    if session.task.wants_masks:
        return dict(vars(answer(row, decision, names, shape, session.input)))
    if session.task.wants_labels:
        shown = sorted(np.flatnonzero(decision).tolist(), key=lambda index: -row[index])
        first = {
            "label": names[shown[0]] if shown else NONE,
            "probability": float(row[shown[0]] if shown else 1.0 - row.max()),
            "labels": [names[index] for index in shown],
        }
    else:
        first = {"label": names[decision], "probability": float(row[decision])}
    return {
        **first,
        "probabilities": {name: float(value) for name, value in zip(names, row, strict=True)},
        "flags": {
            name: float(row[names.index(name)]) >= point.threshold
            for name, point in session.manifest.thresholds.items()
        },
    }


def _read(file: Picture, spec: InputSpec) -> tuple[UInt8, tuple[int, int], tuple[float, float]]:
    """What the network sees of a picture, the picture's own height and width, and the seconds to
    decode and to resize it.
    """
    name = str(file) if isinstance(file, Path) else "image"
    begin = time.perf_counter()
    try:
        image = file if isinstance(file, np.ndarray) else decode(file)
        decoded = time.perf_counter()
        try:
            square = to_square(image, spec)
        except DataError as error:
            raise DataError(f"{name}: {error.message}", hint=error.hint) from None
    except MemoryError:
        raise DataError(f"{name}: this machine has too little memory for this picture",
                        hint="make it smaller") from None  # fmt: skip
    shape = (image.shape[0], image.shape[1])
    return square, shape, (decoded - begin, time.perf_counter() - decoded)


def _milliseconds(*seconds: float) -> dict[str, float]:
    """By phase, named as `edgekd bench` names them."""
    names = ("decode", "preprocess", "infer", "postprocess", "total")
    return {
        name: round(value * 1e3, 4)
        for name, value in zip(names, (*seconds, sum(seconds)), strict=True)
    }
