"""Reading a recipe: YAML, the variant, the overrides, and errors that name the key.

The order is file, then `--variant`, then `KEY=VALUE`. Paths inside a recipe are relative to the
current directory, as on a command line.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from edgekd.errors import RecipeError, did_you_mean
from edgekd.recipe import Recipe

Tree = dict[str, Any]
# mappings of named entries: null takes one out
REMOVABLE = {"losses", "stages", "models", "ensembles", "params", "args"}
FOR_SWEEPS = ("seeds", "baseline", "search", "variants")


SCIENTIFIC = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")


MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key written twice, and reads 1e-4 as a number.

    `<<: *anchor` brings a mapping's keys; those that are written beside it win.
    """


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Tree:
    seen: Tree = {}
    brought: Tree = {}
    for key_node, value_node in node.value:
        if key_node.tag == MERGE:
            found = loader.construct_object(value_node, deep=True)
            for one in reversed(found if isinstance(found, list) else [found]):
                if not isinstance(one, dict):
                    raise RecipeError(f"line {key_node.start_mark.line + 1}: `<<` takes a mapping")
                brought.update(one)
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise RecipeError(f"line {key_node.start_mark.line + 1}: key {key!r} must be text")
        if key in seen:
            raise RecipeError(f"line {key_node.start_mark.line + 1}: key '{key}' is written twice")
        seen[key] = loader.construct_object(value_node, deep=True)
    return {**brought, **seen}


def _number(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_constructor("!scientific", _number)
_Loader.add_implicit_resolver("!scientific", SCIENTIFIC, list("-+0123456789"))


class _Dumper(yaml.SafeDumper):
    """YAML that `_Loader` reads back as it was: the text '12e4' keeps its quotes."""


def _float(dumper: _Dumper, value: float) -> yaml.Node:
    node = yaml.SafeDumper.represent_float(dumper, value)
    if SCIENTIFIC.fullmatch(node.value):
        node.tag = "!scientific"  # as the plain text resolves, so that no tag is written
    return node


_Dumper.add_representer(float, _float)
_Dumper.add_implicit_resolver("!scientific", SCIENTIFIC, list("-+0123456789"))


def load(path: Path, *, overrides: Sequence[str] = (), variant: str | None = None) -> Recipe:
    """Read, override and validate a recipe.

    Raises RecipeError that names file and key; the keys of `--variant` and of `KEY=VALUE` are
    checked like the file's own.
    """
    written = read_tree(path)
    tree = copy.deepcopy(written)
    if variant is not None:
        variants = tree.get("variants") or {}
        if variant not in variants:
            raise RecipeError(
                f"{path}: there is no variant '{variant}'", hint=did_you_mean(variant, variants)
            )
        if not isinstance(variants[variant], dict):
            raise RecipeError(f"{path}: variants.{variant}: expected a mapping of KEY: VALUE")
        for key, value in variants[variant].items():
            set_key(tree, key, value, f"{path}: variants.{variant}")
        tree["name"] = f"{tree.get('name')}.{variant}"
    override(tree, overrides)
    recipe = validate(tree, str(path))
    if variant is None:
        for name, entries in recipe.variants.items():
            probe = copy.deepcopy(written)
            for key, value in entries.items():
                set_key(probe, key, value, f"{path}: variants.{name}")
            validate(probe, f"{path}: variants.{name}")
    return recipe


def read_tree(path: Path) -> Tree:
    """Parse the YAML of a recipe file into plain dicts."""
    if path.is_dir():
        raise RecipeError(f"{path} is a folder, expected a recipe file (.yaml)")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"no such recipe: {path}", hint="edgekd recipes list") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from None
    try:
        tree = yaml.load(text, Loader=_Loader)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error.message}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise RecipeError(
            f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}"
        ) from None
    if not isinstance(tree, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys, found {type(tree).__name__}")
    if "edgekd" not in tree:
        raise RecipeError(f"{path}: not an edgekd recipe (its first key must be `edgekd: 1`)")
    return tree


def override(tree: Tree, overrides: Sequence[str]) -> None:
    """Set every `KEY=VALUE` in a tree. Raises RecipeError for one that is no such pair."""
    for pair in overrides:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise RecipeError(f"'{pair}' is not KEY=VALUE", hint="for example data.batch=16")
        set_key(tree, key, _scalar(text, key), "command line")


def set_key(tree: Tree, key: str, value: Any, where: str) -> None:
    """Set `a.b.c` in a tree; None removes the entry from its mapping (`losses.kd: null`)."""
    *parents, last = key.split(".")
    here = tree
    for depth, part in enumerate(parents):
        named = depth and parents[depth - 1] in {"stages", "models", "losses"}
        if named and part not in here:
            raise RecipeError(
                f"{where}: {key}: there is no '{part}'", hint=did_you_mean(part, here)
            )
        below = here.setdefault(part, {})
        if below is None:
            below = here[part] = {}
        if not isinstance(below, dict):
            raise RecipeError(f"{where}: {'.'.join(parents[: depth + 1])} has no keys below it")
        # a copy: a YAML alias (`*name`) is the very mapping that stands elsewhere too
        below = here[part] = dict(below)
        here = below
    removable = parents and parents[-1] in REMOVABLE
    if value is None and removable:
        if last not in here:
            raise RecipeError(
                f"{where}: {key}: there is no '{last}' to remove", hint=did_you_mean(last, here)
            )
        del here[last]
    else:
        here[last] = value


def _scalar(text: str, key: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecipeError) as error:
        raise RecipeError(f"command line: {key}: cannot read '{text}': {error}") from None


def validate(tree: Tree, where: str) -> Recipe:
    """Check a tree against the schema; the first few problems are named, one line each."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        problems = [_explain(entry) for entry in error.errors()]
        lines = [f"{where}: {problems[0][0]}"] + [f"  also {text}" for text, _ in problems[1:5]]
        hint = next((hint for _, hint in problems if hint), None)
        raise RecipeError("\n".join(lines), hint=hint) from None


def check_trains(recipe: Recipe) -> None:
    """Raise RecipeError for the recipe of an import: a finished ONNX model, nothing to train."""
    if not recipe.stages:
        name = recipe.export.model
        file = recipe.models[name].arch.partition(":")[2]
        raise RecipeError(
            f"{recipe.name} has no stages: models.{name} is a finished ONNX model, there is "
            "nothing to train",
            hint=f"edgekd import {file} --recipe RECIPE makes a bundle of it",
        )


def _explain(entry: Any) -> tuple[str, str | None]:
    """One pydantic problem as text (key, what was found, what was expected) and a hint."""
    path = [str(part) for part in entry["loc"]]
    key = ".".join(part for part in path if part != "[key]")
    kind, message = entry["type"], entry["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        known = _known_keys(path[:-1])
        return f"{key}: unknown key", did_you_mean(path[-1], known) if known else None
    if kind == "missing":
        return f"{key}: this key is missing", None
    if kind == "literal_error":
        allowed = entry["ctx"]["expected"]
        names = [part.strip(" '") for part in allowed.replace(" or ", ",").split(",")]
        hint = did_you_mean(str(entry["input"]), names)
        return f"{key}: {entry['input']!r} is not one of {allowed}", hint
    if kind == "value_error":
        return (f"{key}: {message}, got {entry['input']!r}" if path else message), None
    return f"{key}: {message[0].lower() + message[1:]}, got {entry['input']!r}", None


def _known_keys(path: list[str]) -> list[str]:
    """The keys that the schema allows at `path`."""
    here: Any = Recipe
    for part in path:
        here = _step(here, part)
        if here is None:
            return []
    if not (isinstance(here, type) and issubclass(here, BaseModel)):
        return []
    return [field.alias or name for name, field in here.model_fields.items()]


def _step(here: Any, part: str) -> Any:
    if isinstance(here, type) and issubclass(here, BaseModel):
        for name, field in here.model_fields.items():
            if part in (name, field.alias):
                return _model_inside(field.annotation)
        return None
    return here.value if isinstance(here, _Mapping) else None


def _model_inside(annotation: Any) -> Any:
    """The Section class inside `X | None`, `dict[str, X]` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_inside(inner)
        if found is not None:
            return _Mapping(found) if getattr(annotation, "__origin__", None) is dict else found
    return None


class _Mapping:
    """A mapping whose values have the schema `value`."""

    def __init__(self, value: Any) -> None:
        self.value = value


def to_yaml(recipe: Recipe) -> str:
    """The fully resolved recipe as YAML: what one run did, so without what is for sweeps."""
    tree = recipe.model_dump(mode="json", by_alias=True, exclude=set(FOR_SWEEPS))
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def digest(value: Any) -> str:
    """A short stable hash of plain data or of a part of a recipe."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", by_alias=True)
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def json_schema() -> Tree:
    """The JSON Schema of a recipe, for editors."""
    schema = Recipe.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edgekd recipe",
        **{key: value for key, value in schema.items() if key != "title"},
    }
