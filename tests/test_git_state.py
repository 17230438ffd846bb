"""The git state of a recipe's folder: a commit and whether it is what lies there, nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgekd.git_state import git_state
from edgekd.rundir import RunDir

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not here")
URL = "ssh://somebody@secret.example/repo"


def git(folder: Path, *words: str) -> str:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = [
        "git",
        "-c",
        "user.name=somebody",
        "-c",
        "user.email=somebody@secret.example",
        *words,
    ]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed recipe; the working folder is elsewhere, and no repository."""
    folder = tmp_path / "project" / "recipes"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("edgekd: 1\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    git(folder, "init", "-q")
    git(folder, "remote", "add", "origin", URL)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder / "mine.yaml"


def test_a_commit_and_nothing_that_names_a_person_or_place(recipe: Path, tmp_path: Path) -> None:
    state = git_state(recipe)
    head = git(recipe.parent, "rev-parse", "HEAD")
    assert state == {"commit": head, "is_dirty": False, "of": "its file's folder"}
    assert not any(word in str(state) for word in ("secret", "somebody", str(tmp_path)))


def test_a_changed_file_and_a_new_recipe_are_dirty(recipe: Path) -> None:
    new = recipe.with_name("new.yaml")
    new.write_text("edgekd: 1\n")
    for file, is_dirty in ((recipe, False), (new, True)):
        state = git_state(file)
        assert state is not None
        assert state["is_dirty"] is is_dirty
    recipe.write_text("edgekd: 1 # changed\n")
    state = git_state(recipe)
    assert state is not None
    assert state["is_dirty"] is True


def test_elsewhere_the_working_folder_counts(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path / "alone.yaml"
    alone.write_text("edgekd: 1\n")
    assert git_state(alone) is None
    monkeypatch.chdir(recipe.parent)
    state = git_state(alone)
    assert state is not None
    assert (state["is_dirty"], state["of"]) == (False, "working folder")


def test_without_git_or_a_commit(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path / "elsewhere", "init", "-q")
    assert git_state(tmp_path / "elsewhere" / "x.yaml") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(recipe) is None


def test_a_stranger_s_hook_is_not_run(recipe: Path, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    git(recipe.parent, "config", "core.fsmonitor", str(hook))
    assert git_state(recipe) is not None
    assert not (tmp_path / "ran").exists()


def test_distill_is_told_the_state_of_the_recipe_s_folder(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekd.cli import main
    from edgekd.train.run import Summary

    recipe.write_text(
        "edgekd: 1\nname: mine\ndata: {name: synthetic}\n"
        "models: {student: {arch: 'timm:resnet10t'}}\n"
        "stages: {only: {train: student, losses: {ce: {to: student}}}}\n"
    )
    told: list[object] = []

    def distill(_: object, run: RunDir, **options: object) -> Summary:
        told.append(options["git"])
        return Summary(run.root)

    monkeypatch.setattr("edgekd.train.run.distill", distill)
    assert main(["distill", str(recipe)]) == 0
    assert told == [git_state(recipe)]


@pytest.mark.parametrize("name", ["theirs", "dotted.name", "with=sign", "\u00e4"])
def test_a_stranger_s_filter_is_not_run(recipe: Path, tmp_path: Path, name: str) -> None:
    attributes = recipe.with_name(".gitattributes")
    attributes.write_text(f"*.yaml filter={name}\n")
    git(recipe.parent, "add", ".")
    git(recipe.parent, "commit", "-q", "-m", "attributes")
    for setting in ("clean", "process"):
        git(recipe.parent, "config", f"filter.{name}.{setting}", f"touch {tmp_path}/ran; cat")
    git(recipe.parent, "config", f"filter.{name}.required", "true")
    recipe.write_text("edgekd: 2\n")  # of the same size: git has to read it
    state = git_state(recipe)
    assert state is not None
    assert state["is_dirty"] is True
    assert not (tmp_path / "ran").exists()


def test_nor_is_one_of_a_submodule(recipe: Path, tmp_path: Path) -> None:
    inner = recipe.parent / "inner"
    inner.mkdir()
    (inner / "a.txt").write_text("1")
    (inner / ".gitattributes").write_text("*.txt filter=x\n")
    git(inner, "init", "-q")
    git(inner, "add", ".")
    git(inner, "commit", "-q", "-m", "inner")
    git(recipe.parent, "add", ".")
    git(recipe.parent, "commit", "-q", "-m", "with inner")
    git(inner, "config", "filter.x.clean", f"touch {tmp_path}/ran; cat")
    (inner / "a.txt").write_text("2")
    state = git_state(recipe)
    assert state is not None
    assert state["is_dirty"] is False
    assert not (tmp_path / "ran").exists()
