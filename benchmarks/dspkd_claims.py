"""What the paper of DSP-KD claims in words, and what the sweep and the timing say of it.

A comparison says as claimed, against it, or neither, by its 95 % interval: over seeds for scores,
over rounds for times. A claim is not supported if any of its comparisons lies wholly on the other
side, else not run if any was not run, else supported if all lie on the claimed side; otherwise it
cannot be concluded. Nor can it where a class that it is about has fewer than FEWEST test images:
seeds then say how training varies, and not what other patients would show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import table6_tables as table6
from dspkd_tables import (
    ABLATION,
    BASE,
    LABELS,
    METHODS,
    NOT_RUN_YET,
    RIVAL,
    by_frequency,
    of_teacher,
)
from dspkd_tables import blocks as of_sweep
from over_seeds import Record, Values, difference, paired, values

from edgekd import published
from edgekd.sweep.show import NOT_RUN

FEWEST = 10  # test images of a class
RAREST = ("SCC", "VASC", "DF")  # of ISIC 2019, from 628 to 239 images; here as many
SUPPORTED, NOT_SUPPORTED, OPEN = "supported", "not supported", "cannot be concluded"
AS_CLAIMED, AGAINST, UNDECIDED = "as claimed", "against it", "undecided"


@dataclass(frozen=True)
class Comparison:
    """What should be above 0: its name, the printed figure, ours as text, and what it says."""

    label: str
    published: str
    here: str
    says: str
    few: str = ""  # why the test images are too few


@dataclass(frozen=True)
class Claim:
    text: str
    made: Callable[[Record | None, Record | None], list[Comparison]]  # of the sweep, of the timing


def says(ours: Values, theirs: Values) -> str:
    """By the interval of the paired difference."""
    cell = paired(ours, theirs)
    if cell.difference is None:
        return NOT_RUN
    if cell.low is None or cell.high is None:
        return UNDECIDED
    return AS_CLAIMED if cell.low > 0 else AGAINST if cell.high < 0 else UNDECIDED


def printed(table: str, scenario: str | None = "Res2Net101") -> dict[str, dict[str, float]]:
    """The lines of a published table: their figures by score."""
    return {
        row.method: {name: value for name, value in row.values.items() if value is not None}
        for row in published.table(table).rows
        if row.scenario == scenario
    }


def _score(record: Record | None, variant: str, metric: str = "accuracy") -> Values:
    return values(record, variant, metric) if record else {}


def compared(label: str, figure: str, ours: Values, theirs: Values, few: str = "") -> Comparison:
    return Comparison(label, figure, difference(ours, theirs), says(ours, theirs), few)


def above_teacher(record: Record | None, timing: Record | None) -> list[Comparison]:
    figures = []
    for table, data in (("dspkd_table2", "ISIC2019"), ("dspkd_table3", "PSD")):
        lines = printed(table)
        above = lines["DSP-KD"]["accuracy"] - lines["teacher_alone"]["accuracy"]
        figures.append(f"{above:+.4f} ({data})")
    teacher = of_teacher(record, "accuracy") if record else {}
    label = "DSP-KD − teacher, accuracy"
    return [compared(label, ", ".join(figures), _score(record, BASE), teacher)]


def both_stages(record: Record | None, timing: Record | None) -> list[Comparison]:
    return [_pair(record, BASE, alone) for alone in ("stage1", "stage2")]


def single_parts(record: Record | None, timing: Record | None) -> list[Comparison]:
    return [_pair(record, *pair) for pair in (("stage1", "mgd-pixels"), ("stage2", "kd"))]


def _pair(record: Record | None, ours: str, theirs: str) -> Comparison:
    """Two lines of Table 7."""
    lines, names = printed("dspkd_table7", None), {variant: line for variant, line, _ in ABLATION}
    above = lines[names[ours]]["accuracy"] - lines[names[theirs]]["accuracy"]
    label = " − ".join(LABELS[name].replace("*", "") for name in (ours, theirs))
    return compared(f"{label}, accuracy", f"{above:+.4f}",
                    _score(record, ours), _score(record, theirs))  # fmt: skip


def rare_classes(record: Record | None, timing: Record | None) -> list[Comparison]:
    """The gain over SSD-KD of the rarest three classes beside that of the others, and of `df`."""
    rival = LABELS[RIVAL]
    lines = printed("dspkd_table4")
    ours, theirs = lines[METHODS[BASE]], lines[METHODS[RIVAL]]
    gains = {name: ours[name] - theirs[name] for name in ours if name != "macro_f1"}
    most = [gains[f"f1_{name}"] for name in RAREST]
    rest = [value for name, value in gains.items() if name.removeprefix("f1_") not in RAREST]
    above = sum(most) / len(most) - sum(rest) / len(rest)
    first = (f"gain in F1 over {rival}, mean of the {len(RAREST)} rarest classes − mean of the "
             "others", f"{above:+.4f}")  # fmt: skip
    second = f"DSP-KD − {rival}, F1 of df", f"{gains['f1_DF']:+.4f}"
    if record is None:
        return [Comparison(*one, NOT_RUN, NOT_RUN) for one in (first, second)]
    order = by_frequency(record)
    rare, others = order[-len(RAREST) :], order[: -len(RAREST)]
    here = {label: gain(record, record["classes"][label]) for label in order}
    df = [label for label in order if record["classes"][label] == "df"]
    return [
        compared(*first, mean_of(here, rare), mean_of(here, others), too_few(record, rare)),
        compared(*second, _score(record, BASE, "f1_df"), _score(record, RIVAL, "f1_df"),
                 too_few(record, df)),
    ]  # fmt: skip


def gain(record: Record, name: str) -> Values:
    """How much higher the F1 of a class is with DSP-KD than with SSD-KD, by seed."""
    ours, theirs = (values(record, variant, f"f1_{name}") for variant in (BASE, RIVAL))
    return {seed: ours[seed] - theirs[seed] for seed in sorted(set(ours) & set(theirs))}


def mean_of(several: dict[int, Values], labels: list[int]) -> Values:
    """The mean over some classes, of the seeds that all have."""
    found = [several[label] for label in labels]
    seeds = sorted(set.intersection(*map(set, found))) if found else []
    return {seed: sum(one[seed] for one in found) / len(found) for seed in seeds}


def too_few(record: Record, labels: list[int]) -> str:
    names = [
        f"{record['test'][label]} test images of {record['classes'][label]}"
        for label in labels
        if record["test"][label] < FEWEST
    ]
    return ", ".join(names)


def as_fast(record: Record | None, timing: Record | None) -> list[Comparison]:
    """The printed ratio against that of the same two networks in eager PyTorch, fp32."""
    wanted = table6.published_ratio("DSP-KD")
    found = []
    for threads, words in table6.THREADS.items():
        label = f"teacher / student, {table6.FORMS[table6.EAGER]}, {words}: at least the published"
        here = table6.like_for_like(timing, table6.EAGER, threads) if timing else None
        if here is None:
            found.append(Comparison(label, f"{wanted:.1f}x", NOT_RUN, NOT_RUN))
            continue
        _, low, high = here
        said = AS_CLAIMED if low >= wanted else AGAINST if high < wanted else UNDECIDED
        found.append(Comparison(label, f"{wanted:.1f}x", table6.times(here), said))
    return found


CLAIMS = (
    Claim("1. The distilled student exceeds its teacher, by 0.24 (ISIC2019) and 0.27 points (PSD)",
          above_teacher),
    Claim("2. Both stages together beat either alone …", both_stages),
    Claim("… the HF mask adds 2.35 points to MGD, NormKD 0.89 to KD", single_parts),
    Claim("3. The gain is largest for rare classes (DF: +10.51 points of F1 over SSD-KD)",
          rare_classes),
    Claim("4. 12.9 times faster than the teacher", as_fast),
)  # fmt: skip


def blocks(record: Record | None, timing: Record | None) -> dict[str, str]:
    """Every block of the page by name; those without results say so."""
    return {
        **of_sweep(record),
        **table6.blocks(timing),
        "claims": claims(record, timing),
        "comparisons": comparisons(record, timing) if record or timing else NOT_RUN_YET,
    }


def verdict(found: list[Comparison]) -> str:
    """By the rule at the top of this file, with the count of what was said."""
    words = [one.says for one in found]
    counted = ", ".join(
        f"{words.count(key)} {key}"
        for key in (AS_CLAIMED, AGAINST, UNDECIDED, NOT_RUN)
        if key in words
    )
    if words.count(NOT_RUN) == len(words):
        return NOT_RUN
    few = "; ".join(dict.fromkeys(one.few for one in found if one.few))
    if few:
        return f"**{OPEN}**: {few} ({counted})"
    if AGAINST in words:
        word = NOT_SUPPORTED
    elif NOT_RUN in words:
        word = NOT_RUN
    else:
        word = SUPPORTED if set(words) == {AS_CLAIMED} else OPEN
    return f"**{word}** ({counted})"


def claims(record: Record | None, timing: Record | None) -> str:
    """The paper's sentences and their verdicts."""
    lines = ["| claim | here |", "|---|---|"]
    for claim in CLAIMS:
        lines.append(f"| {claim.text} | {verdict(claim.made(record, timing))} |")
    return "\n".join(lines)


def comparisons(record: Record | None, timing: Record | None) -> str:
    """What the verdicts are made of. The published figures are of other data or machines."""
    lines = ["| claimed to be above 0 | published | here | says |", "|---|---|---:|---|"]
    for claim in CLAIMS:
        for one in claim.made(record, timing):
            lines.append(f"| {one.label} | {one.published} | {one.here} | {one.says} |")
    return "\n".join(lines)
