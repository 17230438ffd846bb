"""What the commands share: options, opening a recipe, printing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekd.errors import EdgekdError

if TYPE_CHECKING:
    from edgekd.recipe import Recipe
    from edgekd.rundir import RunDir

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A .yaml file, or a shipped recipe's name (`edgekd recipes list`)."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        show_default=False,
        help="Changes to the recipe, e.g. stages.distill.epochs=2.",
    ),
]
Variant = Annotated[str | None, typer.Option(help="A named variant of the recipe.")]
Out = Annotated[Path | None, typer.Option(help="Folder to write (default: runs/NAME).")]
Shared = Annotated[
    Path | None,
    typer.Option(help="Folder in which runs share finished stages (default: the run's parent)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming.")]


def _reason(value: str | None) -> str | None:
    """A blank reason is refused before `run` has trained for hours."""
    if value is not None:
        from edgekd.export.verdicts import check_reason

        check_reason(value)
    return value


Accept = Annotated[
    str | None,
    typer.Option(
        "--accept-inconclusive",
        metavar="REASON",
        help="Ship artifacts whose gate is inconclusive; recorded in the manifest.",
        callback=_reason,
    ),
]
Sign = Annotated[
    Path | None,
    typer.Option(
        "--sign",
        metavar="KEY.pem",
        help="Sign the finished bundle with this private key; its password is asked for, or taken "
        "from EDGEKD_SIGN_PASSWORD.",
    ),
]
Device = Annotated[str, typer.Option(help="cpu, gpu, npu, cuda ... (default: the runtime's own).")]
RuntimeName = Annotated[
    str | None,
    typer.Option("--runtime", help="onnxruntime or openvino (default: the artifact's own)."),
]
Threads = Annotated[int | None, typer.Option(min=0, help="0 lets the runtime choose.")]


def open_recipe(
    name: str,
    overrides: Sequence[str] | None,
    variant: str | None,
    out: Path | None,
    shared: Path | None = None,
) -> tuple[Recipe, RunDir]:
    """The recipe and the folder it runs in."""
    from edgekd import catalog
    from edgekd.recipe_load import load
    from edgekd.rundir import RunDir

    path = catalog.resolve(name)
    recipe = load(path, overrides=overrides or (), variant=variant)
    if out is None:
        seed_of_file = load(path, variant=variant).seed
        suffix = f".seed{recipe.seed}" if recipe.seed != seed_of_file else ""
        out = Path("runs") / f"{recipe.name}{suffix}"
    if out.exists() and not out.is_dir():
        raise EdgekdError(f"--out {out} is a file, expected a folder")
    return recipe, RunDir(out, shared)


def numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise EdgekdError(f"{option} {text}: expected numbers like 1,8")
    return found


def ask_password() -> str | None:
    """A password, typed without being shown; None where nobody sits at a terminal."""
    import sys

    if not sys.stdin.isatty():
        return None
    answer: str = typer.prompt("Password of the key", hide_input=True, err=True)
    return answer


def print_json(value: Any) -> None:
    from edgekd.results import dump_json

    typer.echo(dump_json(value), nl=False)


def print_table(table: Any) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)
