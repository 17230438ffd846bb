"""One fake run for all tests that only read it; drawing its page once saves most of the time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgekd.report.render import ReportFiles, report
from edgekd.rundir import RunDir
from tests.report import fake_run


@dataclass(frozen=True)
class Reported:
    run: RunDir
    files: ReportFiles

    @property
    def html(self) -> str:
        return self.files.html.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """A complete run and its report. Do not write into it."""
    run = fake_run.write(tmp_path_factory.mktemp("run") / "quickstart")
    return Reported(run, report([run.root]))


@pytest.fixture
def copy_run(reported: Reported, tmp_path: Path) -> Callable[..., RunDir]:
    """A run of one's own to damage or to take away from."""

    def copy(name: str = "copy") -> RunDir:
        import shutil

        shutil.copytree(reported.run.root, tmp_path / name)
        return RunDir(tmp_path / name)

    return copy


@pytest.fixture
def edit() -> Callable[[Path, Callable[[Any], None]], None]:
    """Change a JSON file in place."""

    def change(path: Path, how: Callable[[Any], None]) -> None:
        tree = json.loads(path.read_text(encoding="utf-8"))
        how(tree)
        path.write_text(json.dumps(tree), encoding="utf-8")

    return change
