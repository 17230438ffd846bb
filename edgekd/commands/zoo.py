"""What `edgekd doctor models` prints: the published networks and their sizes."""

from __future__ import annotations

import dataclasses

import typer

from edgekd.commands.common import print_json, print_table

DASH = "-"


def show_models(*, json: bool) -> None:
    """Parameters and multiply-accumulates at 224 pixels, ours beside the printed ones.

    Raises MissingOnHost where the training side is not installed.
    """
    from edgekd.plugins import missing_package

    try:
        from edgekd.models.zoo import SIZE, survey
    except ModuleNotFoundError as error:
        package = (error.name or "torch").split(".")[0]
        raise missing_package(package, "edgekd doctor models") from None
    from edgekd.log import say

    say(f"counting the networks of DSP-KD, for images of {SIZE}x{SIZE}")
    sizes = survey()
    if json:
        print_json([dataclasses.asdict(size) for size in sizes])
        return
    from rich.table import Table

    table = Table("network", "arch", "classes", "params (M)", "published", f"MACs (G) at {SIZE}",
                  "published", "printed in", "status", box=None, pad_edge=False)  # fmt: skip
    for column in table.columns[2:7]:
        column.justify = "right"
    for size in sizes:
        classes = DASH if size.arch is None else str(size.classes)
        table.add_row(size.network, size.arch or DASH, classes,
                      _counted(size.params_m), _printed(size.published_params_m),
                      _counted(size.gmacs), _printed(size.published_gmacs),
                      size.table, size.status)  # fmt: skip
    print_table(table)
    for note in dict.fromkeys(size.note for size in sizes if size.note):
        names = " and ".join(size.network for size in sizes if size.note == note)
        typer.echo(f"{names}: {note}")


def _counted(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def _printed(value: float | None) -> str:
    return DASH if value is None else f"{value:g}"  # the tables have one to three digits
