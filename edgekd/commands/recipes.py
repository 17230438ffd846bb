"""recipes list, show, copy, schema: starting points for someone who only installed the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.commands.common import Json, print_json


def recipes_list(json: Json = False) -> None:
    """Name and purpose of every shipped recipe."""
    from edgekd import catalog

    rows = catalog.entries()
    if json:
        print_json(
            [
                {"name": row.name, "description": row.description, "variants": list(row.variants)}
                for row in rows
            ]
        )
    else:
        width = max(len(row.name) for row in rows)
        for row in rows:
            typer.echo(f"{row.name:<{width}}  {row.description}")


def recipes_show(name: str) -> None:
    """Print a shipped recipe."""
    from edgekd import catalog

    typer.echo(catalog.find(name).read_text(encoding="utf-8"), nl=False)


def recipes_copy(name: str, target: Annotated[Path, typer.Argument()] = Path()) -> None:
    """Copy a shipped recipe here, to edit it."""
    from edgekd import catalog

    typer.echo(str(catalog.copy(name, target)))


def recipes_schema() -> None:
    """The JSON Schema of a recipe, for editors."""
    from edgekd.recipe_load import json_schema

    print_json(json_schema())
