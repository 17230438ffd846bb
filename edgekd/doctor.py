"""`edgekd doctor`: what this machine has, which plug-ins there are, and whether a recipe works.

The dry run of a recipe is also what `distill` does before it trains: every name resolves, every
parameter fits, every model builds, one small batch goes forward and back through all stages, and
the student goes through the ONNX export. A six-hour teacher must not end in a typo.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.errors import EdgekdError, MissingOnHost, RecipeError
from edgekd.log import say, warn

if TYPE_CHECKING:
    from edgekd.recipe import Recipe
    from edgekd.train.setup import Prepared

KINDS = ("losses", "data", "runtimes", "tasks")
PACKAGES = (
    "numpy",
    "pillow",
    "pydantic",
    "scikit-learn",
    "scipy",
    "matplotlib",
    "torch",
    "torchvision",
    "timm",
    "lightning-fabric",
    "fvcore",
    "onnx",
    "onnxscript",
    "nncf",
    "onnxruntime",
    "openvino",
    "tensorrt",
)


def machine() -> dict[str, Any]:
    """Host facts, package versions, what every runtime says of itself, what power meters say."""
    from edgekd.bench.clocks import Watch
    from edgekd.bench.power import survey
    from edgekd.host import host_facts
    from edgekd.plugins import load, names
    from edgekd.runtimes.base import Runtime

    packages: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            packages[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            packages[package] = None
    runtimes = {}
    for name in names("runtimes"):
        probe = load("runtimes", name, Runtime).probe()  # type: ignore[type-abstract]
        runtimes[name] = {
            "available": probe.available,
            "version": probe.version,
            "devices": list(probe.devices),
            "reason": probe.reason,
        }
    watch = Watch()
    watch.read()
    now = {key: value for key, value in watch.fields().items() if "before" not in key}
    del now["throttle_events"]  # there is no meanwhile
    return {"host": host_facts(), "packages": packages, "runtimes": runtimes,
            "clocks": now, "power": survey()}  # fmt: skip


def machine_text(facts: dict[str, Any]) -> str:
    """`machine()` for a person."""
    lines = ["host"]
    lines += [f"  {key:<18} {_short(value)}" for key, value in facts["host"].items()]
    lines.append("packages")
    lines += [f"  {key:<18} {value or 'not installed'}" for key, value in facts["packages"].items()]
    lines.append("runtimes")
    for name, probe in facts["runtimes"].items():
        found = f"{probe['version']}  devices: {', '.join(probe['devices'])}"
        lines.append(f"  {name:<18} {found if probe['available'] else 'no: ' + probe['reason']}")
    for section in ("clocks", "power"):
        lines.append(section)
        lines += [f"  {key:<18} {_short(value)}" for key, value in facts[section].items()]
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item not in (None, ""))
    if isinstance(value, (list, tuple)):
        return " ".join(str(item) for item in value)
    return "-" if value is None else str(value)


def plugins(kind: str) -> list[dict[str, Any]]:
    """Name, purpose and parameters of every plug-in of a kind."""
    from edgekd.plugins import load, missing_package, names

    base: Any
    if kind == "losses":
        try:
            from edgekd.losses.base import Loss as base
        except ModuleNotFoundError as error:
            raise missing_package(error.name or "torch", "edgekd doctor losses") from None
    elif kind == "data":
        from edgekd.data.base import DataSource as base
    elif kind == "runtimes":
        from edgekd.runtimes.base import Runtime as base
    else:
        from edgekd.tasks.base import Task as base
    rows = []
    for name in names(kind):
        try:
            cls = load(kind, name, base)
        except MissingOnHost as error:
            rows.append({"name": name, "does": f"not usable here: {error.message}", "params": {}})
            continue
        parameters = {
            key: repr(parameter.default)
            for key, parameter in inspect.signature(cls).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
            and parameter.default is not inspect.Parameter.empty
        }
        text = (inspect.getdoc(cls) or "").splitlines()
        rows.append({"name": name, "does": text[0] if text else "", "params": parameters})
    return rows


def plugins_text(rows: list[dict[str, Any]]) -> str:
    """`plugins()` for a person."""
    lines = []
    for row in rows:
        lines.append(f"{row['name']:<16} {row['does']}")
        if row["params"]:
            text = ", ".join(f"{key}={value}" for key, value in row["params"].items())
            lines.append(f"{'':<16} params: {text}")
    return "\n".join(lines)


def recipe(recipe: Recipe) -> dict[str, Any]:
    """Open the data and dry-run a recipe; returns what it would do."""
    from edgekd.plugins import missing_package
    from edgekd.recipe_load import check_trains

    check_trains(recipe)
    try:
        from edgekd.train.setup import prepare
    except ModuleNotFoundError as error:
        raise missing_package((error.name or "").split(".")[0], "edgekd doctor RECIPE") from None
    data = prepare(recipe)
    return preflight(recipe, data)


def preflight(recipe: Recipe, data: Prepared) -> dict[str, Any]:
    """Try every stage and the export with one small batch. Raises what the real thing would."""
    import torch

    from edgekd.export.plan import plan
    from edgekd.export.thresholds import check_classes
    from edgekd.losses.base import Batch, Clock
    from edgekd.models.assemble import assemble, givers_first
    from edgekd.models.complexity import count
    from edgekd.models.network import OnnxTeacher
    from edgekd.train.adopting import adopt, kept_terms
    from edgekd.train.checkpoint import plain_state
    from edgekd.train.feeding import check_full_batch, class_counts, stage_feed
    from edgekd.train.hardware import check_compile, check_hardware, scoring_device
    from edgekd.train.optim import build_optimizer
    from edgekd.train.setup import make_distiller, quantize_trained, trial_labels
    from edgekd.train.stages import check_teachers, learns_first
    from edgekd.train.views import with_views

    say("dry run: one small batch through every stage and the export")
    check_hardware(recipe.hardware)
    check_teachers(recipe)
    plan(recipe.export.make)  # every artifact has a known name
    check_classes(recipe.export.thresholds, data.task)
    outputs = data.task.outputs()
    used = {m for stage in recipe.stages.values() for m in (*stage.train, *stage.frozen)}
    networks: dict[str, Any] = {}
    for model in givers_first(recipe, [name for name in recipe.models if name in used]):
        teacher = networks.get(recipe.models[model].graft or "")
        networks[model] = assemble(
            recipe,
            model,
            data.task,
            initial=True,
            new_head=learns_first(recipe, model),
            teacher=teacher,
        )
    size = recipe.data.input.size
    rows = 4 if outputs != 4 else 5  # shapes (B,) and (C,) must not fit by chance
    batch = Batch(torch.rand(rows, 3, size, size), trial_labels(data.task, rows, size))
    found: dict[str, Any] = {"name": recipe.name, "models": {}, "stages": {}}
    kept: dict[str, Any] = {}
    for name, stage in recipe.stages.items():
        feed = stage_feed(recipe, data, stage, name)
        counts = class_counts(feed, outputs)
        try:
            present = quantize_trained(recipe, name, networks, data)
            distiller = make_distiller(recipe, name, present, data.task, counts, feed.labelled())
            adopt(distiller, kept)
            kept.update({f"{name}.{k}": plain_state(t) for k, t in kept_terms(distiller).items()})
            build_optimizer(stage.optimizer, distiller)  # its names fit
            check_full_batch(distiller, feed, name)
            distiller.train()
            tried = batch
            if distiller.tied_to_batch():
                pick = torch.arange(feed.batch) % rows
                tried = Batch(batch.images[pick], batch.targets[pick])
            values = distiller(with_views(tried, stage.data), Clock(1, stage.epochs, 0, 1))
            for key, value in values.items():
                if not torch.isfinite(value):
                    warn(f"stages.{name}: term '{key}' is {value.item()} on random images")
                elif not value.requires_grad:
                    warn(f"stages.{name}: term '{key}' has no gradient, so it teaches nothing")
            distiller.total(values).backward()  # type: ignore[no-untyped-call]
        except EdgekdError:
            raise
        except Exception as error:  # somebody's network or loss: it may raise anything
            first = (str(error) or type(error).__name__).splitlines()[0]
            raise RecipeError(
                f"stages.{name}: one batch of {rows} images of {size}x{size} does not go "
                f"through: {first}"
            ) from error
        labelled = int((feed.targets[feed.indices] >= 0).sum())
        found["stages"][name] = {
            "images": len(feed.indices),
            "labelled": labelled,
            "epochs": stage.epochs,
            "adapter_params": sum(p.numel() for p in distiller.adapters()),
            "terms": {key: value.item() for key, value in values.items()},
        }
    if recipe.hardware.compile:
        check_compile(networks, batch.images, scoring_device(recipe.hardware))
    for model, network in networks.items():
        if isinstance(network.net, OnnxTeacher):
            found["models"][model] = {"arch": recipe.models[model].arch}
            continue
        cost = count(network, size)
        found["models"][model] = {
            "arch": recipe.models[model].arch,
            "params": cost.params,
            "macs": cost.macs,
        }
    for student in recipe.deployed():  # built anew: hooks of the stages would break the exporter
        _try_export(student, assemble(recipe, student, data.task), size)
    return found


def _try_export(student: str, network: Any, size: int) -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError:
        say("the ONNX export was not tried: pip install 'edgekd[export]'")
        return
    from edgekd.export.onnx_from_torch import to_onnx

    with tempfile.TemporaryDirectory() as folder:
        try:
            to_onnx(network, Path(folder) / "trial.onnx", size=size)
        except EdgekdError:
            raise
        except Exception as error:
            raise RecipeError(
                f"export: '{student}' cannot be exported to ONNX: {str(error).splitlines()[0]}"
            ) from error


def recipe_text(found: dict[str, Any]) -> str:
    """`recipe()` for a person."""
    lines = [f"{found['name']}: ready"]
    for name, model in found["models"].items():
        cost = (
            f"{model['params'] / 1e6:.3f} M params, {model['macs'] / 1e9:.3f} GMACs"
            if "params" in model
            else "frozen ONNX file"
        )
        lines.append(f"  model {name}: {model['arch']}, {cost}")
    for name, stage in found["stages"].items():
        adapters = (
            f", adapters {stage['adapter_params'] / 1e6:.2f} M params"
            if stage["adapter_params"]
            else ""
        )
        lines.append(
            f"  stage {name}: {stage['images']} images ({stage['labelled']} labelled), "
            f"{stage['epochs']} epoch{'s' * (stage['epochs'] > 1)}, "
            f"terms {', '.join(stage['terms'])}{adapters}"
        )
    return "\n".join(lines)
