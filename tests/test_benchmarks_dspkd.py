"""The page of DSP-KD: gathered from a sweep's folder, and saying what was not run."""

from __future__ import annotations

import importlib
import json
import xml.etree.ElementTree as xml
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgekd import catalog
from edgekd.errors import DataError
from edgekd.recipe_load import load, read_tree, to_yaml
from edgekd.results import Predictions, dump_json
from edgekd.rundir import RunDir, write_text
from edgekd.tasks.classification import Classification

ROOT = Path(__file__).parents[1]
STUDY = "studies/dspkd-ham10000"
KINDS = ["nv", "mel", "bkl", "akiec", "vasc", "df"]
TRAIN, TEST = [80, 20, 20, 6, 4, 2], [70, 18, 16, 12, 11, 10]
PER_SEED = tuple[float, ...]


def module(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return module("dspkd_tables")


@pytest.fixture(scope="module")
def claims() -> ModuleType:
    return module("dspkd_claims")


def scores_of(value: float, **single: float) -> dict[str, Any]:
    """The same value for all scores but the named ones."""
    names = ["accuracy", "macro_f1", "precision", "recall", "specificity", "fidelity"]
    names += [f"f1_{name}" for name in KINDS]
    return {name: {"value": single.get(name, value), "direction": "higher"} for name in names}


def record(teacher: float = 0.7, /, **accuracies: PER_SEED) -> dict[str, Any]:
    """`stage1_kd=(0.8, 0.9)` is the variant stage1-kd with the seeds 1 and 2."""
    cells = {}
    for name, found in accuracies.items():
        for seed, value in enumerate(found, 1):
            scores = {"student": scores_of(value)}
            if name != "alone":
                scores["teacher"] = scores_of(teacher)
            cells[f"{name.replace('_', '-')}/{seed}"] = {
                "model": "student", "scores": scores,
                "confusion": np.diag(TEST).tolist(),
            }  # fmt: skip
    return {
        "command": "c", "seeds": [1, 2, 3], "model": "student", "host": {"cpu": "x"},
        "variants": [name.replace("_", "-") for name in accuracies],
        "split": {"train": 132, "val": 2, "test": 137}, "classes": KINDS, "train": TRAIN,
        "copied": [80, 40, 40, 40, 40, 40], "test": TEST,
        "costs": {"teacher": {"params": 623_163, "macs": 51_798_176},
                  "student": {"params": 348_967, "macs": 13_558_272}},
        "cells": cells,
    }  # fmt: skip


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"| {start} |"))


def test_without_results_every_block_of_the_sweep_says_so(
    tables: ModuleType, claims: ModuleType
) -> None:
    made = tables.blocks(None)
    for name in ("facts", "methods", "best", "ablation", "classes", "figures"):
        assert made[name] == tables.NOT_RUN_YET
    text = (ROOT / "docs" / "papers" / "dspkd.md").read_text(encoding="utf-8")
    for name, block in claims.blocks(None, None).items():
        assert f"<!-- block {name} -->" in text
        assert "nan" not in block
    verdicts = claims.claims(None, None).splitlines()[2:]
    assert len(verdicts) == 5
    assert all(line.endswith("| not run |") for line in verdicts)


def test_the_study_has_the_variants_of_the_tables(tables: ModuleType) -> None:
    names = ["base", *read_tree(catalog.find(STUDY))["variants"]]
    assert sorted(names) == sorted(tables.ORDER)


def test_a_record_with_nothing_in_it_claims_nothing(claims: ModuleType) -> None:
    made = claims.blocks(record(), None)
    for name in ("methods", "best", "ablation", "classes"):
        for row in [line for line in made[name].splitlines() if line.startswith("| ")][1:]:
            measured = row.split(" | ", 1)[1]
            if name != "ablation":  # which has published figures, too
                assert not any(sign in measured for sign in ("[", "0.", "nan")), row
            assert "not run" in row
    assert all(row.endswith("| not run |") for row in made["claims"].splitlines()[2:])


def test_published_figures_stand_apart_and_are_not_compared(tables: ModuleType) -> None:
    text = tables.beside(record(base=(0.8, 0.82), kd=(0.7, 0.7)))
    assert text.startswith("Not comparable: ")
    assert line_of(text, "**DSP-KD**") == (
        "| **DSP-KD** | 0.9283 | 0.8939 | 0.8901 | 0.9493 | 0.9289 | 0.9201 | 0.810 ± 0.014 "
        "| not comparable |"
    )
    assert line_of(text, "teacher").endswith("| 0.700 ± 0.000 | not comparable |")
    assert line_of(text, "FitNet").endswith("| not run | not comparable |")


def test_every_method_stands_beside_dspkd(tables: ModuleType) -> None:
    text = tables.methods(record(base=(0.8, 0.9), kd=(0.7, 0.7), eml=(0.6, 0.6)))
    gain = "+0.150 [-0.485, +0.785]"
    assert line_of(text, "KD").endswith(f"| 0.700 ± 0.000 | {gain} | {gain} | 2 |")
    assert line_of(text, "teacher").endswith(f"| – | {gain} | {gain} | 2 |")
    assert line_of(text, "**DSP-KD**").endswith("| 0.850 ± 0.071 |  |  | 2 |")
    assert " | – | " in line_of(text, "EML (re-derived)")  # its teacher learns beside it


def test_the_teacher_is_the_frozen_one(tables: ModuleType) -> None:
    found = record(eml=(0.6, 0.6), kd=(0.7,))
    for seed in (1, 2):
        found["cells"][f"eml/{seed}"]["scores"]["teacher"] = scores_of(0.1)
    assert tables.of_teacher(found, "accuracy") == {1: 0.7}


def test_the_best_of_the_others_has_all_seeds_of_dspkd(tables: ModuleType) -> None:
    found = record(base=(0.8, 0.8), mgd=(0.7, 0.72), ssd_kd=(0.95,), stage1=(0.99, 0.99))
    assert tables.best_of_others(found, "accuracy") == "mgd"  # parts of DSP-KD are no others
    assert line_of(tables.best(found), "accuracy").startswith("| accuracy | MGD | 0.710 ± 0.014 |")
    assert tables.best_of_others(record(kd=(0.7,)), "accuracy") is None


def test_a_gain_is_over_the_line_that_it_adds_to(tables: ModuleType) -> None:
    text = tables.ablation(record(alone=(0.5,), mgd_pixels=(0.6,), stage1=(0.65,), base=(0.9,)))
    stage1 = line_of(text, "S+MGD+HF (stage 1)")
    assert stage1.startswith("| S+MGD+HF (stage 1) | 0.9089 | +0.0235 | 0.650 | 0.650 |")
    assert stage1.endswith("| MGD, pixels hidden | +0.050 | +0.050 | 1 |")
    assert line_of(text, "S+MGD+HF+NKD (DSP-KD)").endswith("| stage 1 | +0.250 | +0.250 | 1 |")
    assert line_of(text, "S+NKD (stage 2)").endswith("| KD | not run | not run | 0 |")


def test_classes_come_by_their_training_images(tables: ModuleType) -> None:
    text = tables.classes(record(base=(0.9,), ssd_kd=(0.5,)))
    rows = text.splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == KINDS
    assert rows[-1] == (
        "| df | 2 | 40 | 10 | not run | not run | not run | 0.500 | 0.900 | +0.400 |"
    )


def test_a_claim_needs_all_of_its_comparisons(claims: ModuleType) -> None:
    def verdict(number: int, **found: PER_SEED) -> str:
        row = claims.claims(record(0.7, **found), None).splitlines()[2 + number]
        return str(row.split(" | ")[1].removesuffix(" |"))

    high, low, wide = (0.90, 0.91, 0.92), (0.50, 0.51, 0.52), (0.1, 0.9, 0.5)
    # above its teacher of 0.7, below it, or neither
    assert verdict(0, base=high) == "**supported** (1 as claimed)"
    assert verdict(0, base=low) == "**not supported** (1 against it)"
    assert verdict(0, base=wide) == "**cannot be concluded** (1 undecided)"
    assert verdict(0, base=(0.9,)) == "**cannot be concluded** (1 undecided)"  # one seed
    assert verdict(1, base=high, stage1=low) == "**not run** (1 as claimed, 1 not run)"
    assert verdict(1, base=low, stage1=high) == "**not supported** (1 against it, 1 not run)"
    both = verdict(1, base=high, stage1=low, stage2=high)
    assert both == "**cannot be concluded** (1 as claimed, 1 undecided)"
    both = verdict(2, stage1=high, mgd_pixels=low, stage2=high, kd=low)
    assert both == "**supported** (2 as claimed)"


def test_the_gain_of_rare_classes_is_compared_with_that_of_the_others(claims: ModuleType) -> None:
    found = record(base=(0.6, 0.61, 0.62), ssd_kd=(0.5, 0.51, 0.52))
    for seed in (1, 2, 3):
        own = {f"f1_{name}": 0.8 + seed / 100 for name in ("akiec", "vasc", "df")}
        found["cells"][f"base/{seed}"]["scores"]["student"] = scores_of(0.59 + seed / 100, **own)
    first, second = claims.rare_classes(found, None)
    assert first.here == "+0.210 [+0.210, +0.210]"  # 0.31 for three classes, 0.1 for the others
    assert (first.says, second.says) == ("as claimed", "as claimed")
    assert (first.published, second.published) == ("+0.0196", "+0.1051")
    assert claims.verdict([first, second]) == "**supported** (2 as claimed)"
    found["test"] = [70, 18, 16, 12, 11, 9]
    few = claims.verdict(claims.rare_classes(found, None))
    assert few == "**cannot be concluded**: 9 test images of df (2 as claimed)"


def test_published_differences_are_those_of_the_printed_lines(claims: ModuleType) -> None:
    text = claims.comparisons(record(base=(0.8,)), None)
    figures = [row.split(" | ")[1] for row in text.splitlines()[2:]]
    assert figures == ["+0.0024 (ISIC2019), +0.0027 (PSD)", "+0.0194", "+0.0455", "+0.0235",
                       "+0.0089", "+0.0196", "+0.1051", "12.9x", "12.9x"]  # fmt: skip


def timing(eager: list[float]) -> dict[str, Any]:
    """The student takes 10 ms, the teacher these times as long."""
    times = {}
    for threads in ("1", "all"):
        times[f"Res2Net101/torch-fp32/{threads}"] = [10 * one for one in eager]
        times[f"ShuffleNetV2/torch-fp32/{threads}"] = [10.0] * len(eager)
    return {"step_ms": times}


@pytest.mark.parametrize(
    ("eager", "word"),
    [([14.0] * 7, "supported"), ([11.0] * 7, "not supported"),
     ([10.0, 14, 15, 10, 16, 11, 14], "cannot be concluded")],
)  # fmt: skip
def test_the_speed_is_asked_of_the_same_two_networks(
    claims: ModuleType, eager: list[float], word: str
) -> None:
    found = claims.as_fast(None, timing(eager))
    assert len(found) == 2
    assert claims.verdict(found).startswith(f"**{word}** (2 ")


def write_run(
    sweep: Path, variant: str, seed: int, *, targets: list[int], wrong: int = 0
) -> RunDir:
    """What a sweep leaves of a finished run, as far as it is read: three classes."""
    run = RunDir(sweep / "runs" / f"{variant}.seed{seed}")
    recipe = load(catalog.find(STUDY), variant=None if variant == "base" else variant)
    write_text(run.recipe, to_yaml(recipe))
    decided = np.array(targets)
    decided[:wrong] = (decided[:wrong] + 1) % 3
    ids = [f"t{number}" for number in range(len(targets))]
    logits = np.eye(3, dtype=np.float32)[decided]
    test = Predictions(ids, ids, np.array(targets), logits)
    test.save(run.predictions("student", "test"))
    found = Classification(classes=["a", "b", "c"]).score(test, resamples=0)
    kept = {name: score.model_dump() for name, score in found.items()}
    write_text(run.scores, dump_json({m: {"val": {}, "test": kept} for m in recipe.models}))
    rows = [f"i{number},{target},g,train" for number, target in enumerate([0] * 8 + [1] * 3 + [2])]
    write_text(run.split, "\n".join(["id,target,group,part", *rows, "t0,1,g,test"]) + "\n")
    write_text(run.environment, dump_json({
        "split": {"train": 12, "val": 1, "test": len(targets)}, "classes": ["a", "b", "c"],
        "host": {"cpu": "x", "python": "3"},
        "models": {m: {"params": 100, "macs": 10} for m in recipe.models},
    }))  # fmt: skip
    return run


TARGETS = [0, 1, 1, 2, 2, 2]


def test_the_finished_runs_of_a_sweep_are_gathered(tmp_path: Path) -> None:
    collect = module("dspkd").collect
    write_run(tmp_path, "base", 1, targets=TARGETS, wrong=2)
    write_run(tmp_path, "ssd-kd", 2, targets=TARGETS)
    unfinished = write_run(tmp_path, "alone", 1, targets=TARGETS)
    unfinished.environment.unlink()
    found = json.loads(dump_json(collect(tmp_path)))
    assert list(found["cells"]) == ["base/1", "ssd-kd/2"]
    assert found["variants"] == ["ssd-kd", "base"]
    assert found["command"] == f"edgekd sweep {STUDY} --variant ssd-kd,base --seeds 1,2"
    assert found["cells"]["base/1"]["confusion"] == [[0, 1, 0], [0, 1, 1], [0, 0, 3]]
    assert found["cells"]["base/1"]["scores"]["student"]["f1_c"]["value"] == pytest.approx(6 / 7)
    assert (found["train"], found["test"]) == ([8, 3, 1], [1, 2, 3])
    assert found["copied"] == [8, 4, 4]  # up to half of the largest class
    assert "root" not in json.dumps(found)


def test_runs_on_other_images_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, "base", 1, targets=TARGETS)
    write_run(tmp_path, "kd", 1, targets=[0, 0, 1, 2, 2, 2])
    with pytest.raises(DataError, match="not those of the other runs"):
        module("dspkd").collect(tmp_path)
    with pytest.raises(DataError, match="no finished runs there"):
        module("dspkd").collect(tmp_path / "elsewhere")


def test_some_runs_fill_the_page_and_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dspkd, papers = module("dspkd"), module("papers")
    page = ROOT / "docs" / "papers" / "dspkd.md"
    write_text(tmp_path / "docs" / "dspkd.md", page.read_text(encoding="utf-8"))
    for script in (dspkd, papers):
        monkeypatch.setattr(script, "HERE", tmp_path)
    monkeypatch.setattr(papers, "DOCS", tmp_path / "docs")
    write_run(tmp_path / "sweep", "base", 1, targets=TARGETS)
    write_run(tmp_path / "sweep", "alone", 1, targets=TARGETS, wrong=3)
    assert dspkd.main([str(tmp_path / "sweep")]) == 0
    text = (tmp_path / "docs" / "dspkd.md").read_text(encoding="utf-8")
    assert "| **DSP-KD** | 1.000 | 1.000 |" in text
    assert "| KD | not run |" in text
    assert "| 4. 12.9 times faster than the teacher | not run |" in text
    for name in module("dspkd_tables").FIGURES:
        assert f"](dspkd/{name})" in text
        assert (tmp_path / "docs" / "dspkd" / name).is_file()
    assert text.count("Not run yet: `python benchmarks/table6.py`.") == 4


def test_drawings_are_plain_svg_with_every_class() -> None:
    figures = module("dspkd_figures")
    found = record(alone=(0.5, 0.6), base=(0.8, 0.9))
    drawn = figures.drawings(found)
    assert drawn == figures.drawings(found)
    for name, drawing in drawn.items():
        root = xml.fromstring(drawing)
        texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
        assert set(KINDS) <= set(texts), name
        assert len(drawing) < 60_000
        assert "script" not in drawing
    assert "DSP-KD" in drawn["classes.svg"]
    assert "SSD-KD" not in drawn["classes.svg"]  # not run
    assert figures.mean_shares(found, "base").tolist() == np.eye(6).tolist()


def test_the_drawings_in_the_repository_are_those_of_the_results() -> None:
    path = ROOT / "benchmarks" / "results" / "dspkd-ham10000.json"
    folder = ROOT / "docs" / "papers" / "dspkd"
    if not path.is_file():
        assert not folder.exists()
        return
    drawn = module("dspkd_figures").drawings(json.loads(path.read_text(encoding="utf-8")))
    assert {one.name for one in folder.iterdir()} == set(drawn)
    for name, drawing in drawn.items():
        assert (folder / name).read_text(encoding="utf-8") == drawing, f"{name} is out of date"


def test_photographs_are_never_written_into_the_repository(tmp_path: Path) -> None:
    pictures = module("dspkd_pictures")
    with pytest.raises(DataError, match="inside of the repository"):
        next(pictures.write(tmp_path, ROOT / "docs" / "papers" / "photographs"))
    assert not (ROOT / "docs" / "papers" / "photographs").exists()


def test_a_sheet_holds_its_pictures_and_the_licence(tmp_path: Path) -> None:
    from PIL import Image

    pictures = module("dspkd_pictures")
    image = np.full((20, 30, 3), 200, dtype=np.uint8)
    red = pictures.tinted(image, np.eye(20, 30))
    assert red[0, 0].tolist() == [213, 86, 86]
    assert red[0, 1].tolist() == [200, 200, 200]
    path = pictures.sheet(tmp_path / "sheet.png", [[("a: one", image), ("mask", red)]])
    with Image.open(path) as found:
        assert found.size == (2 * 150, 144 + 14 + 6 + 14)
        assert found.getpixel((40, 100)) == (200, 200, 200)
    assert "CC BY-NC" in pictures.NOTICE
