"""Where answers are masks: the sections in place of classes, confusions and calibration."""

from __future__ import annotations

from edgekd.report import contours, pictures, plots
from edgekd.report.grid import Cell, Column, Grid
from edgekd.report.mask_records import MaskCase, MaskEvidence, MaskFigures, Outline
from edgekd.report.records import ReportData
from edgekd.report.section import Section
from edgekd.report.words import CI, DOES_NOT_APPLY, NOT_MEASURED, integer, plural

HOW = (
    "F-score: of the foreground of each image, then the mean of images; an image without any "
    "counts 1, or 0 where some is seen. Share found: of the foreground's pixels, mean of the "
    "images that have some. False alarms: images without any in which some is seen."
)
WHY = {
    "hardest": "Hardest",
    "smallest": "Small",
    "false alarm": "False alarm",
    "best": "Best",
}
PLAIN = (
    "Outlines of test images on a plain ground: a report is sent on, and pictures of patients "
    "should not be. `edgekd report RUN --pictures` puts the pictures in."
)


def kinds(data: ReportData, key: str) -> Section:
    """How well the masks fit, per kind of image."""
    section = Section(f"{key}-masks", "Masks", fold_title="The same as a table")
    drawn = plots.per_kind(data, f"{key}-pk")
    if data.masks is None or drawn is None:
        section.missing = f"Figures per kind of image: {NOT_MEASURED} (no test masks were kept)."
        return section
    one = data.masks.subjects[0]
    section.figures.append((drawn, "How well the masks fit, by kind of image: "
                            f"{plural(one.images, 'test image')} of "
                            f"{plural(one.groups, 'group')}."))  # fmt: skip
    section.folded.append(kinds_grid(data.masks))
    return section


def kinds_grid(masks: MaskEvidence) -> Grid:
    """F-score, share found and false alarms per kind of image and model."""
    columns = [Column("Kind of image"), Column("Images", True), Column("With foreground", True)]
    for one in masks.subjects:
        columns += [Column(f"{one.label}: F-score {CI}", True), Column("Share found", True),
                    Column("False alarms", True)]  # fmt: skip
    rows = []
    for index, kind in enumerate(masks.kinds):
        cells = [Cell(kind.name), Cell(integer(kind.images)), Cell(integer(kind.lesions))]
        for one in masks.subjects:
            cells += _figures(one.kinds[index])
        rows.append(cells)
    return Grid("Masks per kind of image, test part", columns, rows, [HOW])


def _figures(found: MaskFigures) -> list[Cell]:
    text = NOT_MEASURED if found.fscore is None else f"{found.fscore:.3f}"
    if found.fscore is not None and found.low is not None and found.high is not None:
        text += f" [{found.low:.3f}, {found.high:.3f}]"
    shares = [DOES_NOT_APPLY if value is None else f"{100 * value:.1f} %"
              for value in (found.found, found.alarms)]  # fmt: skip
    return [Cell(text), *(Cell(share) for share in shares)]


def cases(data: ReportData, key: str) -> Section:
    """Single test images: where the student fails, the smallest, one false alarm, the best."""
    section = Section(f"{key}-cases", "Cases", small=True, fold_title="The same as a table")
    found = data.masks.cases if data.masks is not None else []
    if data.masks is None or not found:
        section.missing = f"Cases: {NOT_MEASURED} (no test masks were kept)."
        return section
    with_pictures = pictures.shown(found)
    section.lead = PLAIN
    if with_pictures:
        section.lead = ("Test images with outlines. The pictures are of patients: this page must "
                        "not go where they may not.")  # fmt: skip
    if data.masks.pictures_missing:
        section.missing = f"Pictures: {data.masks.pictures_missing}; outlines alone."
    lines = {line.kind: line for case in found for line in case.outlines}
    order = [lines[kind] for kind in ("truth", "teacher", "student", "artifact") if kind in lines]
    section.figures.append((contours.legend(order, on_pictures=with_pictures),
                            _legend(order, shaded=not with_pictures)))  # fmt: skip
    for case in found:
        words = caption(case, named=with_pictures)
        section.figures.append((contours.case(case, words), words))
    section.folded.append(cases_grid(data.masks))
    return section


def _legend(lines: list[Outline], *, shaded: bool) -> str:
    return f"{plural(len(lines), 'outline')}{'; what is true is shaded' if shaded else ''}."


def caption(case: MaskCase, *, named: bool) -> str:
    """What a figure shows; `named` with the image's id, which may name a patient."""
    known = f" ({case.id})" if named else ""
    area = f"{100 * case.area:.2g}\u00a0% of it" if case.area else "nothing in it"
    seen = f", {100 * case.seen:.2g}\u00a0% of it seen as some" if not case.area else ""
    drawn = [line.label for line in case.outlines if line.label in case.fscores]
    scores = ", ".join(f"{label} {case.fscores[label]:.2f}" for label in drawn)
    end = f" F-score: {scores}." if case.area else ""
    return f"{WHY[case.why]}: test image {case.image}{known}, {case.of_kind}, {area}{seen}.{end}"


def cases_grid(masks: MaskEvidence) -> Grid:
    """The cases as a table, which report.md has too: without ids."""
    labels = list(dict.fromkeys(label for case in masks.cases for label in case.fscores))
    columns = [Column("Test image"), Column("Why"), Column("Kind of image"),
               Column("Foreground", True), Column("Seen", True),
               *(Column(f"{label}: F-score", True) for label in labels)]  # fmt: skip
    rows = [
        [Cell(str(case.image)), Cell(case.why),
         Cell(case.of_kind), Cell(f"{100 * case.area:.2f} %"), Cell(f"{100 * case.seen:.2f} %"),
         *(Cell(f"{case.fscores[label]:.3f}" if label in case.fscores else NOT_MEASURED)
           for label in labels)]
        for case in masks.cases
    ]  # fmt: skip
    note = "Test images are counted from 1, in the order of `predictions/*.test.npz`."
    return Grid("Cases", columns, rows, [note])
