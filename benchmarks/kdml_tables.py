"""The blocks of docs/papers/kdml.md, all computed from what `kdml.py` has gathered."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from over_seeds import Record, Values, difference, paired, spread, values

from edgekd.sweep.show import NOT_RUN
from edgekd.sweep.table import Cell

NOT_RUN_YET = "Not run yet: `edgekd sweep studies/kdml-ham10000 data.root=path/to/ham10000`."
ALONE, BEST = "alone", "base"
FRAMEWORKS = {
    "ML": ("ml-v1", "ml-v2", "ml-v3"),
    "KD_off": ("kd-off-v1", "kd-off-v2", "kd-off-v3"),
    "KD_on": ("kd-on-v1", "kd-on-v2", "kd-on-v3"),
    "KD+ML": ("kdml-v1", "kdml-v2", BEST),
}
LABELS = {
    ALONE: "alone",
    **{v: f"{name} V{n}" for name, row in FRAMEWORKS.items() for n, v in enumerate(row, 1)},
    "kdml-offline": "KD+ML V3, offline",
}
OTHERS = {
    "kd": "KD", "fitnet": "FitNet", "at": "AT", "sp": "SP", "srrl": "SRRL", "vid": "VID",
    "simkd": "SimKD", "semckd": "SemCKD", "dml": "DML",
}  # fmt: skip
ORDER = (*LABELS, *OTHERS)  # of the study's variants
MEMBERS = {"T": "teacher", "S1": "student_a", "S2": "student_b", "Ensemble": "pair"}
STUDENTS = ("student_a", "student_b")
TEACHER = "teacher"
SCORES = {"accuracy": "accuracy", "macc": "mAcc", "macro_f1": "macro F1"}
FIDELITY = "fidelity"

Pair = tuple[str, str]  # the variant that should be better, and the other
Measure = Callable[[Record, str], Values]


def blocks(record: Record | None) -> dict[str, str]:
    """Every block by name; without results all say so."""
    makers = {
        "facts": facts, "claims": claims, "variants": variants, "others": others,
        "versions": versions, "frameworks": frameworks, "similarity": similarity,
        "agreement": agreement,
    }  # fmt: skip
    return {name: make(record) if record else NOT_RUN_YET for name, make in makers.items()}


def of_pair(metric: str) -> Measure:
    """A score of the ensemble."""
    return lambda record, variant: values(record, variant, metric, "pair")


def of_students(metric: str) -> Measure:
    """A score of the two students on average."""
    return lambda record, variant: average(
        values(record, variant, metric, student) for student in STUDENTS
    )


def cka(record: Record, variant: str, student: str) -> Values:
    """The similarity of a student's deepest features to the teacher's."""
    found = {}
    for seed in record["seeds"]:
        cell = record["cells"].get(f"{variant}/{seed}")
        value = cell["cka"].get(f"{TEACHER}.{student}") if cell else None
        if value is not None:
            found[seed] = value
    return found


def cka_of_students(record: Record, variant: str) -> Values:
    return average(cka(record, variant, student) for student in STUDENTS)


def average(several: Iterable[Values]) -> Values:
    """The mean by seed, of the seeds that all have."""
    found = list(several)
    shared = sorted(set.intersection(*map(set, found)))
    return {seed: sum(one[seed] for one in found) / len(found) for seed in shared}


def facts(record: Record) -> str:
    """How many images and seeds, the command, and the sizes of the networks."""
    split, costs = record["split"], record["costs"]
    sizes = " ".join(
        f"{name}: {costs[model]['params'] / 1e6:.2f} M parameters, "
        f"{costs[model]['macs'] / 1e6:.0f} M multiply-adds."
        for name, model in (("Teacher", TEACHER), ("One student", "student_a"), ("Pair", "pair"))
        if model in costs
    )
    return (
        f"`{record['command']}`\n\n{split['train']} training (before rare classes are repeated), "
        f"{split['val']} validation, {split['test']} test images; seeds "
        f"{', '.join(map(str, record['seeds']))}. {sizes} Measured on {record['host'].get('cpu')}; "
        "mean ± standard deviation over seeds, in brackets the 95 % interval (Student's t over "
        "seeds) of the paired difference."
    )


def variants(record: Record) -> str:
    """All variants, network by network, each beside the same network of `alone`."""
    heads = "".join(f" {name} | Δ to alone |" for name in (SCORES["accuracy"], SCORES["macc"]))
    lines = [
        f"| variant | network |{heads} {SCORES['macro_f1']} | decides as T | seeds |",
        "|---|---|" + "---:|" * 7,
    ]
    for variant, label in LABELS.items():
        for member, model in MEMBERS.items():
            if variant in FRAMEWORKS["ML"] and model == TEACHER:
                continue
            cells = []
            for metric in ("accuracy", "macc"):
                found = values(record, variant, metric, model)
                base = values(record, ALONE, metric, model)
                # the teacher of an offline variant is the very one of `alone`
                is_base = variant == ALONE or (model == TEACHER and found and found == base)
                cells += [spread(found), "" if is_base else difference(found, base)]
            cells.append(spread(values(record, variant, "macro_f1", model)))
            has_teacher = variant not in FRAMEWORKS["ML"] and model != TEACHER
            agrees = values(record, variant, FIDELITY, model)
            cells.append(spread(agrees) if has_teacher else "–")
            seeds = len(values(record, variant, "accuracy", model))
            lines.append(f"| {label} | {member} | " + " | ".join([*cells, str(seeds)]) + " |")
    return "\n".join(lines)


def others(record: Record) -> str:
    """One student of every method, and KD+ML V3's S1 minus it."""
    lines = [
        "| method | accuracy | mAcc | macro F1 | decides as T | KD+ML V3's S1 minus this, accuracy "
        "| … mAcc | seeds |",
        "|---|" + "---:|" * 7,
    ]
    student = STUDENTS[0]
    rows = {
        ALONE: "alone",
        **OTHERS,
        BEST: "**KD+ML V3**, S1",
        "kdml-offline": LABELS["kdml-offline"],
    }
    for variant, label in rows.items():
        cells = [spread(values(record, variant, metric, student)) for metric in SCORES]
        agrees = values(record, variant, FIDELITY, student)
        cells.append("–" if variant == "dml" else spread(agrees))
        for metric in ("accuracy", "macc"):
            ours = values(record, BEST, metric, student)
            theirs = values(record, variant, metric, student)
            cells.append("" if variant == BEST else difference(ours, theirs))
        seeds = len(values(record, variant, "accuracy", student))
        lines.append(f"| {label} | " + " | ".join([*cells, str(seeds)]) + " |")
    return "\n".join(lines)


def pairs_of_versions(without: str | None = None) -> list[Pair]:
    """V3 and V1, V3 and V2 of every framework."""
    return [
        (row[2], row[other])
        for name, row in FRAMEWORKS.items()
        if name != without
        for other in (0, 1)
    ]


def pairs_of_frameworks() -> list[Pair]:
    """KD+ML and each other framework, version by version."""
    best = FRAMEWORKS["KD+ML"]
    return [
        (best[version], row[version])
        for name, row in FRAMEWORKS.items()
        if name != "KD+ML"
        for version in range(3)
    ]


def pairs_with_predictions() -> list[Pair]:
    """KD+ML V3 and predictions only of either kind."""
    return [(BEST, row[0]) for name, row in FRAMEWORKS.items() if name != "KD+ML"]


FOUR: dict[str, Measure] = {
    "ensemble, accuracy": of_pair("accuracy"),
    "ensemble, mAcc": of_pair("macc"),
    "students, accuracy": of_students("accuracy"),
    "students, mAcc": of_students("macc"),
}


def compared(record: Record, pairs: list[Pair], measures: dict[str, Measure]) -> str:
    """A line for each pair: the difference by every measure, with its interval."""
    lines = [
        "| minus | " + " | ".join(measures) + " |",
        "|---|" + "---:|" * len(measures),
    ]
    for ours, theirs in pairs:
        cells = [
            difference(measure(record, ours), measure(record, theirs))
            for measure in measures.values()
        ]
        lines.append(f"| {LABELS[ours]} − {LABELS[theirs]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def versions(record: Record) -> str:
    return compared(record, pairs_of_versions(), FOUR)


def frameworks(record: Record) -> str:
    return compared(record, [*pairs_of_frameworks(), (BEST, FRAMEWORKS["ML"][0]),
                             (BEST, FRAMEWORKS["KD_off"][0]), (BEST, FRAMEWORKS["KD_on"][0])],
                    FOUR)  # fmt: skip


def similarity(record: Record) -> str:
    """How alike the deepest features are to the teacher's, and V3 beside V1 and V2."""
    lines = ["| variant | S1 | S2 | V3 minus this, both students | seeds |",
             "|---|---:|---:|---:|---:|"]  # fmt: skip
    rows = {name: row for name, row in FRAMEWORKS.items() if name != "ML"}
    for variant, third in [(ALONE, ALONE), *((v, row[2]) for row in rows.values() for v in row)]:
        found = [cka(record, variant, student) for student in STUDENTS]
        ours, theirs = cka_of_students(record, third), cka_of_students(record, variant)
        against = "" if variant == third else difference(ours, theirs)
        cells = [*map(spread, found), against, str(len(found[0]))]
        lines.append(f"| {LABELS[variant]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def agreement(record: Record) -> str:
    """Fidelity of V3 beside V1 and V2, where there is a teacher."""
    measures = {"ensemble": of_pair(FIDELITY), "students": of_students(FIDELITY)}
    return compared(record, pairs_of_versions(without="ML"), measures)


def word(cell: Cell) -> str:
    """What an interval says."""
    if cell.difference is None:
        return NOT_RUN
    if cell.low is None or cell.high is None:
        return "undecided"
    return "higher" if cell.low > 0 else "lower" if cell.high < 0 else "undecided"


def counted(record: Record, pairs: list[Pair], measure: Measure) -> list[str]:
    """How many of the differences are above 0, below it, around it, or not there."""
    words = [word(paired(measure(record, a), measure(record, b))) for a, b in pairs]
    return [str(words.count(key)) for key in ("higher", "lower", "undecided", NOT_RUN)]


def claims(record: Record) -> str:
    """What the paper says in words, and how many comparisons here say the same."""
    said: list[tuple[str, list[Pair], dict[str, Measure]]] = [
        ("V3 is better than V1 and V2 in every framework", pairs_of_versions(), FOUR),
        ("KD+ML is better than KD and than ML", pairs_of_frameworks(), FOUR),
        ("KD+ML V3 is better than predictions only, by about 2 points",
         pairs_with_predictions(), FOUR),
        ("V3 raises the similarity of the deepest features to the teacher's",
         pairs_of_versions(without="ML"), {"students, CKA": cka_of_students}),
        ("V3 does not always raise how often students decide as the teacher",
         pairs_of_versions(without="ML"),
         {"ensemble": of_pair(FIDELITY), "students": of_students(FIDELITY)}),
    ]  # fmt: skip
    lines = ["| claim | measured by | higher | lower | undecided | not run |",
             "|---|---|---:|---:|---:|---:|"]  # fmt: skip
    for claim, pairs, measures in said:
        for number, (name, measure) in enumerate(measures.items()):
            cells = [claim if not number else "", name, *counted(record, pairs, measure)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
