"""The blocks of docs/papers/dspkd.md, all computed from what `dspkd.py` has gathered.

What the paper claims in words is in dspkd_claims.py, its Table 6 in table6_tables.py.
"""

from __future__ import annotations

from over_seeds import Record, Values, difference, spread, values

from edgekd import published
from edgekd.sweep.show import NOT_RUN

NAME = "dspkd-ham10000"
NOT_RUN_YET = f"Not run yet: `edgekd sweep studies/{NAME} data.root=path/to/ham10000`."
ALONE, BASE, RIVAL = "alone", "base", "ssd-kd"
MODEL, TEACHER = "student", "teacher"
METHODS = {  # variant -> line of Tables 2 and 3
    ALONE: "student_alone", "kd": "KD", "wsld": "WSLD", "fitnet": "FitNet", "mgd": "MGD",
    "eml": "EML", RIVAL: "SSD-KD", BASE: "DSP-KD",
}  # fmt: skip
LABELS = {
    ALONE: "alone", "kd": "KD", "wsld": "WSLD", "fitnet": "FitNet", "mgd": "MGD",
    "eml": "EML (re-derived)", RIVAL: "SSD-KD", BASE: "**DSP-KD**",
    "mgd-pixels": "MGD, pixels hidden", "stage1": "stage 1", "stage2": "stage 2",
    "stage1-kd": "stage 1, then KD",
}  # fmt: skip
ORDER = tuple(LABELS)
ABLATION = (  # variant, line of Table 7, what its gain is over
    (ALONE, "S", None),
    ("mgd-pixels", "S+MGD (a)", ALONE),
    ("stage1", "S+MGD+HF (stage 1)", "mgd-pixels"),
    ("kd", "S+VKD (b)", ALONE),
    ("stage2", "S+NKD (stage 2)", "kd"),
    ("stage1-kd", "S+MGD+HF+VKD", "stage1"),
    (BASE, "S+MGD+HF+NKD (DSP-KD)", "stage1"),
)
SCORES = {
    "accuracy": "accuracy", "macro_f1": "macro F1", "precision": "precision", "recall": "recall",
    "specificity": "specificity",
}  # fmt: skip
COMPARED = ("accuracy", "macro_f1")
FIDELITY = "fidelity"
SHOWN = (ALONE, "kd", "fitnet", RIVAL, BASE)  # class by class: those of Table 4, and `alone`
WHY = (
    "other images (HAM10000), fewer of them and of fewer pixels, small networks, no pretrained "
    "weights, four epochs"
)
NO_TEACHER = {ALONE, "eml"}  # EML's learns beside the student


def blocks(record: Record | None) -> dict[str, str]:
    """The blocks about the sweep; without results all but the published figures say so."""
    makers = {
        "facts": facts, "methods": methods, "best": best, "ablation": ablation,
        "classes": classes, "figures": figures,
    }  # fmt: skip
    found = {name: make(record) if record else NOT_RUN_YET for name, make in makers.items()}
    return {**found, "published": beside(record), "published-classes": published_classes()}


def of_teacher(record: Record, metric: str) -> Values:
    """A score of the frozen teacher by seed; it is the same for all that learn from it."""
    found: Values = {}
    for variant in record["variants"]:
        if variant not in NO_TEACHER:
            found = {**values(record, variant, metric, TEACHER), **found}
    return found


def facts(record: Record) -> str:
    """How many images and seeds, the command, and the sizes of the networks."""
    split, costs = record["split"], record["costs"]
    sizes = " ".join(
        f"{name}: {costs[model]['params'] / 1e6:.2f} M parameters, "
        f"{costs[model]['macs'] / 1e6:.0f} M multiply-adds."
        for name, model in (("Teacher", TEACHER), ("Student", MODEL))
        if model in costs
    )
    return (
        f"`{record['command']}`\n\n{split['train']} training ({sum(record['copied'])} with the "
        f"copies), {split['val']} validation, {split['test']} test images; seeds "
        f"{', '.join(map(str, record['seeds']))}. {sizes} Measured on {record['host'].get('cpu')}; "
        "mean ± standard deviation over seeds, in brackets the 95 % interval (Student's t over "
        "seeds) of the paired difference."
    )


def methods(record: Record) -> str:
    """Every method with all scores, and DSP-KD minus it."""
    heads = [*SCORES.values(), "decides as T"]
    heads += [f"DSP-KD minus this, {SCORES[name]}" for name in COMPARED]
    lines = [f"| method | {' | '.join(heads)} | seeds |", "|---|" + "---:|" * (len(heads) + 1)]
    own = {metric: values(record, BASE, metric) for metric in COMPARED}
    teacher = {metric: of_teacher(record, metric) for metric in SCORES}
    cells = [spread(found) for found in teacher.values()]
    cells += ["–", *(difference(own[metric], teacher[metric]) for metric in COMPARED)]
    lines.append(f"| teacher | {' | '.join(cells)} | {len(teacher['accuracy'])} |")
    for variant in METHODS:
        cells = [spread(values(record, variant, metric)) for metric in SCORES]
        agrees = values(record, variant, FIDELITY)
        cells.append("–" if variant in NO_TEACHER else spread(agrees))
        for metric in COMPARED:
            theirs = values(record, variant, metric)
            cells.append("" if variant == BASE else difference(own[metric], theirs))
        seeds = len(values(record, variant, "accuracy"))
        lines.append(f"| {LABELS[variant]} | {' | '.join(cells)} | {seeds} |")
    return "\n".join(lines)


def best_of_others(record: Record, metric: str) -> str | None:
    """The method with the best mean over the seeds of DSP-KD, of those that have all of these."""
    ours = values(record, BASE, metric)
    means = {}
    for variant in METHODS:
        theirs = values(record, variant, metric)
        if variant != BASE and ours and set(ours) <= set(theirs):
            means[variant] = sum(theirs[seed] for seed in ours) / len(ours)
    return max(means, key=lambda variant: means[variant]) if means else None


def best(record: Record) -> str:
    """DSP-KD beside the best of the others, score by score."""
    lines = [
        "| score | best of the others | its mean | DSP-KD | DSP-KD minus it |",
        "|---|---|---:|---:|---:|",
    ]
    for metric, label in SCORES.items():
        rival, ours = best_of_others(record, metric), values(record, BASE, metric)
        theirs = values(record, rival, metric) if rival else {}
        name = LABELS[rival] if rival else NOT_RUN
        cells = [name, spread(theirs), spread(ours), difference(ours, theirs)]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ablation(record: Record) -> str:
    """The lines of Table 7: printed, measured, and the gain over the line that it adds to."""
    printed = {row.method: row.values for row in published.table("dspkd_table7").rows}
    lines = [
        f"Published figures are not comparable: {WHY}.",
        "",
        "| line | published accuracy | published gain | accuracy | macro F1 | over "
        "| gain, accuracy | … macro F1 | seeds |",
        "|---|---:|---:|---:|---:|---|---:|---:|---:|",
    ]
    for variant, method, before in ABLATION:
        gain = printed[method]["gain"]
        cells = [published.printed(printed[method]["accuracy"]),
                 "" if gain is None else f"{gain:+.4f}"]  # fmt: skip
        cells += [spread(values(record, variant, metric)) for metric in COMPARED]
        cells.append(LABELS[before] if before else "")
        for metric in COMPARED:
            ours, theirs = values(record, variant, metric), values(record, before or "", metric)
            cells.append(difference(ours, theirs) if before else "")
        seeds = len(values(record, variant, "accuracy"))
        lines.append(f"| {method} | {' | '.join(cells)} | {seeds} |")
    return "\n".join(lines)


def by_frequency(record: Record) -> list[int]:
    """The classes by their numbers, those with the most training images first."""
    counts = record["train"]
    return sorted(range(len(counts)), key=lambda label: -counts[label])


def classes(record: Record) -> str:
    """F1 of each class, the most frequent first, with the numbers of images."""
    heads = ["training", "with copies", "test", *(LABELS[variant] for variant in SHOWN)]
    heads.append(f"DSP-KD minus {LABELS[RIVAL]}")
    lines = [f"| class | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for label in by_frequency(record):
        name = record["classes"][label]
        cells = [str(record[key][label]) for key in ("train", "copied", "test")]
        found = {variant: values(record, variant, f"f1_{name}") for variant in SHOWN}
        cells += [spread(one) for one in found.values()]
        cells.append(difference(found[BASE], found[RIVAL]))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


FIGURES = {
    "counts.svg": "Training images of each class, before and after balancing",
    "classes.svg": "F1 of each class",
    "confusion.svg": "Confusion matrices",
}


def figures(record: Record) -> str:
    """The drawings, which dspkd_figures.py makes of the same results."""
    return "\n\n".join(f"![{title}](dspkd/{name})" for name, title in FIGURES.items())


def beside(record: Record | None) -> str:
    """Tables 2 and 3 as published, all three teachers, beside what was measured here."""
    tables = [published.table(name) for name in ("dspkd_table2", "dspkd_table3")]
    teachers = list(dict.fromkeys(row.scenario or "" for row in tables[0].rows))
    columns = [f"{table.dataset}, {teacher}" for table in tables for teacher in teachers]
    lines = [
        f"Not comparable: {WHY}.",
        "",
        f"| method | {' | '.join(columns)} | here | compared |",
        "|---|" + "---:|" * (len(columns) + 1) + "---|",
    ]
    for variant, method in {TEACHER: "teacher_alone", **METHODS}.items():
        cells = []
        for table in tables:
            for teacher in teachers:
                (row,) = table.rows_of(method, teacher)
                cells.append(published.printed(row.values["accuracy"]))
        if record is None:
            found: Values = {}
        elif variant == TEACHER:
            found = of_teacher(record, "accuracy")
        else:
            found = values(record, variant, "accuracy")
        cells += [spread(found), "not comparable"]
        lines.append(f"| {LABELS.get(variant, TEACHER)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def published_classes() -> str:
    """Tables 4 and 5 as printed."""
    parts = []
    for name in ("dspkd_table4", "dspkd_table5"):
        table = published.table(name)
        scores = list(table.rows[0].values)
        heads = [score.removeprefix("f1_").replace("macro_f1", "macro") for score in scores]
        lines = [f"| {table.dataset} | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
        for row in table.rows:
            cells = [published.printed(row.values[score]) for score in scores]
            lines.append(f"| {row.method} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
