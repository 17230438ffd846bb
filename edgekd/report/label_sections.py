"""Where an image may show several classes: the sections in place of classes and confusions."""

from __future__ import annotations

from edgekd.report import heatmap, label_plots, plots
from edgekd.report.grid import Cell, Column, Grid
from edgekd.report.label_records import (
    Change,
    LabelClass,
    LabelEvidence,
    LabelFigures,
    LabelSubject,
    Together,
)
from edgekd.report.records import ReportData
from edgekd.report.section import Section
from edgekd.report.words import CI, DOES_NOT_APPLY, NOT_MEASURED, integer, plural

AP = (
    "AP: average precision, the precision at each threshold weighted by the recall that it adds. "
    "CI: bootstrap over groups."
)
STRUCK = "Struck out: a class with itself"
PAIRS = 20  # in the table


def classes(data: ReportData, key: str) -> Section:
    """How well each class is recognised by each model that knows it."""
    section = Section(f"{key}-classes", "Classes", fold_title="The same as a table")
    labels = data.labels or LabelEvidence()
    drawn = label_plots.ap(labels, f"{key}-ap")
    if drawn is None:
        section.missing = f"Figures per class: {NOT_MEASURED} (no test predictions were kept)."
        return section
    one = labels.subjects[-1]
    counts = f"{plural(one.images, 'test image')} of {plural(one.groups, 'group')}"
    caption = f"How well each class is recognised: {counts}."
    if any(c.training is not None for c in labels.classes):
        caption += " n: training images that show it."
    section.figures.append((drawn, caption))
    section.folded.append(classes_grid(labels))
    section.missing = " ".join(labels.left_out)
    return section


def classes_grid(labels: LabelEvidence) -> Grid:
    """A line for each class; teachers that share the classes among them share their columns."""
    columns = [Column("Class"), Column("Group"), Column("Training images", True),
               Column("Test images that show it", True)]  # fmt: skip
    lanes: dict[str, list[LabelSubject]] = {}
    for one in labels.subjects:
        lanes.setdefault(label_plots.lane(labels, one), []).append(one)
    for name in lanes:
        columns += [Column(f"{name}: AP {CI}", True),
                    Column("Sensitivity / specificity", True)]  # fmt: skip
    rows = []
    for index, row in enumerate(labels.classes):
        cells = [Cell(row.name), Cell(row.shot or DOES_NOT_APPLY), Cell(_count(row.training)),
                 Cell(_count(row.positives))]  # fmt: skip
        for subjects in lanes.values():
            cells += _figures(subjects, index)
        rows.append(cells)
    notes = [AP, f"Sensitivity and specificity: from the probability below them on, "
                 f"{labels.thresholds}."]  # fmt: skip
    absent = [row.name for row in labels.classes if row.positives == 0]
    if absent:
        notes.append(f"No test image shows {', '.join(absent)}: {NOT_MEASURED}.")
    return Grid("Classes, test part", columns, rows, notes)


def _figures(subjects: list[LabelSubject], index: int) -> list[Cell]:
    """Of the models in one column those that know the class; mostly it is one."""
    known = [(one, found) for one in subjects if (found := one.figures[index])]
    if not known:
        return [Cell(DOES_NOT_APPLY, "muted"), Cell(DOES_NOT_APPLY, "muted")]
    named = len(subjects) > 1
    texts = [_ap(found) + (f" {one.label}" if len(known) > 1 else "") for one, found in known]
    shares = [f"{_share(found.sensitivity)} / {_share(found.specificity)}" for _, found in known]
    return [
        Cell("; ".join(texts), below=known[0][0].label if named and len(known) == 1 else ""),
        Cell("; ".join(shares), below="from "
             + "; ".join(f"{found.threshold:.2f}" for _, found in known)),
    ]  # fmt: skip


def _ap(found: LabelFigures) -> str:
    return _interval(found.ap, found.low, found.high, "{:.3f}")


def _interval(value: float | None, low: float | None, high: float | None, form: str) -> str:
    if value is None:
        return NOT_MEASURED
    if low is None or high is None:
        return form.format(value)
    return f"{form.format(value)} [{form.format(low)}, {form.format(high)}]"


def _share(value: float | None) -> str:
    return DOES_NOT_APPLY if value is None else f"{value:.2f}"


def _count(value: int | None) -> str:
    return NOT_MEASURED if value is None else integer(value)


def change(data: ReportData, key: str) -> Section:
    """What each class gains on the baseline of the sweep."""
    section = Section(f"{key}-change", "Change per class", fold_title="The same as a table")
    labels = data.labels or LabelEvidence()
    drawn = label_plots.change(labels, f"{key}-ch")
    if drawn is None or labels.change is None:
        section.missing = f"Change of AP per class: {NOT_MEASURED}; {labels.change_missing}."
        return section
    found = labels.change
    words = f"Average precision of each class minus that of the baseline {found.baseline}, seed "
    words += f"{data.seed}, on the same test images."
    if found.mean is not None:
        words += f" Mean of classes: {_signed(found.mean)}."
    section.figures.append((drawn, words))
    rows = [
        [Cell(one.name), Cell(one.shot or DOES_NOT_APPLY), Cell(_count(one.training)),
         Cell(NOT_MEASURED if gain is None else _signed(gain))]
        for one, gain in zip(labels.classes, found.classes, strict=True)
    ]  # fmt: skip
    columns = [Column("Class"), Column("Group"), Column("Training images", True),
               Column(f"Change of AP {CI}", True)]  # fmt: skip
    note = "CI: paired bootstrap over groups: both models see the same resamples."
    section.folded.append(Grid(f"Change of AP against {found.baseline}", columns, rows, [note]))
    return section


def _signed(gain: Change) -> str:
    return _interval(gain.value, gain.low, gain.high, "{:+.3f}")


def tail(data: ReportData, key: str) -> Section:
    """How unequal the classes are, and which come together, before and after subsets are taken."""
    labels = data.labels or LabelEvidence()
    section = Section(f"{key}-tail", "Long tail", labels.shots,
                      fold_title="The pairs that come together most often")  # fmt: skip
    drawn = label_plots.tail(labels, f"{key}-lt")
    if drawn:
        section.figures.append((drawn, _spread(labels.classes)))
    if not labels.together:
        words = "Labels that come together" if drawn else "Training images per class"
        section.missing = f"{words}: {NOT_MEASURED} (no split.csv here)."
        return section
    section.grids.append(together_grid(labels.together))
    for index, one in enumerate(labels.together):
        if len(one.classes) > 1:
            section.figures.append((heatmap.together_map(one, f"{key}-co{index}"), caption(one)))
    section.folded.append(pairs_grid(labels.together[0]))
    return section


def _spread(found: list[LabelClass]) -> str:
    counts = [one.training for one in found if one.training is not None]
    words = f"Training images of each class: {integer(max(counts))} to {integer(min(counts))}"
    if min(counts):
        words += f", {max(counts) / min(counts):.3g} to 1"
    shots = [one.shot for one in found if one.shot]
    numbers = [f"{shots.count(shot)} {shot}" for shot in dict.fromkeys(shots)]
    return f"{words}{'; ' if numbers else ''}{', '.join(numbers)}."


def together_grid(found: list[Together]) -> Grid:
    """Labels per image, before and after: a line for all training images, and for each stage."""
    columns = [Column("Training images"), Column("Images", True), Column("Classes", True),
               Column("Labels per image", True), Column("Labels per image with any", True),
               Column("Images with several", True),
               Column("Images with none", True), Column("Pairs of classes seen together", True),
               ]  # fmt: skip
    rows = []
    for one in found:
        count = len(one.classes)
        pairs = sum(one.both[i][j] > 0 for i in range(count) for j in range(i))
        rows.append([
            Cell("all" if one.stage is None else f"stage {one.stage}",
                 below=f"classes: {one.group}" if one.group else ""),
            Cell(integer(one.images)), Cell(integer(count)), Cell(f"{one.labels:.2f}"),
            Cell(f"{one.labels_of_any:.2f}"),
            Cell(_of(one.several, one.images)), Cell(_of(one.without, one.images)),
            Cell(f"{integer(pairs)} of {integer(count * (count - 1) // 2)}"),
        ])  # fmt: skip
    notes = ["Counted in split.csv. A stage that takes the images of some classes drops the labels "
             "of all others: what is left of them comes together as often as before, and no longer "
             "with the others."]  # fmt: skip
    notes += [f"Stage {one.stage}: {one.remark}, which is not on disk: counted are all."
              for one in found if one.remark]  # fmt: skip
    if any(one.stage and one.without for one in found):
        notes.append("Images with none of a stage's classes are drawn at random; which they are is "
                     "not on disk, how many is known.")  # fmt: skip
    return Grid("Labels before and after the classes are split", columns, rows, notes)


def _of(part: int, whole: int) -> str:
    return f"{integer(part)} ({100 * part / whole:.0f} %)" if whole else DOES_NOT_APPLY


def caption(one: Together) -> str:
    """What a heat map counts."""
    if one.stage is None:
        words = f"Before: {plural(one.images, 'training image')}, all labels"
    else:
        words = (f"After, stage {one.stage}: {plural(one.images, 'image')}, the labels of "
                 f"{one.group} alone")  # fmt: skip
    words += f"; {one.labels:.2f} labels per image"
    if one.without:
        words += f", {one.labels_of_any:.2f} where there are any"
    empty = ", or one without images" if not all(one.shown) else ""
    return (f"{words}. Of the images with the class of a row, the share that also show that of a "
            f"column. {STRUCK}{empty}.")  # fmt: skip


def pairs_grid(one: Together) -> Grid:
    """The map's largest figures, for who cannot see it."""
    pairs = [(number, i, j) for i, row in enumerate(one.both) for j, number in enumerate(row)
             if i < j and number]  # fmt: skip
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    rows = [
        [Cell(one.classes[i]), Cell(one.classes[j]), Cell(integer(number)),
         Cell(_percent(one.share[i][j])), Cell(_percent(one.share[j][i]))]
        for number, i, j in pairs[:PAIRS]
    ]  # fmt: skip
    columns = [Column("Class"), Column("and"), Column("Images with both", True),
               Column("Of those with the first", True), Column("Of those with the second", True),
               ]  # fmt: skip
    return Grid("Labels that come together on all training images", columns, rows)


def _percent(share: float | None) -> str:
    return DOES_NOT_APPLY if share is None else f"{100 * share:.0f} %"


def calibration(data: ReportData, key: str) -> Section:
    """Is a label there as often as its probability says? All labels together."""
    section = Section(f"{key}-calibration", "Calibration")
    shown = [one for one in data.labels.subjects if one.kind != "teacher"] if data.labels else []
    drawn = plots.reliability(shown, f"{key}-re", labels=True)
    if drawn:
        section.figures.append((drawn, "Is a label there as often as its probability says? Below "
                                "the diagonal a model is too sure. All labels of all test images "
                                "together. ECE: expected calibration error, 15 bins."))  # fmt: skip
    if not any(one.kind == "artifact" for one in shown):
        section.missing = f"Calibration after int8: {NOT_MEASURED} (no test predictions of it)."
    return section
