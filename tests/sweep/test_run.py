"""A sweep as a scheduler: nothing lost, nothing run twice, failures collected, budgets kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekd.cli import main
from edgekd.errors import EdgekdError
from edgekd.locks import try_lock
from edgekd.sweep import workers
from edgekd.sweep.run import parse_budget
from edgekd.sweep.state import claim, is_claimed
from tests.sweep import fake

ALL = [f"{variant}.seed{seed}" for seed in (1, 2) for variant in ("base", "alone", "warm")]


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "notes"
    fake.use(monkeypatch, path)
    return path


def sweep(path: Path, out: Path, *arguments: str) -> int:
    return main(["sweep", str(path), "--out", str(out), *arguments])


def listed(path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert sweep(path, out, "--list", "--json") == 0
    return {row["trial"]: row for row in json.loads(capsys.readouterr().out)}


def test_variants_times_seeds_run_once_and_give_one_table(
    tmp_path: Path, notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = fake.tree(tmp_path), tmp_path / "sweep"
    assert sweep(path, out, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert fake.starts(notes) == ALL  # seed by seed
    assert record["baseline"] == "alone"
    assert set(record["cells"]) == {f"{v}/{s}" for v in ("base", "alone", "warm") for s in (1, 2)}
    text = (out / "results.md").read_text()
    assert "| student | `base` | 0.611 ± 0.007 | +0.100 [+0.100, +0.100] |" in text
    assert sweep(path, out) == 0
    assert fake.starts(notes) == ALL  # the second call found everything done
    assert "Δ to alone" in capsys.readouterr().out


def test_chosen_variants_and_seeds_only(
    tmp_path: Path, notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = fake.tree(tmp_path), tmp_path / "sweep"
    assert sweep(path, out, "--variant", "warm,base", "--seeds", "7", "--baseline", "warm") == 0
    assert sorted(fake.starts(notes)) == ["base.seed7", "warm.seed7"]
    assert sweep(path, out, "--variant", "base", "--variant", "alone", "--seeds", "7,8") == 0
    assert sorted(fake.starts(notes)[2:]) == ["alone.seed7", "alone.seed8", "base.seed8"]


def test_jobs_share_the_cores_out(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.sweep.workers.usable_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert sweep(fake.tree(tmp_path), tmp_path / "sweep", "--jobs", "3", "--seeds", "1") == 0
    assert {line.split()[2] for line in notes.read_text().splitlines()} == {"2"}


def test_jobs_are_dealt_out_over_the_gpus() -> None:
    from edgekd.sweep.workers import environment

    given = [environment(slot=slot, jobs=3, gpus=["0", "5"])["CUDA_VISIBLE_DEVICES"]
             for slot in range(3)]  # fmt: skip
    assert given == ["0", "5", "0"]


def test_a_failure_is_collected_and_tried_again_by_the_next_call(
    tmp_path: Path,
    notes: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, out = fake.tree(tmp_path), tmp_path / "sweep"
    monkeypatch.setenv("FAKE_FAILS", "alone.seed1")
    assert sweep(path, out) == 2
    said = capsys.readouterr()
    assert "1 of 6 runs failed\n  alone.seed1: the disk is made of cheese" in said.err
    assert "1/2 (1 failed)" in said.out
    assert fake.starts(notes) == ALL
    assert listed(path, out, capsys)["alone.seed1"]["status"] == "failed"
    monkeypatch.delenv("FAKE_FAILS")
    assert sweep(path, out) == 0
    assert fake.starts(notes) == [*ALL, "alone.seed1"]


def test_a_killed_worker_is_started_again_where_it_was(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_DIES", "base.seed1")
    path, out = fake.tree(tmp_path), tmp_path / "sweep"
    assert sweep(path, out, "--variant", "base", "--seeds", "1") == 0
    assert fake.starts(notes) == ["base.seed1", "base.seed1"]
    assert fake.epochs(notes) == [f"base.seed1/{epoch}" for epoch in (1, 2, 3, 4)]


def test_a_killed_sweep_loses_nothing_and_runs_nothing_twice(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EPOCH_S", "0.3")
    path, out = fake.tree(tmp_path), tmp_path / "sweep"
    process = fake.sweep_process(str(path), "--out", str(out))
    fake.wait_for(lambda: len(fake.epochs(notes)) >= 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    rows = listed(path, out, capsys)
    assert rows["base.seed1"]["status"] == "running"  # its process lives on
    assert rows["alone.seed1"]["status"] == "to do"
    monkeypatch.setenv("EPOCH_S", "0.02")
    assert sweep(path, out) == 0
    assert sorted(fake.starts(notes)) == sorted(ALL)
    assert sorted(fake.epochs(notes)) == sorted(f"{n}/{e}" for n in ALL for e in (1, 2, 3, 4))


def test_two_sweeps_of_one_folder_share_the_work(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPOCH_S", "0.1")
    path, out = fake.tree(tmp_path), tmp_path / "sweep"
    others = [fake.sweep_process(str(path), "--out", str(out)) for _ in range(2)]
    for process in others:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()
    assert sorted(fake.starts(notes)) == sorted(ALL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_lets_its_runs_save_and_goes_on(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setenv("EPOCH_S", "0.2")
    path, out = fake.tree(tmp_path), tmp_path / "sweep"
    process = fake.sweep_process(str(path), "--out", str(out))
    fake.wait_for(lambda: len(fake.epochs(notes)) >= 2)
    process.send_signal(number)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 130, said.decode()
    assert b"error: interrupted" in said
    assert b"not run" in printed  # the table says what there is
    before = fake.epochs(notes)
    monkeypatch.setenv("EPOCH_S", "0.01")
    assert sweep(path, out) == 0
    assert fake.epochs(notes)[: len(before)] == before
    assert sorted(fake.epochs(notes)) == sorted(f"{n}/{e}" for n in ALL for e in (1, 2, 3, 4))


def test_the_budget_ends_the_sweep_and_the_rest_says_not_run(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EPOCH_S", "0.4")
    path, out = fake.tree(tmp_path), tmp_path / "sweep"
    assert sweep(path, out, "--budget", "1.5s") == 0
    said = capsys.readouterr()
    assert "the budget of 2 s is spent: runs save and stop" in said.err
    assert "not run" in said.out
    assert sweep(path, out, "--budget", "1.5s") == 2
    assert "is spent already: this sweep has worked for" in capsys.readouterr().err
    monkeypatch.setenv("EPOCH_S", "0.01")
    assert sweep(path, out, "--budget", "1h") == 0
    assert "not run" not in capsys.readouterr().out
    assert sweep(path, out, "--budget", "1.5s") == 0  # nothing is left to pay for


def test_a_trial_held_by_another_process_is_waited_for_not_started(tmp_path: Path) -> None:
    path = tmp_path / "claims" / "x.lock"
    first = claim(path)
    assert first is not None
    assert claim(path) is None
    os.close(first)
    again = claim(path)
    assert again is not None
    os.close(again)


def test_a_look_at_a_claim_is_not_a_claim(tmp_path: Path) -> None:
    path = tmp_path / "claims" / "x.lock"
    held = claim(path)
    assert held is not None
    assert is_claimed(path)
    os.close(held)
    assert not is_claimed(path)
    first, second = try_lock(path, shared=True), try_lock(path, shared=True)
    assert first is not None  # two may look at once
    assert second is not None
    os.close(first), os.close(second)


def test_a_trial_that_another_process_snatches_does_not_end_the_sweep(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refused = workers.start, []

    def start(*arguments: Any, **options: Any) -> Any:
        if not refused:
            refused.append(1)
            return None
        return real(*arguments, **options)

    monkeypatch.setattr("edgekd.sweep.run.start", start)
    assert sweep(fake.tree(tmp_path), tmp_path / "sweep", "--seeds", "1") == 0
    assert len(fake.starts(notes)) == 3


def test_list_estimates_from_what_is_done(
    tmp_path: Path, notes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = fake.tree(tmp_path), tmp_path / "sweep"
    assert listed(path, out, capsys)["base.seed1"]["seconds_left"] is None
    assert not out.exists()  # looking writes nothing
    assert sweep(path, out, "--variant", "base", "--seeds", "1") == 0
    assert sweep(path, out, "--list") == 0
    assert "1 done, 5 to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("45m", 2700), ("2h", 7200), ("1h30m", 5400)]
)
def test_budgets(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["45", "m", "", "0m", "-5m", "1d", "soon"])
def test_budgets_that_are_none(text: str) -> None:
    with pytest.raises(EdgekdError, match="expected a time like 45m"):
        parse_budget(text)


def test_a_job_runs_nothing_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("json", "edgekd"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger ran')\n")
    own = str(Path(workers.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", workers.START, own, "distill", "none.yaml"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2
    assert "none.yaml" in done.stderr
