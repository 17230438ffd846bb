"""What each way to fewer bits costs, and what it gains on this machine.

    edgekd sweep studies/int8-ham10000 data.root=path/to/ham10000 --out runs/int8
    python benchmarks/quantization.py runs/int8

exports every finished run of the sweep (what is there and up to date stays), times all artifacts
of the first seed's undisturbed students against each other, and writes scores, gates, sizes and
latencies to `results/int8-ham10000.json`. The same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import quantization_table

from edgekd import stats
from edgekd.bench.run import bench
from edgekd.bench.timing import measure
from edgekd.bundle import Artifact, Check, Manifest, read_manifest
from edgekd.errors import GateFailed
from edgekd.export.gate import why
from edgekd.export.make import export
from edgekd.host import host_facts
from edgekd.log import say
from edgekd.recommend import may_ship, recommend
from edgekd.results import Predictions, dump_json
from edgekd.rundir import RunDir, write_text
from edgekd.runtimes.base import Arrays
from edgekd.runtimes.session import open_session, resolve
from edgekd.tasks.classification import Classification

HERE = Path(__file__).parent
NAME = "int8-ham10000"
DOCUMENT = HERE.parent / "docs" / "concepts" / "quantization.md"
STUDENTS = {"resnet18": "base", "shufflenetv2": "shufflenetv2", "mobilenetv3": "mobilenetv3"}
TREATMENTS = ("", "longer", "qat", "qat-taught")
SCORES = ("accuracy", "macc", "ece", "brier")
EXACT = "onnx-fp32"
ROUNDS, REPEATS = 7, 100


def variant_of(student: str, treatment: str) -> str:
    """The sweep's name of a student with a treatment ("" for none)."""
    return f"{student}-{treatment}" if treatment else STUDENTS[student]


def finished(sweep: Path, variant: str, seed: int) -> RunDir | None:
    run = RunDir(sweep / "runs" / f"{variant}.seed{seed}")
    return run if run.scores.is_file() else None


def export_run(run: RunDir, *, whole: bool) -> Manifest:
    """All artifacts of an undisturbed student; fp32 and int8 of the others."""
    some = ["onnx-fp32", "onnx-int8", "onnxruntime-int8", "openvino-fp32", "openvino-int8"]
    try:
        export(run.root, make=None if whole else some)
    except GateFailed as error:
        say(error.message)
    return read_manifest(run.bundle)


def row_of(run: RunDir, manifest: Manifest, artifact: Artifact) -> dict[str, Any]:
    """One artifact of one run: what it decides, what its gate said, how large it is."""
    gate, scores = artifact.gate, artifact.scores or {}
    said = Predictions.load(run.predictions(artifact.name, "test"))
    exact = Predictions.load(run.predictions("student", "test"))
    assert gate is not None
    checks = {check.name: check for check in gate.checks}
    loss = checks["non-inferiority"]
    return {
        "verdict": gate.verdict,
        "why": why(gate),
        "loss": [loss.value, loss.low, loss.high],
        "scores": {
            name: [scores[name].value, scores[name].low, scores[name].high]
            for name in SCORES if name in scores
        },
        "sensitivity": {
            check.name.partition(":")[2]: _sensitivity(check)
            for check in gate.checks if check.name.startswith("sensitivity:")
        },
        "flips": int((said.logits.argmax(axis=1) != exact.logits.argmax(axis=1)).sum()),
        "images": gate.images,
        "groups": gate.groups,
        "bytes": sum(manifest.files[name].bytes for name in artifact.files),
        "float_layers": artifact.float_layers,
    }  # fmt: skip


def _sensitivity(check: Check) -> list[float | None]:
    """The loss of a class's sensitivity and its interval."""
    return [check.value, check.low, check.high]


def against_float(run: RunDir, other: RunDir, artifact: str) -> list[float]:
    """Accuracy of an artifact of one run minus that of another run's float model, with interval.

    What training in int8 gained or lost against the student before it.
    """
    ours = Predictions.load(run.predictions(artifact, "test"))
    theirs = Predictions.load(other.predictions("student", "test"))
    assert ours.ids == theirs.ids
    task = Classification(classes=[str(c) for c in range(ours.logits.shape[1])])
    metric = task.metrics()["accuracy"]
    return list(stats.paired_difference(
        lambda probabilities, weights: metric.compute(probabilities, ours.targets, weights),
        task.activate(ours.logits), task.activate(theirs.logits), stats.group_weights(ours.groups),
    ))  # fmt: skip


def time_all(bundle: Path, manifest: Manifest) -> dict[str, Any]:
    """Batch 1, one thread: medians of interleaved rounds, and what the tool itself advises.

    All sessions are open at once and take turns, so that the machine's slow and fast spells meet
    all artifacts alike; refused ones are timed too.
    """
    names = list(manifest.artifacts)
    target = resolve(bundle)
    rounds: dict[str, list[float]] = {name: [] for name in names}
    ran: dict[str, str] = {}
    images = np.random.default_rng(0).random((1, 3, manifest.input.size, manifest.input.size))
    with contextlib.ExitStack() as held:
        sessions = {
            name: held.enter_context(open_session(target, artifact=name, threads=1, batch=1))
            for name in names
        }
        for _ in range(ROUNDS):
            for name, session in sessions.items():
                inputs: Arrays = {session.input_name: images.astype(np.float32)}
                timing = measure(lambda: session.run(inputs), warmup_runs=5, warmup_s=0.05,  # noqa: B023
                                 repeats=REPEATS, seconds=0.1)  # fmt: skip
                rounds[name].append(timing.latency.p50)
        for name, session in sessions.items():
            ran[name] = session.inspect().precision
    measured = bench(bundle, threads=1, batches=(1,), memory=False)
    advice = recommend(manifest, measured)
    shipped = [name for name, artifact in manifest.artifacts.items() if may_ship(artifact)]
    return {"rounds_ms": rounds, "ran": ran, "advised": advice.artifact, "tied": advice.tied,
            "may_ship": shipped, "why": advice.why}  # fmt: skip


def collect(sweep: Path, seeds: list[int], known: dict[str, Any], path: Path) -> dict[str, Any]:
    """Export and read every finished run; the record is written after each."""
    record: dict[str, Any] = {
        "name": NAME, "seeds": seeds, "host": host_facts(), "rows": {}, "against_float": {},
        "float": {}, "split": {}, "timing": known.get("timing", {}),
    }  # fmt: skip
    for seed in seeds:
        for student in STUDENTS:
            plain = finished(sweep, variant_of(student, ""), seed)
            for treatment in TREATMENTS:
                run = finished(sweep, variant_of(student, treatment), seed)
                if run is None:
                    continue
                key = f"{student}/{treatment or 'plain'}/{seed}"
                say(f"{key}: {run.root}")
                manifest = export_run(run, whole=not treatment)
                record["rows"][key] = {
                    name: row_of(run, manifest, artifact)
                    for name, artifact in manifest.artifacts.items()
                }
                scores = json.loads(run.scores.read_text(encoding="utf-8"))
                record["float"][key] = {
                    model: {name: parts["test"][name]["value"] for name in SCORES}
                    for model, parts in scores.items()
                }
                facts = json.loads(run.environment.read_text(encoding="utf-8"))
                record["split"], record["classes"] = facts["split"], facts["classes"]
                if treatment and plain is not None:
                    record["against_float"][key] = {
                        name: against_float(run, plain, name) for name in manifest.artifacts
                    }
                write_text(path, dump_json(record))
    for student in STUDENTS:
        run = finished(sweep, variant_of(student, ""), seeds[0])
        if run is None:
            continue
        manifest = read_manifest(run.bundle)
        files = {name: manifest.files[a.file].sha256 for name, a in manifest.artifacts.items()}
        made = {"files": files, "cpu": record["host"].get("cpu")}
        if record["timing"].get(student, {}).get("made") != made:  # other files, another machine
            record["timing"][student] = {**time_all(run.bundle, manifest), "made": made}
            record["timing"][student]["utc"] = time.strftime("%Y-%m-%d", time.gmtime())
            write_text(path, dump_json(record))
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path, nargs="?", help="default: render what is there")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--retime", action="store_true", help="forget the latencies that are there")
    arguments = parser.parse_args()
    path = HERE / "results" / f"{NAME}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if arguments.sweep is not None:
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
        known = collect(arguments.sweep, seeds, {} if arguments.retime else known, path)
    text = DOCUMENT.read_text(encoding="utf-8")
    write_text(DOCUMENT, quantization_table.insert(text, known))


if __name__ == "__main__":
    main()
