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
    from edgekd.data.base import DataSource
    from edgekd.data.check import CheckReport
    from edgekd.recipe_data import DataSpec

INTERRUPTED = 130


def data_check(
    recipe: RecipeArgument, overrides: Overrides = None, variant: Variant = None, json: Json = False
) -> None:
    """Counts, broken files, duplicates across parts, group leaks (exit code 2 if any)."""
    from edgekd.data.check import check
    from edgekd.data.protocol import UMKD_CODE, splits_of
    from edgekd.data.read import open_source
    from edgekd.data.splits import empty_problems

    loaded, _ = open_recipe(recipe, overrides, variant, None)
    data = loaded.data
    if data.split == UMKD_CODE:
        raise DataError(
            f"data.split: {UMKD_CODE} validates and tests on the same images: there is no split to "
            "check",
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
    json: Json = False,
) -> None:
    """Write every image once in the size of the recipe: training reads the copy faster."""
    from edgekd.data.prepare import default_folder, prepare_images
    from edgekd.data.protocol import splits_of, used_by
    from edgekd.data.read import open_source
    from edgekd.log import say

    try:
        loaded, _ = open_recipe(recipe, overrides, variant, None)
        data = loaded.data
        if out is None:
            out = Path(data.prepared).expanduser() if data.prepared else default_folder(data)
        source = open_source(data, [Path(folder) for folder in loaded.plugins])
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
        say(f"to use it: {shlex.quote(f'data.prepared={out}')}")
    if json:
        print_json({"folder": out, "written": written, **facts.model_dump()})
    else:
        typer.echo(str(out))


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
