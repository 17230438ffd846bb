"""The recipes of DSP-KD's tables and its study: a variant for every line, who learns what and when.

Dry runs are on drawn lesions, with networks of the recipes' own kinds but thin.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import pytest

from edgekd import catalog, doctor, published
from edgekd.recipe import Recipe
from edgekd.recipe_load import load, read_tree
from edgekd.train.setup import prepare

ONE, TWO, THREE, SEVEN = ("dspkd/table1-isic2019", "dspkd/table2-isic2019", "dspkd/table3-psd",
                          "dspkd/table7-isic2019")  # fmt: skip
STUDY = "studies/dspkd-ham10000"
TEACHERS = {"": "Res2Net101", "convnext-": "ConvNeXt", "b4-": "EfficientNet-B4"}
REASONED = {"dspkd_table1": 14, "dspkd_table2": 2, "dspkd_table3": 2}  # lines without a variant
Terms = dict[str, float]  # loss -> weight

HEAD: dict[str, Terms] = {"teacher": {"ce": 1}, "head": {"contrastive": 1}}
SSD_KD: Terms = {"wce": 0.1, "ssdkd_logits": 1, "ssdkd_self": 10, "ssdkd_relations": 1}
FEATURES: Terms = {"ce": 1, "hf_mgd": 1}
KD: Terms = {"ce": 0.1, "kd": 0.9}
NORMKD: Terms = {"ce": 0.1, "normkd": 0.9}


def taught(**terms: float) -> dict[str, Terms]:
    return {"teacher": {"ce": 1}, "distill": terms}


# What each stage learns by, as Table 2 has it; a stage without the student's name trains it
METHODS: dict[str, dict[str, Terms]] = {
    "base": {"teacher": {"ce": 1}, "features": FEATURES, "distill": NORMKD},
    "alone": {"distill": {"ce": 1}},
    "kd": taught(**KD),
    "wsld": taught(ce=1, wsld=2.5),
    "fitnet": taught(ce=1, fitnet=100),
    "mgd": taught(ce=1, mgd=1),
    "eml": {"distill": {"ce": 1, "eml": 1}},
    "ssd-kd": {**HEAD, "distill": SSD_KD},
}
PARTS: dict[str, dict[str, Terms]] = {  # of Table 7
    "base": METHODS["base"],
    "alone": METHODS["alone"],
    "mgd": METHODS["mgd"],
    "stage1": taught(**FEATURES),
    "kd": METHODS["kd"],
    "stage2": taught(**NORMKD),
    "stage1-kd": {"teacher": {"ce": 1}, "features": FEATURES, "distill": KD},
}


@functools.cache
def variant_of(name: str, variant: str, *overrides: str) -> Recipe:
    path = catalog.find(name)
    return load(path, variant=None if variant == "base" else variant, overrides=overrides)


def variants_of(name: str) -> list[str]:
    return ["base", *read_tree(catalog.find(name))["variants"]]


def cases(*names: str) -> list[tuple[str, str]]:
    return [(name, variant) for name in names for variant in variants_of(name)]


def method_of(variant: str) -> str:
    """A variant of Table 2 or 3 without its teacher: `b4-kd` is `kd`, `b4` is DSP-KD."""
    for prefix in ("convnext", "b4"):
        if variant == prefix:
            return "base"
        variant = variant.removeprefix(f"{prefix}-")
    return variant


def expected(name: str, variant: str) -> dict[str, Terms] | None:
    """The terms of every stage; None for networks by themselves."""
    if name == ONE or method_of(variant) == "teacher-alone":
        return None
    if name == SEVEN:
        return PARTS[variant]
    if name == STUDY:
        parts = {"mgd-pixels": PARTS["mgd"], "stage1": PARTS["stage1"],
                 "stage2": PARTS["stage2"], "stage1-kd": PARTS["stage1-kd"]}  # fmt: skip
        return {**METHODS, **parts}[variant]
    return METHODS[method_of(variant)]


def test_every_published_line_has_a_variant_or_a_reason() -> None:
    have: set[tuple[str, str, str | None]] = set()
    for name, variant in cases(ONE, TWO, THREE, SEVEN):
        paper = variant_of(name, variant).paper
        assert paper is not None
        assert paper.method is not None
        for table in (paper.table, *paper.also):
            have.add((table, paper.method, paper.scenario))
    walked, reasoned = 0, dict.fromkeys(REASONED, 0)
    for table in (ONE, TWO, THREE, SEVEN, "dspkd/table4", "dspkd/table5"):
        table = f"dspkd_table{table[len('dspkd/table')]}"
        for row in published.table(table).rows:
            is_there = (table, row.method, row.scenario) in have
            assert is_there or row.reason, f"{table}: no variant for {row.method}, {row.scenario}"
            assert not (is_there and row.reason), (table, row.method)
            walked += 1
            if row.reason:
                reasoned[table] += 1
    assert walked == 21 + 27 + 27 + 4 + 4 + 7
    assert reasoned == REASONED
    for table, method, scenario in have:  # and no variant stands for a line that is not there
        if table not in ("dspkd_table4", "dspkd_table5"):
            assert published.table(table).rows_of(method, scenario), (table, method, scenario)


@pytest.mark.parametrize(("name", "variant"), cases(TWO, THREE, SEVEN, STUDY))
def test_every_stage_learns_by_the_methods_terms(name: str, variant: str) -> None:
    recipe, wanted = variant_of(name, variant), expected(name, variant)
    if wanted is None:
        assert list(recipe.stages) == ["teacher"]
        return
    assert list(recipe.stages) == list(wanted)
    for stage, terms in wanted.items():
        spec = recipe.stages[stage]
        learner = "teacher" if stage in HEAD else "student"
        own = {term.loss or key: term.weight for key, term in spec.losses.items()
               if term.to == learner}  # fmt: skip
        assert own == terms, stage
        others = [term for term in spec.losses.values() if term.to != learner]
        assert [term.loss for term in others] == (["ce"] if "eml" in terms else [])
        for key, term in spec.losses.items():
            wants = (term.loss or key) not in ("ce", "wce", "contrastive")
            assert term.from_ == (["teacher"] if wants else []), key
            assert term.stop_gradient == (key != "eml")
        assert spec.data.balance == "augment"
        assert spec.data.views == ("rotations" if terms in (SSD_KD, HEAD["head"]) else None)
        if stage == "head":
            assert (spec.train, spec.frozen) == ([], ["teacher"])
        elif "eml" in terms:
            assert (spec.train, spec.frozen) == (["teacher", "student"], [])
        else:
            alone = variant == "alone" or stage == "teacher"
            assert spec.train == [learner]
            assert spec.frozen == ([] if alone else ["teacher"])


@pytest.mark.parametrize(("name", "variant"), cases(ONE, TWO, THREE, SEVEN))
def test_tables_name_the_papers_networks_and_their_own_line(name: str, variant: str) -> None:
    recipe = variant_of(name, variant)
    paper = recipe.paper
    assert paper is not None
    assert all(model.pretrained is True or "shufflenet_v1" in model.arch
               for model in recipe.models.values())  # fmt: skip
    if name not in (TWO, THREE):
        return
    prefix = next(p for p in ("convnext-", "b4-", "") if f"{variant}-".startswith(p))
    assert paper.scenario == TEACHERS[prefix]
    arch = {"": "timm:res2net101_26w_4s", "convnext-": "timm:convnext_base",
            "b4-": "torchvision:efficientnet_b4"}[prefix]  # fmt: skip
    if "teacher" in recipe.models:
        assert recipe.models["teacher"].arch == arch
    if "student" in recipe.models and method_of(variant) != "teacher-alone":
        assert recipe.models["student"].arch == "torchvision:shufflenet_v2_x1_0"


@pytest.mark.parametrize("name", [TWO, THREE, SEVEN, STUDY])
def test_both_stages_together_have_the_epochs_of_the_others(name: str) -> None:
    whole = 4 if name == STUDY else 120
    for variant in variants_of(name):
        recipe, wanted = variant_of(name, variant), expected(name, variant)
        if wanted is None or method_of(variant) in ("alone", "ssd-kd"):
            continue  # single models have 100, SSD-KD its own 150 with an early end
        epochs = {stage: spec.epochs for stage, spec in recipe.stages.items()}
        assert sum(n for stage, n in epochs.items() if stage != "teacher") == whole, variant
    single = variant_of(name, "alone").stages["distill"].epochs
    assert single == (4 if name == STUDY else 100)


def test_ssd_kd_takes_over_the_head_of_the_stage_before() -> None:
    for name, variant in cases(TWO, THREE, STUDY):
        if method_of(variant) == "ssd-kd":
            stages = variant_of(name, variant).stages
            wanted = stages["distill"].losses["ssdkd_self"].params["head_of"]
            assert wanted == "head.contrastive"
            assert stages["head"].losses["contrastive"].to == "teacher"


def test_the_study_names_lines_that_are_there() -> None:
    """So that `edgekd report --against` sets it beside them, and says why it is not compared."""
    named = []
    for variant in variants_of(STUDY):
        paper = variant_of(STUDY, variant).paper
        assert paper is not None
        assert paper.method is not None
        assert published.table(paper.table).rows_of(paper.method, paper.scenario), variant
        frozen = variant not in ("alone", "eml") and paper.table == "dspkd_table2"
        assert paper.members == ({"teacher_alone": "teacher"} if frozen else {})
        named.append((paper.table, paper.method))
    assert len(set(named)) == len(named) == 12


def test_all_variants_of_the_study_deploy_the_same_student() -> None:
    students = [variant_of(STUDY, variant).models["student"] for variant in variants_of(STUDY)]
    assert all(one == students[0] for one in students)
    assert students[0].pretrained is False
    rates = {
        (spec.optimizer.name, spec.optimizer.lr, spec.schedule.name)
        for variant in variants_of(STUDY)
        for spec in variant_of(STUDY, variant).stages.values()
    }
    assert rates == {("adamw", 2e-3, "onecycle")}


def test_the_studys_alpha_is_the_published_one_for_its_maps() -> None:
    """The sum over a map of the teacher's is as many times the mean as it has values."""
    published_factor = 7e-5 * 2048 * 7 * 7
    for variant, loss in (("base", "hf_mgd"), ("mgd", "mgd"), ("mgd-pixels", "mgd")):
        stages = variant_of(STUDY, variant).stages
        (term,) = [s.losses[loss] for s in stages.values() if loss in s.losses]
        assert term.params["alpha"] * 384 * 4 * 4 == pytest.approx(published_factor, rel=0.005)


DRAWN = ("data.name=synthetic", "data.root=null", "data.split=official", "data.batch=8",
         "data.params={images: 120, size: 32}", "data.input={size: 64}")  # fmt: skip
THIN = "{layers: [1, 1, 1, 1], channels: [8, 8, 8, 16]}"


@pytest.mark.parametrize(
    ("name", "variant"),
    [(TWO, "base"), (TWO, "ssd-kd"), (TWO, "eml"), (SEVEN, "mgd"),
     (STUDY, "base"), (STUDY, "ssd-kd"), (STUDY, "mgd-pixels")],
)  # fmt: skip
def test_it_dry_runs(name: str, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*DRAWN, "models.teacher.pretrained=false", f"models.teacher.args={THIN}",
                 "models.student.pretrained=false"]  # fmt: skip
    recipe = variant_of(name, variant, *overrides)
    monkeypatch.setattr(doctor, "_try_export", lambda *_: None)
    free = SimpleNamespace(params=0, macs=0)
    monkeypatch.setattr("edgekd.models.complexity.count", lambda *_: free)
    found: dict[str, Any] = doctor.preflight(recipe, prepare(recipe))
    for key, stage in recipe.stages.items():
        assert set(found["stages"][key]["terms"]) == set(stage.losses)
