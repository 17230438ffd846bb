"""The other tables of the page: one function per table."""

from __future__ import annotations

from edgekd.report.grid import Cell, Column, Grid
from edgekd.report.records import DataCard, GateView, HostTable, ReportData, Subject
from edgekd.report.table import GATE_WORDS, RUNTIMES
from edgekd.report.words import (
    CI,
    DOES_NOT_APPLY,
    NOT_MEASURED,
    UNKNOWN,
    decimal,
    energy,
    integer,
    plural,
    ratio,
    score,
    significant,
)

LARGEST_MATRIX = 20  # classes; beyond it only the most frequent confusions are listed


def comparison(runs: list[ReportData]) -> Grid:
    """One line per run: what its student reaches, and what to deploy."""
    columns = [
        Column("Run"), Column("Seed", True), Column(f"Teacher {CI}", True),
        Column(f"Student {CI}", True), Column("Deploy"), Column("Host"),
        Column(f"Score deployed {CI}", True), Column("Latency p50, ms", True),
        Column("Speed-up over teacher fp32 in ONNX Runtime", True),
    ]  # fmt: skip
    rows = []
    for data in runs:
        for host in data.hosts:
            teacher = host.teacher
            student = next((row for row in host.rows if row.role == "student"), None)
            chosen = next((row for row in host.rows if row.deploy), None)
            latency = chosen.timing.latency.p50 if chosen and chosen.timing else None
            rows.append([
                Cell(data.name, below=data.primary_label),
                Cell(str(data.seed) if data.seed is not None else DOES_NOT_APPLY),
                Cell(score(teacher.score if teacher else None)),
                Cell(score(student.score if student else None)),
                Cell(chosen.artifact or "" if chosen else NOT_MEASURED, "strong" if chosen else ""),
                Cell(host.name or NOT_MEASURED),
                Cell(score(chosen.score) if chosen else NOT_MEASURED),
                Cell(significant(latency) if latency else NOT_MEASURED),
                Cell(ratio(chosen.teacher_speedup) if chosen else NOT_MEASURED),
            ])  # fmt: skip
    return Grid(f"{plural(len(runs), 'run')} side by side, test part", columns, rows)


def over_seeds(runs: list[ReportData]) -> Grid | None:
    """Mean and 95 % interval over runs that differ in nothing but the seed."""
    from edgekd.stats import mean_interval

    families: dict[str, list[ReportData]] = {}
    for data in runs:
        if data.siblings and data.seed is not None:
            families.setdefault(data.siblings, []).append(data)
    rows = []
    for family in families.values():
        # the same seed again is the same run, not another sample
        family = list({data.seed: data for data in family}.values())
        if len(family) < 2:
            continue
        columns: dict[str, list[float]] = {}
        for data in family:
            for model in data.scores:
                found = model.scores.get(data.primary)
                if found is not None and found.value is not None:
                    columns.setdefault(model.name, []).append(found.value)
        for name, values in columns.items():
            mean, low, high = mean_interval(values)
            whole = len(values) > 1
            text = f"{mean:.3f} [{low:.3f}, {high:.3f}]" if whole else f"{mean:.3f}"
            rows.append([
                Cell(family[0].name.rpartition("-seed")[0] or family[0].name),
                Cell(name), Cell(text), Cell(str(len(values))),
            ])  # fmt: skip
    if not rows:
        return None
    return Grid(
        f"{runs[0].primary_label} over seeds (mean and 95 % t-interval)",
        [Column("Recipe"), Column("Model"), Column(f"Mean {CI}", True), Column("Seeds", True)],
        rows,
    )


def timings(host: HostTable) -> Grid | None:
    """Every measurement of a host: all batches and settings."""
    if not host.timings:
        return None
    columns = [
        Column("Model"), Column("Runtime"), Column("Ran as"), Column("Device, threads"),
        Column("Batch", True), Column(f"p50 {CI}, ms", True), Column("p90", True),
        Column("p95", True), Column("p99", True), Column("Mean", True), Column("Images/s", True),
        Column("Load, s", True), Column("First call, ms", True),
        Column("Peak memory, MB", True), Column(f"Energy per image {CI}, mJ", True),
        Column("Repeats", True),
    ]  # fmt: skip
    rows = []
    for one in host.timings:
        latency = one.latency
        interval = f"[{significant(one.p50_low)}, {significant(one.p50_high)}]"
        runtime = f"{RUNTIMES.get(one.runtime, one.runtime)} {one.runtime_version}"
        memory = one.peak_memory_mb
        texts = [
            runtime, one.precision_ran or UNKNOWN, one.setting, str(one.batch),
            f"{significant(latency.p50)} {interval}", significant(latency.p90),
            significant(latency.p95), significant(latency.p99), significant(latency.mean),
            significant(one.throughput_ips), significant(one.load_s), significant(one.first_ms),
            NOT_MEASURED if memory is None else significant(memory),
            energy(one.energy_mj, one.energy_mj_low, one.energy_mj_high),
            integer(one.repeats),
        ]  # fmt: skip
        rows.append([Cell(one.model, below=one.artifact), *(Cell(text) for text in texts)])
    notes = list(dict.fromkeys(note for one in host.timings for note in one.notes))
    modes = dict.fromkeys(one.power_mode for one in host.timings if one.power_mode)
    notes += [f"Power mode: {mode}." for mode in modes]
    meters = dict.fromkeys(one.power_source for one in host.timings if one.power_source)
    notes += [f"Energy: power at work less power at rest, read from {name}." for name in meters]
    return Grid(f"All measurements on {host.name} (milliseconds per batch)", columns, rows, notes)


def phases(host: HostTable) -> Grid | None:
    """Median of each phase of one prediction, as measured from file to answer."""
    timed = [row for row in host.rows if row.timing and row.timing.phases]
    names = list(dict.fromkeys(name for row in timed if row.timing for name in row.timing.phases))
    if not timed:
        return None
    rows = []
    for row in timed:
        found = row.timing.phases if row.timing else {}
        texts = [significant(found[n].p50) if n in found else NOT_MEASURED for n in names]
        rows.append([Cell(row.model, below=row.artifact or ""), *(Cell(text) for text in texts)])
    columns = [Column("Model"), *(Column(f"{name}, ms", True) for name in names)]
    return Grid("Median time of each phase of one prediction", columns, rows)


def scores(data: ReportData) -> Grid | None:
    """All scores of all models and artifacts on the test part."""
    found = dict.fromkeys(name for model in data.scores for name in model.scores)
    order = [data.primary, *data.score_labels, *found]
    names = [name for name in dict.fromkeys(order) if name in found]
    if not names:
        return None
    rows = []
    for name in names:
        first = next(model.scores[name] for model in data.scores if name in model.scores)
        arrow = "higher is better" if first.direction == "higher" else "lower is better"
        cells = [Cell(score(model.scores.get(name))) for model in data.scores]
        rows.append([Cell(data.score_labels.get(name, name), below=arrow), *cells])
    heads = [f"{m.name}, its {plural(m.knows, 'class', 'classes')}" if m.knows else m.name
             for m in data.scores]  # fmt: skip
    columns = [Column("Score"), *(Column(head, True) for head in heads)]
    return Grid(f"All scores on the test part {CI}", columns, rows)


def gate(view: GateView) -> Grid:
    """One artifact's checks: what was asked, what came out, what was allowed."""
    text = GATE_WORDS[view.word][0]
    seen = ""
    if view.images is not None and view.groups is not None:
        seen = f", on {plural(view.images, 'image')} of {plural(view.groups, 'group')}"
    caption = f"{view.artifact}: {text}{seen}"
    columns = [
        Column("Check"), Column(f"Found {CI}", True), Column("Limit", True),
        Column("Verdict"), Column("Remark"),
    ]  # fmt: skip
    tones = {"passed": "good", "refused": "bad", "inconclusive": "warn"}
    rows = []
    for check in view.checks:
        value = decimal(check.value)
        if check.low is None and check.high is not None:
            value += f", at most {decimal(check.high)}"
        elif check.low is not None:
            value += f" [{decimal(check.low)}, {decimal(check.high)}]"
        rows.append([
            Cell(check.question),
            Cell(value),
            Cell(decimal(check.limit)),
            Cell(check.verdict, tones.get(check.verdict, "muted")),  # type: ignore[arg-type]
            Cell(check.detail),
        ])  # fmt: skip
    return Grid(caption, columns, rows)


def per_class(data: ReportData) -> Grid | None:
    """Sensitivity and F1 per class for teacher, student and artifact."""
    if not data.subjects:
        return None
    columns = [Column("Class"), Column("Images", True)]
    for one in data.subjects:
        columns += [Column(f"{one.label}: sensitivity {CI}", True), Column("F1", True)]
    rows = []
    for index, name in enumerate(data.classes):
        cells = [Cell(name), Cell(integer(data.subjects[0].support[index]))]
        for one in data.subjects:
            value, low, high = (v[index] for v in (one.recall, one.recall_low, one.recall_high))
            text = NOT_MEASURED if value is None else f"{value:.3f}"
            if value is not None and low is not None and high is not None:
                text += f" [{low:.3f}, {high:.3f}]"
            f1 = one.f1[index]
            cells += [Cell(text), Cell(NOT_MEASURED if f1 is None else f"{f1:.3f}")]
        rows.append(cells)
    return Grid("Sensitivity (recall) and F1 per class, test part", columns, rows)


def confusion(data: ReportData, subject: Subject) -> Grid:
    """Rows are the true classes, in per cent of the row, with counts."""
    caption = f"{subject.label}: {plural(subject.images, 'test image')}, "
    if len(data.classes) > LARGEST_MATRIX:
        return _confusions(data, subject, caption)
    rows = []
    for name, counts in zip(data.classes, subject.confusion, strict=True):
        total = sum(counts)
        cells = [
            Cell(f"{100 * n / total:.0f} %" if total else DOES_NOT_APPLY,
                 share=n / total if total else 0.0, below=integer(n))
            for n in counts
        ]  # fmt: skip
        rows.append([Cell(name, below=f"n = {integer(total)}"), *cells])
    columns = [Column("true \\ predicted"), *(Column(name, True) for name in data.classes)]
    return Grid(f"{caption}rows are true classes (per cent of the row, images)", columns, rows)


def _confusions(data: ReportData, subject: Subject, caption: str) -> Grid:
    pairs = sorted(
        ((n, i, j) for i, row in enumerate(subject.confusion) for j, n in enumerate(row)
         if i != j and n),
        reverse=True,
    )[:LARGEST_MATRIX]  # fmt: skip
    rows = [[Cell(data.classes[i]), Cell(data.classes[j]), Cell(integer(n))] for n, i, j in pairs]
    columns = [Column("True"), Column("Predicted"), Column("Images", True)]
    return Grid(f"{caption}the most frequent confusions", columns, rows)


def data_card(card: DataCard) -> Grid:
    """Images per class and part, and groups per part."""
    rows = [
        [Cell(name), *(Cell(integer(n)) for n in counts), Cell(integer(sum(counts)))]
        for name, counts in zip(card.classes, card.images, strict=True)
    ]
    totals = card.totals or [sum(column) for column in zip(*card.images, strict=True)]
    rows.append([Cell("all images", "strong"), *(Cell(integer(n), "strong") for n in totals),
                 Cell(integer(sum(totals)), "strong")])  # fmt: skip
    rows.append([Cell("groups"), *(Cell(integer(n)) for n in card.groups),
                 Cell(integer(sum(card.groups) - _repeats(card)))])  # fmt: skip
    note = "No group (patient, lesion) is in more than one part."
    if card.shared_groups:
        note = f"Warning: {plural(card.shared_groups, 'group')} in more than one part."
    name = card.counted
    columns = [Column(name.capitalize()), *(Column(part, True) for part in card.parts),
               Column("all", True)]  # fmt: skip
    notes = [note, *([card.remark] if card.remark else [])]
    return Grid(f"Images per {name} and part", columns, rows, notes)


def _repeats(card: DataCard) -> int:
    return card.shared_groups  # counted once too often (in two parts; three is a rarity)


def facts(title: str, entries: dict[str, str]) -> Grid:
    """Names and values."""
    rows = [[Cell(name), Cell(value)] for name, value in entries.items()]
    return Grid(title, [Column("Fact"), Column("Value")], rows)
