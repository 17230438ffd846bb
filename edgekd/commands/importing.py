"""import: a bundle of somebody's own finished ONNX classifier."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekd.commands.common import Accept, Json, print_json
from edgekd.errors import EdgekdError, GateFailed, RecipeError

if TYPE_CHECKING:
    from edgekd.recipe import Recipe

INTERRUPTED = 130
NO_DATA = "none"  # stands in `data.name`, which a recipe must have
SUFFIX = ".onnx"


def import_model(
    file: Annotated[Path, typer.Argument(metavar="FILE.onnx", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            show_default=False,
            help="Keys of a recipe; above all the data to calibrate and judge on: "
            "data.name=folder data.root=images.",
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Take task, data, export and bench from this recipe.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="classification (the default), grading.")] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Names in the order of the outputs, comma-separated (default: the data's)."
        ),
    ] = None,
    input_size: Annotated[
        int | None, typer.Option(help="Side of its pictures (default: what the file has fixed).")
    ] = None,
    resize: Annotated[
        int | None, typer.Option(help="Resize pictures to this first, then cut out the centre.")
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Subtracted per channel, e.g. 0.485,0.456,0.406.")
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="Divided by per channel, e.g. 0.229,0.224,0.225.")
    ] = None,
    scale: Annotated[
        float, typer.Option(help="255 for a model that wants pixels of 0 to 255.")
    ] = 1.0,
    output: Annotated[
        str | None, typer.Option(help="The output that holds the logits, where there are several.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the bundle (default: the file's).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write (default: runs/NAME/bundle).")
    ] = None,
    make: Annotated[
        str | None,
        typer.Option(
            help="Artifacts, comma-separated, e.g. onnx-int8,openvino-int8 (default: onnx-fp32)."
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Also over the bundle of another file or other classes."),
    ] = False,
    accept: Accept = None,
    json: Json = False,
) -> None:
    """Make a bundle of your own ONNX classifier, to quantize, prove and measure it."""
    from edgekd.export.adopt import Wanted, adopt
    from edgekd.export.foreign import fixed_size

    _check_overrides(overrides or [])
    fixed = fixed_size(file)
    tree: dict[str, Any] = {"edgekd": 1, "export": {"model": "student"}}
    if recipe:
        tree = _of_recipe(recipe, overrides or [], file)
    tree["name"] = name or tree.get("name") or _plain(file)
    spec: dict[str, Any] = {"arch": f"onnx:{file.name}", **tree.pop("pixels", {})}
    spec |= {
        key: _three(text, f"--{key}")
        for key, text in (("mean", mean), ("std", std))
        if text is not None
    }
    tree["models"] = {tree["export"]["model"]: spec}
    if task is not None:
        tree["task"] = {**tree.get("task", {}), "name": task}
    inputs = tree.setdefault("data", {}).setdefault("input", {})
    sizes = {"size": input_size, "resize": resize}
    inputs |= {key: value for key, value in sizes.items() if value is not None}
    if make is not None:
        tree["export"]["make"] = [part.strip() for part in make.split(",") if part.strip()]
    loaded, has_data = _checked(tree, [] if recipe else overrides or [], fixed, file)
    _check_pixels(loaded, scale)
    bundle = out or Path("runs") / loaded.name / "bundle"
    failed: GateFailed | None = None
    wanted = Wanted(file, loaded, has_data, _names(classes), scale, output, replace)
    try:
        manifest: Any = adopt(wanted, bundle, reason=accept)
    except GateFailed as error:
        from edgekd.bundle import read_manifest

        failed, manifest = error, read_manifest(bundle)  # it is complete, and says so
    except KeyboardInterrupt:
        stopped = EdgekdError("interrupted", hint="nothing was written; run the same command again")
        stopped.exit_code = INTERRUPTED
        raise stopped from None
    print_json(manifest) if json else typer.echo(str(bundle))
    if failed:
        raise failed


def _check_overrides(overrides: list[str]) -> None:
    """Raise RecipeError for keys of models and stages: the one model is what the options say."""
    for pair in overrides:
        section = re.split(r"[.=]", pair, maxsplit=1)[0]
        if section in ("models", "stages"):
            raise RecipeError(f"'{pair}': an import has no {section} to change",
                              hint="--mean, --std, --scale say what the file wants of pixels"
                              )  # fmt: skip


def _of_recipe(name: str, overrides: list[str], file: Path) -> dict[str, Any]:
    """What an import takes from a recipe; the stages of one that trains are left out."""
    from edgekd import catalog
    from edgekd.recipe_load import load

    recipe = load(catalog.resolve(name), overrides=overrides)
    tree: dict[str, Any] = recipe.model_dump(mode="json", by_alias=True)
    kept = ("edgekd", "description", "plugins", "task", "data", "export", "bench")
    taken = {key: tree[key] for key in kept}
    taken["export"]["reference"] = None
    if "split" not in recipe.data.model_fields_set:
        del taken["data"]["split"]  # the data's own, if it has one
    if not recipe.stages:  # it is the recipe of an import: its name and pixels are this model's
        spec = recipe.models[recipe.export.model]
        other = Path(spec.arch.partition(":")[2]).name
        if spec.arch.startswith("onnx:") and other != file.name:
            raise RecipeError(f"{name}: it is the recipe of {other}, not of {file.name}",
                              hint=f"edgekd import {other} --recipe {name}, or a copy of it with "
                              f"arch: onnx:{file.name}")  # fmt: skip
        pixels = {"mean": spec.mean, "std": spec.std}
        taken |= {"name": recipe.name, "pixels": {k: v for k, v in pixels.items() if v}}
    return taken


def _checked(
    tree: dict[str, Any], overrides: list[str], fixed: int | None, file: Path
) -> tuple[Recipe, bool]:
    """The tree with its overrides as a recipe, and whether it names any data."""
    from edgekd.recipe_load import override, validate

    override(tree, overrides)
    data = tree["data"]
    if not isinstance(data, dict) or not isinstance(data.get("input", {}), dict):
        validate(tree, "command line")  # says what is wrong
    inputs = data.setdefault("input", {})
    if "size" not in inputs:
        if fixed is None:
            raise EdgekdError(f"{file} takes pictures of any size: say which one",
                              hint="--input-size 224, the size that it was trained with"
                              )  # fmt: skip
        inputs["size"] = fixed
    has_data = set(data) != {"input"}
    if has_data and "name" not in data:
        raise RecipeError("data.name: this key is missing",
                          hint="data.name=folder, or another of `edgekd doctor data`")  # fmt: skip
    data.setdefault("name", NO_DATA)
    return validate(tree, "command line"), has_data


def _check_pixels(recipe: Recipe, scale: float) -> None:
    """Raise EdgekdError for a mean that pixels cannot have."""
    from edgekd.log import warn

    if not 0 < scale < math.inf:  # also true of NaN
        raise EdgekdError(f"--scale {scale:g}: expected a number above 0")
    spec = recipe.models[recipe.export.model]
    mean = max(spec.mean or [0.0])
    if mean > scale:
        raise EdgekdError(f"the mean {mean:g} is above every pixel: they are in [0, {scale:g}]",
                          hint="--scale 255 for a model that wants pixels of 0 to 255"
                          )  # fmt: skip
    if scale > 10 and 0 < mean <= 1:
        warn(f"the mean {mean:g} is subtracted from pixels of 0 to {scale:g}: without --scale if "
             "it is meant for pixels in [0, 1]")  # fmt: skip


def _names(text: str | None) -> list[str] | None:
    """The names in `--classes`."""
    if text is None:
        return None
    names = [part.strip() for part in text.split(",")]
    if "" in names or len(names) < 2:
        raise EdgekdError(f"--classes '{text}': expected two or more names, comma-separated",
                          hint="--classes benign,malignant")  # fmt: skip
    double = next((part for part in names if names.count(part) > 1), None)
    if double:
        raise EdgekdError(f"--classes names '{double}' twice")
    return names


def _three(text: str, option: str) -> list[float]:
    """Three numbers, or one for all channels."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)):
        raise EdgekdError(f"{option} {text}: expected three numbers like 0.485,0.456,0.406, or one")
    return numbers * (3 // len(numbers))


def _plain(file: Path) -> str:
    """The file's stem as a name: letters, digits, dot, dash and underscore."""
    stem = file.name.removesuffix(SUFFIX)
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-._") or "model"
