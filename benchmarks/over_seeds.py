"""What the pages on papers share: a score over the seeds that were run, and differences of two."""

from __future__ import annotations

from typing import Any

from edgekd.sweep import show, table

Record = dict[str, Any]
Values = dict[int, float]  # by seed


def values(
    record: Record, variant: str, metric: str, model: str = "", kind: str = "scores"
) -> Values:
    """A score by seed, of the seeds that were run."""
    found = {}
    for seed in record["seeds"]:
        cell = record["cells"].get(f"{variant}/{seed}")
        scores = cell[kind].get(model or record["model"]) if cell else None
        if scores is not None and scores.get(metric, {}).get("value") is not None:
            found[seed] = scores[metric]["value"]
    return found


def spread(found: Values) -> str:
    """Mean and standard deviation over seeds."""
    return show.spread(table.cell_of(len(found), found, {}))


def paired(ours: Values, theirs: Values) -> table.Cell:
    """The difference over the seeds that both have, with its 95 % interval."""
    return table.cell_of(len(set(ours) & set(theirs)), ours, theirs)


def difference(ours: Values, theirs: Values) -> str:
    """The same as text."""
    return show.difference(paired(ours, theirs))
