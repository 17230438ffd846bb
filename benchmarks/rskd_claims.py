"""What the paper of RSKD claims in words, and what the two sweeps say of it.

A comparison says as claimed, against it, or neither, by its 95 % interval over seeds. A claim is
not supported if any of its comparisons lies wholly on the other side, else not run if any was not
run, else supported if all lie on the claimed side; otherwise it cannot be concluded. Nor can it
where most classes of a group in the score have fewer than FEWEST test images: seeds then say how
training varies, and not what other patients would show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from over_seeds import Record, difference, paired, values
from rskd_tables import (
    BASE,
    LABELS,
    METHODS,
    SCORES,
    SHOT,
    STUDIES,
    TEMPERATURES,
    Records,
    Study,
    not_run_yet,
    of_study,
    word,
)
from rskd_tables import beside as beside_the_published

from edgekd import published
from edgekd.results import SHOTS

FEWEST = 5
TOTAL, TAIL = "map_groups", "map_tail"
GROUPS_OF = {TOTAL: SHOTS, TAIL: ("tail",)}
SUPPORTED, NOT_SUPPORTED, OPEN = "supported", "not supported", "cannot be concluded"
NOT_RUN = "not run"
AS_CLAIMED, AGAINST = "as claimed", "against it"


@dataclass(frozen=True)
class Comparison:
    """`ours` minus `theirs`, two variants; claimed to be above 0, or below it."""

    ours: str
    theirs: str
    score: str = TOTAL
    above: bool = True

    @property
    def label(self) -> str:
        names = [LABELS[name].replace("*", "") for name in (self.ours, self.theirs)]
        return f"{names[0]} − {names[1]}, {SCORES[self.score]}"


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, and what it means on each of the sweeps."""

    text: str
    measured: str
    on: dict[str, Callable[[Study], list[Comparison]]]  # by study; a missing one cannot say


def _over_plain(score: str) -> Callable[[Study], list[Comparison]]:
    return lambda study: [Comparison(rule, BASE, score) for rule in study.rules]


def _plugged(losing: tuple[str, ...] = ()) -> Callable[[Study], list[Comparison]]:
    return lambda study: [
        Comparison(f"rskd-{loss}", loss, above=loss not in losing)
        for loss in ("focal", "ldam", "db", "oltr")
    ]


def _best(variant: str) -> Callable[[Study], list[Comparison]]:
    return lambda study: [Comparison(variant, rule) for rule in study.rules if rule != variant]


def _weighted(study: Study) -> list[Comparison]:
    return [Comparison(study.weighted, fixed) for fixed in TEMPERATURES]


BOTH = tuple(STUDIES)
CLAIMS = (
    Claim("1. RSKD gains on ERM: at most +3.29 points of total mAP on Lesion-10 …",
          "total, RSKD of every grouping above ERM", dict.fromkeys(BOTH, _over_plain(TOTAL))),
    Claim("… and in the tail +15.18 (Lesion-10) and +7.78 (Disease-48)",
          "tail, RSKD of every grouping above ERM", dict.fromkeys(BOTH, _over_plain(TAIL))),
    Claim("2. Plugged in, it adds to focal (+1.38) and LDAM (+0.94), not to DB loss (-1.48) and "
          "OLTR (-0.20), on Lesion-10 …", "total, RSKD + X above X for two, below for two",
          {"synthetic": _plugged(losing=("db", "oltr"))}),
    Claim("… and to all four on Disease-48", "total, RSKD + X above X",
          {"rfmid": _plugged()}),
    Claim("3. Groups by sign are best on Lesion-10 …", "total, above the other groupings",
          {"synthetic": _best("rskd-look")}),
    Claim("… and groups by shot on the longer-tailed Disease-48",
          "total, above the other groupings", {"rfmid": _best(SHOT)}),
    Claim("4. Dynamic weights beat any fixed temperature",
          "total, above fixed weights at T = 3, 10 and 20", dict.fromkeys(BOTH, _weighted)),
)  # fmt: skip


def blocks(records: Records) -> dict[str, str]:
    """Every block of the page by name; those without results say so."""
    found = {"claims": claims(records), "published": beside_the_published(records)}
    for study, record in records.items():
        found |= of_study(study, record)
        found[f"{study}-comparisons"] = comparisons(study, record) if record else not_run_yet(study)
    return found


def said(record: Record | None, one: Comparison) -> str:
    """What a comparison says: as claimed, against it, undecided, or that it was not run."""
    if record is None:
        return NOT_RUN
    cell = paired(*(values(record, name, one.score) for name in (one.ours, one.theirs)))
    found = word(cell)
    if found in ("higher", "lower"):
        return AS_CLAIMED if (found == "higher") == one.above else AGAINST
    return found or NOT_RUN


def too_few(record: Record, score: str) -> str:
    """Why the test images of a score's groups are too few; nothing where they are not."""
    shots = record["by_seed"][str(record["seeds"][0])]["shots"]
    reasons = []
    for group in GROUPS_OF[score]:
        numbers = [n for n, own in zip(record["test"], shots, strict=True) if own == group and n]
        rare = sum(n < FEWEST for n in numbers)
        if rare * 2 > len(numbers):
            reasons.append(f"{rare} of {len(numbers)} {group} classes have fewer than {FEWEST} "
                           "test images")  # fmt: skip
    return ", ".join(reasons)


def verdict(record: Record | None, wanted: list[Comparison]) -> str:
    """By the rule at the top of this file, with the count of what was said."""
    words = [said(record, one) for one in wanted]
    counted = ", ".join(
        f"{words.count(key)} {key}"
        for key in (AS_CLAIMED, AGAINST, "undecided", NOT_RUN)
        if key in words
    )
    if record is None or words.count(NOT_RUN) == len(words):
        return NOT_RUN
    few = "; ".join(sorted({too_few(record, one.score) for one in wanted} - {""}))
    if few:
        return f"**{OPEN}**: {few} (over seeds {counted})"
    if AGAINST in words:
        found = NOT_SUPPORTED
    elif NOT_RUN in words:
        found = NOT_RUN
    else:
        found = SUPPORTED if set(words) == {AS_CLAIMED} else OPEN
    return f"**{found}** ({counted})"


def claims(records: Records) -> str:
    """The paper's sentences, and the verdict of each sweep."""
    lines = [
        "| claim | measured by | " + " | ".join(STUDIES[name].label for name in records) + " |",
        "|---|---|" + "---|" * len(records),
    ]
    for claim in CLAIMS:
        cells = [
            verdict(record, claim.on[name](STUDIES[name])) if name in claim.on else "–"
            for name, record in records.items()
        ]
        lines.append(f"| {claim.text} | {claim.measured} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def comparisons(study: str, record: Record) -> str:
    """What the verdicts are made of: each difference as printed for the paper's data, and here."""
    own = STUDIES[study]
    lines = [
        f"| minus | claimed | published, {own.like} | here | says |",
        "|---|---|---:|---:|---|",
    ]
    for claim in CLAIMS:
        for one in claim.on[study](own) if study in claim.on else ():
            ours, theirs = (values(record, name, one.score) for name in (one.ours, one.theirs))
            cells = ["above" if one.above else "below", printed_difference(one, own.like),
                     difference(ours, theirs), said(record, one)]  # fmt: skip
            lines.append(f"| {one.label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def printed_difference(one: Comparison, scenario: str) -> str:
    """The same difference of two printed lines; of Table 4 only Lesion-10 is printed."""
    fixed = one.theirs in TEMPERATURES
    table = published.table("rskd_table4" if fixed else "rskd_table3")
    names = ["Weighted_KD", TEMPERATURES[one.theirs]] if fixed else [
        METHODS.get(name, "RSKD_feature") for name in (one.ours, one.theirs)
    ]  # fmt: skip
    if fixed and scenario != table.dataset:
        return "–"
    rows = [table.rows_of(name, None if fixed else scenario) for name in names]
    ours, theirs = (row[0].values[one.score] for row in rows)
    return "–" if ours is None or theirs is None else f"{ours - theirs:+.4f}"
