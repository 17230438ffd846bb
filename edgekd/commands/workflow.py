"""distill, export, bench, and run: these and the report in a row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekd.commands.common import (
    Accept,
    Device,
    Fresh,
    Json,
    Out,
    Overrides,
    RecipeArgument,
    RuntimeName,
    Shared,
    Sign,
    Threads,
    Variant,
    ask_password,
    numbers,
    open_recipe,
    print_json,
    print_table,
)
from edgekd.commands.reporting import show_report
from edgekd.errors import EdgekdError, GateFailed

if TYPE_CHECKING:
    from edgekd.recipe import Recipe
    from edgekd.rundir import RunDir


def distill(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    variant: Variant = None,
    out: Out = None,
    shared: Shared = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Train what is not yet trained, and score it; resumes by itself."""
    loaded, run = open_recipe(recipe, overrides, variant, out, shared)
    result = _distill(loaded, run, fresh, recipe)
    if json:
        print_json(
            {
                "run": run.root,
                "trained": result.trained,
                "reused": result.reused,
                "seconds": result.seconds,
                "scores": result.scores,
            }
        )
    else:
        typer.echo(str(run.root))


def export(
    target: Annotated[Path, typer.Argument(metavar="RUN|BUNDLE")],
    make: Annotated[
        str | None,
        typer.Option(
            help="Artifacts, comma-separated, e.g. onnx-int8,openvino-int8 (default: the recipe's)."
        ),
    ] = None,
    accept: Accept = None,
    sign: Sign = None,
    json: Json = False,
) -> None:
    """Export, quantize and lower the student; refuse what lost accuracy (exit code 3)."""
    from edgekd.bundle import read_manifest
    from edgekd.export.make import bundle_of
    from edgekd.export.make import export as export_target

    names = [name.strip() for name in make.split(",") if name.strip()] if make else None
    key = None
    if sign is not None:
        from edgekd.signature import open_key

        key = open_key(sign, ask_password)
    failed: GateFailed | None = None
    try:
        export_target(target, make=names, accept_inconclusive=accept, key=key)
    except GateFailed as error:
        failed = error  # the bundle is complete, and says so
    bundle = bundle_of(target)
    if json:
        print_json(read_manifest(bundle))
    else:
        typer.echo(str(bundle))
    if failed:
        raise failed


def bench(
    target: Annotated[Path, typer.Argument(metavar="BUNDLE|RUN|FILE.onnx|FILE.xml")],
    artifact: Annotated[str | None, typer.Option(help="Only these, comma-separated.")] = None,
    runtime: RuntimeName = None,
    device: Device = "",
    batch: Annotated[str, typer.Option(help="Batch sizes, comma-separated.")] = "1",
    threads: Threads = None,
    warmup: Annotated[int, typer.Option(min=0, help="Runs, and at least 0.5 s.")] = 50,
    repeats: Annotated[int, typer.Option(min=10, help="At least this many runs.")] = 200,
    seconds: Annotated[float, typer.Option(min=0, help="At least this long.")] = 1.0,
    data: Annotated[
        Path | None,
        typer.Option(help="Also score accuracy on this data set, through the same runtime."),
    ] = None,
    energy: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Also energy: so long at rest, so long at work (5 or more; 0: not).",
        ),
    ] = 0.0,
    out: Annotated[
        Path | None,
        typer.Option(help="File to append to (default: the bundle's bench/HOST.jsonl)."),
    ] = None,
    json: Json = False,
) -> None:
    """Measure latency, throughput, memory, energy and accuracy on this machine."""
    from edgekd.bench.energy import LEAST_S
    from edgekd.bench.run import bench as bench_target

    if 0 < energy < LEAST_S:
        raise EdgekdError(f"--energy: {energy:g} seconds is too little to tell work from rest, "
                          f"expected {LEAST_S:g} or more, or 0 for none",
                          hint="--energy 10")  # fmt: skip
    every = []
    wanted = artifact.split(",") if artifact else None
    for one in _bundles(target, wanted):
        rows = bench_target(
            one,
            artifacts=wanted,
            runtime=runtime,
            device=device,
            batches=numbers(batch, "--batch"),
            threads=threads or 0,
            warmup=warmup,
            repeats=repeats,
            seconds=seconds,
            data=data,
            out=out,
            energy=energy,
        )
        every += rows
        if not json:
            from edgekd.bench.table import table

            print_table(table(rows, one))
    if json:
        print_json([row.model_dump(mode="json") for row in every])


def _bundles(target: Path, artifacts: list[str] | None) -> list[Path]:
    """The target, and of a run the bundles of `export.also`: those that have the artifacts.

    Where none has them it is the target, which says so.
    """
    from edgekd.bundle import is_bundle, read_manifest
    from edgekd.recipe_load import load
    from edgekd.rundir import RunDir

    run = RunDir(target)
    if is_bundle(target) or not run.recipe.is_file():
        return [target]
    names = load(run.recipe).export.also
    others = [folder for folder in map(run.bundle_of, names) if is_bundle(folder)]
    if not artifacts or not others:
        return [target, *others]
    found = [
        one
        for one, folder in [(target, run.bundle), *zip(others, others, strict=True)]
        if is_bundle(folder) and set(artifacts) <= set(read_manifest(folder).artifacts)
    ]
    return found or [target]


def run(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    variant: Variant = None,
    out: Out = None,
    fresh: Fresh = False,
    accept: Accept = None,
    json: Json = False,
) -> None:
    """distill, export, bench and report in a row, skipping what is already done."""
    from edgekd.bench.run import bench as bench_target
    from edgekd.bench.run import is_measured
    from edgekd.log import say

    loaded, folder = open_recipe(recipe, overrides, variant, out)
    _distill(loaded, folder, fresh, recipe)
    from edgekd.export.make import export as export_target

    failed: GateFailed | None = None
    try:
        export_target(folder.root, make=None, accept_inconclusive=accept)
    except GateFailed as error:
        failed = error  # what passed is still measured and reported
    wanted = loaded.bench
    others = [folder.bundle_of(name) for name in loaded.export.also]
    for bundle in (folder.bundle, *others, folder.reference):
        if not bundle.is_dir():
            continue
        if not fresh and is_measured(
            bundle, wanted.batch, threads=wanted.threads, repeats=wanted.repeats
        ):
            say(f"{bundle.name}: already measured on this host")
        else:
            bench_target(
                bundle,
                batches=tuple(wanted.batch),
                threads=wanted.threads,
                warmup=wanted.warmup,
                repeats=wanted.repeats,
                seconds=wanted.seconds,
            )
    show_report([folder.root], None, json)
    if failed:
        raise failed


def _distill(recipe: Recipe, run: RunDir, fresh: bool, name: str) -> Any:
    from edgekd import catalog
    from edgekd.git_state import git_state
    from edgekd.plugins import missing_package
    from edgekd.recipe_load import check_trains

    check_trains(recipe)
    try:
        from edgekd.doctor import preflight
        from edgekd.train.run import distill as distill_recipe
    except ModuleNotFoundError as error:
        raise missing_package((error.name or "").split(".")[0], "edgekd distill") from None
    git = git_state(catalog.resolve(name))
    done = distill_recipe(recipe, run, fresh=fresh, before=preflight, git=git)
    if done is None:  # another process goes on, alone
        raise typer.Exit
    if recipe.analysis is not None:
        from edgekd.train.analysis import analyze

        analyze(run, recipe)
    return done
