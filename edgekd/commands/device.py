"""predict, verify, doctor: looking at pictures, bundles and machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekd.commands.common import (
    Device,
    Json,
    Overrides,
    RuntimeName,
    Threads,
    Variant,
    open_recipe,
    print_json,
)
from edgekd.errors import EdgekdError, GateFailed, MissingOnHost

if TYPE_CHECKING:
    from edgekd.predict import Prediction


def predict(
    target: Annotated[Path, typer.Argument(metavar="BUNDLE|RUN")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE|DIR...")],
    artifact: Annotated[str | None, typer.Option(help="Default: the fastest that passed.")] = None,
    runtime: RuntimeName = None,
    device: Device = "",
    threads: Threads = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write each picture's mask and overlay (PNG) below this folder; for a model of "
            "masks.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Ask about pictures (DICOM too), alone or in folders: file, class, probability, flags, or
    of masks file, class, probability and each class's area."""
    from dataclasses import replace

    from edgekd.predict import predict as predict_images

    rows = []
    for row in predict_images(
        target, images, artifact=artifact, runtime=runtime, device=device, threads=threads or 0,
        masks=masks,
    ):  # fmt: skip
        rows.append(replace(row, mask=None))  # those of a thousand pictures would fill the memory
        if not json and row.error is None:
            typer.echo("\t".join(_fields(row)))
    if json:
        print_json([row.as_dict() for row in rows])
    broken = [row for row in rows if row.error is not None]
    missing = [row for row in broken if row.needs is not None]
    if broken:
        first = (missing or broken)[0]
        message = f"{len(broken)} of {len(rows)} files could not be read, first {first.error}"
        raise MissingOnHost(message, hint=first.needs or None) if missing else EdgekdError(message)


def _fields(row: Prediction) -> list[str]:
    """What is printed of one picture."""
    if row.labels is None:
        shown = [row.file, row.label, f"{row.probability:.4f}"]
    else:
        pairs = [f"{name} {row.probabilities[name]:.4f}" for name in row.labels]
        shown = [row.file, ", ".join(pairs) or row.label]
    if row.flags:
        shown.append(",".join(name for name, is_up in row.flags.items() if is_up) or "-")
    for name, area in row.areas.items():
        shown.append(f"{name} {100 * area:.2f} % ({row.pixels[name]} px)")
    return [*shown, row.mask_file] if row.mask_file else shown


def verify(
    target: Annotated[Path, typer.Argument(metavar="BUNDLE")],
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="PUB.pem", help="The bundle must be signed with this key's other half."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Check a bundle's signature and hashes, and its golden outputs in every runtime here."""
    from edgekd.verify import verify as verify_bundle

    rows = verify_bundle(target, key)
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
        str | None, typer.Argument(metavar="[RECIPE|losses|data|runtimes|tasks|models]")
    ] = None,
    overrides: Overrides = None,
    variant: Variant = None,
    json: Json = False,
) -> None:
    """Probe this machine, list plug-ins, try a whole recipe without training it, or count the
    parameters and MACs of published networks."""
    from edgekd import doctor as doctor_module

    if what is None:
        facts = doctor_module.machine()
        print_json(facts) if json else typer.echo(doctor_module.machine_text(facts))
    elif what in doctor_module.KINDS:
        rows = doctor_module.plugins(what)
        print_json(rows) if json else typer.echo(doctor_module.plugins_text(rows))
    elif what == "models":
        from edgekd.commands.zoo import show_models

        show_models(json=json)
    else:
        loaded, _ = open_recipe(what, overrides, variant, None)
        findings = doctor_module.recipe(loaded)
        print_json(findings) if json else typer.echo(doctor_module.recipe_text(findings))
