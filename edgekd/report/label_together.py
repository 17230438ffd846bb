"""Which labels come together on the training images, before and after a stage chooses its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgekd.data._class_aware import having
from edgekd.recipe import Recipe
from edgekd.report.label_records import Together
from edgekd.report.label_split import LabelSplit
from edgekd.report.sources import Sources

Rows = npt.NDArray[np.int64]


def read(sources: Sources, split: LabelSplit | None, order: Sequence[int]) -> list[Together]:
    """Those of all training images, then of each stage that takes some; classes in this order."""
    if split is None or not split.trains.any():
        return []
    rows = np.flatnonzero(split.trains)
    found = [_count(split, order, rows)]
    recipe = sources.recipe
    for name, stage in recipe.stages.items() if recipe else ():
        assert recipe is not None
        columns = sources.learned.groups.get(stage.data.having or "")
        if columns:
            found.append(_of_stage(recipe, name, split, [c for c in order if c in columns], rows))
    return found


def _of_stage(
    recipe: Recipe, stage: str, split: LabelSplit, columns: Sequence[int], rows: Rows
) -> Together:
    """What split.csv says of the images of a stage.

    Which images without its classes are drawn is not on disk. How many they are does not depend on
    the seed, and they add to no label.
    """
    own = recipe.stages[stage].data
    shown = split.labels[:, list(columns)]
    kept = rows[(shown[rows] == 1).any(axis=1)]
    images = len(having(shown, rows, own.negatives, 0))
    remarks = []
    if own.fraction is not None:
        remarks.append(f"it trained on a fraction of {own.fraction} of them")
    if own.subset != recipe.subset_of(recipe.export.model):
        remarks.append(f"it trained on another part of the data, `{own.subset or 'all'}`")
    return _count(split, columns, kept, stage=stage, group=own.having,
                  drawn=images - len(kept), remark="; ".join(remarks))  # fmt: skip


def _count(
    split: LabelSplit, columns: Sequence[int], rows: Rows, *, stage: str | None = None,
    group: str | None = None, drawn: int = 0, remark: str = "",
) -> Together:  # fmt: skip
    labels = split.labels[rows][:, list(columns)]
    shown, known = labels == 1, labels >= 0
    both = shown.T.astype(np.int64) @ shown
    asked = shown.T.astype(np.int64) @ known  # a label that is not known says nothing
    per_image = shown.sum(axis=1)
    share: list[list[float | None]] = [
        [int(n) / int(of) if of and i != j else None
         for j, (n, of) in enumerate(zip(ns, ofs, strict=True))]
        for i, (ns, ofs) in enumerate(zip(both, asked, strict=True))
    ]  # fmt: skip
    images = len(rows) + drawn
    return Together(
        stage=stage,
        group=group,
        images=images,
        without=int((per_image == 0).sum()) + drawn,
        labels=float(per_image.sum() / max(1, images)),
        labels_of_any=float(per_image.sum() / max(1, (per_image > 0).sum())),
        several=int((per_image > 1).sum()),
        classes=[split.classes[c] for c in columns],
        shown=[int(n) for n in shown.sum(axis=0)],
        both=both.tolist(),
        share=share,
        remark=remark,
    )
