"""The guides, done as they say: their files are written, their commands run, their output shown.

A fenced block of Python or YAML whose first line is `# NAME` is a file. In a `console` block a line
that begins with `$ ` is a command; the lines below it must appear in what it prints, in that order,
where `...` stands for anything. A command fails exactly if an `error:` is shown.
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekd.cli import main
from tests.test_docs import FENCE, ROOT

FILE = re.compile(r"# ([\w./-]+\.(?:py|yaml))\n")
GUIDES = {
    "own-teacher": 5,
    "onnx-teacher": 5,
    "own-data": 8,
    "own-loss": 5,
    "dicom": 5,
    "analysis": 6,
    "peers": 5,
    "multilabel": 9,
    "segmentation": 7,
}  # commands in each


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder in which somebody types; what Python imports from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    # it takes most of the time of a small recipe, and `tests/test_cli.py` tries it
    monkeypatch.setattr("edgekd.doctor._try_export", lambda *_: None)
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Exit code of a command, and all that it prints."""
    program, *arguments = shlex.split(command)
    if program == "python" and arguments[0] == "-m":
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        if program == "edgekd":
            return main(arguments), printed.getvalue()
        assert program == "python"
        with warnings.catch_warnings(), monkeypatch.context() as patch:
            warnings.simplefilter("ignore")  # of torch's exporter, in a user's own script
            patch.syspath_prepend(Path.cwd())
            runpy.run_path(arguments[0], run_name="__main__")
    return 0, printed.getvalue()


def missing_line(shown: list[str], printed: str) -> str | None:
    """The first shown line that is not in what was printed, after those before it."""
    lines = iter(printed.splitlines())
    for line in shown:
        pattern = ".*".join(re.escape(part) for part in line.rstrip().split("..."))
        if line != "..." and not any(re.fullmatch(pattern, found.rstrip()) for found in lines):
            return line
    return None


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_does_what_it_says(guide: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "guides" / f"{guide}.md").read_text(encoding="utf-8")
    files = commands = 0
    for language, body in FENCE.findall(text):
        named = FILE.match(body)
        if language in ("python", "yaml") and named:
            path = Path(named.group(1))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body, encoding="utf-8")
            files += 1
        elif language == "console":
            for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
                command, *shown = part.splitlines()
                code, printed = run(command, monkeypatch)
                fails = any(line.startswith("error:") for line in shown)
                assert (code != 0) == fails, f"{command}\n{printed}"
                line = missing_line(shown, printed)
                assert line is None, f"{command}\nshould show: {line}\nbut prints:\n{printed}"
                commands += 1
    assert files >= 2
    assert commands >= GUIDES[guide]


def test_a_guide_that_shows_something_else_is_noticed() -> None:
    printed = "one\nteacher: accuracy 0.413 on 46 test images\nend\n"
    assert missing_line(["...", "teacher: accuracy ... on 46 test images", "..."], printed) is None
    assert missing_line(["end", "one"], printed) == "one"
    assert missing_line(["teacher: accuracy"], printed) == "teacher: accuracy"
