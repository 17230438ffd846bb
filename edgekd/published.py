"""The tables that the papers print, as data: `papers/<paper>.yaml`.

Shares (accuracy and the like) are numbers from 0 to 1, as edgekd scores them, sizes and times have
the units that the file's first lines name. A paper's own marks and ours (`suspect`, `reason`) stay
with the row. A figure that cannot be had, because no legible copy of the table is at hand, is null:
nothing may be claimed of it.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml
from pydantic import model_validator

from edgekd.errors import RecipeError, did_you_mean
from edgekd.recipe_base import Section

FOLDER = Path(__file__).parent / "papers"
UNAVAILABLE = "published value unavailable"


class PublishedRow(Section):
    """One line of a printed table."""

    method: str
    member: str | None = None  # where a method has a line for each of its models
    scenario: str | None = None
    values: dict[str, float | None]  # score -> as printed
    examples: list[str] = []  # what a table of words has in this line
    expert: bool = False  # a teacher's own line
    suspect: str | None = None  # why the printed figures cannot be right
    reason: str | None = None  # why no variant of a recipe stands for it

    @model_validator(mode="before")
    @classmethod
    def _gather_values(cls, tree: Any) -> Any:
        if not isinstance(tree, dict) or "values" in tree:
            return tree
        own = {key: value for key, value in tree.items() if key in cls.model_fields}
        return {**own, "values": {key: tree[key] for key in tree if key not in own}}


class Setting(Section):
    """What a paper's figures were measured with, as far as it says so."""

    data: list[str] = []  # data sources of edgekd that read its images
    split: list[str] = []  # `data.split` of the same kind
    size: int | None = None  # pixels
    pretrained: bool = False
    private: bool = False  # nobody else has the images


class PublishedTable(Section):
    """One printed table."""

    name: str
    paper: str
    source: str
    title: str
    dataset: str
    setting: Setting | None = None
    rows: list[PublishedRow]

    def rows_of(self, method: str, scenario: str | None = None) -> list[PublishedRow]:
        """A method's lines, one for each member that the table tells apart."""
        return [row for row in self.rows if (row.method, row.scenario) == (method, scenario)]


def printed(value: float | None) -> str:
    """A published figure as text: `0.8906`."""
    return UNAVAILABLE if value is None else f"{value:.4f}"


@functools.cache
def tables() -> dict[str, PublishedTable]:
    """All tables by name."""
    found = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, table in tree["tables"].items():
            found[name] = PublishedTable.model_validate(
                {"name": name, "paper": tree["paper"], "source": tree["source"], **table}
            )
    return found


def table(name: str) -> PublishedTable:
    """One table. Raises RecipeError for a name that no paper has."""
    if name not in tables():
        raise RecipeError(f"paper.table: there is no table '{name}'",
                          hint=did_you_mean(name, tables()))  # fmt: skip
    return tables()[name]
