"""A plug-in is a file: its name is the file's name, and nothing is registered.

`losses/dkd.py` is the loss `dkd`. Listing reads file names only; a module is imported when its
plug-in is used. Two kinds of name reach outside the package: `my_package.my_module:Class`, and
the bare name of a file in one of the recipe's `plugins:` folders. Both run somebody's code, so
both must be written into the recipe by hand.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import GenericAlias, ModuleType
from typing import Any, TypeVar

from edgekd.errors import EdgekdError, MissingOnHost, RecipeError, did_you_mean

PACKAGE = Path(__file__).parent
NOT_PLUGINS = {
    "tasks": {"base", "fidelity", "mask_scores", "scores"},
    "losses": {"base"},
    "runtimes": {"base", "session"},
    "data": {
        "base",
        "calibration",
        "check",
        "origin",
        "prepare",
        "prepared",
        "protocol",
        "read",
        "splits",
    },
}
_NAME = re.compile(r"[a-z][a-z0-9_]*")

T = TypeVar("T")


def names(kind: str, folders: Sequence[Path] = ()) -> list[str]:
    """List the plug-ins of one kind (`losses`, `data`, `runtimes`, `tasks`) by file name."""
    found = {path.stem for path in (PACKAGE / kind).glob("*.py")}
    for folder in folders:
        found |= {path.stem for path in folder.glob("*.py")}
    return sorted(
        name for name in found if not name.startswith("_") and name not in NOT_PLUGINS[kind]
    )


def load(kind: str, name: str, base: type[T], *, folders: Sequence[Path] = ()) -> type[T]:
    """Import a plug-in and return its class: the one subclass of `base` that the file defines.

    Raises RecipeError for an unknown name (with a suggestion) or a file without such a class,
    MissingOnHost when the plug-in needs a package that is not installed.
    """
    if ":" in name:
        module_name, _, class_name = name.partition(":")
        found = getattr(_import(module_name, kind), class_name, None)
        if not (inspect.isclass(found) and issubclass(found, base)):
            raise RecipeError(f"{kind}: '{name}' is not a {base.__name__} class")
        return found
    for folder in folders:
        path = folder / f"{name}.py"
        if path.is_file():
            return _class_in(_import_file(path), base, name)
    if name not in names(kind):
        raise RecipeError(
            f"{kind}: there is no '{name}'", hint=did_you_mean(name, names(kind, folders))
        )
    return _class_in(_import(f"edgekd.{kind}.{name}", kind), base, name)


def import_file(path: Path) -> ModuleType:
    """Import one local Python file that the user named in the recipe."""
    if not path.is_file():
        raise RecipeError(f"no such Python file: {path}")
    return _import_file(path)


def check_arguments(cls: type[Any], arguments: dict[str, Any], where: str) -> dict[str, Any]:
    """Hold `arguments` against the keyword arguments of a plug-in's constructor.

    Returns them in the annotated types (a list of numbers for `tuple[float, ...]`). Raises
    RecipeError that names the key, before anything expensive has started.
    """
    import pydantic

    all_parameters = inspect.signature(cls).parameters
    parameters = {
        key: parameter
        for key, parameter in all_parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for key in arguments:
        if key in all_parameters and key not in parameters:
            raise RecipeError(
                f"{where}.{key}: '{cls.__name__}.__init__' must take it by keyword only",
                hint=f"def __init__(self, *, {key})",
            )
        if key not in parameters:
            raise RecipeError(
                f"{where}.{key}: '{cls.__name__}' has no such parameter",
                hint=did_you_mean(key, parameters),
            )
    hints = inspect.get_annotations(cls.__init__, eval_str=True)
    checked: dict[str, Any] = {}
    for key, parameter in parameters.items():
        if key not in arguments:
            if parameter.default is inspect.Parameter.empty:
                raise RecipeError(f"{where}.{key}: '{cls.__name__}' needs this parameter")
            continue
        try:
            adapter = pydantic.TypeAdapter(hints.get(key, Any))
            checked[key] = adapter.validate_python(arguments[key])
        except pydantic.ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise RecipeError(f"{where}.{key}: {problem}, got {arguments[key]!r}") from None
    return checked


def _import(module: str, kind: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).split(".")[0]
        if missing == module.split(".")[0]:
            raise RecipeError(f"{kind}: cannot import '{module}': {error}") from None
        raise missing_package(missing, f"{kind} '{module.rpartition('.')[2]}'") from None


def missing_package(package: str, needed_by: str) -> EdgekdError:
    """The error for a package that an optional part of edgekd needs."""
    extras = {
        "torch": "train",
        "torchvision": "train",
        "timm": "train",
        "safetensors": "train",
        "lightning_fabric": "train",
        "fvcore": "train",
        "h5py": "train",
        "openpyxl": "train",
        "onnx": "export",
        "nncf": "export",
        "onnxscript": "export",
        "onnxruntime": "onnxruntime",
        "openvino": "openvino",
        "optuna": "sweep",
        "pydicom": "dicom",
        "cv2": "hair",
        "model_signing": "sign",
        "cryptography": "sign",
        "OpenSSL": "sign",
    }
    hint = f"pip install 'edgekd[{extras[package]}]'" if package in extras else None
    return MissingOnHost(f"{needed_by} needs the package '{package}'", hint=hint)


def _import_file(path: Path) -> ModuleType:
    # named by its contents: an edited file is another module, also within one process
    contents = hashlib.sha256(str(path.resolve()).encode() + path.read_bytes()).hexdigest()
    name = f"edgekd_local_{path.stem}_{contents[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"not a Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        beside = missing is not None and (
            (path.parent / missing).is_dir() or (path.parent / f"{missing}.py").is_file()
        )
        raise RecipeError(
            f"{path} cannot be imported: {type(error).__name__}: {error}",
            hint=f"export PYTHONPATH={path.parent}" if beside else None,
        ) from error
    return module


def _class_in(module: ModuleType, base: type[T], name: str) -> type[T]:
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and not isinstance(value, GenericAlias)  # on Python 3.10 `dict[str, X]` counts as a class
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and not value.__name__.startswith("_")
    ]
    if len(found) != 1:
        raise RecipeError(
            f"plug-in file '{name}' must define exactly one public {base.__name__} class, "
            f"found {len(found)}"
        )
    return found[0]
