"""Which images train, validate and test. A split is drawn once and kept in the run as a CSV.

Groups (patients, lesions) never cross parts, and each part gets its share of every class.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.data.base import DataSource
from edgekd.errors import DataError, RecipeError
from edgekd.log import say
from edgekd.recipe_load import digest

Indices = npt.NDArray[np.int64]

PARTS = ("train", "val", "test")
VAL_AND_TEST = "val+test"  # in a run's split.csv, for protocols that choose and report on one part
CARVED = 0.1  # of an official train part, where the data comes without a val part


@dataclass(frozen=True)
class Split:
    """Indices into the source, sorted, none twice."""

    train: Indices
    val: Indices
    test: Indices

    def items(self) -> Iterator[tuple[str, Indices]]:
        """`("train", indices)`, then `val` and `test`."""
        yield from ((part, getattr(self, part)) for part in PARTS)

    def used(self) -> Indices:
        """All indices, part after part."""
        return np.concatenate([indices for _, indices in self.items()])


def make_split(
    source: DataSource,
    split: str,
    *,
    seed: int,
    limit: int | None = None,
    verify: bool = True,
    strata: Indices | None = None,
) -> Split:
    """Split a source by a ratio (`8-1-1`), `official`, or `csv:FILE` (columns id, part).

    A ratio gives every part its share of each class, or of each of `strata` (N,).
    `limit` keeps about that many images: whole groups, of every part its share, and in every part
    each of its classes. Raises RecipeError for an unknown kind of split, DataError for one that
    cannot be made or (unless `verify` is off) that `check_split` refuses.
    """
    if split == "official":
        parts = _official(source, seed)
    elif split.startswith("csv:"):
        parts = _from_csv(source, Path(split[4:]).expanduser())
    else:
        parts = _by_ratio(source, split, seed, source.targets() if strata is None else strata)
    drawn = Split(*(np.flatnonzero(parts == part) for part in PARTS))
    if limit is not None:
        share = limit / max(1, sum(len(indices) for _, indices in drawn.items()))
        drawn = Split(
            *(take_fraction(source, indices, share, seed=seed) for _, indices in drawn.items())
        )
    if verify:
        check_split(source, drawn)
    return drawn


def data_key(source: DataSource, split: Split, subsets: Mapping[str, Split] | None = None) -> str:
    """A hash of all labels, groups, files, the split and those of named subsets."""
    parts: list[Any] = [digest(part.tobytes().hex()) for _, part in split.items()]
    for name, subset in (subsets or {}).items():
        parts.append([name, *(digest(part.tobytes().hex()) for _, part in subset.items())])
    return digest([source.fingerprint(), parts])


def check_split(source: DataSource, split: Split) -> None:
    """Raise DataError for the first thing that `split_problems` finds."""
    refuse(split_problems(source, split))


def refuse(problems: Sequence[str]) -> None:
    """Raise DataError for the first of some problems."""
    for problem in problems:
        raise DataError(problem, hint="edgekd data check RECIPE shows the whole data set")


def split_problems(source: DataSource, split: Split) -> list[str]:
    """What must not be: an empty part, a class without training images, a group in two parts."""
    return [*empty_problems(source, split), *crossing_problems(source, split)]


def empty_problems(source: DataSource, split: Split) -> list[str]:
    """An empty part, a class without training images."""
    targets = source.targets()
    problems = [f"the {part} part is empty" for part, part_of in split.items() if not len(part_of)]
    kinds = source.kinds()
    counts = {
        part: (targets[indices, None] == np.arange(len(kinds))).sum(axis=0)
        for part, indices in split.items()
    }
    for index, name in enumerate(kinds):
        elsewhere = {part: int(counts[part][index]) for part in ("val", "test")}
        if counts["train"][index] == 0:
            seen = " and ".join(f"{n} in {part}" for part, n in elsewhere.items() if n)
            problems.append(
                f"class '{name}' has no training image" + (f", but {seen}" if seen else "")
            )
    return problems


def crossing_problems(source: DataSource, split: Split) -> list[str]:
    """A group in two parts."""
    groups = np.asarray(source.groups())
    home: dict[str, str] = {}
    crossing: dict[str, str] = {}
    for part, indices in split.items():
        for group in np.unique(groups[indices]):
            if home.setdefault(group, part) != part:
                crossing.setdefault(str(group), f"{home[group]} and {part}")
    if not crossing:
        return []
    first, where = next(iter(crossing.items()))
    return [
        f"{len(crossing)} groups (patients, lesions) are in more than one part; the first is "
        f"'{first}', in {where}"
    ]


def take_fraction(source: DataSource, indices: Indices, fraction: float, *, seed: int) -> Indices:
    """About this part of `indices`: whole groups, classes in proportion, each class kept."""
    if fraction >= 1 or not len(indices):
        return indices
    targets, groups = source.targets()[indices], np.asarray(source.groups())[indices]
    taken = _deal(groups, targets, (fraction, 1 - fraction), seed) == 0
    order = np.random.default_rng(seed).permutation(len(indices))
    for target in np.unique(targets):
        if not (taken & (targets == target)).any():
            one = order[targets[order] == target][0]
            taken |= groups == groups[one]
    return np.asarray(indices[taken])


def write_split(path: Path, source: DataSource, split: Split) -> None:
    """Write `id,target,group,part`, one row per image that is used."""
    from edgekd.rundir import replace_file

    ids, groups, targets = source.ids(), source.groups(), source.targets()
    held_twice = np.intersect1d(split.val, split.test)
    with replace_file(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "target", "group", "part"))
        for part, indices in (*split.items(), (VAL_AND_TEST, held_twice)):
            for index in indices if part == VAL_AND_TEST else np.setdiff1d(indices, held_twice):
                writer.writerow((ids[index], targets[index], groups[index], part))


def read_split(path: Path, source: DataSource) -> Split:
    """Read what `write_split` wrote. Raises DataError when the source is no longer the same."""
    targets = source.targets()
    found: dict[str, list[int]] = {part: [] for part in PARTS}
    for line, index, row in _rows(path, source, ("id", "target", "part")):
        if row["target"] != str(targets[index]):
            raise DataError(
                f"{path}, row {line}: image '{row['id']}' had target {row['target']}, in the data "
                f"it is now {targets[index]}",
                hint="the data has changed since this split was made: start over with --fresh",
            )
        for part in row["part"].split("+"):
            found[part].append(index)
    return Split(*(np.array(sorted(found[part]), dtype=np.int64) for part in PARTS))


def _by_ratio(source: DataSource, split: str, seed: int, strata: Indices) -> npt.NDArray[np.str_]:
    if not re.fullmatch(r"[1-9]\d*-[1-9]\d*-[1-9]\d*", split):
        raise RecipeError(
            f"data.split: '{split}' is no split",
            hint="train-val-test as in 8-1-1 or 75-10-15, or official, umkd_code, or csv:FILE",
        )
    ratio = np.array(split.split("-"), dtype=np.float64)
    groups = source.groups()
    if len(set(groups)) < len(PARTS):
        raise DataError(f"{len(set(groups))} groups cannot fill three parts (data.split: {split})")
    dealt = _deal(groups, strata, tuple(ratio / ratio.sum()), seed)
    return np.asarray(np.array(PARTS)[dealt])


def _official(source: DataSource, seed: int) -> npt.NDArray[np.str_]:
    given = source.parts()
    if given is None:
        raise DataError(
            "data.split: this data set has no official split",
            hint="data.split=8-1-1, or say of each image whether it is train, val or test",
        )
    parts = np.array(given, dtype="<U5")
    missing = [part for part in ("train", "test") if part not in parts]
    if missing:
        raise DataError(f"data.split: the official split has no {missing[0]} part",
                        hint="data.split=8-1-1")  # fmt: skip
    if "val" not in parts:
        train = np.flatnonzero(parts == "train")
        groups = np.asarray(source.groups())[train]
        val = _deal(groups, source.targets()[train], (1 - CARVED, CARVED), seed) == 1
        parts[train[val]] = "val"
        say(f"the official split has no val part: {val.sum()} of {len(train)} training images "
            f"(whole groups, seed {seed}) are used for it")  # fmt: skip
    return parts


def _from_csv(source: DataSource, path: Path) -> npt.NDArray[np.str_]:
    parts = np.full(len(source), "", dtype="<U5")
    for line, index, row in _rows(path, source, ("id", "part")):
        if row["part"] == VAL_AND_TEST:
            raise DataError(f"{path}, row {line}: an image may not validate and test")
        parts[index] = row["part"]
    unused = int((parts == "").sum())
    if unused:
        say(f"{path} does not list {unused} of {len(source)} images: they are not used")
    return parts


def _rows(
    path: Path, source: DataSource, columns: Sequence[str]
) -> Iterator[tuple[int, int, dict[str, str]]]:
    """Yield (row number in the file, index in the source, row), all checked."""
    known = {name: index for index, name in enumerate(source.ids())}
    seen: dict[int, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or ()
            for name in columns:
                if name not in header:
                    raise DataError(f"{path}: the header has no column {name}; found "
                                    f"{', '.join(header) or 'nothing'}")  # fmt: skip
            for line, row in enumerate(reader, 2):
                index = known.get(row["id"])
                if index is None:
                    raise DataError(
                        f"{path}, row {line}: the data has no image '{row['id']}'",
                        hint="is data.root the folder this split was made for?",
                    )
                if index in seen:
                    raise DataError(f"{path}: image '{row['id']}' is in row {seen[index]} and "
                                    f"again in row {line}")  # fmt: skip
                if row["part"] not in (*PARTS, VAL_AND_TEST):
                    raise DataError(f"{path}, row {line}: part is '{row['part']}', expected "
                                    f"train, val or test")  # fmt: skip
                seen[index] = line
                yield line, index, row
    except FileNotFoundError:
        raise DataError(f"{path}: no such split file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def _deal(
    groups: Sequence[str] | npt.NDArray[np.str_],
    targets: Indices,
    shares: Sequence[float],
    seed: int,
) -> Indices:
    """Deal whole groups out to parts by share, class by class; return the part of each image.

    Groups that hold much of a class go first, each to the part whose share of its classes is
    least filled (Sainte-Lague's rule); a class with a single group goes to the largest part.
    """
    _, owner = np.unique(np.asarray(groups), return_inverse=True)
    classes, target = np.unique(targets, return_inverse=True)
    counts = np.zeros((owner.max() + 1, len(classes)))
    np.add.at(counts, (owner, target), 1)
    weight = counts / counts.sum(axis=0)  # (G, C): what this group holds of each class
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    order = shuffled[np.argsort(-weight[shuffled].max(axis=1), kind="stable")]
    wanted = np.asarray(shares)[:, None]
    filled = np.zeros((len(shares), counts.shape[1]))
    part = np.empty(len(counts), dtype=np.int64)
    for group in order:
        # rare classes weigh more: they have few groups left to make up for it
        load = ((filled + weight[group] / 2) / wanted) @ weight[group]
        part[group] = np.argmin(load)
        filled[part[group]] += weight[group]
    return np.asarray(part[owner])
