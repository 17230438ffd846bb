"""`edgekd import`: a bundle of somebody's own finished ONNX classifier. Torch-free."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgekd import __version__, recipe_load
from edgekd.bundle import (
    SCHEMA_VERSION,
    Manifest,
    ModelFacts,
    OperatingPoint,
    close_bundle,
    is_bundle,
)
from edgekd.data.origin import digests
from edgekd.errors import BundleError, DataError, EdgekdError
from edgekd.export import golden as goldens
from edgekd.export.adapt import adapt
from edgekd.export.adopt_checks import NAME_DATA, check_calibration, task_of
from edgekd.export.artifacts import Evidence, make_each, onnx_file
from edgekd.export.assumed import assumed, doubts, is_drawn
from edgekd.export.finish import finish
from edgekd.export.foreign import Foreign, check_packages, first_line, read_foreign, shown
from edgekd.export.given import Given, Say
from edgekd.export.graph_cost import count_macs, count_params
from edgekd.export.make import keep_measurements, unchanged
from edgekd.export.materials import Materials
from edgekd.export.original import Original, Pixels
from edgekd.export.packages import versions
from edgekd.export.place import FILE, check_place, is_same_evidence, leaving_nothing, older
from edgekd.export.plan import EXACT, ONNX, Step, plan
from edgekd.export.same import prove_same
from edgekd.export.thresholds import check_classes, measured, operating_points
from edgekd.export.tidy import write
from edgekd.export.verdicts import accept, add, carry_reasons, check_reason, raise_if_failed
from edgekd.git_state import git_state
from edgekd.log import say as say_to_person
from edgekd.log import warn
from edgekd.recipe import Recipe
from edgekd.rundir import RunDir, only_one_on, replace_folder
from edgekd.signature import saying_if_removed
from edgekd.tasks.base import Task


@dataclass(frozen=True)
class Wanted:
    """What a bundle is to be made of. `recipe` has no stages, and the file as `export.model`.

    Without `has_data` its `data` says only what the input is, and `classes` must be given.
    """

    file: Path
    recipe: Recipe
    has_data: bool = True
    classes: Sequence[str] | None = None  # must be those of the data, if both are given
    scale: float = 1.0  # pixels in [0, 1] are multiplied by it, before the model's mean and std
    output: str | None = None
    replaces: bool = False  # a bundle of another file or other classes, and all that is in it

    @property
    def pixels(self) -> Pixels:
        spec = self.recipe.models[self.recipe.export.model]
        return Pixels(self.scale, tuple(spec.mean or (0.0,) * 3), tuple(spec.std or (1.0,) * 3))


def adopt(
    wanted: Wanted, folder: Path, *, reason: str | None = None, say: Say = say_to_person
) -> Manifest:
    """Make the bundle `folder` of an ONNX file, with the artifacts of `export.make`.

    The fp32 artifact must give the logits of the file as it came, run by ONNX Runtime with the
    pixels normalised in numpy; the others are judged against those. The same call again does
    nothing. The data's own split is used unless the recipe says another.
    Raises BundleError for a file that cannot become a bundle and for a folder that is something
    else, RecipeError and DataError for the rest of what was asked, MissingOnHost for absent
    packages, and at the end GateFailed.
    """
    check_reason(reason)
    steps = plan(wanted.recipe.export.make)
    check_packages()
    file = read_foreign(wanted.file)
    materials: Materials | None = None
    if wanted.has_data:
        wanted, materials = _open(wanted, folder, say)
    check_calibration(steps, materials)
    task = task_of(wanted, materials)
    job = _Job(wanted, file, task, materials, _key(wanted, file, materials), say)
    with leaving_nothing(folder), saying_if_removed([folder], say), only_one_on(folder):
        manifest = job.update(folder, steps, reason)
    raise_if_failed(manifest)
    return manifest


@dataclass(frozen=True)
class _Job:
    """One file on its way into one bundle folder."""

    wanted: Wanted
    file: Foreign
    task: Task
    materials: Materials | None
    key: str
    say: Say

    def update(self, folder: Path, steps: list[Step], reason: str | None) -> Manifest:
        """Make what the bundle there lacks: everything, unless it is made of the same things."""
        wanted, came = self.wanted, self.file.sha256
        check_place(folder, wanted.recipe.name, came, self.task.classes, replaces=wanted.replaces)
        known = unchanged(folder, self.key)
        names = [step.name for step in steps]
        if known is not None and set(names) <= set(known.artifacts):
            self.say(f"{folder}: up to date")
            return accept(folder, known, reason)
        if known is None and is_bundle(folder):
            self.say(f"{folder}: the file, its data or what is asked of it has changed, so it is "
                     "made anew")  # fmt: skip
        if known is None and not wanted.replaces:
            known = older(folder, came)
        if known is not None:
            steps = plan([*known.artifacts, *names])  # nothing good gets lost
            check_calibration(steps, self.materials)
        return self._make(folder, steps, known, reason)

    def _make(
        self, folder: Path, steps: list[Step], known: Manifest | None, reason: str | None
    ) -> Manifest:
        """Make the bundle in a neighbour folder and swap it in."""
        size = self.wanted.recipe.data.input.size
        original = Original(self.file, self.wanted.pixels, size)
        head = original.choose(self.task.classes, self.wanted.output)
        self.say(f"{self.file.path.name}: opset {self.file.opset}, '{self.file.input}' "
                 f"{shown(self.file.dims)} to '{head.output}', {self.task.outputs()} classes"
                 )  # fmt: skip
        model, changes = adapt(original, self.task.outputs())
        told = assumed(self.task.classes, self.wanted.pixels,
                       are_given=self.wanted.classes is not None)  # fmt: skip
        for change in (*changes, *told):
            self.say(f"  {change}")
        name = self.wanted.recipe.export.model
        with replace_folder(folder) as draft:
            self._write(model, draft / onnx_file(EXACT), original, changes)
            golden = goldens.write_golden(
                draft / goldens.FOLDER, self.wanted.recipe.data.input, original.logits
            )
            manifest = self._manifest(model, original)
            if not manifest.model.macs:
                changes.append("multiply-accumulates could not be counted: some shapes are unknown")
            evidence = self._evidence(original, golden)
            doubted: list[str] = []
            for artifact, said in make_each(name, steps, draft, self._given(), evidence):
                if artifact.name == f"{ONNX}-{EXACT}":
                    doubted = doubts(artifact.scores, self.task.outputs(),
                                     is_drawn=is_drawn(self.wanted.recipe.data.split))  # fmt: skip
                    notes = [f"imported from {self.file.path.name}", *changes, *told, *doubted]
                    artifact = artifact.model_copy(update={"notes": notes})
                manifest = add(manifest, artifact, reason, self.say)
                manifest = measured(manifest, artifact.name, said, self.task)
            if known is not None and is_same_evidence(known, manifest):
                manifest = carry_reasons(known, close_bundle(draft, manifest), self.say)
            keep_measurements(folder, draft)
            manifest = finish(draft, manifest)
        self._say_score(manifest)
        for doubt in doubted:
            warn(doubt)
        return manifest

    def _write(self, model: Any, path: Path, original: Original, changes: list[str]) -> None:
        try:
            write(model, path)
        except (EdgekdError, OSError):
            raise
        except Exception as error:  # onnx's own errors share no base class
            raise BundleError(
                f"{self.file.path} cannot be brought into a bundle's form: {first_line(error)}",
                hint="export it with opset 18, one float32 input and logits as its only output",
            ) from error
        prove_same(original, path, changes)

    def _manifest(self, model: Any, original: Original) -> Manifest:
        recipe, file = self.wanted.recipe, self.file
        tree = recipe.model_dump(mode="json", by_alias=True) if self.materials else {}
        text = recipe_load.to_yaml(recipe) if self.materials else ""
        origin: dict[str, Any] = {}
        if self.materials is not None:
            source = self.materials.source
            origin = {"data_fingerprint": source.fingerprint(),
                      **digests(source, self.materials.split)}  # fmt: skip
        came = file.model
        return Manifest(
            name=recipe.name, task=recipe.task.name, primary=self.task.primary,
            classes=list(self.task.classes), input=recipe.data.input,
            thresholds=self._points(original),
            opset=max(entry.version for entry in model.opset_import),
            model=ModelFacts(name=recipe.export.model, arch=f"onnx:{file.path.name}",
                             params=count_params(model), macs=count_macs(model) or 0,
                             role="model"),
            recipe=tree, recipe_sha256=hashlib.sha256(text.encode()).hexdigest() if text else "",
            provenance={
                "key": self.key, FILE: file.sha256, "versions": versions(), **origin,
                **({"git": git} if (git := git_state(file.path)) else {}),
                "imported": {"opset": file.opset, "ir_version": came.ir_version,
                             "producer": f"{came.producer_name} {came.producer_version}".strip()},
                "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
        )  # fmt: skip

    def _points(self, original: Original) -> dict[str, OperatingPoint]:
        """Chosen by the file's own logits on validation images."""
        spec = self.wanted.recipe.export.thresholds
        if not spec:
            return {}
        check_classes(spec, self.task)
        if self.materials is None:
            raise DataError("export.thresholds: operating points are chosen on images, and no data "
                            "is named", hint=NAME_DATA)  # fmt: skip
        logits = original.logits_of(self.materials.squares_of("val"))
        said = self.materials.from_logits(logits, "val")
        return operating_points(self.task, said, spec, self.say)

    def _evidence(self, original: Original, golden: goldens.Golden) -> Evidence:
        """The file's own logits are the reference, on the golden and on the test images."""
        recipe = self.wanted.recipe
        evidence = Evidence(task=self.task, input=recipe.data.input, golden=golden,
                            limits=recipe.export.gate,
                            why_no_images="it was imported without data")  # fmt: skip
        if self.materials is None:
            return evidence
        squares = self.materials.test_squares
        self.say(f"running {self.file.path.name} on {len(squares)} test images")
        reference = self.materials.from_logits(original.logits_of(squares))
        return replace(evidence, reference=reference, squares=squares)

    def _given(self) -> Given:
        if self.materials is not None:
            return self.materials.given()

        def refuse() -> Any:
            raise AssertionError("`adopt` has refused what would need images")

        return Given(refuse, refuse, self.task, self.wanted.recipe.export, self.say)

    def _say_score(self, manifest: Manifest) -> None:
        """The score of the file itself."""
        scores = manifest.artifacts[f"{ONNX}-{EXACT}"].scores
        if not scores:
            self.say("no data was named: it is judged by its logits on drawn pictures only")
            return
        score = scores[self.task.primary]
        if score.value is None:
            return
        interval = ""
        if score.low is not None and score.high is not None:
            interval = f" ({score.low:.3f} to {score.high:.3f})"
        self.say(f"{self.file.path.name}: {self.task.primary} {score.value:.3f}{interval} on "
                 f"{score.images} test images")  # fmt: skip


def _open(wanted: Wanted, folder: Path, say: Say) -> tuple[Wanted, Materials]:
    """The data; where it has a split of its own and no other is asked for, that one.

    A model that came from elsewhere was trained on the official train part, if on any of it.
    """
    materials = Materials(RunDir(folder), wanted.recipe, say, is_run=False)
    data = wanted.recipe.data
    if "split" not in data.model_fields_set and materials.source.parts() is not None:
        say("data.split is not given: the data's official split is used")
        data = data.model_copy(update={"split": "official"})
        wanted = replace(wanted, recipe=wanted.recipe.model_copy(update={"data": data}))
        materials.recipe = wanted.recipe  # its split has not been made yet
    return wanted, materials


def _key(wanted: Wanted, file: Foreign, materials: Materials | None) -> str:
    """Changes when anything changes that the bundle is made of (which artifacts apart)."""
    recipe = wanted.recipe
    export = recipe.export.model_dump(mode="json")
    del export["make"]
    parts = (recipe.task, recipe.data)
    return recipe_load.digest([
        __version__, SCHEMA_VERSION, file.sha256, recipe.name, recipe.export.model, export,
        *(part.model_dump(mode="json", by_alias=True) for part in parts),
        asdict(wanted.pixels), list(wanted.classes or ()), wanted.output,
        materials.source.fingerprint() if materials else None,
    ])  # fmt: skip
