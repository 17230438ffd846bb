"""What `edgekd data check` says of masks: broken files, other sizes, shares of the classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekd.data._masks import check_size, checked_mask
from edgekd.data.base import UNKNOWN_PIXEL, DataSource
from edgekd.errors import DataError
from edgekd.log import progress


@dataclass(frozen=True)
class MaskReport:
    """Counts of masks and shares of their pixels. `problems` and `notes` as in CheckReport."""

    masks: int  # that can be read
    broken: list[str]  # one message per mask that cannot, or that is not of its image
    empty: int  # masks that show nothing but background (of several classes: only one)
    shares: dict[str, float]  # of all known pixels, each mask counting the same
    unknown: float  # share of pixels without a class
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_masks(
    source: DataSource,
    shapes: Mapping[int, tuple[int, int]],
    parts: npt.NDArray[np.str_],
) -> MaskReport:
    """Read every mask once; `shapes` are those of the readable images, `parts` (N,) where each is.

    Nothing is raised for what the masks have wrong.
    """
    names = source.classes if len(source.classes) > 1 else ("background", *source.classes)
    pixels = np.zeros((len(source), len(names) + 1))  # shares; the last column is unknown
    files, ids = source.mask_files(), source.ids()
    readable: list[int] = []
    broken: list[str] = []
    with progress() as bar:
        task = bar.add_task("reading masks", total=len(source), note="")
        for index in range(len(source)):
            bar.update(task, advance=1)
            try:
                mask = checked_mask(source, index)
                if index in shapes:
                    check_size(mask, shapes[index], Path(files[index] if files else ids[index]))
            except DataError as error:
                broken.append(error.message)
                continue
            counts = np.bincount(mask.reshape(-1), minlength=256)
            pixels[index] = counts[[*range(len(names)), UNKNOWN_PIXEL]] / max(1, mask.size)
            readable.append(index)
    found = pixels[readable]
    known = max(float(found[:, :-1].sum()), 1e-12)
    several = len(source.classes) > 1
    is_empty = (found[:, :-1] > 0).sum(axis=1) < 2 if several else found[:, 1] == 0
    report = MaskReport(
        masks=len(readable),
        broken=broken,
        empty=int(is_empty.sum()),
        shares={name: float(found[:, i].sum()) / known for i, name in enumerate(names)},
        unknown=float(found[:, -1].mean()) if readable else 0.0,
    )
    _judge(report, source, pixels, parts)
    return report


def _judge(
    report: MaskReport,
    source: DataSource,
    pixels: npt.NDArray[np.float64],
    parts: npt.NDArray[np.str_],
) -> None:
    if report.broken:
        report.problems.append(f"{len(report.broken)} masks cannot be used; the first: "
                               f"{report.broken[0]}")  # fmt: skip
    first = 1 if len(source.classes) == 1 else 0
    for column, name in enumerate(source.classes, first):
        for part in ("train", "val", "test"):
            if (parts == part).any() and not pixels[parts == part, column].any():
                text = f"no mask of the {part} part shows '{name}'"
                (report.problems if part == "train" else report.notes).append(text)
    shares = list(report.shares.items())[first:]
    if report.masks:
        report.notes.append("masks: " + ", ".join(f"{share:.2%} {name}" for name, share in shares)
                            + " of all pixels")  # fmt: skip
    if report.empty:
        nothing = "no " + source.classes[0] if first else "one class only"
        report.notes.append(f"{report.empty} of {report.masks} masks show {nothing}")
    if report.unknown:
        report.notes.append(f"{report.unknown:.2%} of the masks' pixels are unknown (255)")
