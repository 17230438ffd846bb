"""The main table: a row per model and deployable form, per host, and what to deploy there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgekd.bundle import Artifact, Manifest
from edgekd.recipe import Recipe
from edgekd.recommend import recommend
from edgekd.report import gates, timing
from edgekd.report.records import ONNX_FILE, PYTORCH, Deploy, HostTable, Row, Timing
from edgekd.report.sources import Sources
from edgekd.report.words import NOT_MEASURED
from edgekd.results import Score


def host_tables(found: Sources, primary: str) -> tuple[list[HostTable], list[str]]:
    """One main table per host, or one without timings where nothing was benchmarked."""
    timed = [(found.student, found.student_timed), (found.reference, found.reference_timed)]
    timed += [(other.manifest, other.timed) for other in found.others]
    names = sorted({name for _, by_host in timed for name in by_host})
    tables, notes = [], []
    for name in names:
        latest = []
        for manifest, by_host in timed:
            timings: list[Timing] = []
            if manifest is not None:
                timings, left_out = timing.latest(by_host.get(name, []), manifest, name)
                notes += left_out
            latest.append(timings)
        measured = [row for _, by_host in timed for row in by_host.get(name, [])]
        facts = max(measured, key=lambda row: row.utc).host if measured else {}
        tables.append(_host(found, primary, name, facts, *latest))
    return tables or [_host(found, primary, None, {}, [], [], *([] for _ in found.others))], notes


def _host(
    found: Sources,
    primary: str,
    name: str | None,
    facts: dict[str, Any],
    student: list[Timing],
    teacher: list[Timing],
    *others: list[Timing],
) -> HostTable:
    rows = [
        *_rows(found, found.reference, teacher, teacher, primary),
        *_trained_only(found, primary),
        *_rows(found, found.student, student, teacher, primary),
        *(
            row
            for other, own in zip(found.others, others, strict=True)
            for row in _rows(found, other.manifest, own, teacher, primary)
        ),
    ]
    # teachers first, then controls and other models, the student's artifacts last
    order = {"teacher": 0, "model": 1, "student": 2}
    rows.sort(key=lambda row: order.get(row.role, 1))
    deploy = _deploy(found, name)
    if deploy.artifact is not None:
        main = found.student.model.name if found.student else None
        rows = [_mark(row, deploy, main) for row in rows]
    timings = [*teacher, *student, *(one for own in others for one in own)]
    utc = max((entry.utc for entry in timings), default=None)
    return HostTable(name, facts, rows, timings, deploy, utc)


def _rows(
    found: Sources,
    manifest: Manifest | None,
    timings: list[Timing],
    teacher: list[Timing],
    primary: str,
) -> list[Row]:
    """A row per artifact and setting at batch 1, and one per artifact that was not timed."""
    rows = []
    for artifact in manifest.artifacts.values() if manifest else ():
        assert manifest is not None
        score, score_from = _score(found, manifest, artifact, primary)
        own = [one for one in timings if one.artifact == artifact.name and one.batch == 1]
        settings: list[Timing | None] = [*own] or [None]
        for one in settings:
            rows.append(
                Row(
                    model=manifest.model.name,
                    role="teacher" if manifest is found.reference else "student",
                    artifact=artifact.name,
                    runtime=one.runtime if one else artifact.runtime,
                    precision=artifact.precision,
                    params=manifest.model.params,
                    macs=manifest.model.macs or None,  # 0: not counted
                    bytes=_bytes(manifest, artifact),
                    score=score,
                    score_from=score_from,
                    gate=gates.word(artifact),
                    timing=one,
                    knows=found.knows(manifest.model.name),
                    same_speedup=timing.same_speedup(one, teacher) if one else None,
                    teacher_speedup=timing.teacher_speedup(one, teacher) if one else None,
                )
            )
    return rows


def _bytes(manifest: Manifest, artifact: Artifact) -> int | None:
    sizes = [manifest.files[name].bytes for name in artifact.files if name in manifest.files]
    return sum(sizes) if sizes and len(sizes) == len(artifact.files) else None


def _score(
    found: Sources, manifest: Manifest, artifact: Artifact, primary: str
) -> tuple[Score | None, str | None]:
    """The artifact's own test score; for fp32 without one, the PyTorch model's, and said so."""
    if artifact.scores and primary in artifact.scores:
        return artifact.scores[primary], artifact.name
    trained = found.scores.get(manifest.model.name, {}).get("test", {})
    if artifact.precision == "fp32" and primary in trained:
        return trained[primary], PYTORCH
    return None, None


def _trained_only(found: Sources, primary: str) -> list[Row]:
    """Models that were trained and scored but have no exported form (teachers, controls)."""
    exported = {m.model.name for m in (found.student, found.reference) if m is not None}
    exported |= {other.manifest.model.name for other in found.others}
    rows = []
    for name, parts in found.scores.items():
        if name in exported or "test" not in parts:
            continue
        rows.append(
            Row(
                model=name,
                role=role_of(found.recipe, name),
                artifact=None,
                runtime=ONNX_FILE if _is_file(found.recipe, name) else PYTORCH,
                precision="fp32",
                params=_fact(found, name, "params"),
                macs=_fact(found, name, "macs"),
                bytes=None,
                score=parts["test"].get(primary),
                score_from=PYTORCH,
                gate="not run",
                timing=None,
                knows=found.knows(name),
            )
        )
    return rows


def _is_file(recipe: Recipe | None, model: str) -> bool:
    spec = recipe.models.get(model) if recipe else None
    return spec is not None and spec.arch.startswith("onnx:")


def role_of(recipe: Recipe | None, model: str) -> str:
    """Teacher, student, or model for what is neither."""
    if recipe is None:
        return "model"
    if model in recipe.deployed():
        return "student"
    is_teacher = model == recipe.export.reference
    for stage in recipe.stages.values():
        terms = stage.losses.values()
        teaches = any(model in term.from_ for term in terms)
        learns = any(model == term.to and term.from_ for term in terms)  # then it is a peer
        is_teacher = is_teacher or (teaches and not learns)
    return "teacher" if is_teacher else "model"


def _fact(found: Sources, model: str, key: str) -> int | None:
    models = found.environment.get("models")
    facts = models.get(model) if isinstance(models, dict) else None
    value = facts.get(key) if isinstance(facts, dict) else None
    return value if isinstance(value, int) else None


def _deploy(found: Sources, host: str | None) -> Deploy:
    """What to deploy on a host, as the bench says it."""
    measured = found.student_timed.get(host or "", [])
    if found.student is None or not measured:
        return Deploy(None, f"Deploy on this host: {NOT_MEASURED}")
    advice = recommend(found.student, measured)
    if advice.artifact is None:
        return Deploy(None, f"Deploy on this host: nothing: {advice.why}")
    line = f"Deploy on this host: {advice.artifact}: {advice.why}"
    return Deploy(advice.artifact, line, advice.ranking[0].latency_ms.p50, advice.tied)


def _p50(row: Row) -> float:
    return row.timing.latency.p50 if row.timing else float("inf")


def _mark(row: Row, deploy: Deploy, student: str | None) -> Row:
    chosen = row.model == student and row.artifact == deploy.artifact
    return replace(row, deploy=chosen and _p50(row) == deploy.p50_ms)


def to_look_at(hosts: list[HostTable], manifest: Manifest | None) -> list[str]:
    """The artifacts whose decisions the page shows: the one to deploy, and an int8 one."""
    if manifest is None:
        return []
    latest = max(hosts, key=lambda host: host.utc or "")
    wanted = [latest.deploy.artifact] if latest.deploy.artifact else []
    chosen = manifest.artifacts.get(wanted[0]) if wanted else None
    if chosen is None or chosen.precision == "fp32":
        reduced = [a.name for a in manifest.artifacts.values() if a.precision != "fp32"]
        wanted += reduced[:1]
    return wanted
