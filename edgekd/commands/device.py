"""predict, verify, doctor, data check: looking at pictures, bundles, machines and data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekd.commands.common import (
    Device,
    Json,
    Overrides,
    RecipeArgument,
    RuntimeName,
    Threads,
    Variant,
    open_recipe,
    print_json,
)
from edgekd.errors import EdgekdError, GateFailed

if TYPE_CHECKING:
    from edgekd.data.check import CheckReport


def predict(
    target: Annotated[Path, typer.Argument(metavar="BUNDLE|RUN")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE|DIR...")],
    artifact: Annotated[str | None, typer.Option(help="Default: the fastest that passed.")] = None,
    runtime: RuntimeName = None,
    device: Device = "",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Classify pictures with an exported model."""
    from edgekd.predict import predict as predict_images

    rows = []
    for row in predict_images(
        target, images, artifact=artifact, runtime=runtime, device=device, threads=threads or 0
    ):
        rows.append(row)
        if not json and row.error is None:
            typer.echo(f"{row.file}\t{row.label}\t{row.probability:.4f}")
    if json:
        print_json([row.as_dict() for row in rows])
    broken = [row for row in rows if row.error is not None]
    if broken:
        raise EdgekdError(
            f"{len(broken)} of {len(rows)} files could not be read, "
            f"first {broken[0].file}: {broken[0].error}"
        )


def verify(target: Annotated[Path, typer.Argument(metavar="BUNDLE")], json: Json = False) -> None:
    """Check a bundle's hashes, and its golden outputs in every runtime that is here."""
    from edgekd.verify import verify as verify_bundle

    rows = verify_bundle(target)
    if json:
        print_json(rows)
    else:
        for row in rows:
            typer.echo("  ".join(f"{key}={value}" for key, value in row.items()))
    failed = [row.get("artifact", row["check"]) for row in rows if row["result"] == "failed"]
    if failed:
        raise GateFailed(f"{target}: {', '.join(failed)} does not give the golden results")


def doctor(
    what: Annotated[
        str | None, typer.Argument(metavar="[RECIPE|losses|data|runtimes|tasks]")
    ] = None,
    overrides: Overrides = None,
    variant: Variant = None,
    json: Json = False,
) -> None:
    """Probe this machine, list plug-ins, or try a whole recipe without training it."""
    from edgekd import doctor as doctor_module

    if what is None:
        facts = doctor_module.machine()
        print_json(facts) if json else typer.echo(doctor_module.machine_text(facts))
    elif what in doctor_module.KINDS:
        rows = doctor_module.plugins(what)
        print_json(rows) if json else typer.echo(doctor_module.plugins_text(rows))
    else:
        loaded, _ = open_recipe(what, overrides, variant, None)
        findings = doctor_module.recipe(loaded)
        print_json(findings) if json else typer.echo(doctor_module.recipe_text(findings))


def data_check(
    recipe: RecipeArgument, overrides: Overrides = None, variant: Variant = None, json: Json = False
) -> None:
    """Counts, broken files, duplicates across parts, group leaks (exit code 2 if any)."""
    from edgekd.data.check import check
    from edgekd.data.read import open_source
    from edgekd.data.splits import make_split

    loaded, _ = open_recipe(recipe, overrides, variant, None)
    data = loaded.data
    source = open_source(data, [Path(folder) for folder in loaded.plugins])
    split = make_split(source, data.split, seed=data.split_seed, limit=data.limit, verify=False)
    found = check(source, split)
    print_json(found.as_json()) if json else typer.echo(_check_text(found))
    if found.problems:
        raise EdgekdError("the data set has problems, see above")


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
