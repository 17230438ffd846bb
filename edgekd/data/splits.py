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

from edgekd.data._deal import Table, deal, with_unknown
from edgekd.data._labels import membership, texts
from edgekd.data._split_problems import check_split
from edgekd.data.base import DataSource
from edgekd.errors import DataError, RecipeError
from edgekd.log import say
from edgekd.recipe_load import digest

Indices = npt.NDArray[np.int64]

PARTS = ("train", "val", "test")
VAL_AND_TEST = "val+test"  # in a run's split.csv, for protocols that choose and report on one part
FOLD_VAL = 1 / 8  # of what does not test, where a split is by folds
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
    test_seed: int | None = None,
    limit: int | None = None,
    verify: bool = True,
    strata: Indices | None = None,
) -> Split:
    """Split a source by a ratio (`8-1-1`), `N-fold`, `official`, or `csv:FILE` (columns id, part).

    A ratio gives every part its share of each class, or of each of `strata` (N,). With `test_seed`
    it alone draws the test part, and `seed` deals the rest. Of `N-fold` the seeds 1 to N test one
    fold each; of the others one eighth validates.
    `limit` keeps about that many images: whole groups, of every part its share, and in every part
    each of its classes. Raises RecipeError for an unknown kind of split, DataError for one that
    cannot be made or (unless `verify` is off) that `check_split` refuses.
    """
    if split == "official":
        parts = _official(source, seed)
    elif split.startswith("csv:"):
        parts = _from_csv(source, Path(split[4:]).expanduser())
    else:
        table = _table(source, strata)
        folds = re.fullmatch(r"([1-9]\d*)-fold", split)
        if folds:
            parts = _by_fold(source, int(folds[1]), seed, test_seed or 0, table)
        else:
            parts = _by_ratio(source, split, seed, test_seed, table)
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


def take_fraction(source: DataSource, indices: Indices, fraction: float, *, seed: int) -> Indices:
    """About this part of `indices`: whole groups, classes in proportion, each class kept."""
    if fraction >= 1 or not len(indices):
        return indices
    table, groups = with_unknown(membership(source)[indices]), np.asarray(source.groups())[indices]
    taken = deal(groups, table, (fraction, 1 - fraction), seed) == 0
    order = np.random.default_rng(seed).permutation(len(indices))
    for shows in table.T:
        if not (taken & shows).any() and shows.any():
            one = order[shows[order]][0]
            taken |= groups == groups[one]
    return np.asarray(indices[taken])


def write_split(path: Path, source: DataSource, split: Split) -> None:
    """Write `id,target,group,part`, one row per image that is used."""
    from edgekd.rundir import replace_file

    ids, groups, targets = source.ids(), source.groups(), _written(source)
    held_twice = np.intersect1d(split.val, split.test)
    with replace_file(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "target", "group", "part"))
        for part, indices in (*split.items(), (VAL_AND_TEST, held_twice)):
            for index in indices if part == VAL_AND_TEST else np.setdiff1d(indices, held_twice):
                writer.writerow((ids[index], targets[index], groups[index], part))


def read_split(path: Path, source: DataSource) -> Split:
    """Read what `write_split` wrote. Raises DataError when the source is no longer the same."""
    targets = _written(source)
    found: dict[str, list[int]] = {part: [] for part in PARTS}
    for line, index, row in _rows(path, source, ("id", "target", "part")):
        if row["target"] != targets[index]:
            raise DataError(
                f"{path}, row {line}: image '{row['id']}' had target {row['target']}, in the data "
                f"it is now {targets[index]}",
                hint="the data has changed since this split was made: start over with --fresh",
            )
        for part in row["part"].split("+"):
            found[part].append(index)
    return Split(*(np.array(sorted(found[part]), dtype=np.int64) for part in PARTS))


def _written(source: DataSource) -> list[str]:
    """Targets as they stand in a run's split.csv: numbers, and with labels their names."""
    return texts(source) if source.has_labels else [str(target) for target in source.targets()]


def _table(source: DataSource, strata: Indices | None) -> Table:
    if strata is None:
        return membership(source)
    return np.asarray(strata[:, None] == np.unique(strata))


def _by_fold(
    source: DataSource, folds: int, seed: int, drawn_by: int, table: Table
) -> npt.NDArray[np.str_]:
    groups = np.asarray(source.groups())
    if not 2 <= folds <= len(set(groups)):
        raise RecipeError(f"data.split: {folds}-fold needs 2 folds or more, and as many groups "
                          f"(patients, lesions); there are {len(set(groups))}")  # fmt: skip
    is_test = deal(groups, table, [1 / folds] * folds, drawn_by) == (seed - 1) % folds
    return _rest(is_test, groups, table, (1 - FOLD_VAL, FOLD_VAL), seed)


def _rest(
    is_test: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.str_],
    table: Table,
    shares: Sequence[float],
    seed: int,
) -> npt.NDArray[np.str_]:
    """Train and val of what does not test."""
    parts = np.full(len(groups), "test", dtype="<U5")
    dealt = deal(groups[~is_test], table[~is_test], shares, seed)
    parts[~is_test] = np.array(("train", "val"))[dealt]
    return parts


def _by_ratio(
    source: DataSource, split: str, seed: int, test_seed: int | None, table: Table
) -> npt.NDArray[np.str_]:
    if not re.fullmatch(r"[1-9]\d*-[1-9]\d*-[1-9]\d*", split):
        raise RecipeError(
            f"data.split: '{split}' is no split",
            hint="train-val-test as in 8-1-1 or 75-10-15, or 4-fold, official, csv:FILE, or a "
            "paper's own: umkd_code, dspkd_paper",
        )
    ratio = np.array(split.split("-"), dtype=np.float64)
    groups = np.asarray(source.groups())
    if len(set(groups)) < len(PARTS):
        raise DataError(f"{len(set(groups))} groups cannot fill three parts (data.split: {split})")
    train, val, test = ratio / ratio.sum()
    if test_seed is not None:
        is_test = deal(groups, table, (1 - test, test), test_seed) == 1
        return _rest(is_test, groups, table, (train / (1 - test), val / (1 - test)), seed)
    dealt = deal(groups, table, (train, val, test), seed)
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
        val = deal(groups, membership(source)[train], (1 - CARVED, CARVED), seed) == 1
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
