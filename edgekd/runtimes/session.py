"""Open what the user points at: a run, a bundle or a single model file.

A bundle is verified, every file of it, before any of it is loaded. Of a model file that is not
in a bundle nothing is known but its input: it can be timed, not scored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgekd import log, plugins
from edgekd.bundle import (
    INPUT_NAME,
    OUTPUT_NAME,
    Artifact,
    Manifest,
    inside,
    is_bundle,
    open_bundle,
)
from edgekd.errors import BundleError, MissingOnHost, did_you_mean
from edgekd.image import to_input
from edgekd.recipe_data import InputSpec
from edgekd.recommend import is_refused, may_ship, on_this_host
from edgekd.rundir import RunDir
from edgekd.runtimes._foreign import describe, image_input
from edgekd.runtimes.base import Arrays, Facts, RunOptions, Runtime
from edgekd.tasks.base import Task

FOREIGN_RUNTIMES = {".onnx": "onnxruntime", ".xml": "openvino"}


@dataclass(frozen=True)
class Target:
    """A verified bundle (`manifest` is set), or a folder with one foreign model file in it."""

    folder: Path
    manifest: Manifest | None
    artifacts: dict[str, Artifact]


@dataclass
class Session:
    """A loaded artifact. `manifest`, `input` and `task` are None for a foreign file."""

    target: Target
    artifact: Artifact
    runtime_name: str
    runtime: Runtime
    shape: tuple[int, int, int]  # (3, height, width) of one input
    input_name: str
    input: InputSpec | None = None
    task: Task | None = None

    @property
    def manifest(self) -> Manifest | None:
        return self.target.manifest

    @property
    def facts(self) -> Facts:
        return self.runtime.facts

    def run(self, inputs: Arrays) -> Arrays:
        return self.runtime.run(inputs)

    def inspect(self) -> Facts:
        """`facts`, with what the loaded model really runs in: see Runtime.inspect."""
        return self.runtime.inspect()


class Runs(Protocol):
    """What `logits_of` needs: a Session, or a loaded Runtime."""

    @property
    def facts(self) -> Facts: ...

    def run(self, inputs: Arrays) -> Arrays: ...


def resolve(target: Path) -> Target:
    """Find and verify the bundle (of a run), or take the model file at `target`.

    Raises BundleError for anything else, and for a bundle that is not as it was exported.
    """
    if target.is_dir():
        folder = find_bundle(target)
        manifest = open_bundle(folder)
        return Target(folder, manifest, manifest.artifacts)
    if not target.exists():
        raise BundleError(f"no such bundle, run or model file: {target}")
    if target.suffix not in FOREIGN_RUNTIMES:
        raise BundleError(f"{target}: expected a bundle, a run, or a file ending in "
                          f"{' or '.join(FOREIGN_RUNTIMES)}")  # fmt: skip
    artifact = describe(target)
    return Target(target.parent, None, {artifact.name: artifact})


def find_bundle(target: Path) -> Path:
    """The bundle's folder, of a bundle or of a run; nothing is read. Raises BundleError."""
    folder = RunDir(target).bundle if not is_bundle(target) else target
    if folder != target and not folder.is_dir():
        has_recipe = RunDir(target).recipe.is_file()
        raise BundleError(f"{target} is neither a bundle nor a run that has one",
                          hint=f"edgekd export {target}" if has_recipe else None)  # fmt: skip
    return folder


@contextlib.contextmanager
def open_session(
    target: Path | Target,
    *,
    artifact: str | None = None,
    runtime: str | None = None,
    device: str = "",
    threads: int = 0,
    batch: int = 0,
) -> Iterator[Session]:
    """Load one artifact and hold it ready.

    Without a name it is the one recommended on this host by an earlier `edgekd bench`, else the
    first that may ship. One that was refused must be named, and is warned about; so is a runtime
    other than the one that its gate judged. `batch` fixes the batch size; 0 leaves it open, where
    the model allows that.

    Raises BundleError, and MissingOnHost for a runtime or device that is not here.
    """
    opened = target if isinstance(target, Target) else resolve(target)
    chosen = pick(opened, artifact, runtime)
    if is_refused(chosen):
        log.warn(f"{chosen.name} was refused by its gate: do not deploy it")
    elif opened.manifest is not None and not may_ship(chosen):
        why = "no gate judged it"
        if chosen.gate is not None:
            why = "its gate was inconclusive and nobody accepted it"
        log.warn(f"{chosen.name} may not ship: {why}")
    name = runtime or chosen.runtime
    if opened.manifest is not None and name != chosen.runtime:
        log.warn(f"{chosen.name} is proven in {chosen.runtime}, not in {name}")
    loader = runtime_class(name)
    if Path(chosen.file).suffix not in loader.suffixes:
        raise BundleError(f"{chosen.name}: runtime '{name}' cannot load {chosen.file}, only "
                          f"{' and '.join(loader.suffixes)}")  # fmt: skip
    options = RunOptions(device=device, threads=threads, batch=batch, precision=chosen.precision)
    with loader(inside(opened.folder, chosen.file), options) as loaded:
        yield _session(opened, chosen, name, loaded)


def pick(target: Target, artifact: str | None, runtime: str | None) -> Artifact:
    """The artifact by name, or the best that may ship and runs here; faster ones that do not run
    here any more are warned about.

    Raises BundleError if there is none, MissingOnHost if none runs here.
    """
    known = target.artifacts
    if artifact is not None:
        if artifact not in known:
            raise BundleError(f"{target.folder} has no artifact '{artifact}'",
                              hint=did_you_mean(artifact, known))  # fmt: skip
        return known[artifact]
    if target.manifest is None:
        return next(iter(known.values()))
    able = [one for one in known.values() if may_ship(one) and runtime in (None, one.runtime)]
    if runtime is not None and not able:  # another runtime may read the same file
        suffixes = runtime_class(runtime).suffixes
        able = [a for a in known.values() if may_ship(a) and Path(a.file).suffix in suffixes]
    if not able:
        verdicts = ", ".join(f"{a.name} {a.gate.verdict if a.gate else 'without a gate'}"
                             for a in known.values()) or "it has none"  # fmt: skip
        raise BundleError(f"{target.folder}: no artifact that may ship"
                          f"{f' runs in {runtime}' if runtime else ''}: {verdicts}",
                          hint="name one with --artifact, or export again")  # fmt: skip
    ranking = [row.artifact for row in on_this_host(target.folder, target.manifest).ranking]
    ranked = [one for name in ranking for one in able if one.name == name]
    passed_over: list[str] = []
    elsewhere: MissingOnHost | None = None
    for one in [*ranked, *(one for one in able if one.name not in ranking)]:
        reason = f"runtime '{one.runtime}' is not here"
        if runtime is not None or is_present(one.runtime):
            reason = why_not(target.folder, one, runtime)
            elsewhere = MissingOnHost(reason, hint=f"edgekd export {target.folder} "
                                                   f"--make {one.name}")  # fmt: skip
        if not reason:
            for line in passed_over:
                log.warn(f"{line}; taking {one.name}")
            return one
        if one.name in ranking:
            passed_over.append(f"{one.name} was measured here but is passed over: {reason}")
    if elsewhere is not None:
        raise elsewhere
    needed = sorted({one.runtime for one in able})
    raise MissingOnHost(f"{target.folder}: none of the runtimes it needs is here: "
                        f"{', '.join(needed)}",
                        hint=f"pip install 'edgekd[{needed[0]}]'")  # fmt: skip


def runtime_class(name: str) -> type[Runtime]:
    """A runtime by name. One of a package outside edgekd is never imported for a bundle's sake."""
    if ":" in name:
        raise BundleError(f"runtime '{name}' is not one of edgekd's own")
    if name not in plugins.names("runtimes"):
        raise BundleError(f"there is no runtime '{name}'",
                          hint=did_you_mean(name, plugins.names("runtimes")))  # fmt: skip
    return plugins.load("runtimes", name, Runtime)  # type: ignore[type-abstract]


def why_not(folder: Path, artifact: Artifact, runtime: str | None = None) -> str:
    """Why an artifact does not run on this machine though its runtime is here; "" if it does."""
    return runtime_class(runtime or artifact.runtime).why_not(inside(folder, artifact.file))


def is_present(name: str) -> bool:
    """Whether a runtime can run on this machine."""
    return runtime_class(name).probe().available


def logits_of(
    session: Runs,
    squares: npt.NDArray[np.uint8],
    batch: int,
    progress: Callable[[int], object] | None = None,
) -> npt.NDArray[np.float32]:
    """Logits (N, ...) of cropped images uint8 (N, S, S, 3), by batches.

    A model with a fixed batch gets that one; its last, partial batch is filled up with zeros and
    cut off again. `progress` is called with the number of images of each batch.
    """
    inputs, outputs = session.facts.inputs, session.facts.outputs
    name = INPUT_NAME if INPUT_NAME in inputs else next(iter(inputs))
    result = OUTPUT_NAME if OUTPUT_NAME in outputs else next(iter(outputs))
    fixed = inputs[name][0]
    step = fixed if fixed > 0 else max(1, batch)
    parts = []
    for start in range(0, len(squares), step):
        images = to_input(squares[start : start + step])
        count = len(images)
        if fixed > count:
            filler = np.zeros((fixed - count, *images.shape[1:]), dtype=images.dtype)
            images = np.concatenate([images, filler])
        parts.append(np.asarray(session.run({name: images})[result][:count], dtype=np.float32))
        if progress is not None:
            progress(count)
    if not parts:
        return np.zeros((0, *(max(0, side) for side in outputs[result][1:])), dtype=np.float32)
    return np.concatenate(parts)


def _session(target: Target, artifact: Artifact, name: str, runtime: Runtime) -> Session:
    facts, manifest = runtime.facts, target.manifest
    if manifest is None:
        input_name, shape = image_input(target.folder / artifact.file, facts)
        return Session(target, artifact, name, runtime, shape, input_name)
    size = manifest.input.size
    if ":" in manifest.task or manifest.task not in plugins.names("tasks"):
        raise BundleError(f"{target.folder}: there is no task '{manifest.task}'",
                          hint=did_you_mean(manifest.task, plugins.names("tasks")))  # fmt: skip
    task = plugins.load("tasks", manifest.task, Task)(  # type: ignore[type-abstract]
        classes=manifest.classes, primary=manifest.primary
    ).taught(manifest.learned)
    found, result = facts.inputs.get(INPUT_NAME, ()), facts.outputs.get(OUTPUT_NAME, ())
    wanted = task.logits_shape(size)
    if found[1:] != (3, size, size) or result[1:] != wanted:
        raise BundleError(
            f"{artifact.file}: inputs {facts.inputs} and outputs {facts.outputs}; expected "
            f"'{INPUT_NAME}' (N, 3, {size}, {size}) and '{OUTPUT_NAME}' "
            f"(N, {', '.join(map(str, wanted))})"
        )
    return Session(
        target, artifact, name, runtime, (3, size, size), INPUT_NAME, manifest.input, task
    )
