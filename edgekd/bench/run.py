"""Time every artifact of a bundle on this machine, and keep what was measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edgekd import log
from edgekd.bench.accuracy import TestImages, find_images, score
from edgekd.bench.clocks import Watch
from edgekd.bench.energy import energy_here
from edgekd.bench.memory import peak_memory_mb
from edgekd.bench.notes import Neighbours, notes, slower_than_float
from edgekd.bench.phases import measure_dicom, measure_phases
from edgekd.bench.pictures import golden_pictures
from edgekd.bench.timing import measure
from edgekd.bundle import Artifact, inside
from edgekd.errors import BundleError, MissingOnHost
from edgekd.host import host_facts, host_name
from edgekd.recommend import Recommendation, is_on_proven_device, is_refused, recommend
from edgekd.results import Measurement, Scores, append_jsonl, read_measurements
from edgekd.rundir import sha256
from edgekd.runtimes.base import RunOptions
from edgekd.runtimes.session import (
    Session,
    Target,
    open_session,
    pick,
    resolve,
    runtime_class,
)
from edgekd.runtimes.session import why_not as elsewhere

__all__ = ["Recommendation", "bench", "recommend"]

PHASE_ROUNDS = 50


@dataclass(frozen=True)
class _Setting:
    """What is the same for every artifact of one `bench`."""

    runtime: str | None
    device: str
    threads: int
    warmup: int
    warmup_s: float
    repeats: int
    seconds: float
    has_memory: bool
    energy_s: float
    host: dict[str, Any]
    pictures: list[bytes]
    images: TestImages | None


def bench(
    target: Path,
    *,
    artifacts: Sequence[str] | None = None,
    runtime: str | None = None,
    device: str = "",
    batches: Sequence[int] = (1,),
    threads: int = 0,
    warmup: int = 50,
    repeats: int = 200,
    seconds: float = 1.0,
    warmup_s: float = 0.5,
    data: Path | None = None,
    out: Path | None = None,
    memory: bool = True,
    energy: float = 0.0,
) -> list[Measurement]:
    """Measure the artifacts of a bundle (of a run), or one foreign .onnx or .xml file.

    Artifacts go one after another, fp32 before int8, each at every batch size. Refused ones, and
    those whose runtime is not here, are passed over with a word on stderr unless named. Each
    measurement is appended at once to `out`, by default the bundle's `bench/<host>.jsonl` (a
    foreign file has none); with `data` the model is scored there too. With `energy` every
    artifact rests so many seconds and then runs as long again, while power is read; where this
    machine has no meter the rows and a word on stderr say so.

    Raises BundleError, DataError, and MissingOnHost if nothing can be measured here.
    """
    found = resolve(target)
    jobs = _jobs(found, artifacts, runtime)
    path = out or (found.folder / "bench" / f"{host_name()}.jsonl" if found.manifest else None)
    if path is not None:  # find out that nothing can be kept before measuring for minutes
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    if data is not None and found.manifest is None:
        raise BundleError(f"{target} is not in a bundle: it can be timed, not scored",
                          hint="leave out --data")  # fmt: skip
    images = find_images(data, found.manifest) if data and found.manifest else None
    pictures = golden_pictures(found.folder) if found.manifest else []
    setting = _Setting(runtime, device, threads, warmup, warmup_s, repeats, seconds, memory,
                       energy, host_facts(), pictures, images)  # fmt: skip
    rows: list[Measurement] = []
    bar = log.progress()
    # A bar that redraws itself ten times a second would show in the 99th percentile.
    bar.live.auto_refresh = False
    with bar:
        work = bar.add_task("bench", total=len(jobs) * len(batches), note="")
        for artifact in jobs:
            scores: Scores | None = None
            for batch in batches:
                bar.update(work, note=f"{artifact.name}, batch {batch}", refresh=True)
                row = _measure_one(found, artifact, batch, setting, scores)
                scores = row.scores
                row = row.model_copy(update={"notes": row.notes + slower_than_float(row, rows)})
                if path is not None:
                    append_jsonl(path, row)
                rows.append(row)
                bar.advance(work)
    if energy:
        for why in dict.fromkeys(row.energy_status for row in rows if row.energy_mj is None):
            log.warn(f"energy {why}")
    return rows


def is_measured(folder: Path, batches: Sequence[int], *, threads: int, repeats: int) -> bool:
    """Has every artifact of a bundle that can run here been measured here, as it is now?

    On the default kind of device; with `threads` unless 0, and at least so many `repeats`.
    """
    found = resolve(folder)
    path = found.folder / "bench" / f"{host_name()}.jsonl"
    if found.manifest is None or not path.is_file():
        return False
    files = found.manifest.files
    done = {
        (row.artifact, row.runtime, row.batch, row.sha256)
        for row in read_measurements(path)
        if is_on_proven_device(row) and row.repeats >= repeats and threads in (0, row.threads)
    }
    return all(
        (artifact.name, artifact.runtime, batch, files[artifact.file].sha256) in done
        for artifact in _jobs(found, None, None)
        for batch in batches
    )


def _jobs(target: Target, named: Sequence[str] | None, runtime: str | None) -> list[Artifact]:
    """What to measure, fp32 first within each runtime."""
    if named is not None:
        return [pick(target, name, runtime) for name in named]
    jobs, absent, extras = [], [], []
    for artifact in target.artifacts.values():
        name = runtime or artifact.runtime
        loader = runtime_class(name)
        if Path(artifact.file).suffix not in loader.suffixes:
            continue
        if is_refused(artifact):
            log.say(f"{artifact.name}: refused by its gate, not measured")
            continue
        probe = loader.probe()
        if not probe.available:
            absent.append(f"{name} ({probe.reason})")
            extras.append(name)  # an extra has the name of its runtime
            log.warn(f"{artifact.name}: not measured, runtime '{name}' is not here: {probe.reason}")
            continue
        reason = elsewhere(target.folder, artifact, name)
        if reason:
            log.warn(f"{artifact.name}: not measured: {reason}; build it here: "
                     f"edgekd export {target.folder} --make {artifact.name}")  # fmt: skip
            continue
        jobs.append(artifact)
    if not jobs and absent:
        needed = ",".join(sorted(set(extras)))
        raise MissingOnHost(f"nothing can be measured here; not installed: "
                            f"{', '.join(dict.fromkeys(absent))}",
                            hint=f"pip install 'edgekd[{needed}]'")  # fmt: skip
    if not jobs:
        raise BundleError(f"{target.folder}: nothing to measure: no artifact that was not refused"
                          f"{f' runs in {runtime}' if runtime else ''}",
                          hint="name one with --artifact")  # fmt: skip
    return sorted(jobs, key=lambda one: (one.runtime, one.precision != "fp32", one.name))


def _measure_one(
    target: Target, artifact: Artifact, batch: int, setting: _Setting, scores: Scores | None
) -> Measurement:
    name = setting.runtime or artifact.runtime
    probe = runtime_class(name).probe()  # also imports the library, which is not loading a model
    options = RunOptions(device=setting.device, threads=setting.threads, batch=batch,
                         precision=artifact.precision)  # fmt: skip
    begin = time.perf_counter()
    with open_session(target, artifact=artifact.name, runtime=name, device=setting.device,
                      threads=setting.threads, batch=batch) as session:  # fmt: skip
        load_s = time.perf_counter() - begin
        inputs = {session.input_name: _random_images(session, batch)}
        watch = Watch()
        with Neighbours() as neighbours:
            timing = measure(lambda: session.run(inputs), warmup_runs=setting.warmup,
                             warmup_s=setting.warmup_s, repeats=setting.repeats,
                             seconds=setting.seconds, watch=watch.read)  # fmt: skip
        phases = measure_phases(session, setting.pictures, batch=batch,
                                rounds=min(PHASE_ROUNDS, setting.repeats))  # fmt: skip
        if setting.images is not None:
            phases.update(measure_dicom(setting.images.dicom_files()))
        if setting.images is not None and scores is None:
            scores, _ = score(session, setting.images, batch)
        # last of all that runs: reading power takes time of a core, and it heats the machine
        energy = energy_here(lambda: session.run(inputs), device=session.facts.device,
                             images=batch, seconds=setting.energy_s)  # fmt: skip
        facts = session.inspect()  # after the clock has stopped: it may load the model again
    # afterwards and in a process of its own, so that neither disturbs the other
    peak, why_not = peak_memory_mb(session, options) if setting.has_memory else (None, None)
    file = inside(target.folder, artifact.file)
    manifest = target.manifest
    low, high = timing.median_interval
    return Measurement(
        utc=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        host=setting.host,
        model=manifest.model.name if manifest else file.stem,
        role=manifest.model.role if manifest else "model",
        artifact=artifact.name,
        file=artifact.file,
        sha256=manifest.files[artifact.file].sha256 if manifest else sha256(file),
        runtime=name,
        runtime_version=probe.version,
        device=facts.device,
        precision_asked=artifact.precision,
        precision_ran=facts.precision,
        threads=facts.threads,
        batch=batch,
        input_shape=[batch, *session.shape],
        warmup_runs=timing.warmup_runs,
        warmup_s=round(timing.warmup_s, 4),
        repeats=len(timing.samples_ms),
        seconds=round(timing.seconds, 4),
        latency_ms=timing.latency,
        latency_p50_low=low,
        latency_p50_high=high,
        samples_ms=timing.picture(),
        throughput_ips=timing.throughput(batch),
        load_s=round(load_s, 4),
        first_ms=timing.first_ms,
        peak_memory_mb=peak,
        phases_ms=phases,
        scores=scores,
        gate=artifact.gate.verdict if artifact.gate else None,
        notes=[*facts.notes, *notes(timing, neighbours), *watch.notes(),
               *([why_not] if why_not else [])],
        **watch.fields(),
        **vars(energy),
    )  # fmt: skip


def _random_images(session: Session, batch: int) -> Any:
    """Noise in [0, 1]: the arithmetic takes as long for any image."""
    kind = session.facts.types.get(session.input_name, "float32")
    return np.random.default_rng(0).random((batch, *session.shape)).astype(kind)
