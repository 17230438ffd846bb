"""A search for good values: Optuna thinks, the sweep's processes try, SQLite remembers.

Several `edgekd sweep --search` may work on one study. A trial whose process was killed is taken up
again with its values; nothing is judged by test images.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgekd import recipe_load
from edgekd.errors import RecipeError, did_you_mean
from edgekd.plugins import load, missing_package
from edgekd.recipe import Recipe
from edgekd.recipe_search import Range, SearchSpec
from edgekd.rundir import write_text
from edgekd.sweep.plan import DataKeys, Trial, make_trial
from edgekd.sweep.run import TRIES
from edgekd.sweep.space import Values, apply, combinations, steps
from edgekd.sweep.state import Ended, SweepDir
from edgekd.tasks.base import Task


class Search:
    """The trials of one search: a `run.Source`."""

    def __init__(
        self, recipe: Recipe, variant: str, folder: SweepDir, *, trials: int | None = None
    ) -> None:
        if recipe.search is None:
            raise RecipeError("the recipe has no `search:`", hint="see docs/guides/searches.md")
        self.search: SearchSpec = recipe.search
        self.recipe, self.variant, self.folder = recipe, variant, folder
        self.model = self.search.model or recipe.export.model
        if self.model not in recipe.models:
            raise RecipeError(f"search.model: there is no model '{self.model}'",
                              hint=did_you_mean(self.model, recipe.models))  # fmt: skip
        self.score, self.direction = _objective(recipe)
        self.wanted = trials or self.search.trials
        if self.search.method == "grid":
            self.wanted = sum(1 for _ in combinations(self.search))
        self._space = {
            key: _distribution(span, self.search.method == "grid")
            for key, span in self.search.space.items()
        }
        self.data = DataKeys()
        self.root = folder.root / "search" / variant
        self.study = self._open()
        self.given_up: set[int] = set()
        self.tries: dict[int, int] = {}
        self.fatal: str | None = None  # a recipe that cannot run at all

    def trials(self) -> Sequence[Trial]:
        return [self._trial(found) for found in self._found()]

    def next(self, busy: Sequence[Trial]) -> Trial | None:
        """A trial that lost its process, else a new one."""
        if self.fatal:
            return None
        names = {trial.name for trial in busy}
        with self._alone():
            self._drop_unfinished()
            for found in self._found():
                if not self._is_open(found):
                    continue
                trial = self._trial(found)
                if trial.name in names or found.number in self.given_up:
                    continue
                if self.folder.is_done(trial):  # killed between the run's end and its note
                    self._tell(found.number, trial)
                elif self.folder.status(trial) != "running":
                    return trial
            counted = [found for found in self._found() if set(found.params) == set(self._space)]
            if len(counted) >= self.wanted:
                return None
            return self._trial(self._ask(len(counted)))

    def waits(self) -> bool:
        return any(
            self._is_open(found) and self.folder.status(self._trial(found)) == "running"
            for found in self._found()
        )

    def ended(self, trial: Trial, ended: Ended) -> None:
        number = int(trial.name.rpartition("-")[2])
        if ended.outcome == "done":
            with self._alone():
                self._tell(number, trial)
        elif ended.outcome == "failed":
            self.tries[number] = self.tries.get(number, 0) + 1
            if ended.signal and self.tries[number] < TRIES:
                return
            self.given_up.add(number)
            self.study.tell(number, state=_state("FAIL"), skip_if_finished=True)
            if not any(found.state.name == "COMPLETE" for found in self._found()):
                self.fatal = ended.message

    def best(self) -> tuple[int, Values, float] | None:
        """Number, values and score of the best trial so far."""
        done = [found for found in self._found() if found.state.name == "COMPLETE"]
        if not done:
            return None
        sign = 1.0 if self.direction == "higher" else -1.0
        first = max(done, key=lambda found: (sign * found.value, -found.number))
        return first.number, dict(first.params), float(first.value)

    def record(self) -> dict[str, Any]:
        """All trials and the best values as plain data."""
        best = self.best()
        return {
            "variant": self.variant,
            "method": self.search.method,
            "score": self.score,
            "direction": self.direction,
            "model": self.model,
            "part": "val",
            "settings": self.search.settings,
            "wanted": self.wanted,
            "best": None if best is None else {"trial": best[0], "values": best[1],
                                               "value": best[2]},
            "trials": [
                {"trial": found.number, "state": found.state.name.lower(),
                 "values": dict(found.params), "value": found.value}
                for found in self._found()
            ],
        }  # fmt: skip

    def write(self) -> Path | None:
        """Write `search.json`, and the recipe with the best values as `best.yaml`."""
        write_text(self.root / "search.json", json.dumps(self.record(), indent=1) + "\n")
        best = self.best()
        if best is None:
            return None
        chosen = apply(self.recipe, best[1], "the best values")
        path = self.root / "best.yaml"
        write_text(path, recipe_load.to_yaml(chosen))
        return path

    def _trial(self, found: Any) -> Trial:
        values = {**self.search.settings, **found.params}
        recipe = apply(self.recipe, values, f"search trial {found.number}")
        return make_trial(f"search-{self.variant}-{found.number:04d}", self.variant, recipe,
                          self.data)  # fmt: skip

    def _is_open(self, found: Any) -> bool:
        return found.state.name == "RUNNING" and set(found.params) == set(self._space)

    def _found(self) -> list[Any]:
        found: list[Any] = self.study.get_trials(deepcopy=False)
        return found

    def _tell(self, number: int, trial: Trial) -> None:
        scores = json.loads(self.folder.run(trial).scores.read_text(encoding="utf-8"))
        value = scores[self.model]["val"][self.score]["value"]
        run = self.folder.run(trial).root
        facts = {"values": self._found()[number].params, "score": self.score, "value": value}
        write_text(run / "search.json", json.dumps(facts, indent=1, sort_keys=True) + "\n")
        if value is None:
            self.study.tell(number, state=_state("FAIL"), skip_if_finished=True)
        else:  # another process may have found the run done before us
            self.study.tell(number, float(value), skip_if_finished=True)

    def _ask(self, index: int) -> Any:
        """A new point, as a function of the seed, the index and what is known so far."""
        optuna = _optuna()
        seed = (self.search.seed * 100_003 + index) % 2**32
        self.study.sampler = (
            optuna.samplers.TPESampler(seed=seed, constant_liar=True)
            if self.search.method == "tpe"
            else optuna.samplers.RandomSampler(seed=seed)
        )
        asked = self.study.ask(self._space)
        return self._found()[asked.number]

    def _drop_unfinished(self) -> None:
        """Give back a point whose process was killed while it was being thought of."""
        for found in self._found():
            if found.state.name == "RUNNING" and set(found.params) != set(self._space):
                self.study.tell(found.number, state=_state("FAIL"))
                fixed = found.system_attrs.get("fixed_params")
                if fixed:
                    self.study.enqueue_trial(fixed)

    def _open(self) -> Any:
        optuna = _optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.root.mkdir(parents=True, exist_ok=True)
        settings = {"connect_args": {"timeout": 60}}
        facts = self.recipe.model_copy(update={"search": None, "variants": {}, "seeds": []})
        key = recipe_load.digest([
            self.search.model_dump(mode="json", exclude={"trials"}),
            facts.model_dump(mode="json", by_alias=True,
                             include={"task", "data", "models", "stages", "plugins", "seed"}),
        ])  # fmt: skip
        with self._alone():
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{(self.root / 'study.db').resolve()}", engine_kwargs=settings
            )
            study = optuna.create_study(
                storage=storage,
                study_name="search",
                direction="maximize" if self.direction == "higher" else "minimize",
                load_if_exists=True,
            )
            known = study.user_attrs.get("key")
            if known is not None and known != key:
                raise RecipeError(
                    f"{self.root} holds a search of another recipe or space",
                    hint="choose another folder with --out, or remove this one",
                )
            if known is None:
                if self.search.method == "grid":
                    for point in combinations(self.search):
                        study.enqueue_trial(point, skip_if_exists=True)
                study.set_user_attr("key", key)
        return study

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time decides what is tried next."""
        descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            with contextlib.suppress(ModuleNotFoundError):  # no such lock on this system
                import fcntl

                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _objective(recipe: Recipe) -> tuple[str, str]:
    """The score that is searched for and its direction."""
    assert recipe.search is not None
    cls = load("tasks", recipe.task.name, Task)  # type: ignore[type-abstract]
    name = recipe.search.score or recipe.task.primary or cls.default_primary
    known = cls(classes=("a", "b")).metrics()
    if name not in known:
        raise RecipeError(f"search.score: '{name}' is not a score of task '{recipe.task.name}'",
                          hint=did_you_mean(name, known))  # fmt: skip
    return name, known[name].direction


def _distribution(span: Range, is_grid: bool) -> Any:
    kinds = _optuna().distributions
    if is_grid or span.values is not None:
        return kinds.CategoricalDistribution(list(steps(span)))
    if span.integer:
        return kinds.IntDistribution(int(span.low or 0), int(span.high or 0), log=span.log,
                                     step=int(span.step or 1))  # fmt: skip
    return kinds.FloatDistribution(span.low, span.high, log=span.log, step=span.step)


def _state(name: str) -> Any:
    return _optuna().trial.TrialState[name]


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        package = (error.name or "optuna").split(".")[0]
        raise missing_package(package, "edgekd sweep --search") from None
    return optuna
