"""A recipe: what it may say, how it is overridden, and how a mistake is named."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from edgekd import recipe_load
from edgekd.errors import RecipeError
from edgekd.recipe_load import load

TEXT = """
edgekd: 1
name: example
task: {name: grading}
data: {name: synthetic, params: {images: 100}}
models:
  teacher: {arch: "timm:resnet18"}
  student: {arch: "timm:resnet10t"}
stages:
  teacher:
    train: [teacher]
    losses: {ce: {to: teacher}}
    optimizer: {lr: 1e-4}
  distill:
    train: [student]
    frozen: [teacher]
    losses:
      ce: {to: student, weight: 0.1}
      kd: {from: teacher, to: student, weight: 0.9, params: {temperature: 4}}
variants:
  alone: {stages.distill.losses.kd: null}
  hot: {stages.distill.losses.kd.params.temperature: 20}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "example.yaml"
    file.write_text(TEXT, encoding="utf-8")
    return file


def problem(path: Path, *overrides: str, variant: str | None = None) -> tuple[str, str]:
    with pytest.raises(RecipeError) as caught:
        load(path, overrides=overrides, variant=variant)
    return caught.value.message, caught.value.hint or ""


def test_scientific_notation_without_a_point_is_a_number(path: Path) -> None:
    assert load(path).stages["teacher"].optimizer.lr == 1e-4


def test_a_single_teacher_may_be_written_without_a_list(path: Path) -> None:
    assert load(path).stages["distill"].losses["kd"].from_ == ["teacher"]


def test_overrides_reach_every_level(path: Path) -> None:
    recipe = load(path, overrides=["stages.distill.epochs=7", "data.params.images=50", "seed=3"])
    assert recipe.stages["distill"].epochs == 7
    assert recipe.data.params == {"images": 50}
    assert recipe.seed == 3


def test_a_variant_is_an_override_with_a_name_of_its_own(path: Path) -> None:
    alone = load(path, variant="alone")
    assert list(alone.stages["distill"].losses) == ["ce"]
    assert alone.name == "example.alone"
    assert load(path, variant="hot").stages["distill"].losses["kd"].params == {"temperature": 20}


def test_the_command_line_wins_over_the_variant(path: Path) -> None:
    recipe = load(path, variant="hot", overrides=["stages.distill.losses.kd.params.temperature=2"])
    assert recipe.stages["distill"].losses["kd"].params == {"temperature": 2}


@pytest.mark.parametrize("variant", [None, "hot", "alone"])
def test_a_resolved_recipe_reads_back_to_itself_without_the_other_variants(
    path: Path, tmp_path: Path, variant: str | None
) -> None:
    recipe = load(path, variant=variant)
    copy = tmp_path / "resolved.yaml"
    copy.write_text(recipe_load.to_yaml(recipe), encoding="utf-8")
    assert load(copy) == recipe.model_copy(update={"variants": {}})


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("stages.distill.losses.kd.wieght=2", "stages.distill.losses.kd.wieght: unknown key",
         "weight"),
        ("dat.batch=2", "dat: unknown key", "data"),
        ("data.input.sice=2", "data.input.sice: unknown key", "size"),
        ("hardware.precision=bf16", "'bf16' is not one of", "bf16-mixed"),
        ("stages.distill.epochs=many", "stages.distill.epochs", ""),
        ("stages.distill.epochs=0", "greater than 0", ""),
        ("models.student.arch=resnet18", "must start with timm:", ""),
        ("stages.distill.losses.ce.to=studnet", "'studnet' is in neither", ""),
        ("stages.distill.train=[studnet]", "there is no model 'studnet'; did you mean 'student'?",
         ""),
        ("export.model=pupil", "export.model: there is no model 'pupil'", ""),
        ("export.gate.max_drop=5", "export.gate.max_drop", ""),
        ("name=../elsewhere", "name", ""),
        ("data.input={size: 64, resize: 32}", "resize must be at least size", ""),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_file_and_key(
    path: Path, override: str, message: str, hint: str
) -> None:
    found, suggestion = problem(path, override)
    assert message in found
    assert str(path) in found
    assert hint in suggestion


def test_several_mistakes_are_listed_together(path: Path) -> None:
    message, _ = problem(path, "data.bach=2", "stages.teacher.epochs=-1")
    assert "data.bach" in message
    assert "stages.teacher.epochs" in message


def test_an_unknown_variant_is_named_with_a_suggestion(path: Path) -> None:
    message, hint = problem(path, variant="alne")
    assert "'alne'" in message
    assert "alone" in hint


def test_removing_what_is_not_there_is_a_mistake(path: Path) -> None:
    message, hint = problem(path, "stages.distill.losses.dk=null")
    assert "there is no 'dk' to remove" in message
    assert "kd" in hint


def test_a_broken_variant_is_found_when_the_recipe_is_loaded(path: Path) -> None:
    path.write_text(TEXT + "  broken: {stages.distill.epoch: 1}\n", encoding="utf-8")
    message, _ = problem(path)
    assert "variants.broken" in message
    assert "stages.distill.epoch: unknown key" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\n", "first key must be"),
        ("- a\n", "a mapping of keys"),
        ("edgekd: 1\nname: x\nname: y\n", "'name' is written twice"),
        ("edgekd: [1\n", "not valid YAML"),
        ("edgekd: 2\nname: x\n", "edgekd"),
        ("edgekd: 1\nname: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_what_is_not_a_recipe_says_so(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text, encoding="utf-8")
    assert message in problem(file)[0]


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    assert "no such recipe" in problem(tmp_path / "none.yaml")[0]
    assert "is a folder" in problem(tmp_path)[0]


def test_the_json_schema_accepts_what_loads_and_refuses_a_typo() -> None:
    schema = recipe_load.json_schema()
    tree = yaml.safe_load(TEXT.replace("1e-4", "0.0001"))
    jsonschema.validate(tree, schema)
    tree["stages"]["distill"]["epoch"] = 3
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tree, schema)
