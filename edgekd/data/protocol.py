"""From a recipe's `data:` to the split of all images, or of one of its subsets.

Studies of imbalance train teachers on one part of a data set and a student on another: all images,
and a part with fewer images of the frequent classes. Such a subset is drawn first and the whole is
split once, balanced by class and membership; every subset inherits that split. So no image that a
model is tested on has trained another.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekd.data.base import DataSource
from edgekd.data.splits import Split, check_split, data_key, make_split
from edgekd.errors import RecipeError
from edgekd.recipe_data import DataSpec, SubsetSpec

UMKD_CODE = "umkd_code"
FOLDS, FOLD_SEED, HELD_OUT = 10, 42, (0, 1)

Indices = npt.NDArray[np.int64]


def split_of(
    source: DataSource, spec: DataSpec, subset: str | None = None, *, verify: bool = True
) -> Split:
    """The split of all images (None) or of one of `spec.subsets`.

    Raises RecipeError for counts that do not fit the classes, DataError for a split that cannot be
    made or (unless `verify` is off) that `check_split` refuses.
    """
    drawn = {
        name: _draw(source, wanted, f"data.subsets.{name}") for name, wanted in spec.subsets.items()
    }
    if spec.split == UMKD_CODE:
        members = np.arange(len(source)) if subset is None else np.flatnonzero(drawn[subset])
        return _umkd_code(source, members)
    strata = source.targets()
    for number, mask in enumerate(drawn.values()):
        strata = strata + mask * len(source.classes) * 2**number
    whole = make_split(
        source,
        spec.split,
        seed=spec.split_seed,
        limit=spec.limit,
        verify=verify and subset is None,
        strata=strata,
    )
    if subset is None:
        return whole
    found = Split(*(indices[drawn[subset][indices]] for _, indices in whole.items()))
    if verify:
        check_split(source, found)
    return found


def key_of(source: DataSource, spec: DataSpec) -> str:
    """A hash of all labels, groups, files and splits, whether they can be used or not."""
    names = (None, *spec.subsets)
    return data_key(source, *(split_of(source, spec, name, verify=False) for name in names))


def _draw(source: DataSource, wanted: SubsetSpec, place: str) -> npt.NDArray[np.bool_]:
    """Which images belong to a subset (N,).

    Of a class that has more images than its count, as many are drawn as pandas' `DataFrame.sample`
    would draw with `random_state` on the class's rows: published subsets were made so.
    """
    if len(wanted.counts) != len(source.classes):
        raise RecipeError(
            f"{place}.counts: {len(wanted.counts)} numbers for {len(source.classes)} classes "
            f"({', '.join(source.classes)})"
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


def _umkd_code(source: DataSource, members: Indices) -> Split:
    """Ten stratified folds of all images or of a subset, each by itself; two folds are held out.

    As the authors' code of UMKD does it: what is held out chooses the epoch and is reported, and
    the folds of a subset know nothing of those of the whole, so that teachers may have trained on
    images that the student is tested on.
    """
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(n_splits=FOLDS, shuffle=True, random_state=FOLD_SEED)
    targets = source.targets()[members]
    try:
        pieces = [members[held] for _, held in folds.split(members, targets)]
    except ValueError as error:
        raise RecipeError(f"data.split: {UMKD_CODE} cannot split these images: {error}") from None
    held = np.sort(np.concatenate([pieces[fold] for fold in HELD_OUT]))
    return Split(np.setdiff1d(members, held), held, held)
