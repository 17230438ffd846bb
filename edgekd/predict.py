"""Classify pictures with an exported model. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import BundleError, DataError
from edgekd.image import SUFFIXES, UInt8, decode, to_square
from edgekd.runtimes.session import Session, Target, logits_of, open_session, resolve


@dataclass(frozen=True)
class Prediction:
    """One picture's answer, or the reason why there is none (`error`)."""

    file: str
    label: str = ""
    probability: float = 0.0  # of `label`
    probabilities: dict[str, float] = field(default_factory=dict)  # by class
    runtime: str = ""
    artifact: str = ""
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def predict(
    target: Path,
    inputs: Sequence[Path],
    *,
    artifact: str | None = None,
    runtime: str | None = None,
    device: str = "",
    threads: int = 0,
    batch: int = 1,
) -> Iterator[Prediction]:
    """Classify files and all pictures below folders (sorted), one result each, in that order.

    A picture that cannot be read becomes a result with `error`, so that one does not stop a
    thousand; a single given file raises DataError instead. Also raises DataError at once for a
    path that is not there or a folder without pictures, and what `open_session` raises.
    """
    files = find_pictures(inputs)
    is_single = len(inputs) == 1 and inputs[0].is_file()
    found = resolve(target)
    if found.manifest is None:
        raise BundleError(f"{target} is a model file without a bundle: its classes are not known",
                          hint=f"edgekd bench {target}")  # fmt: skip
    options = {"artifact": artifact, "runtime": runtime, "device": device, "threads": threads}
    return _predict(found, files, options, batch, is_single)


def find_pictures(inputs: Sequence[Path]) -> list[Path]:
    """Files as given; folders replaced by the pictures below them (by ending), sorted."""
    files = []
    for given in inputs:
        if given.is_dir():
            pictures = sorted(path for path in given.rglob("*")
                              if path.suffix.lower() in SUFFIXES and path.is_file())  # fmt: skip
            if not pictures:
                raise DataError(f"{given}: no pictures in this folder; they end in "
                                f"{', '.join(sorted(SUFFIXES))}")  # fmt: skip
            files += pictures
        elif given.is_file():
            files.append(given)
        else:
            raise DataError(f"{given}: no such picture or folder")
    return files


def _predict(
    target: Target, files: list[Path], options: dict[str, Any], batch: int, is_single: bool
) -> Iterator[Prediction]:
    with open_session(target, batch=batch, **options) as session:
        for start in range(0, len(files), batch):
            yield from _classify(session, files[start : start + batch], batch, is_single)


def _classify(
    session: Session, files: list[Path], batch: int, is_single: bool
) -> Iterator[Prediction]:
    assert session.task is not None  # only bundles come here
    assert session.input is not None
    squares: list[UInt8] = []
    broken: dict[Path, str] = {}
    for path in files:
        try:
            squares.append(to_square(decode(path), session.input))
        except DataError as error:
            if is_single:
                raise
            broken[path] = error.message
    names = session.task.classes
    rows = iter([])  # type: ignore[var-annotated]
    if squares:
        probabilities = session.task.activate(logits_of(session, np.stack(squares), batch))
        decisions = session.task.decide(probabilities)
        rows = iter(zip(probabilities, decisions, strict=True))
    for path in files:
        if path in broken:
            yield Prediction(str(path), error=broken[path])
            continue
        row, decision = next(rows)
        yield Prediction(
            file=str(path),
            label=names[decision],
            probability=float(row[decision]),
            probabilities={name: float(value) for name, value in zip(names, row, strict=True)},
            runtime=session.runtime_name,
            artifact=session.artifact.name,
        )
