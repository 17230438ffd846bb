"""The recipes of RSKD: a variant for every published line, who learns what from which images.

The networks are of the recipes' own kinds but thin, without pretrained weights, on drawn signs and
on an imitation of RFMiD with all of its diseases.
"""

from __future__ import annotations

import csv
import functools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from edgekd import catalog, doctor, published
from edgekd.data.read import open_source
from edgekd.data.splits import make_split
from edgekd.data.synthetic_labels import SyntheticLabels
from edgekd.recipe import Recipe
from edgekd.recipe_load import load, read_tree
from edgekd.train.setup import Prepared, prepare

TABLES = ("rskd/table3-rfmid", "rskd/table4-rfmid")
STUDIES = ("studies/rskd-rfmid", "studies/rskd-synthetic")
SHOT = {"many": "head", "medium": "medium", "few": "tail"}
REGION = ("disc", "macula", "vessels", "global")
FEATURE = ("haemorrhage", "deposit", "disc_change", "degeneration", "other")
LOOK = ("red", "yellow", "white", "brown")
DISEASES = 45  # of RFMiD
THIN = "{channels: [4, 8, 16, 16], stem_width: 4}"

# What the line says: the loss on labels, its parameters, is it class-aware, and whose knowledge
LINES: dict[str, tuple[str, dict[str, object], bool, tuple[str, ...]]] = {
    "erm": ("bce", {}, False, ()),
    "rs": ("bce", {}, True, ()),
    "rw": ("bce", {"reweight": "inverse"}, False, ()),
    "focal": ("focal", {}, False, ()),
    "oltr": ("bce", {}, False, ()),
    "ldam": ("ldam", {}, False, ()),
    "ldam-drw": ("ldam", {"deferred": 0.8}, False, ()),
    "db": ("db", {}, True, ()),
    "base": ("bce", {}, False, tuple(SHOT)),
    "rskd-region": ("bce", {}, False, REGION),
    "rskd-feature": ("bce", {}, False, FEATURE),
    "rskd-look": ("bce", {}, False, LOOK),
    "rskd-db": ("db", {}, True, tuple(SHOT)),
    "rskd-oltr": ("bce", {}, False, tuple(SHOT)),
    "rskd-ldam": ("ldam", {}, False, tuple(SHOT)),
    "rskd-focal": ("focal", {}, False, tuple(SHOT)),
}
FIXED = {"kd-t3": 3, "kd-t10": 10, "kd-t20": 20}
MEMORY = {"oltr", "rskd-oltr"}


@functools.cache
def variant_of(name: str, variant: str, *overrides: str) -> Recipe:
    path = catalog.find(name)
    return load(path, variant=None if variant == "base" else variant, overrides=overrides)


def variants_of(name: str) -> list[str]:
    return ["base", *read_tree(catalog.find(name))["variants"]]


def cases(*names: str) -> list[tuple[str, str]]:
    return [(name, variant) for name in names for variant in variants_of(name)]


def grouping(name: str, variant: str) -> tuple[str, ...]:
    """Which teachers a variant has; Table 4's rows have those by sign."""
    weighted = LOOK if name.endswith("synthetic") else FEATURE
    if variant in FIXED or (name == TABLES[1] and variant == "base"):
        return weighted
    return LINES[variant][3]


def test_every_published_line_has_a_variant() -> None:
    have: dict[str, set[str | None]] = {}
    for name, variant in cases(*TABLES):
        paper = variant_of(name, variant).paper
        assert paper is not None
        assert paper.table == f"rskd_table{name[len('rskd/table')]}"
        # a variant for which the paper has no line must not go by the recipe's own
        have.setdefault(paper.table, set()).add(paper.method if variant != "ldam-drw" else None)
    for table, methods in have.items():
        lines = {row.method for row in published.table(table).rows}
        assert lines == methods - {None}
    assert len(have["rskd_table3"] - {None}) == 14
    assert len(have["rskd_table4"]) == 5


@pytest.mark.parametrize(("name", "variant"), cases(TABLES[0], *STUDIES))
def test_the_labels_are_learned_as_the_line_says(name: str, variant: str) -> None:
    recipe = variant_of(name, variant)
    loss, params, is_class_aware, _ = LINES.get(variant, LINES["base"])
    student = recipe.stages["student"]
    labels = {key for key in student.losses if key not in ("rskd", "oltr")}
    assert labels == {loss}
    assert student.losses[loss].params == params
    for stage in recipe.stages.values():
        assert stage.data.balance == ("class_aware" if is_class_aware else False)
    assert ("oltr" in student.losses) == (variant in MEMORY)
    assert all(term.weight == 1 for term in student.losses.values())


@pytest.mark.parametrize(("name", "variant"), cases(*TABLES, *STUDIES))
def test_a_teacher_knows_one_group_and_learns_from_its_images_only(name: str, variant: str) -> None:
    recipe = variant_of(name, variant)
    teachers = grouping(name, variant)
    student = recipe.stages["student"]
    plain = {"plain"} if variant in MEMORY else set()
    assert set(recipe.models) == {*teachers, "student"} | plain
    assert list(recipe.stages) == [*teachers, *plain, "student"]
    assert tuple(student.frozen) == teachers
    for teacher in teachers:
        stage = recipe.stages[teacher]
        assert stage.train == [teacher]
        assert stage.data.having == recipe.models[teacher].classes == teacher
        assert stage.data.negatives is None
        (term,) = stage.losses.values()
        assert term.to == teacher
        if variant in LINES and name != TABLES[1]:  # X in place of BCE, for teachers too
            assert set(stage.losses) == {LINES[variant][0]}
    assert recipe.models["student"].classes is None
    assert recipe.export.model == "student"


@pytest.mark.parametrize(("name", "variant"), cases(*TABLES, *STUDIES))
def test_the_student_hears_all_teachers_of_one_grouping(name: str, variant: str) -> None:
    recipe = variant_of(name, variant)
    teachers = grouping(name, variant)
    losses = recipe.stages["student"].losses
    assert ("rskd" in losses) == bool(teachers)
    if teachers:
        assert tuple(losses["rskd"].from_) == teachers
        params = losses["rskd"].params
        if variant in FIXED:
            assert params == {"temperature": FIXED[variant], "weights": "fixed"}
        else:
            assert params.get("temperature", 10) == 10
            assert params.get("weights", "dynamic") == "dynamic"


@pytest.mark.parametrize("name", [*TABLES, *STUDIES])
def test_all_variants_have_the_same_data_and_the_students_the_same_epochs(name: str) -> None:
    recipes = {variant: variant_of(name, variant) for variant in variants_of(name)}
    assert len({recipe.data.model_dump_json() for recipe in recipes.values()}) == 1
    for variant, recipe in recipes.items():
        assert recipe.task.thresholds == "f1"
        epochs = recipe.stages["student"].epochs
        if variant in MEMORY and name in STUDIES:  # half without the memory, half with it
            epochs += recipe.stages["plain"].epochs
        if variant not in MEMORY or name in STUDIES:
            assert epochs == recipes["erm"].stages["student"].epochs


def test_the_memory_is_the_students_alone() -> None:
    for name in (TABLES[0], *STUDIES):
        for variant in MEMORY:
            models = variant_of(name, variant).models
            assert (models["student"].head, models["student"].start) == ("oltr", "plain")
            assert all(spec.head == "linear" for key, spec in models.items() if key != "student")


@pytest.mark.parametrize("name", [*TABLES, STUDIES[0]])
def test_every_disease_of_rfmid_has_a_region_and_a_sign(name: str) -> None:
    groups = variant_of(name, "base").data.class_groups
    for rule in (REGION, FEATURE):
        if name == TABLES[1] and rule is REGION:  # Table 4 has teachers by sign
            continue
        listed = [disease for group in rule for disease in groups[group]]
        assert len(listed) == len(set(listed)) == DISEASES
    if name != TABLES[1]:
        assert {key: groups[key] for key in SHOT} == SHOT


def test_the_drawn_signs_are_grouped_by_their_colour() -> None:
    groups = variant_of(STUDIES[1], "base").data.class_groups
    classes = SyntheticLabels(images=200, size=16).classes
    for colour in LOOK:
        assert groups[colour] == [name for name in classes if name.startswith(f"{colour}-")]


def test_the_rarest_drawn_class_has_enough_test_images() -> None:
    spec = variant_of(STUDIES[1], "base").data
    source = open_source(spec, [])
    split = make_split(source, spec.split, seed=1, test_seed=spec.test_seed)
    labels = source.labels()
    assert labels.sum(axis=0)[[0, -1]].tolist() == [5000, 50]
    counts = [int((labels[part] == 1).sum(axis=0)[-1]) for _, part in split.items()]
    assert counts == [30, 5, 15]
    assert (labels[split.test][:, -4:] == 1).sum() == 126


@pytest.fixture(scope="module")
def rfmid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All diseases in all parts, from frequent to rare."""
    root = tmp_path_factory.mktemp("rfmid")
    groups = variant_of(TABLES[0], "base").data.class_groups
    diseases = [name for group in REGION for name in groups[group]]
    folders = {
        "Training": ("Training_Set", "RFMiD_Training_Labels.csv", 150),
        "Validation": ("Evaluation_Set", "RFMiD_Validation_Labels.csv", 60),
        "Test": ("Test_Set", "RFMiD_Testing_Labels.csv", 60),
    }
    for images, (folder, table, count) in folders.items():
        (root / folder / images).mkdir(parents=True)
        with (root / folder / table).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["ID", "Disease_Risk", *diseases])
            for row in range(1, count + 1):
                shown = [int(row % (3 + place) == 0) for place in range(len(diseases))]
                writer.writerow([row, int(any(shown)), *shown])
                picture = np.full((8, 8, 3), row % 250, dtype=np.uint8)
                Image.fromarray(picture).save(root / folder / images / f"{row}.png")
    return root


@functools.cache
def data_of(name: str, root: Path) -> Prepared:
    return prepare(small(name, "base", root))


def small(name: str, variant: str, root: Path) -> Recipe:
    """The recipe with what keeps it from running here replaced."""
    overrides = ["data.input={size: 32}", "data.batch=8", "hardware.precision=32-true"]
    if name.endswith("synthetic"):
        overrides.append("data.params={images: 600, size: 32}")
    else:
        overrides += [f"data.root={root}", "task.shots={head: 30, tail: 10}"]
    for model in variant_of(name, variant).models:
        overrides += [f"models.{model}.pretrained=false", f"models.{model}.args={THIN}"]
    return variant_of(name, variant, *overrides)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        *cases(*TABLES),
        *((STUDIES[0], variant) for variant in ("oltr", "kd-t20")),
        *((STUDIES[1], variant) for variant in ("base", "rskd-look", "rskd-db", "rskd-oltr")),
    ],
)
def test_a_variant_dry_runs(
    name: str, variant: str, rfmid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small(name, variant, rfmid)
    monkeypatch.setattr(doctor, "_try_export", lambda *_: None)
    free = SimpleNamespace(params=0, macs=0)
    monkeypatch.setattr("edgekd.models.complexity.count", lambda *_: free)
    found = doctor.preflight(recipe, data_of(name, rfmid))
    for key, stage in recipe.stages.items():
        terms = found["stages"][key]["terms"]
        assert set(terms) == set(stage.losses)
        assert all(np.isfinite(value) for value in terms.values())
