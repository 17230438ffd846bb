"""The recipes of KDML's tables: what every variant teaches whom, and the algebra of the variants.

The networks are of the recipes' own kinds but thin, without pretrained weights, on imitations of
the data's layout. What KD+ML becomes where some weights are 0 is compared bit for bit.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from edgekd import catalog, doctor, published
from edgekd.losses.base import Batch, Clock
from edgekd.models.build import build_network
from edgekd.recipe import Recipe
from edgekd.recipe_load import load, read_tree, set_key, validate
from edgekd.sweep.space import check_space
from edgekd.tasks.classification import Classification
from edgekd.train.distiller import Distiller
from edgekd.train.optim import build_optimizer
from edgekd.train.setup import make_distiller, prepare
from tests.data.grading_layouts import write_csv
from tests.data.test_ham10000 import make as make_ham10000
from tests.data.test_histopathologic import draw
from tests.data.test_histopathologic import name as patch

TWELVE = ("kdml/table3-histopathologic", "kdml/table8-mobilenet", "kdml/table14-ham10000",
          "studies/kdml-ham10000")  # fmt: skip
TABLES = ("kdml/table3-histopathologic", "kdml/table8-mobilenet", "kdml/table10-comparison",
          "kdml/table14-ham10000")  # fmt: skip
MASKS = ("kdml/table4-lgg", "kdml/table9-lgg-mobilenet", "kdml/table15-ham10000-masks")
MASK_TABLES = (*MASKS, "kdml/table10-lgg-comparison")
NARROW = "{channels: [4, 8, 16, 32], stem_width: 4}"
THIN = {  # arguments, width before the pooling
    "timm:resnet50": ("{channels: [4, 8, 16, 16], stem_width: 4}", 64),
    "timm:resnet18": (NARROW, 32),
    "timm:resnet10t": (NARROW, 32),
    "timm:mobilenetv1_100": ("{}", 1024),  # its builder takes no width
}

# What each student is told besides the labels, as Table 1 of the paper has it: P predictions, Fe
# feature maps. Mind V3: where the teacher is alone, S1 gets its predictions, in KD+ML its features.
TERMS: dict[str, tuple[set[str], set[str]]] = {
    "ml-v1": ({"P(S2)"}, {"P(S1)"}),
    "ml-v2": ({"Fe(S2)"}, {"Fe(S1)"}),
    "ml-v3": ({"P(S2)"}, {"Fe(S1)"}),
    "kd-off-v1": ({"P(T)"}, {"P(T)"}),
    "kd-off-v2": ({"Fe(T)"}, {"Fe(T)"}),
    "kd-off-v3": ({"P(T)"}, {"Fe(T)"}),
    "kd-on-v1": ({"P(T)"}, {"P(T)"}),
    "kd-on-v2": ({"Fe(T)"}, {"Fe(T)"}),
    "kd-on-v3": ({"P(T)"}, {"Fe(T)"}),
    "kdml-v1": ({"P(T)", "P(S2)"}, {"P(T)", "P(S1)"}),
    "kdml-v2": ({"Fe(T)", "Fe(S2)"}, {"Fe(T)", "Fe(S1)"}),
    "base": ({"Fe(T)", "P(S2)"}, {"P(T)", "Fe(S1)"}),  # KD+ML V3
    "kdml-offline": ({"Fe(T)", "P(S2)"}, {"P(T)", "Fe(S1)"}),
    "alone": (set(), set()),
}
WORDS = {"kd": "P", "kd_pixel": "P", "feature_mse": "Fe"}
FIDELITIES = {"kdml_table11", "kdml_table12"}
LABELS = {"ce", "focal_dice"}
OTHER = {"kd": {"temperature": 2}, "kd_pixel": {"temperature": 2}}
NAMES = {"teacher": "T", "student_a": "S1", "student_b": "S2"}
TRAINED_BEFORE = {"alone", "kd-off-v1", "kd-off-v2", "kd-off-v3", "kdml-offline"}
WITHOUT_TEACHER = {"ml-v1", "ml-v2", "ml-v3"}
KDML = {"v1": "kdml-v1", "v2": "kdml-v2", "v3": "base"}


@functools.cache
def load_variant(path: Path, variant: str, *overrides: str) -> Recipe:
    return load(path, variant=None if variant == "base" else variant, overrides=overrides)


def all_variants(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [
        (name, variant)
        for name in names
        for variant in ("base", *read_tree(catalog.find(name))["variants"])
    ]


@pytest.mark.parametrize("name", [*TWELVE, *MASKS])
@pytest.mark.parametrize("variant", TERMS)
def test_every_variant_has_exactly_the_papers_terms(name: str, variant: str) -> None:
    recipe = load_variant(catalog.find(name), variant)
    stage = recipe.stages["distill"]
    told: dict[str, set[str]] = {"student_a": set(), "student_b": set()}
    labelled = []
    for key, term in stage.losses.items():
        assert term.weight == 1
        assert term.stop_gradient
        if term.loss in LABELS:
            labelled.append(term.to)
            continue
        (source,) = term.from_
        tap = {"tap": "decoder"} if name in MASKS else {}
        assert term.params == OTHER.get(str(term.loss), tap), key
        what = f"{WORDS[str(term.loss)]}({NAMES[source]})"
        assert what not in told[term.to]
        told[term.to].add(what)
        # the paper's weights b (of the teacher's term) and c (of the peer's) go by these names
        assert key == ("teacher" if source == "teacher" else "peer") + term.to[-2:]
    assert (told["student_a"], told["student_b"]) == TERMS[variant]
    assert sorted(labelled) == sorted(stage.train)


@pytest.mark.parametrize("name", [*TWELVE, *MASKS])
@pytest.mark.parametrize("variant", TERMS)
def test_who_trains_when(name: str, variant: str) -> None:
    recipe = load_variant(catalog.find(name), variant)
    students = ["student_a", "student_b"]
    if variant in WITHOUT_TEACHER:
        assert list(recipe.stages) == ["distill"]
        assert recipe.stages["distill"].train == students
        assert set(recipe.models) == set(students)
        assert recipe.export.reference is None
    elif variant in TRAINED_BEFORE:
        assert list(recipe.stages) == ["teacher", "distill"]
        assert recipe.stages["teacher"].train == recipe.stages["distill"].frozen == ["teacher"]
        assert recipe.stages["distill"].train == students
    else:
        assert list(recipe.stages) == ["distill"]
        assert recipe.stages["distill"].train == ["teacher", *students]
    a, b = (recipe.models[student] for student in students)
    assert a == b  # of one kind
    assert all(model.neck is None for model in (a, b))
    assert recipe.deployed() == ["pair", *students]


@pytest.mark.parametrize("name", [*TWELVE, *MASKS])
@pytest.mark.parametrize("variant", TERMS)
def test_the_search_of_a_variant_holds_its_weights(name: str, variant: str) -> None:
    recipe = load_variant(catalog.find(name), variant)
    if variant == "alone":
        assert recipe.search is None
        return
    assert recipe.search is not None
    assert recipe.search.method == "coordinate"
    check_space(recipe, recipe.search, name)
    predictions = [0.1, 0.5, 1, 2]
    grids = {"kd": predictions, "kd_pixel": predictions, "feature_mse": [0.1, 1, 10]}
    wanted = {
        f"stages.distill.losses.{key}.weight": grids[str(term.loss)]
        for key, term in recipe.stages["distill"].losses.items()
        if term.loss not in LABELS
    }
    assert {key: span.values for key, span in recipe.search.space.items()} == wanted


def test_every_published_row_has_a_variant() -> None:
    have: dict[tuple[str, str], set[str]] = {}
    for name, variant in all_variants((*TABLES, *MASK_TABLES)):
        paper = load_variant(catalog.find(name), variant).paper
        assert paper is not None
        for table in (paper.table, *paper.also):
            if paper.method is not None:
                have.setdefault((table, paper.method), set()).update(paper.members)
    walked = 0
    for table, found in published.tables().items():
        for row in found.rows if table.startswith("kdml_") else ():
            members = have.get((table, row.method))
            covered = members is not None and (row.member is None or row.member in members)
            assert covered or row.reason, f"{table}: no variant for {row.method}, {row.member}"
            walked += 1
    assert walked == 175 + 3 * 45 + 27 + 3 + 8 + 2
    for table, method in have:
        is_there = published.table(table).rows_of(method)
        # fidelity has no rows of ML, which has no teacher
        assert is_there or (table in FIDELITIES and method.startswith("ML")), (table, method)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    kinds = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    rows = [f"HAM_{i},ISIC_{i:04d},{kinds[i % 7]},histo,50.0,male,ear" for i in range(70)]
    patches = folder / "histopathologic"
    write_csv(patches / "train_labels.csv", [(patch(i), i % 2) for i in range(40)], ("id", "label"))
    for i in range(40):
        draw(patches / "train" / f"{patch(i)}.tif", colour=100 * (i % 2))
    return {"ham10000": make_ham10000(folder / "ham10000", rows), "histopathologic": patches}


def overrides_of(recipe: Recipe) -> list[str]:
    """What makes the networks small enough for here."""
    students = [spec for model, spec in recipe.models.items() if model != "teacher"]
    _, width = THIN[students[0].arch]
    found = []
    for model, spec in recipe.models.items():
        found += [f"models.{model}.pretrained=false", f"models.{model}.args={THIN[spec.arch][0]}"]
        if spec.neck is not None:
            found.append(f"models.{model}.neck.width={width}")
    return found


@pytest.mark.parametrize(("name", "variant"), all_variants((*TABLES, "studies/kdml-ham10000")))
def test_every_variant_dry_runs(
    name: str, variant: str, roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = catalog.find(name)
    recipe = load_variant(path, variant)
    overrides = [
        f"data.root={roots[recipe.data.name]}", "data.split=6-2-2", "data.batch=8",
        "data.input={size: 64}", "hardware.precision=32-true", *overrides_of(recipe),
    ]  # fmt: skip
    if recipe.data.subsets:
        overrides.append("data.subsets.balanced.counts=[16, 16]")
    recipe = load_variant(path, variant, *overrides)
    monkeypatch.setattr(doctor, "_try_export", lambda *_: None)
    free = SimpleNamespace(params=0, macs=0)
    monkeypatch.setattr("edgekd.models.complexity.count", lambda *_: free)
    found = doctor.preflight(recipe, prepare(recipe))
    for key, stage in recipe.stages.items():
        assert set(found["stages"][key]["terms"]) == set(stage.losses)
    if recipe.data.name == "ham10000":
        assert recipe.stages["distill"].data.balance == "mean"


# The algebra. Students A and B begin with different weights.
BATCHES = [
    Batch(torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(i)), torch.arange(6) % 2)
    for i in range(3)
]
START = (1, 2, 3)  # seeds of teacher, student_a and student_b
EXCHANGED = (1, 3, 2)
TASK = Classification(classes=("normal", "tumor"))
Weights = Mapping[str, Mapping[str, torch.Tensor]]


def small(variant: str, *overrides: str) -> Recipe:
    path = catalog.find("kdml/table3-histopathologic")
    recipe = load_variant(path, variant)
    return load_variant(path, variant, *overrides_of(recipe), *overrides)


def distiller_of(recipe: Recipe, start: tuple[int, ...] = START) -> Distiller:
    seeds = dict(zip(NAMES, start, strict=True))
    networks = {
        model: build_network(spec, outputs=2, seed=seeds[model])
        for model, spec in recipe.models.items()
    }
    return make_distiller(recipe, "distill", networks, TASK, [8, 8])


@functools.cache
def trained(variant: str, *overrides: str, start: tuple[int, ...] = START) -> Weights:
    """All weights and statistics after three steps."""
    recipe = small(variant, *overrides)
    distiller = distiller_of(recipe, start)
    # a rate at which three steps change what is said
    spec = recipe.stages["distill"].optimizer.model_copy(update={"lr": 0.01})
    optimizer = build_optimizer(spec, distiller)
    distiller.train()
    for step, batch in enumerate(BATCHES):
        optimizer.zero_grad()
        distiller.total(distiller(batch, Clock(1, 1, step, 3))).backward()
        optimizer.step()
    return {model: network.state_dict() for model, network in distiller.networks.items()}


def same(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> bool:
    assert list(ours) == list(theirs)
    return all(torch.equal(ours[key], theirs[key]) for key in ours)


def without(who: str) -> list[str]:
    return [f"stages.distill.losses.{who}_{student}.weight=0" for student in "ab"]


@pytest.mark.parametrize(
    ("kdml", "ml"), [("kdml-v1", "ml-v1"), ("kdml-v2", "ml-v2"), ("base", "ml-v3")]
)
def test_without_the_teachers_terms_it_is_mutual_learning(kdml: str, ml: str) -> None:
    ours, theirs = trained(kdml, *without("teacher")), trained(ml)
    for student in ("student_a", "student_b"):
        assert same(ours[student], theirs[student])
        assert not same(ours[student], trained(kdml)[student])


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_without_the_peers_terms_it_is_distillation(version: str) -> None:
    is_v3 = version == "v3"
    ours = trained("base" if is_v3 else f"kdml-{version}", *without("peer"))
    # V3 after exchanging the names: S1 has the teacher's features here, S2 has them there
    theirs = trained(f"kd-on-{version}", start=EXCHANGED if is_v3 else START)
    for student, other in (("student_a", "student_b"), ("student_b", "student_a")):
        assert same(ours[student], theirs[other if is_v3 else student])
    assert same(ours["teacher"], theirs["teacher"])
    if is_v3:
        assert not same(ours["student_a"], trained("kd-on-v3")["student_a"])


def test_without_any_terms_everyone_is_alone() -> None:
    ours, theirs = trained("base", *without("teacher"), *without("peer")), trained("alone")
    assert same(ours["student_a"], theirs["student_a"])
    assert same(ours["student_b"], theirs["student_b"])


def test_the_teacher_learns_from_the_labels_alone() -> None:
    alone = trained("base", *without("teacher"), *without("peer"))["teacher"]
    for variant in ("base", "kdml-v1", "kdml-v2", "kd-on-v1", "kd-on-v3"):
        assert same(trained(variant)["teacher"], alone), variant
    before = distiller_of(small("kdml-offline")).networks["teacher"].state_dict()
    for variant in ("kdml-offline", "kd-off-v2"):
        assert same(trained(variant)["teacher"], before), variant


def values_of(variant: str, start: tuple[int, ...] = START) -> dict[str, float]:
    found = distiller_of(small(variant), start).train()(BATCHES[0], Clock(1, 1, 0, 1))
    return {key: value.item() for key, value in found.items()}


@pytest.mark.parametrize("variant", [variant for variant in TERMS if variant != "kdml-offline"])
def test_exchanging_the_students_exchanges_the_losses_of_v1_and_v2_only(variant: str) -> None:
    there, here = values_of(variant), values_of(variant, EXCHANGED)
    partner = {"a": "b", "b": "a"}
    swapped = {
        key[:-1] + partner[key[-1]] if key[-2] == "_" else key: value for key, value in here.items()
    }
    is_v3 = variant == "base" or variant.endswith("v3")
    assert (swapped == there) is not is_v3


@pytest.mark.parametrize("variant", sorted(WITHOUT_TEACHER))
def test_students_that_are_the_same_tell_each_other_nothing(variant: str) -> None:
    values = values_of(variant, (1, 2, 2))
    assert values["peer_a"] == values["peer_b"] == 0.0
    assert values["ce_a"] == values["ce_b"] > 0


@pytest.mark.parametrize("variant", ["ml-v1", "kd-off-v1", "kd-on-v1", "kdml-v1"])
def test_v1_does_not_look_at_feature_maps(variant: str) -> None:
    distiller = distiller_of(small(variant))
    assert {taps for key in distiller.specs for taps in distiller.taps_of(key)} == set()


@pytest.mark.parametrize("variant", ["ml-v2", "kd-off-v2", "kd-on-v2", "kdml-v2"])
def test_v2_does_not_look_at_what_others_predict(variant: str) -> None:
    distiller = distiller_of(small(variant)).train()
    before = distiller(BATCHES[0], Clock(1, 1, 0, 1))
    with torch.no_grad():
        for model, network in distiller.networks.items():
            if model != "student_a":
                network.net.fc.weight.mul_(2.0)
    after = distiller(BATCHES[0], Clock(1, 1, 0, 1))
    kept = [key for key in before if key.startswith(("teacher_", "peer_")) or key == "ce_a"]
    assert len(kept) >= 3
    assert all(torch.equal(before[key], after[key]) for key in kept)
    assert not torch.equal(before["ce_b"], after["ce_b"])


def test_what_an_alias_repeats_is_changed_in_one_place_only(tmp_path: Path) -> None:
    """The recipes write with anchors what stages share."""
    path = catalog.find("kdml/table3-histopathologic")
    rate = "stages.distill.optimizer.lr=0.5"
    recipe = load(path, variant="kd-off-v1", overrides=[rate])
    assert recipe.stages["distill"].optimizer.lr == 0.5
    assert recipe.stages["teacher"].optimizer.lr == 1e-4
    tree: dict[str, Any] = read_tree(path)
    before = validate(read_tree(path), "here")
    set_key(tree, "stages.distill.losses.ce_a.weight", 7, "here")
    assert validate(tree, "here").variants == before.variants
