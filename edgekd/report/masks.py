"""Test masks looked at closely: how well they fit per kind of image, and which to look at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from edgekd import stats
from edgekd.report import pictures as patient_pictures
from edgekd.report import sources as files
from edgekd.report.contours import path_of
from edgekd.report.evidence import RESAMPLES, Wanted
from edgekd.report.mask_records import (
    MaskCase,
    MaskEvidence,
    MaskFigures,
    MaskKind,
    MaskSubject,
    Outline,
)
from edgekd.report.sources import Sources
from edgekd.results import Predictions
from edgekd.tasks.base import Bools, Floats, Task
from edgekd.tasks.mask_scores import overlap

CHUNK = 64  # images whose probabilities are held at once
HARDEST, SMALLEST = 6, 4  # with a false alarm and a good one: twelve cases
TRUTH = "truth"
ALL = "all images"
Masks = npt.NDArray[np.int8]


@dataclass(frozen=True)
class _Said:
    """What one model says of the labelled test images, in masks (N, H, W)."""

    wanted: Wanted
    ids: list[str]
    groups: list[str]
    rows: list[int]  # in the predictions file, from 1
    targets: Masks
    decided: Masks

    @cached_property
    def fscores(self) -> Floats:
        """Per image (N,); 1 where there is nothing and nothing is seen."""
        same, both = overlap(self.decided, self.targets)  # type: ignore[arg-type]
        return np.where(both > 0, 2.0 * same / np.maximum(both, 1), 1.0)

    @cached_property
    def areas(self) -> Floats:
        """The share of each image that is foreground (N,)."""
        return _areas(self.targets)


def evidence(
    sources: Sources, task: Task, wanted: list[Wanted], *, pictures: bool = False
) -> MaskEvidence:
    """Figures of all models whose test masks were kept, and at most twelve cases.

    The student's masks say which cases; `pictures` puts the pictures in, where they can be had.
    """
    every = [said for one in wanted if (said := _read(sources, task, one)) is not None]
    if not every:
        return MaskEvidence()
    first = next((said for said in every if said.wanted.kind == "student"), every[-1])
    kind_of = _kinds(sources, first)
    names = list(dict.fromkeys(_in_order(sources, kind_of.values())))
    kinds = [_kind(name, first, kind_of) for name in [*names, ALL]]
    subjects = [
        MaskSubject(
            label=said.wanted.label,
            kind=said.wanted.kind,
            images=len(said.ids),
            groups=len(set(said.groups)),
            kinds=_figures(said, [*names, ALL], kind_of),
        )
        for said in every
    ]
    cases = [_case(every, first, kind_of, index, why) for index, why in choose(
        first.fscores, first.areas, _areas(first.decided), first.groups)]  # fmt: skip
    problem = ""
    if pictures:
        ids = [case.id for case in cases]
        found, problem = patient_pictures.fetch(sources.recipe, ids)
        cases = [replace(case, picture=found.get(case.id)) for case in cases]
    return MaskEvidence(kinds=kinds, subjects=subjects, cases=cases, pictures_missing=problem)


def _read(sources: Sources, task: Task, wanted: Wanted) -> _Said | None:
    predictions = sources.predictions(wanted.file)
    if predictions is None:
        return None
    rows = np.flatnonzero(task.labelled(predictions.targets))
    if not rows.size:
        return None
    return _Said(
        wanted=wanted,
        ids=[predictions.ids[row] for row in rows],
        groups=[predictions.groups[row] for row in rows],
        rows=[int(row) + 1 for row in rows],
        targets=predictions.targets[rows].astype(np.int8),
        decided=_decided(task, predictions, rows),
    )


def _decided(task: Task, predictions: Predictions, rows: npt.NDArray[np.int64]) -> Masks:
    """In pieces: probabilities of all pixels of a test part are gigabytes."""
    parts = [
        task.decide(task.activate(predictions.logits[rows[start : start + CHUNK]]))
        for start in range(0, len(rows), CHUNK)
    ]
    return np.concatenate(parts).astype(np.int8)


def _kinds(sources: Sources, said: _Said) -> dict[str, str]:
    """The kind of each image by id, as split.csv has it; else whether it has foreground."""
    names = kind_names(sources)
    split = files.split_rows(sources.run) if sources.run else ()
    numbers = {row.get("id", ""): row["target"] for row in split}
    with_any = said.areas > 0
    found = {}
    for name, has_some in zip(said.ids, with_any.tolist(), strict=True):
        number = numbers.get(name, "")
        is_named = number.isdecimal() and int(number) < len(names)
        plain = "with foreground" if has_some else "without foreground"
        found[name] = names[int(number)] if is_named else plain
    return found


def kind_names(sources: Sources) -> list[str]:
    """What the targets in split.csv count, as the run recorded it."""
    names = sources.environment.get("kinds")
    return [str(name) for name in names] if isinstance(names, list) else []


def _in_order(sources: Sources, seen: Iterable[str]) -> list[str]:
    found = set(seen)
    known = [name for name in kind_names(sources) if name in found]
    return [*known, *sorted(found - set(known))]


def _areas(masks: Masks) -> Floats:
    return np.asarray((masks > 0).mean(axis=(1, 2)))


def _member(said: _Said, name: str, kind_of: dict[str, str]) -> Bools:
    return np.array([name == ALL or kind_of.get(one) == name for one in said.ids])


def _kind(name: str, said: _Said, kind_of: dict[str, str]) -> MaskKind:
    member = _member(said, name, kind_of)
    return MaskKind(name, int(member.sum()), int((said.areas[member] > 0).sum()))


def _figures(said: _Said, names: list[str], kind_of: dict[str, str]) -> list[MaskFigures]:
    fscores, true, drawn = said.fscores, said.areas, _areas(said.decided)
    same, _ = overlap(said.decided, said.targets)  # type: ignore[arg-type]
    share = same / np.maximum(true * said.targets[0].size, 1)
    weights = stats.group_weights(said.groups, RESAMPLES)
    found = []
    for name in names:
        member = _member(said, name, kind_of)
        low, high = _interval(fscores, member, weights)
        found.append(MaskFigures(
            fscore=_mean(fscores[member]), low=low, high=high,
            found=_mean(share[member & (true > 0)]),
            alarms=_mean((drawn > 0)[member & (true == 0)].astype(float)),
        ))  # fmt: skip
    return found


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if values.size else None


def _interval(
    values: Floats, member: Bools, weights: Floats
) -> tuple[float | None, float | None]:  # fmt: skip
    drawn = weights @ member
    if not (drawn > 0).any():
        return None, None
    means = (weights @ (values * member))[drawn > 0] / drawn[drawn > 0]
    return stats.percentile_interval(means)


def choose(
    fscores: Floats, areas: Floats, seen: Floats, groups: list[str]
) -> list[tuple[int, str]]:  # fmt: skip
    """Which images to show and why: fscores, true and seen areas (N,), at most twelve.

    Neighbouring slices of one patient look alike, so each group comes once before any comes twice.
    """
    is_lesion = areas > 0
    lesions, empty = np.flatnonzero(is_lesion), np.flatnonzero(~is_lesion)
    found: list[tuple[int, str]] = []

    def take(order: npt.NDArray[np.int64], most: int, why: str) -> None:
        left = [int(i) for i in order if int(i) not in {index for index, _ in found}]
        once: dict[str, int] = {}
        for index in left:
            once.setdefault(groups[index], index)
        others = [index for index in left if index not in set(once.values())]
        found.extend((index, why) for index in [*once.values(), *others][:most])

    # of those that are missed altogether the largest is the worst
    take(lesions[np.lexsort((-areas[lesions], fscores[lesions]))], HARDEST, "hardest")
    take(lesions[np.argsort(areas[lesions], kind="stable")], SMALLEST, "smallest")
    alarms = empty[seen[empty] > 0]
    take(alarms[np.argsort(-seen[alarms], kind="stable")], 1, "false alarm")
    take(lesions[np.argsort(-fscores[lesions], kind="stable")], 1, "best")
    return found


def _case(
    every: list[_Said], first: _Said, kind_of: dict[str, str], index: int, why: str
) -> MaskCase:  # fmt: skip
    """One image with what all models say of it; of several artifacts the last is drawn."""
    name = first.ids[index]
    height, width = first.targets[index].shape
    outlines = [Outline(TRUTH, TRUTH, path_of(first.targets[index]))]
    fscores: dict[str, float] = {}
    drawn: dict[str, Outline] = {}
    for said in every:
        if name not in said.ids or said.targets.shape[1:] != (height, width):
            continue
        place = said.ids.index(name)
        fscores[said.wanted.label] = float(said.fscores[place])
        kind = said.wanted.kind
        drawn[kind] = Outline(said.wanted.label, kind, path_of(said.decided[place]))
    return MaskCase(
        image=first.rows[index],
        why=why,
        of_kind=kind_of[name],
        area=float(first.areas[index]),
        seen=float(_areas(first.decided[index : index + 1])[0]),
        fscores=fscores,
        width=width,
        height=height,
        outlines=[*outlines, *drawn.values()],
        id=name,
    )
