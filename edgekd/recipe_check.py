"""Do the names in a recipe fit together? Each function raises ValueError that names the place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from edgekd.errors import did_you_mean
from edgekd.recipe_stage import StageSpec

if TYPE_CHECKING:
    from edgekd.recipe import Recipe

WHERE_ENSEMBLES = ("export.model", "export.also", "paper.members")  # may stand beside models


def check_names(recipe: Recipe) -> None:
    """All models, ensembles, subsets and variants that a recipe speaks of are there, and fit."""
    _check_ensembles(recipe)
    _check_references(recipe)
    is_imported = _is_file(recipe, recipe.members(recipe.export.model)[0])
    if not recipe.stages:
        if not is_imported:
            raise ValueError("stages: this key is missing")
        return
    if "base" in recipe.variants:
        raise ValueError("variants: `base` means the recipe itself; choose another name")
    known = {"base", *recipe.variants}
    if recipe.baseline is not None and recipe.baseline not in known:
        raise ValueError(_unknown("baseline", "variant", recipe.baseline, known))
    if is_imported:
        raise ValueError(
            f"export.model: '{recipe.export.model}' is an ONNX file already; "
            "`edgekd import FILE.onnx` makes a bundle of it"
        )
    for name, stage in recipe.stages.items():
        _check_stage(recipe, name, stage)
    _check_used(recipe)
    for name, spec in recipe.models.items():
        if spec.graft is not None:
            _check_graft(recipe, name, spec.graft)
        if spec.start is not None:
            _check_start(recipe, name, spec.start)
        if spec.classes is not None:
            _check_classes(recipe, name, spec.classes)


def _check_ensembles(recipe: Recipe) -> None:
    for name, members in recipe.ensembles.items():
        place = f"ensembles.{name}"
        if name in recipe.models:
            raise ValueError(f"{place}: a model has this name, choose another")
        if len(set(members)) < 2 or len(set(members)) < len(members):
            raise ValueError(f"{place}: needs two or more different models")
        for member in members:
            if member not in recipe.models:
                raise ValueError(_unknown(place, "model", member, recipe.models))
            if _is_file(recipe, member):
                raise ValueError(f"{place}: '{member}' is an ONNX file, which cannot be a member")
        parts = {recipe.subset_of(member) for member in members}
        if len(parts) > 1:
            raise ValueError(f"{place}: its members are trained for different parts of the data")


def _check_references(recipe: Recipe) -> None:
    both = {*recipe.models, *recipe.ensembles}
    for place, name in _references(recipe):
        known = both if place.startswith(WHERE_ENSEMBLES) else set(recipe.models)
        if name not in known:
            raise ValueError(_unknown(place, "model", name, known))
        if place == "analysis.cka" and _is_file(recipe, name):
            raise ValueError(f"{place}: '{name}' is an ONNX file, whose layers cannot be seen")
    if len(set(recipe.deployed())) < len(recipe.deployed()):
        raise ValueError("export.also: names a model twice, or the one of export.model")


def _check_used(recipe: Recipe) -> None:
    used = {m for stage in recipe.stages.values() for m in (*stage.train, *stage.frozen)}
    for place, name in _references(recipe):
        unused = [member for member in recipe.members(name) if member not in used]
        if unused:
            raise ValueError(f"{place}: no stage trains or uses model '{unused[0]}'")


def _references(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Places outside the stages that name a model, or an ensemble."""
    for ensemble, members in recipe.ensembles.items():
        yield from ((f"ensembles.{ensemble}", member) for member in members)
    yield "export.model", recipe.export.model
    yield from (("export.also", name) for name in recipe.export.also)
    if recipe.export.reference:
        yield "export.reference", recipe.export.reference
    if recipe.analysis is not None:
        yield from (("analysis.cka", name) for pair in recipe.analysis.cka for name in pair)
    if recipe.paper is not None:
        yield from ((f"paper.members.{key}", name) for key, name in recipe.paper.members.items())


def _check_stage(recipe: Recipe, name: str, stage: StageSpec) -> None:
    present = [*stage.train, *stage.frozen]
    for key in ("train", "frozen"):
        for model in getattr(stage, key):
            if model not in recipe.models:
                raise ValueError(_unknown(f"stages.{name}.{key}", "model", model, recipe.models))
    subset = stage.data.subset
    if subset is not None and subset not in recipe.data.subsets:
        place = f"stages.{name}.data.subset"
        raise ValueError(_unknown(place, "subset", subset, recipe.data.subsets))
    having = stage.data.having
    if having is not None and having not in recipe.data.class_groups:
        place = f"stages.{name}.data.having"
        raise ValueError(_unknown(place, "class group", having, recipe.data.class_groups))
    if having is None and stage.data.negatives is not None:
        raise ValueError(f"stages.{name}.data.negatives: has no meaning without `having`")
    both = set(stage.train) & set(stage.frozen)
    if both:
        raise ValueError(f"stages.{name}: {sorted(both)} is both trained and frozen")
    for term_name, term in stage.losses.items():
        for model in [*term.from_, term.to]:
            if model not in present:
                raise ValueError(
                    f"stages.{name}.losses.{term_name}: model '{model}' is in "
                    f"neither `train` nor `frozen` of this stage"
                )
    if stage.update == "alternate":
        _check_alternate(name, stage)
    if stage.cache and not stage.frozen:
        raise ValueError(f"stages.{name}.cache: the stage has no frozen teacher")
    if stage.data.views and stage.cache:
        raise ValueError(f"stages.{name}.cache: not with data.views, which turns every image")
    if not stage.train and not stage.losses:
        raise ValueError(f"stages.{name}: neither models nor terms that could learn")
    untaught = set(stage.train) - {term.to for term in stage.losses.values()}
    if untaught:
        raise ValueError(f"stages.{name}: no term teaches {sorted(untaught)}")
    for model in stage.train:
        if _is_file(recipe, model):
            raise ValueError(
                f"stages.{name}.train: '{model}' is an ONNX file, "
                "which can only be a frozen teacher"
            )


def _check_alternate(name: str, stage: StageSpec) -> None:
    place = f"stages.{name}.update"
    if stage.accumulate > 1:
        raise ValueError(f"{place}: `alternate` steps on every batch: leave out `accumulate`")
    for key, term in stage.losses.items():
        if term.to not in stage.train:
            raise ValueError(f"{place}: the term '{key}' teaches '{term.to}', whose turn never "
                             "comes: it is frozen")  # fmt: skip
        if not term.stop_gradient:
            raise ValueError(f"{place}: with `alternate` one model learns at a time, so "
                             f"losses.{key}.stop_gradient cannot be false")  # fmt: skip


def _check_start(recipe: Recipe, name: str, origin: str) -> None:
    place = f"models.{name}.start"
    if origin not in recipe.models:
        raise ValueError(_unknown(place, "model", origin, recipe.models))
    for stage in recipe.stages.values():
        if origin in stage.train and name not in (*stage.train, *stage.frozen):
            return
        if name in (*stage.train, *stage.frozen):
            break
    raise ValueError(f"{place}: no stage before the first one of '{name}' trains '{origin}'")


def _check_classes(recipe: Recipe, name: str, group: str) -> None:
    place = f"models.{name}.classes"
    if group not in recipe.data.class_groups:
        raise ValueError(_unknown(place, "class group", group, recipe.data.class_groups))
    for where, other in _references(recipe):
        if name in recipe.members(other) and where.partition(".")[0] in ("ensembles", "export"):
            raise ValueError(f"{where}: '{name}' knows some of the classes only ({group})")
    if name in {spec.graft for spec in recipe.models.values()} or recipe.models[name].graft:
        raise ValueError(f"{place}: a model of some classes only neither has nor gives a graft")


def _check_graft(recipe: Recipe, name: str, teacher: str) -> None:
    place = f"models.{name}.graft"
    if teacher not in recipe.models:
        raise ValueError(_unknown(place, "model", teacher, recipe.models))
    if teacher == name or recipe.models[teacher].graft is not None or _is_file(recipe, teacher):
        raise ValueError(f"{place}: '{teacher}' has no classifier of its own to give")
    first = next((s for s in recipe.stages.items() if name in (*s[1].train, *s[1].frozen)), None)
    if first is not None and teacher not in first[1].frozen:
        raise ValueError(
            f"{place}: '{teacher}' is not in `frozen` of stages.{first[0]}, which begins with "
            f"'{name}': its classifier is taken as it is there"
        )


def _is_file(recipe: Recipe, model: str) -> bool:
    return recipe.models[model].arch.startswith("onnx:")


def _unknown(place: str, kind: str, name: str, known: Iterable[str]) -> str:
    return f"{place}: there is no {kind} '{name}'; {did_you_mean(name, known)}"
