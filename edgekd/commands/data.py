"""data check, data prepare: looking at a data set, and making the copy that training reads fast."""

from __future__ import annotations

import contextlib
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekd.commands.common import (
    Json,
    Overrides,
    RecipeArgument,
    Variant,
    open_recipe,
    print_json,
)
from edgekd.errors import DataError, EdgekdError

if TYPE_CHECKING:
    from edgekd.data._hair import HairRemoved
    from edgekd.data.base import DataSource
    from edgekd.data.check import CheckReport
    from edgekd.recipe_data import DataSpec

INTERRUPTED = 130
HAIRLESS = "data.remove_hair=true"


def data_check(
    recipe: RecipeArgument, overrides: Overrides = None, variant: Variant = None, json: Json = False
) -> None:
    """Counts, broken files, duplicates across parts, group leaks (exit code 2 if any)."""
    from edgekd.data._split_problems import empty_problems
    from edgekd.data.check import check
    from edgekd.data.protocol import LEAKING, splits_of
    from edgekd.data.read import open_source

    loaded, _ = open_recipe(recipe, overrides, variant, None)
    data = loaded.data
    if data.split in LEAKING:
        raise DataError(
            f"data.split: {data.split} validates and tests on the same images: there is no split "
            "to check",
            hint="data.split=8-1-1 checks the same files",
        )
    source = open_source(data, [Path(folder) for folder in loaded.plugins])
    splits = splits_of(source, data)
    found = check(source, splits[None])
    for name in data.subsets:
        problems = empty_problems(source, splits[name])
        found.problems.extend(f"data.subsets.{name}: {text}" for text in problems)
    found.problems.extend(_problems_of_copy(source, data))
    print_json(found.as_json()) if json else typer.echo(_check_text(found))
    if found.problems:
        raise EdgekdError("the data set has problems, see above")


def data_prepare(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    variant: Variant = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write (default: data.prepared, or prepared/NAME-SIDE)."),
    ] = None,
    remove_hair: Annotated[
        bool, typer.Option("--remove-hair", help="As data.remove_hair=true: skin without hair.")
    ] = False,
    preview: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Draw the N images with the most and with the least hair removed (hair.png).",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write every image once in the size of the recipe: training reads the copy faster."""
    from edgekd.data._hair import hairless
    from edgekd.data.prepare import default_folder, prepare_images
    from edgekd.data.prepared import changed
    from edgekd.data.protocol import splits_of, used_by
    from edgekd.data.read import open_source
    from edgekd.log import say

    try:
        own = [HAIRLESS] if remove_hair else []
        loaded, _ = open_recipe(recipe, [*(overrides or ()), *own], variant, None)
        data = loaded.data
        source = open_source(data, [Path(folder) for folder in loaded.plugins])
        step, default = hairless(source), default_folder(data, changed(source))
        if preview is not None and step is None:
            raise EdgekdError("--preview shows what removing hair does", hint="--remove-hair")
        if out is None:
            out = Path(data.prepared).expanduser() if data.prepared else default
        used = used_by(splits_of(source, data).values())
        with _ended_like_ctrl_c():
            copy, written = prepare_images(out, source, used, data)
    except KeyboardInterrupt:
        error = EdgekdError("interrupted", hint="nothing was written; run the same command again")
        error.exit_code = INTERRUPTED
        raise error from None
    facts = copy.facts
    done = "written" if written else "up to date"
    say(f"{out}: {done}, {facts.images} images, {facts.bytes / 1e6:.1f} MB")
    if data.prepared is None or Path(data.prepared).expanduser() != out:
        say(f"to use it: {shlex.join([f'data.prepared={out}', *own])}")
    if step is not None:
        _show_hair(out, step, preview)
    if json:
        print_json({"folder": out, "written": written, **facts.model_dump()})
    else:
        typer.echo(str(out))


def _show_hair(folder: Path, step: HairRemoved, preview: int | None) -> None:
    from edgekd.data._hair import LEAST
    from edgekd.data._hair_sheet import PREVIEW, read_shares, telling, write_sheet
    from edgekd.data.prepared import HAIR
    from edgekd.log import say

    shares = read_shares(folder / HAIR)
    count = sum(share > LEAST for share in shares.values())
    say(f"hair removed from {count} of {len(shares)} images: {folder / HAIR}")
    if preview is not None:
        names = telling(shares, preview)
        write_sheet(folder / PREVIEW, step, names, shares)
        say(f"{len(names)} of them before and after: {folder / PREVIEW}")


@contextlib.contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """SIGTERM too must not leave pixels behind: by itself it ends Python without a clean-up."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread, which alone hears signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _problems_of_copy(source: DataSource, data: DataSpec) -> list[str]:
    from edgekd.data.prepared import open_prepared

    if data.prepared is None:
        return []
    try:
        open_prepared(Path(data.prepared).expanduser(), source, data).verify()
    except DataError as error:
        return [f"data.prepared: {error.message} ({error.hint})"]
    return []


def _check_text(found: CheckReport) -> str:
    parts = list(found.counts)
    width = max(len(name) for name in [*found.classes, "images"])
    lines = [f"{'':<{width}}" + "".join(f"{part:>10}" for part in parts)]
    for name in found.classes:
        row = "".join(f"{found.counts[part][name]:>10}" for part in parts)
        lines.append(f"{name:<{width}}{row}")
    totals = [sum(found.counts[part].values()) for part in parts]
    lines.append(f"{'images':<{width}}" + "".join(f"{total:>10}" for total in totals))
    groups = "".join(f"{found.groups[part]:>10}" for part in parts)
    lines.append(f"{'groups':<{width}}{groups}")
    sizes = ", ".join(f"{size} ({count})" for size, count in list(found.sizes.items())[:3])
    lines.append(f"sizes: {sizes}{' ...' if len(found.sizes) > 3 else ''}")
    lines += [f"broken: {text}" for text in found.broken[:10]]
    lines += [f"note: {text}" for text in found.notes]
    lines += [f"problem: {text}" for text in found.problems]
    lines.append(f"verdict: {found.verdict}")
    return "\n".join(lines)
