"""The blocks of docs/papers/rskd.md, all computed from what `rskd.py` has gathered.

What the paper claims in words is in rskd_claims.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from over_seeds import Record, Values, difference, paired, spread, values

from edgekd import published
from edgekd.results import SHOTS
from edgekd.sweep.table import Cell

BASE, MODEL, SHOT = "erm", "student", "base"
SCORES = {
    "map_head": "head", "map_medium": "medium", "map_tail": "tail", "map_groups": "total",
    "map": "mAP",
}  # fmt: skip
LABELS = {  # the recipe itself is RSKD with teachers by shot
    BASE: "plain (ERM)", "rs": "RS", "rw": "RW", "focal": "focal", "oltr": "OLTR", "ldam": "LDAM",
    "ldam-drw": "LDAM-DRW", "db": "DB loss",
    SHOT: "**RSKD**, by shot", "rskd-region": "**RSKD**, by region",
    "rskd-feature": "**RSKD**, by sign", "rskd-look": "**RSKD**, by colour",
    "kd-t3": "fixed weights, T = 3", "kd-t10": "fixed weights, T = 10",
    "kd-t20": "fixed weights, T = 20",
    "rskd-db": "RSKD + DB loss", "rskd-oltr": "RSKD + OLTR", "rskd-ldam": "RSKD + LDAM",
    "rskd-focal": "RSKD + focal",
}  # fmt: skip
ORDER = tuple(LABELS)
METHODS = {  # variant -> line of Table 3; of `rskd-look` the one whose groups come nearest
    BASE: "ERM", "rs": "RS_resampling", "rw": "RW_reweighting", "focal": "Focal", "oltr": "OLTR",
    "ldam": "LDAM", "db": "DB_loss", SHOT: "RSKD_shot", "rskd-region": "RSKD_region",
    "rskd-feature": "RSKD_feature", "rskd-db": "RSKD+DB_loss", "rskd-oltr": "RSKD+OLTR",
    "rskd-ldam": "RSKD+LDAM", "rskd-focal": "RSKD+Focal",
}  # fmt: skip
TEMPERATURES = {"kd-t3": "KD_T3", "kd-t10": "KD_T10", "kd-t20": "KD_T20"}  # of Table 4
WHY = "private data there; here other images, 64 pixels, small networks, no pretrained weights"


@dataclass(frozen=True)
class Study:
    """One of the two sweeps."""

    label: str
    command: str
    like: str  # the paper's data set that it stands for
    rules: tuple[str, ...]  # the variants of RSKD by their class groups
    weighted: str  # the variant that `kd-t3` and so on have with fixed weights


STUDIES = {
    "rfmid": Study("RFMiD", "sweep studies/rskd-rfmid data.root=path/to/RFMiD", "Disease-48",
                   (SHOT, "rskd-region", "rskd-feature"), "rskd-feature"),
    "synthetic": Study("drawn signs", "sweep studies/rskd-synthetic", "Lesion-10",
                       (SHOT, "rskd-look"), "rskd-look"),
}  # fmt: skip
Records = Mapping[str, Record | None]


def not_run_yet(study: str) -> str:
    return f"Not run yet: `edgekd {STUDIES[study].command}`."


def of_study(study: str, record: Record | None) -> dict[str, str]:
    """The blocks about one of the sweeps; without results all say so."""
    makers: dict[str, Callable[[str, Record], str]] = {
        "facts": facts, "scores": scores, "differences": differences, "classes": classes,
        "counts": counts, "thresholds": thresholds,
    }  # fmt: skip
    return {
        f"{study}-{name}": make(study, record) if record else not_run_yet(study)
        for name, make in makers.items()
    }


def variants_of(study: str) -> list[str]:
    """Those of the study, in the paper's order."""
    here = STUDIES[study].rules
    others = {rule for one in STUDIES.values() for rule in one.rules} - set(here)
    return [variant for variant in ORDER if variant not in others]


def of_class(record: Record, variant: str, key: str, index: int) -> Values:
    """A figure of one class by seed, where it is defined."""
    found = {}
    for seed in record["seeds"]:
        cell = record["cells"].get(f"{variant}/{seed}")
        if cell is not None and cell[key][index] is not None:
            found[seed] = cell[key][index]
    return found


def of_group(record: Record, variant: str, key: str, shot: str) -> Values:
    """The mean over a group's classes whose threshold was chosen, by seed."""
    found = {}
    for seed in record["seeds"]:
        cell, parts = record["cells"].get(f"{variant}/{seed}"), record["by_seed"][str(seed)]
        figures = [
            value
            for value, own, val in zip(cell[key], parts["shots"], parts["val"], strict=True)
            if own == shot and val and value is not None
        ] if cell else []  # fmt: skip
        if figures:
            found[seed] = sum(figures) / len(figures)
    return found


def facts(study: str, record: Record) -> str:
    """How many images and seeds, the command, the classes of each group, the network's size."""
    split, costs = record["split"], record["costs"]
    shots = record["by_seed"][str(record["seeds"][0])]["shots"]
    groups = ", ".join(f"{shots.count(shot)} {shot}" for shot in SHOTS)
    return (
        f"`{record['command']}`\n\n{split['train']} training, {split['val']} validation, "
        f"{split['test']} test images; seeds {', '.join(map(str, record['seeds']))}. "
        f"{len(shots)} classes: {groups}. Network: {costs['params'] / 1e6:.2f} M parameters, "
        f"{costs['macs'] / 1e6:.0f} M multiply-adds. Measured on {record['host'].get('cpu')}; "
        "mean ± standard deviation over seeds, in brackets the 95 % interval (Student's t over "
        "seeds) of the paired difference."
    )


def scores(study: str, record: Record) -> str:
    """The average precision of the groups of classes, of their mean, and of all classes."""
    lines = [
        "| variant | " + " | ".join(SCORES.values()) + " | seeds |",
        "|---|" + "---:|" * (len(SCORES) + 1),
    ]
    for variant in variants_of(study):
        cells = [spread(values(record, variant, name)) for name in SCORES]
        lines.append(f"| {LABELS[variant]} | " + " | ".join([*cells, seeds_of(record, variant)])
                     + " |")  # fmt: skip
    return "\n".join(lines)


def differences(study: str, record: Record) -> str:
    """The same minus plain training."""
    lines = [
        "| minus plain | " + " | ".join(SCORES.values()) + " |",
        "|---|" + "---:|" * len(SCORES),
    ]
    for variant in variants_of(study):
        if variant == BASE:
            continue
        cells = [
            difference(values(record, variant, name), values(record, BASE, name)) for name in SCORES
        ]
        lines.append(f"| {LABELS[variant]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def seeds_of(record: Record, variant: str) -> str:
    return str(sum(f"{variant}/{seed}" in record["cells"] for seed in record["seeds"]))


def group_of(record: Record, index: int) -> str:
    """A class's group; with seeds of other splits it may have two."""
    seen = {record["by_seed"][str(seed)]["shots"][index] for seed in record["seeds"]}
    return "/".join(shot for shot in SHOTS if shot in seen)


def between(numbers: list[int]) -> str:
    """`3`, or `3-5`."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"


def classes(study: str, record: Record) -> str:
    """The average precision of each class, and what RSKD adds to it."""
    rules = STUDIES[study].rules
    heads = "".join(f" {LABELS[rule].replace('*', '')} minus plain |" for rule in rules)
    lines = [
        f"| class | group | training | validation | test | plain |{heads}",
        "|---|---|" + "---:|" * (4 + len(rules)),
    ]
    of_seeds = [record["by_seed"][str(seed)] for seed in record["seeds"]]
    order = sorted(range(len(record["classes"])), key=lambda i: (-of_seeds[0]["train"][i], i))
    for index in order:
        if not record["test"][index]:
            continue
        base = of_class(record, BASE, "ap", index)
        images = [between([one[part][index] for one in of_seeds]) for part in ("train", "val")]
        cells = [group_of(record, index), *images, str(record["test"][index]), spread(base)]
        cells += [difference(of_class(record, rule, "ap", index), base) for rule in rules]
        lines.append(f"| {record['classes'][index]} | " + " | ".join(cells) + " |")
    unseen = [name for name, n in zip(record["classes"], record["test"], strict=True) if not n]
    lines += ["", f"Without a test image, and in no score: {', '.join(unseen) or 'none'}."]
    if record["left_out"]:
        lines.append(f"Left out by the data set, as some part of it has no image of them "
                     f"({len(record['left_out'])}): {', '.join(record['left_out'])}.")  # fmt: skip
    return "\n".join(lines)


def word(cell: Cell) -> str:
    """What an interval says: higher, lower, undecided, or nothing."""
    if cell.difference is None:
        return ""
    if cell.low is None or cell.high is None:
        return "undecided"
    return "higher" if cell.low > 0 else "lower" if cell.high < 0 else "undecided"


def counts(study: str, record: Record) -> str:
    """How many classes of each group gain on plain training, lose, or neither."""
    heads = " | ".join(f"{shot}: higher, lower, undecided" for shot in SHOTS)
    lines = [f"| minus plain | {heads} |", "|---|" + "---:|" * len(SHOTS)]
    for variant in variants_of(study):
        if variant == BASE:
            continue
        words: dict[str, list[str]] = {shot: [] for shot in SHOTS}
        for index in range(len(record["classes"])):
            ours, theirs = (of_class(record, one, "ap", index) for one in (variant, BASE))
            words[group_of(record, index).split("/")[0]].append(word(paired(ours, theirs)))
        cells = [
            ", ".join(str(found.count(key)) for key in ("higher", "lower", "undecided"))
            if any(found) else "not run"
            for found in words.values()
        ]  # fmt: skip
        lines.append(f"| {LABELS[variant]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def thresholds(study: str, record: Record) -> str:
    """From which probability on a class is there, and how much of it is then found."""
    keys = ("threshold", "sensitivity", "specificity")
    heads = "".join(f" {key}, {shot} |" for key in keys for shot in SHOTS)
    lines = [f"| variant |{heads}", "|---|" + "---:|" * (len(keys) * len(SHOTS))]
    for variant in variants_of(study):
        cells = [spread(of_group(record, variant, key, shot)) for key in keys for shot in SHOTS]
        lines.append(f"| {LABELS[variant]} | " + " | ".join(cells) + " |")
    without = [
        name
        for index, name in enumerate(record["classes"])
        if not all(record["by_seed"][str(seed)]["val"][index] for seed in record["seeds"])
    ]
    lines += ["", "Without a validation image for some seed, where 0.5 stays and does not count: "
              f"{', '.join(without) or 'none'}."]  # fmt: skip
    return "\n".join(lines)


def beside(records: Records) -> str:
    """Table 3 and Table 4 as printed, tail and total, beside ours; nothing is claimed of both."""
    lines = [
        "| published line | Lesion-10 tail | total | Disease-48 tail | total | "
        + " | ".join(f"here, {study.label}: tail | total" for study in STUDIES.values())
        + " | compared |",
        "|---|" + "---:|" * 8 + "---|",
    ]
    rows: dict[str, tuple[str, str, dict[str, str]]] = {
        LABELS[variant]: ("rskd_table3", method, dict.fromkeys(STUDIES, variant))
        for variant, method in METHODS.items()
    }
    rows["**RSKD**, by sign"][2]["synthetic"] = "rskd-look"
    for variant, method in TEMPERATURES.items():
        rows[LABELS[variant]] = ("rskd_table4", method, dict.fromkeys(STUDIES, variant))
    for label, (table, method, variants) in rows.items():
        found = {row.scenario or "Lesion-10": row for row in published.table(table).rows
                 if row.method == method}  # fmt: skip
        cells = []
        for scenario in ("Lesion-10", "Disease-48"):
            row = found.get(scenario)
            cells += [_printed(row, key) for key in ("map_tail", "map_groups")]
        for study, record in records.items():
            has = variants[study] in variants_of(study)
            cells += [
                "–" if not has
                else spread(values(record, variants[study], key)) if record else "not run"
                for key in ("map_tail", "map_groups")
            ]  # fmt: skip
        lines.append(f"| {label} | " + " | ".join(cells) + " | not comparable |")
    return f"Not comparable: {WHY}.\n\n" + "\n".join(lines)


def _printed(row: published.PublishedRow | None, key: str) -> str:
    if row is None:
        return "–"
    suspect = " (?)" if row.suspect and row.suspect.startswith(key) else ""
    return published.printed(row.values[key]) + suspect
