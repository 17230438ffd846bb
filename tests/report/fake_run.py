"""A complete, plausible run folder in a second: what the pipeline leaves, without the pipeline.

Four severity grades, patients as groups, a teacher better than its student, int8 a little worse
than fp32, one refused artifact, and two hosts of which only one timed everything.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd import bundle
from edgekd.bundle import Artifact, Check, Gate, Manifest, ModelFacts
from edgekd.recipe import Recipe
from edgekd.recipe_data import InputSpec
from edgekd.recipe_load import to_yaml
from edgekd.results import Latency, Measurement, Predictions, Scores, append_jsonl, dump_json
from edgekd.rundir import RunDir, sha256, write_text
from edgekd.tasks.grading import Grading

CLASSES = ["none", "mild", "moderate", "severe"]
SHARES = [0.45, 0.28, 0.19, 0.08]
SIZES = {"model.fp32.onnx": 5_100, "model.int8.onnx": 1_700, "openvino/model.fp32.xml": 700,
         "openvino/model.fp32.bin": 5_000, "openvino/model.int8.xml": 800,
         "openvino/model.int8.bin": 1_300}  # fmt: skip
EPOCHS = {"teacher": 6, "distill": 8}


def recipe(name: str = "quickstart", seed: int = 1) -> Recipe:
    return Recipe.model_validate({
        "edgekd": 1, "name": name, "seed": seed,
        "description": "A small student learns grading of drawn lesions from a larger teacher.",
        "task": {"name": "grading"},
        "data": {"name": "synthetic", "input": {"size": 64}},
        "models": {"teacher": {"arch": "timm:resnet18"}, "alone": {"arch": "timm:mobilenet"},
                   "student": {"arch": "timm:mobilenet"}},
        "stages": {
            "teacher": {"train": ["teacher"], "losses": {"ce": {"to": "teacher"}}, "epochs": 6},
            "distill": {
                "train": ["student", "alone"], "frozen": ["teacher"], "epochs": 8,
                "losses": {"ce": {"to": "student"}, "kd": {"from": "teacher", "to": "student"},
                           "ce_alone": {"loss": "ce", "to": "alone"}},
            },
        },
        "export": {"reference": "teacher",
                   "make": ["onnx-fp32", "onnx-int8", "openvino-fp32", "openvino-int8"]},
    })  # fmt: skip


def predictions(skill: float, *, classes: int = 4, images: int = 360, seed: int = 0) -> Predictions:
    """Logits that are right more often the larger `skill` is; the same images for every model."""
    generator = np.random.default_rng(0)
    shares = np.array(SHARES) if classes == 4 else np.full(classes, 1 / classes)
    targets = generator.choice(classes, size=images, p=shares)
    shared = generator.normal(size=(images, classes))
    own = np.random.default_rng(seed).normal(size=(images, classes)) * 0.35
    distance = np.abs(np.arange(classes)[None] - targets[:, None])
    logits = 1.6 * (shared + own) - skill * np.minimum(distance, 2)
    return Predictions(
        ids=[f"image{index:04d}" for index in range(images)],
        groups=[f"patient{index // 3:04d}" for index in range(images)],
        targets=targets.astype(np.int64),
        logits=logits.astype(np.float32),
    )


def write(root: Path, *, name: str = "quickstart", seed: int = 1,
          classes: list[str] = CLASSES, bench: bool = True) -> RunDir:  # fmt: skip
    """Write the whole run."""
    run = RunDir(root)
    spec = recipe(name, seed)
    write_text(run.recipe, to_yaml(spec))
    write_text(run.environment, dump_json({
        "edgekd": "0.1.0", "utc": "2026-11-21T10:00:00Z", "versions": {"torch": "2.9.1"},
        "host": {"cpu": "AMD EPYC 9R14", "cores": 2}, "data_fingerprint": "8c1f" * 16,
    }))  # fmt: skip
    _split(run)
    _metrics(run)
    task = Grading(classes=classes)
    skills = {"teacher": 2.3, "alone": 1.5, "student": 1.9}
    scores: dict[str, dict[str, Scores]] = {}
    for index, (model, skill) in enumerate(skills.items()):
        said = predictions(skill, classes=len(classes), seed=10 * seed + index)
        said.save(run.predictions(model, "test"))
        scores[model] = {"test": task.score(said, resamples=200)}
    write_text(run.scores, dump_json(scores))
    student = _student(run, task, seed, spec)
    teacher = _teacher(run, task, scores["teacher"]["test"], spec)
    if bench:
        _bench(run, student, teacher)
    return run


def _split(run: RunDir) -> None:
    generator = np.random.default_rng(3)
    lines = ["id,target,group,part"]
    for group in range(600):
        part = "train" if group < 420 else "val" if group < 480 else "test"
        target = int(generator.choice(4, p=SHARES))
        lines += [f"image{group}-{n},{target},patient{group},{part}" for n in range(3)]
    write_text(run.split, "\n".join(lines) + "\n")


def _metrics(run: RunDir) -> None:
    generator = np.random.default_rng(5)
    for stage, epochs in EPOCHS.items():
        models = ["teacher"] if stage == "teacher" else ["student", "alone"]
        best = dict.fromkeys(models, 0.0)
        rows = []
        for epoch in range(1, epochs + 1):
            noise = generator.normal(size=4) * 0.02
            value = {m: 0.82 - 0.3 * 0.6**epoch - 0.07 * (m == "alone") + noise[i]
                     for i, m in enumerate(models)}  # fmt: skip
            terms = {"ce": 1.1 * 0.75**epoch + 0.3}
            if stage == "distill":
                terms |= {"kd": 2.1 * 0.7**epoch + 0.4, "ce_alone": 1.2 * 0.8**epoch + 0.35}
            rows.append(json.dumps({
                "epoch": epoch, "epochs": epochs, "step": 47 * epoch, "lr": 0.001,
                "loss": sum(terms.values()), "terms": terms, "train_images": 1260, "seconds": 7.2,
                "val": {m: {"accuracy": value[m], "nll": 0.6} for m in models},
                "best": {m: bool(value[m] > best[m]) for m in models},
            }))  # fmt: skip
            best = {m: max(best[m], value[m]) for m in models}
        write_text(run.stage(stage) / "metrics.jsonl", "\n".join(rows) + "\n")


def gate(verdict: Any, loss: float, **more: Any) -> Gate:
    """A gate as `export` writes it: losses are positive, in the score's own unit."""
    checks = [
        Check(name="parity", verdict="reported", value=3.2e-3, detail="0 of 8 decided otherwise"),
        Check(name="preprocessing", verdict="passed", value=0.0, limit=0.00784),
        Check(name="non-inferiority", verdict=verdict, value=loss, low=loss - 0.004,
              high=loss + 0.009, limit=0.005, detail="its 95 % interval must end below 0.015"),
        Check(name="evidence", verdict="passed", value=0.002, high=0.011, limit=0.015),
        Check(name="sensitivity:severe", verdict="inconclusive", value=0.02, low=-0.01, high=0.05,
              limit=0.015, detail="39 positives; sensitivity 0.692 before, 0.672 after"),
        Check(name="mcnemar", verdict="reported", value=0.41),
        Check(name="calibration:ece", verdict="reported", value=0.004),
    ]  # fmt: skip
    return Gate(verdict=verdict, images=360, groups=120, checks=checks, **more)


def _files(folder: Path, names: list[str], scale: int = 1) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() + b"\0" * SIZES[name] * scale)


def _student(run: RunDir, task: Grading, seed: int, spec: Recipe) -> Manifest:
    _files(run.bundle, list(SIZES))
    artifacts = {}
    for artifact, runtime, names, verdict in (
        ("onnx-fp32", "onnxruntime", ["model.fp32.onnx"], gate("passed", 0.0)),
        ("onnx-int8", "onnxruntime", ["model.int8.onnx"], gate("refused", 0.014)),
        ("openvino-fp32", "openvino", ["openvino/model.fp32.xml", "openvino/model.fp32.bin"],
         gate("passed", 0.0)),
        ("openvino-int8", "openvino", ["openvino/model.int8.xml", "openvino/model.int8.bin"],
         gate("passed", 0.003)),
    ):  # fmt: skip
        precision = artifact.split("-")[1]
        said = predictions(1.9 if precision == "fp32" else 1.85, classes=len(task.classes),
                           seed=10 * seed + (2 if precision == "fp32" else 7))  # fmt: skip
        said.save(run.predictions(artifact, "test"))
        artifacts[artifact] = Artifact(
            name=artifact, file=names[0], files=names, runtime=runtime, precision=precision,
            gate=verdict, scores=task.score(said, resamples=200),
        )  # fmt: skip
    facts = ModelFacts(name="student", arch="timm:mobilenet", params=1_260_000,
                       macs=12_300_000, role="student")  # fmt: skip
    return _close(run.bundle, task, facts, artifacts, spec)


def _teacher(run: RunDir, task: Grading, scores: Scores, spec: Recipe) -> Manifest:
    names = ["openvino/model.fp32.xml", "openvino/model.fp32.bin"]
    _files(run.reference, ["model.fp32.onnx", *names], scale=9)
    artifacts = {
        "onnx-fp32": Artifact(name="onnx-fp32", file="model.fp32.onnx", files=["model.fp32.onnx"],
                              runtime="onnxruntime", precision="fp32", scores=scores,
                              gate=gate("passed", 0.0)),
        "openvino-fp32": Artifact(name="openvino-fp32", file=names[0], files=names,
                                  runtime="openvino", precision="fp32"),
    }  # fmt: skip
    facts = ModelFacts(name="teacher", arch="timm:resnet18", params=11_200_000,
                       macs=148_000_000, role="teacher")  # fmt: skip
    return _close(run.reference, task, facts, artifacts, spec)


def _close(folder: Path, task: Grading, facts: ModelFacts, artifacts: dict[str, Artifact],
           spec: Recipe) -> Manifest:  # fmt: skip
    return bundle.close_bundle(folder, Manifest(
        name=spec.name, task="grading", primary=task.primary, classes=list(task.classes),
        input=InputSpec(size=64), model=facts, opset=18, artifacts=artifacts,
        recipe=spec.model_dump(mode="json", by_alias=True), recipe_sha256="ab" * 32,
        provenance={"versions": {"torch": "2.9.1", "onnx": "1.19.0"},
                    "utc": "2026-11-21T10:04:00Z"},
    ))  # fmt: skip


def _bench(run: RunDir, student: Manifest, teacher: Manifest) -> None:
    typical = {"onnx-fp32": 0.62, "onnx-int8": 0.95, "openvino-fp32": 0.66, "openvino-int8": 0.41}
    for host, pace in (("bedside", 1.0), ("workstation", 0.5)):
        for artifact, median in typical.items():
            for batch in (1, 8) if host == "bedside" else (1,):
                row = measurement(run.bundle, student, artifact, median * pace, host, batch)
                append_jsonl(run.bundle / "bench" / f"{host}.jsonl", row)
        for artifact, median in (("onnx-fp32", 6.4), ("openvino-fp32", 5.9)):
            row = measurement(run.reference, teacher, artifact, median * pace, host)
            append_jsonl(run.reference / "bench" / f"{host}.jsonl", row)


def measurement(
    folder: Path, manifest: Manifest, artifact: str, median: float, host: str,
    batch: int = 1, utc: str = "2026-11-21T10:05:00Z", **more: Any,
) -> Measurement:  # fmt: skip
    """One row of a bench file, its samples drawn around `median` milliseconds."""
    found = manifest.artifacts[artifact]
    generator = np.random.default_rng(abs(hash_of(artifact + host)))
    samples = median * batch**0.8 * (1 + 0.06 * generator.gamma(1.2, size=300))
    samples *= median * batch**0.8 / np.median(samples)
    infer = distribution(samples)
    phases = {"decode": 0.21, "preprocess": 0.12, "postprocess": 0.02}
    spread = {
        name: distribution(value * samples / samples.mean()) for name, value in phases.items()
    }
    return Measurement(**{
        "utc": utc, "host": {"name": host, "cpu": "AMD EPYC 9R14", "cores": 2, "memory_gb": 24.0},
        "model": manifest.model.name, "role": manifest.model.role, "artifact": artifact,
        "file": found.file, "sha256": sha256(folder / found.file), "runtime": found.runtime,
        "runtime_version": "1.23.2" if found.runtime == "onnxruntime" else "2025.3.0",
        "device": "CPU", "precision_asked": found.precision,
        "precision_ran": {"fp32": "f32", "int8": "i8"}[found.precision], "threads": 2,
        "batch": batch, "input_shape": [batch, 3, 64, 64], "warmup_runs": 50, "warmup_s": 0.5,
        "repeats": 1000, "seconds": 1.4, "latency_ms": infer, "latency_p50_low": infer.p50 * 0.99,
        "latency_p50_high": infer.p50 * 1.01, "samples_ms": [float(f"{s:.5g}") for s in samples],
        "throughput_ips": 1000 * batch / infer.mean, "load_s": 0.08, "first_ms": infer.max * 3,
        "peak_memory_mb": 91.5, "phases_ms": {**spread, "infer": infer,
        "total": distribution(samples + 0.35)}, "scores": None, "gate": None, **more,
    })  # fmt: skip


def distribution(samples: npt.NDArray[np.float64]) -> Latency:
    at = {f"p{q}": float(np.percentile(samples, q)) for q in (50, 90, 95, 99)}
    return Latency(**at, mean=float(samples.mean()), std=float(samples.std()),
                   min=float(samples.min()), max=float(samples.max()))  # fmt: skip


def hash_of(text: str) -> int:
    """A number that is the same in every process (Python's own `hash` is not)."""
    return sum(ord(letter) * 31**place for place, letter in enumerate(text)) % 2**31
