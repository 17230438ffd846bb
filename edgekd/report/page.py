"""index.html: the sections of each run, their tables and figures, put into the template."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from edgekd.report import (
    curves,
    gates,
    grids,
    heatmap,
    label_sections,
    mask_sections,
    paper,
    pictures,
    plots,
    similarity,
    table,
)
from edgekd.report.records import HostTable, ReportData, Row
from edgekd.report.section import Section
from edgekd.report.words import NOT_MEASURED, NOT_RUN, plural, ratio, score, significant


def html(runs: list[ReportData], parts: list[list[Section]]) -> str:
    """The whole page; `parts` are the sections of each run."""
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("edgekd.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(glue=glue, code=code)
    style, _, _ = environment.loader.get_source(environment, "style.css")
    several = len(runs) > 1
    comparison = [grids.comparison(runs), grids.over_seeds(runs)] if several else []
    return str(
        environment.get_template("page.html.j2").render(
            title=runs[0].name if not several else plural(len(runs), "run") + " compared",
            style=Markup(style),
            svg=Markup,
            several=several,
            pictures=any(pictures.shown(data.masks.cases) for data in runs if data.masks),
            comparison=[grid for grid in comparison if grid],
            runs=[
                {"data": data, "id": f"run{index}", "verdicts": verdicts(data),
                 "gates": [(view.artifact, *table.GATE_WORDS[view.word]) for view in data.gates],
                 "sections": shown}
                for index, (data, shown) in enumerate(zip(runs, parts, strict=True), 1)
            ],
        )
    )  # fmt: skip


def glue(text: str) -> str:
    """A figure that breaks nowhere but before its interval."""
    return text.replace(" ", "\u00a0").replace("\u00a0[", " [")


def code(text: str) -> str:
    """Commands between backticks as <code>; everything is escaped first."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def verdicts(data: ReportData) -> list[dict[str, Any]]:
    """Per host: what to deploy, and one sentence that says why."""
    found = []
    for host in data.hosts:
        chosen = next((row for row in host.rows if row.deploy), None)
        sentences = [_sentence(data, chosen)] if chosen else []
        if host.deploy.tied:
            sentences.append(f"This measurement does not tell it apart from "
                             f"{', '.join(host.deploy.tied)}.")  # fmt: skip
        if not chosen:
            sentences = ["Nothing was benchmarked yet: `edgekd bench BUNDLE` does it on a device."]
            if any(row.role == "student" and row.timing for row in host.rows):
                sentences = ["No measured artifact passed its gates."]
        teacher = host.teacher if host.teacher and host.teacher.score else None
        found.append({
            "host": host.name, "good": chosen is not None,
            "what": host.deploy.line.partition(": ")[2].partition(":")[0],
            "text": " ".join(sentences), "numbers": _numbers(data, host, chosen, teacher),
        })  # fmt: skip
    return found


def _sentence(data: ReportData, row: Row) -> str:
    word = "that passed its gates"
    if row.gate == "accepted":
        word = "that may ship (its gate was inconclusive and was accepted by hand)"
    return f"The fastest form of {row.model} {word}."


def _numbers(
    data: ReportData, host: HostTable, row: Row | None, teacher: Row | None
) -> list[tuple[str, str, str]]:
    """The few figures that a reader wants first: name, value, small print."""
    if row is None or row.timing is None:
        return []
    against = f"teacher {score(teacher.score)}" if teacher else f"teacher {NOT_MEASURED}"
    if not teacher and any(other.knows for other in host.rows):
        against = "its teachers know some classes each"
    return [
        (data.primary_label, score(row.score), against),
        ("Latency p50 / p95",
         f"{significant(row.timing.latency.p50)} / {significant(row.timing.latency.p95)} ms",
         f"batch 1, {row.timing.setting}, {plural(row.timing.repeats, 'repeat')}"),
        ("Faster than the teacher", ratio(row.teacher_speedup), "teacher fp32 in ONNX Runtime"),
        _like_for_like(host, row),
    ]  # fmt: skip


def _like_for_like(host: HostTable, row: Row) -> tuple[str, str, str]:
    """The ratio in one runtime and precision; an int8 row borrows that of its runtime's fp32."""
    kin = [other for other in host.rows if other.role == "student" and other.same_speedup]
    kin.sort(key=lambda other: (other is not row, other.runtime != row.runtime))
    name = "Same runtime and precision"
    if not kin:
        return name, NOT_MEASURED, "student against teacher"
    return name, ratio(kin[0].same_speedup), f"student against teacher, both {table.form(kin[0])}"


def sections(data: ReportData, key: str) -> list[Section]:
    """All sections, in reading order. None is ever left out: an empty one says why.

    Except the similarity of layers and a paper's figures, for recipes that ask for them. Masks have
    kinds of images and cases in place of classes, confusions and calibration; several labels per
    image have the long tail, and the change against a baseline, in place of confusions.
    """
    looked = bool(data.similarities or data.similarities_missing)
    answers: tuple[Callable[[ReportData, str], Section], ...]
    answers = (_classes, _confusions, _calibration)
    if data.masks is not None:
        answers = (mask_sections.kinds, mask_sections.cases)
    if data.labels is not None:
        answers = (label_sections.classes, label_sections.change, label_sections.tail,
                   label_sections.calibration)  # fmt: skip
    makers = (_results, *([_paper] if data.beside else []), _latency, *answers, curves.section,
              *([_similarity] if looked else []), _gates, _data, _provenance)  # fmt: skip
    return [make(data, key) for make in makers]


def _results(data: ReportData, key: str) -> Section:
    every = grids.scores(data)
    section = Section(
        f"{key}-results", "Results",
        grids=[table.main(data, host) for host in data.hosts],
        folded=[every] if every else [], fold_title="All scores of all models",
    )  # fmt: skip
    for index, host in enumerate(data.hosts):
        drawn = plots.accuracy_latency(data, host, f"{key}-al{index}")
        if drawn:
            better = "Up" if data.higher_is_better else "Down"
            caption = f"{data.primary_label} and latency on {host.name}. "
            caption += f"{better} and left is better; bars are 95 % intervals."
            section.figures.append((drawn, caption))
    return section


def _paper(data: ReportData, key: str) -> Section:
    return Section(f"{key}-paper", "Beside the paper", paper.LEAD, grids=[paper.grid(data)])


def _latency(data: ReportData, key: str) -> Section:
    section = Section(f"{key}-latency", "Latency", fold_title="All measurements")
    for index, host in enumerate(data.hosts):
        for drawn, caption in (
            (plots.latency_distribution(host, f"{key}-ld{index}"),
             f"Every call takes its own time: distribution on {host.name}."),
            (plots.phases(host, f"{key}-ph{index}"),
             f"From image file to answer, phase by phase, on {host.name}."),
        ):  # fmt: skip
            if drawn:
                section.figures.append((drawn, caption))
        section.folded += [grid for grid in (grids.phases(host), grids.timings(host)) if grid]
        if host.facts:
            facts = {str(name): _fact(value) for name, value in host.facts.items()}
            section.folded.append(grids.facts(f"The host {host.name}", facts))
    if not section.figures:
        section.missing = f"Latency: {NOT_MEASURED}. `edgekd bench BUNDLE` measures it."
    return section


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {entry}" for name, entry in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _classes(data: ReportData, key: str) -> Section:
    section = Section(f"{key}-classes", "Classes", fold_title="The same as a table")
    drawn = plots.per_class(data, f"{key}-pc")
    grid = grids.per_class(data)
    if drawn is None or grid is None:
        section.missing = f"Figures per class: {NOT_MEASURED} (no test predictions were kept)."
        return section
    one = data.subjects[0]
    section.figures.append((drawn, "How many images of each class are recognised: "
                            f"{plural(one.images, 'test image')} of "
                            f"{plural(one.groups, 'group')}."))  # fmt: skip
    section.folded.append(grid)
    return section


def _confusions(data: ReportData, key: str) -> Section:
    section = Section(f"{key}-confusions", "Confusions")
    section.grids = [grids.confusion(data, one) for one in data.subjects if one.kind != "teacher"]
    if not section.grids:
        section.missing = f"Confusions: {NOT_MEASURED} (no test predictions were kept)."
    return section


def _calibration(data: ReportData, key: str) -> Section:
    section = Section(f"{key}-calibration", "Calibration")
    shown = [one for one in data.subjects if one.kind != "teacher"]
    drawn = plots.reliability(shown, f"{key}-re")
    if drawn:
        caption = (
            "Is a model right as often as it says? Below the diagonal it is too sure. "
            "ECE: expected calibration error, 15 bins."
        )
        section.figures.append((drawn, caption))
    if not any(one.kind == "artifact" for one in shown):
        section.missing = f"Calibration after int8: {NOT_MEASURED} (no test predictions of it)."
    return section


def _similarity(data: ReportData, key: str) -> Section:
    section = Section(f"{key}-similarity", "Similarity of layers", similarity.LEAD)
    if data.similarities:
        section.grids.append(similarity.grid(data.similarities))
    for index, one in enumerate(data.similarities):
        caption = f"{one.first} upwards, {one.second} rightwards, from input to output."
        if any(value is None for row in one.matrix for value in row):
            caption += f" Struck out: {similarity.UNDEFINED}, a layer is the same for all images."
        section.figures.append((heatmap.layer_map(one, f"{key}-sim{index}"), caption))
    if data.similarities_missing:
        section.missing = similarity.missing(data.similarities_missing)
    return section


def _gates(data: ReportData, key: str) -> Section:
    section = Section(
        f"{key}-gates", "Gates",
        "A gate compares a converted model with the fp32 model it came from. Only what passed, "
        "or was accepted by a person, should be deployed.",
    )  # fmt: skip
    for view in data.gates:
        grid = grids.gate(view)
        if view.artifact == gates.REFERENCE:
            grid.notes.append("What the others are compared with.")
        if not view.checks:
            grid.notes.append(f"Gate: {NOT_RUN}.")
        if view.accepted_because:
            grid.notes.append(f"Accepted although inconclusive: {view.accepted_because}")
        section.grids.append(grid)
    if not data.gates:
        section.missing = f"Gates: {NOT_RUN}. `edgekd export RUN` makes and gates the artifacts."
    return section


def _data(data: ReportData, key: str) -> Section:
    section = Section(f"{key}-data", "Data")
    if data.data is None:
        section.missing = f"Counts per class and part: {NOT_MEASURED} (no split.csv here)."
    else:
        section.grids.append(grids.data_card(data.data))
    return section


def _provenance(data: ReportData, key: str) -> Section:
    section = Section(f"{key}-provenance", "Provenance", fold_title="Versions and hashes")
    section.folded = [grids.facts(title, facts) for title, facts in data.provenance.items()]
    section.source = data.recipe_yaml
    if not data.recipe_yaml:
        section.missing = "Recipe: not recorded."
    return section
