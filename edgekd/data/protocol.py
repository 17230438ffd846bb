"""From a recipe's `data:` to the split of all images, or of one of its subsets.

Studies of imbalance train teachers on one part of a data set and a student on another: all images,
and a part with fewer images of the frequent classes. Such a subset is drawn first and the whole is
split once, balanced by class and membership; every subset inherits that split. So no image that a
model is tested on has trained another.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from edgekd.data._copied import Copied
from edgekd.data._dspkd import DSPKD_PAPER, dspkd_paper, leak
from edgekd.data._hair import LEAST, HairRemoved, hairless
from edgekd.data._split_problems import crossing_problems, empty_problems, refuse
from edgekd.data.base import DataSource
from edgekd.data.splits import Split, data_key, make_split, take_fraction
from edgekd.errors import RecipeError
from edgekd.recipe import Recipe
from edgekd.recipe_data import DataSpec, SubsetSpec

UMKD_CODE = "umkd_code"
LEAKING = (UMKD_CODE, DSPKD_PAPER)  # as published: what is tested on has trained or chosen
FOLDS, FOLD_SEED, HELD_OUT = 10, 42, (0, 1)

Indices = npt.NDArray[np.int64]
Splits = dict[str | None, Split]  # None: of all images


def as_asked(source: DataSource, spec: DataSpec) -> DataSource:
    """What a recipe makes of a source before it is split: without hair, with copies.

    Raises RecipeError for copies of data with masks.
    """
    if spec.remove_hair:
        source = HairRemoved(source)
    return Copied(source, seed=spec.drawn_by) if spec.split == DSPKD_PAPER else source


def splits_of(source: DataSource, spec: DataSpec) -> Splits:
    """The split of all images (None) and of every subset, drawn but not yet judged.

    Raises RecipeError for counts that do not fit the classes, DataError for a split that cannot be
    made.
    """
    drawn = {
        name: _draw(source, wanted, f"data.subsets.{name}") for name, wanted in spec.subsets.items()
    }
    if spec.split == UMKD_CODE:
        masks: dict[str | None, npt.NDArray[np.bool_]] = {None: np.ones(len(source), dtype=bool)}
        masks.update(drawn)
        return {
            name: _umkd_code(source, _thinned(source, np.flatnonzero(mask), spec))
            for name, mask in masks.items()
        }
    if spec.split == DSPKD_PAPER:
        return {None: dspkd_paper(_thinned(source, np.arange(len(source)), spec), spec)}
    strata = source.targets() if drawn else None
    for number, mask in enumerate(drawn.values()):
        strata = strata + mask * len(source.kinds()) * 2**number
    whole = make_split(
        source,
        spec.split,
        seed=spec.drawn_by,
        test_seed=spec.test_seed,
        limit=spec.limit,
        verify=False,
        strata=strata,
    )
    found: Splits = {None: whole}
    for name, mask in drawn.items():
        found[name] = Split(*(indices[mask[indices]] for _, indices in whole.items()))
    return found


def check_splits(
    source: DataSource, spec: DataSpec, splits: Splits, names: Iterable[str | None]
) -> None:
    """Raise DataError for a part of the data that cannot serve.

    Patients must not cross parts in the whole data set, whoever uses which subset: a teacher's
    training patient must not be another subset's test patient.
    """
    for name in names:
        refuse(empty_problems(source, splits[name]))
    if spec.split not in LEAKING:
        refuse(crossing_problems(source, splits[None]))


def split_of(source: DataSource, spec: DataSpec, subset: str | None = None) -> Split:
    """The split of all images or of one subset. Raises what `splits_of` and `check_splits` do."""
    splits = splits_of(source, spec)
    check_splits(source, spec, splits, [subset])
    return splits[subset]


def used_by(splits: Iterable[Split]) -> Indices:
    """The images that any of some splits uses."""
    return np.unique(np.concatenate([split.used() for split in splits]))


def key_of(source: DataSource, splits: Splits) -> str:
    """A hash of all labels, groups, files and splits."""
    named = {name: split for name, split in splits.items() if name is not None}
    return data_key(source, splits[None], named)


def caveats(recipe: Recipe, splits: Splits, source: DataSource | None = None) -> list[str]:
    """What must be said beside every figure.

    That is where what is tested on has trained or chosen, and where images are not as they were
    taken. `source` is what was split.
    """
    protocol = recipe.data.split
    found = source.caveats() if source is not None else []
    if source is not None and hairless(source) is not None:
        found.append(
            f"hair was removed from images with more than {LEAST:.0%} of it before training and "
            "scoring (data.remove_hair); the exported model does not do it"
        )
    if protocol in LEAKING:
        found.append(
            f"{protocol}: the epoch was chosen on the very images that are reported as test"
        )
    if protocol == DSPKD_PAPER:
        found.append(leak(source, splits[None]))
    if protocol != UMKD_CODE:
        return found
    student = recipe.export.model
    target = splits[recipe.subset_of(student)]
    for name, stage in recipe.stages.items():
        seen = len(np.intersect1d(splits[stage.data.subset].train, target.test))
        if seen:
            found.append(
                f"{UMKD_CODE}: {seen} of the {len(target.test)} images that {student} is tested on "
                f"have trained {', '.join(stage.train)} (stage {name})"
            )
    return found


def _draw(source: DataSource, wanted: SubsetSpec, place: str) -> npt.NDArray[np.bool_]:
    """Which images belong to a subset (N,).

    Of a class that has more images than its count, as many are drawn as pandas' `DataFrame.sample`
    would draw with `random_state` on the class's rows: published subsets were made so.
    """
    if len(wanted.counts) != len(source.kinds()):
        raise RecipeError(
            f"{place}.counts: {len(wanted.counts)} numbers for {len(source.kinds())} classes "
            f"({', '.join(source.kinds())})"
        )
    targets = source.targets()
    chosen = np.zeros(len(targets), dtype=bool)
    for target, count in enumerate(wanted.counts):
        members = np.flatnonzero(targets == target)
        if len(members) > count:
            random = np.random.RandomState(wanted.seed)  # pandas' generator for a seed
            members = members[random.choice(len(members), size=count, replace=False)]
        chosen[members] = True
    return chosen


def _thinned(source: DataSource, members: Indices, spec: DataSpec) -> Indices:
    share = 1.0 if spec.limit is None else spec.limit / len(source)
    return take_fraction(source, members, share, seed=spec.drawn_by)


def _umkd_code(source: DataSource, members: Indices) -> Split:
    """Ten stratified folds of all images or of a subset, each by itself; two folds are held out.

    As the authors' code of UMKD does it: what is held out chooses the epoch and is reported, and
    the folds of a subset know nothing of those of the whole, so that teachers may have trained on
    images that the student is tested on.
    """
    from sklearn.model_selection import StratifiedKFold

    targets = source.targets()[members]
    for name, count in zip(source.kinds(), np.bincount(targets), strict=False):
        if 0 < count < FOLDS:
            raise RecipeError(
                f"data.split: {UMKD_CODE} needs {FOLDS} images of every class, '{name}' has {count}"
            )
    folds = StratifiedKFold(n_splits=FOLDS, shuffle=True, random_state=FOLD_SEED)
    pieces = [members[held] for _, held in folds.split(members, targets)]
    held = np.sort(np.concatenate([pieces[fold] for fold in HELD_OUT]))
    return Split(np.setdiff1d(members, held), held, held)
