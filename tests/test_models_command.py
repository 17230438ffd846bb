"""`edgekd doctor models`: sizes of networks beside the printed ones."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgekd.cli import main
from edgekd.models import zoo

SMALL = tuple(entry for entry in zoo.NETWORKS if entry.name in ("ShuffleNetV1", "wide-ShuffleNet"))


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(SMALL) == 2
    monkeypatch.setattr(zoo, "NETWORKS", SMALL)


def test_the_table_has_our_figures_and_the_printed_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor", "models"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == [
        "ShuffleNetV1", "edgekd:shufflenet_v1", "8", "0.912", "0.912", "0.143", "0.143",
        "dspkd_table1", "match",
    ]  # fmt: skip
    assert lines[2] == [
        "wide-ShuffleNet", "-", "-", "-", "1.8", "-", "-", "dspkd_table6", "not", "reproducible",
    ]  # fmt: skip
    assert lines[3][0] == "wide-ShuffleNet:"  # why not


def test_json_is_one_document_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "models", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in found] == ["match", "not reproducible"]
    assert found[0]["params_m"] == found[0]["published_params_m"] == 0.912
    assert found[1]["params_m"] is None


def test_without_torch_it_says_what_is_missing() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from edgekd.cli import main; "
        "sys.exit(main(['doctor', 'models']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "edgekd doctor models needs the package 'torch'" in done.stderr
