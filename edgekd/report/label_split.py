"""Reading split.csv where targets name several classes: `drusen+scar`, `none`, `scar+?edema`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from edgekd.data._labels import NONE
from edgekd.errors import DataError
from edgekd.report import sources as files
from edgekd.report.records import DataCard
from edgekd.report.training import parts_in_order
from edgekd.rundir import RunDir
from edgekd.tasks.base import Bools

SIGN, UNKNOWN = "+", "?"


@dataclass(frozen=True)
class LabelSplit:
    """The rows of split.csv."""

    classes: list[str]
    labels: npt.NDArray[np.int8]  # (N, C): 1, 0, or -1 where it is not known
    parts: list[str]
    groups: list[str]

    @cached_property
    def trains(self) -> Bools:
        """Which images are for training (N,)."""
        return np.array(["train" in part.split("+") for part in self.parts], dtype=bool)


def read(run: RunDir, classes: Sequence[str]) -> LabelSplit | None:
    """The labels of all images; None where there is no split.csv.

    Raises DataError for a class that is not one of `classes`.
    """
    known: dict[str, list[int]] = {}  # few texts, many rows
    texts, parts, groups = [], [], []
    for row in files.split_rows(run):
        text = row["target"]
        if text not in known:
            known[text] = _labels(text, classes, run)
        texts.append(text)
        parts.append(row["part"])
        groups.append(row["group"])
    if not texts:
        return None
    labels = np.array([known[text] for text in texts], dtype=np.int8)
    return LabelSplit(list(classes), labels, parts, groups)


def names(run: RunDir) -> list[str]:
    """The classes of a run that has not said which it has: as found, the most frequent first."""
    found: Counter[str] = Counter()
    for row in files.split_rows(run):
        found.update(token.removeprefix(UNKNOWN) for token in row["target"].split(SIGN))
    return sorted(set(found) - {NONE}, key=lambda name: (-found[name], name))


def data_card(split: LabelSplit) -> DataCard:
    """Images per class and part: an image counts in every class that it shows, and once in all."""
    parts = parts_in_order(split.parts)
    member = np.array([[part == one for one in parts] for part in split.parts])
    shown, unknown = split.labels == 1, split.labels < 0
    is_none = ~shown.any(axis=1) & ~unknown.all(axis=1)
    table = np.column_stack([shown, is_none]).astype(np.int64)
    parts_of: dict[str, set[str]] = {}
    for group, part in zip(split.groups, split.parts, strict=True):
        parts_of.setdefault(group, set()).add(part)
    remark = "An image counts in every class that it shows, and once in all images."
    if unknown.any():
        remark += f" {int(unknown.sum()):,} labels are not known and do not count."
    return DataCard(
        parts=parts,
        classes=[*split.classes, f"({NONE} of them)"],
        images=(table.T @ member).tolist(),
        groups=[sum(part in found for found in parts_of.values()) for part in parts],
        shared_groups=sum(len(found) > 1 for found in parts_of.values()),
        totals=member.sum(axis=0).tolist(),
        remark=remark,
    )


def _labels(text: str, classes: Sequence[str], run: RunDir) -> list[int]:
    """One target as a row of labels."""
    numbers = {name: number for number, name in enumerate(classes)}
    row = [0] * len(classes)
    left = text.split(SIGN)
    while left:
        # a class may itself be called `A+B`: the longest name that is one
        for end in range(len(left), 0, -1):
            token = SIGN.join(left[:end])
            name = token.removeprefix(UNKNOWN)
            if token in numbers or name in numbers:
                row[numbers.get(token, numbers.get(name, 0))] = 1 if token in numbers else -1
                break
            if token == NONE:
                break
        else:
            raise DataError(f"{run.split}: target '{text}': there is no class '{left[0]}'",
                            hint="the classes are those of run.json")  # fmt: skip
        left = left[end:]
    return row
