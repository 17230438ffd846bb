"""A search for good values: Optuna thinks, the sweep's processes try, SQLite remembers.

Several commands may work on one study. A trial whose process was killed is taken up again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekd import recipe_load
from edgekd.errors import RecipeError, did_you_mean
from edgekd.locks import held
from edgekd.plugins import missing_package
from edgekd.recipe import Recipe
from edgekd.recipe_search import Range, SearchSpec
from edgekd.rundir import write_text
from edgekd.sweep import coordinate
from edgekd.sweep.plan import DataKeys, Trial, make_trial
from edgekd.sweep.run import TRIES
from edgekd.sweep.space import Values, apply, combinations, objective, steps
from edgekd.sweep.state import Ended, SweepDir

AGAIN = "tries_again"  # the number of the failed trial whose values this one has


class Search:
    """The trials of one search: a `run.Source`."""

    def __init__(
        self, recipe: Recipe, variant: str, folder: SweepDir, *, trials: int | None = None
    ) -> None:
        if recipe.search is None:
            raise RecipeError("the recipe has no `search:`", hint="see docs/guides/sweeps.md")
        self.search: SearchSpec = recipe.search
        self.recipe, self.variant, self.folder = recipe, variant, folder
        self.model = self.search.model or recipe.export.model
        scored = {**recipe.models, **recipe.ensembles}
        if self.model not in scored:
            raise RecipeError(f"search.model: there is no model '{self.model}'",
                              hint=did_you_mean(self.model, scored))  # fmt: skip
        self.score, self.direction = objective(recipe)
        self.wanted = wanted(self.search, trials)
        self._space = {
            key: _distribution(span, self.search.is_finite)
            for key, span in self.search.space.items()
        }
        self.data = DataKeys()
        self.root = folder.root / "search" / variant
        self.study = self._open()
        self.tries: dict[int, int] = {}
        self.failed = 0
        self.fatal: str | None = None  # nothing of this search seems to run
        self._made: dict[int, Trial] = {}

    def trials(self) -> Sequence[Trial]:
        return [self._trial(found) for found in self._counted()]

    def try_again(self) -> None:
        """Put the trials that failed in earlier calls back in line, with their values."""
        with self._alone():
            for found in self._counted():
                if found.state.name == "FAIL":
                    again = {AGAIN: found.number}
                    self.study.enqueue_trial(dict(found.params), user_attrs=again)

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
                if trial.name in names:
                    continue
                if self.folder.is_done(trial):  # killed between the run's end and its note
                    self._tell(found.number, trial)
                elif self.folder.status(trial) != "running":
                    return trial
            if self.search.method == "coordinate":
                if not self._is_queued():
                    todo = self._outlook().todo
                    if not todo:
                        return None
                    self.study.enqueue_trial(todo[0])
            elif len(self._counted()) >= self.wanted:
                return None
            return self._trial(self._ask(len(self._found())))

    def waits(self) -> bool:
        return any(
            self._is_open(found) and self.folder.status(self._trial(found)) == "running"
            for found in self._found()
        )

    def left(self) -> int:
        if self.search.method == "coordinate":
            return self._outlook().left
        finished = [found for found in self._counted() if found.state.is_finished()]
        return max(0, self.wanted - len(finished))

    def ended(self, trial: Trial, ended: Ended) -> None:
        number = int(trial.name.rpartition("-")[2])
        if ended.outcome == "done":
            with self._alone():
                self._tell(number, trial)
        elif ended.outcome == "failed":
            self.tries[number] = self.tries.get(number, 0) + 1
            if ended.signal and self.tries[number] < TRIES:
                return
            self.failed += 1
            with self._alone():
                self.study.tell(number, state=_state("FAIL"), skip_if_finished=True)
            done = any(found.state.name == "COMPLETE" for found in self._found())
            if not done and self.failed >= TRIES:
                self.fatal = ended.message

    def best(self) -> tuple[int, Values, float] | None:
        """Number, values and score of the best trial so far."""
        done = [found for found in self._found() if found.state.name == "COMPLETE"]
        if not done:
            return None
        if self.search.method == "coordinate":  # of values alike it stays at the recipe's own
            done = [one for one in done if dict(one.params) == self._outlook().best] or done
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
                for found in self._counted()
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

    def _outlook(self) -> coordinate.Outlook:
        higher = self.direction == "higher"
        return coordinate.look(self.search, self.recipe, self._counted(), higher=higher)

    def _is_queued(self) -> bool:
        """Does a point wait to be asked for: one that is tried again?"""
        return any(found.state.name == "WAITING" for found in self._found())

    def _counted(self) -> list[Any]:
        """The trials with values, without those that a later one has tried again."""
        replaced = {trial.user_attrs.get(AGAIN) for trial in self._found()}
        found = [trial for trial in self._found() if trial.number not in replaced]
        return [trial for trial in found if set(trial.params) == set(self._space)]

    def _trial(self, found: Any) -> Trial:
        if found.number not in self._made:
            self._made[found.number] = self._make(found)
        return self._made[found.number]

    def _make(self, found: Any) -> Trial:
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
        state = None if value is not None else _state("FAIL")
        self.study.tell(number, value, state=state, skip_if_finished=True)  # perhaps by another

    def _ask(self, index: int) -> Any:
        """A new point, as a function of the seed, the index and what is known so far."""
        samplers = _optuna().samplers
        seed = (self.search.seed * 100_003 + index) % 2**32
        if self.search.method == "tpe":
            self.study.sampler = samplers.TPESampler(seed=seed, constant_liar=True)
        else:
            self.study.sampler = samplers.RandomSampler(seed=seed)
        asked = self.study.ask(self._space)
        return self._found()[asked.number]

    def _drop_unfinished(self) -> None:
        """Give back a point whose process was killed while it was being thought of."""
        for found in self._found():
            if found.state.name == "RUNNING" and set(found.params) != set(self._space):
                self.study.tell(found.number, state=_state("FAIL"))
                fixed = found.system_attrs.get("fixed_params")
                if fixed:
                    self.study.enqueue_trial(fixed, user_attrs=dict(found.user_attrs))

    def _open(self) -> Any:
        optuna = _optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.root.mkdir(parents=True, exist_ok=True)
        settings = {"connect_args": {"timeout": 60}}
        # the stages' keys cover data, files and hardware as far as training sees them
        base = make_trial(self.variant, self.variant, self.recipe, self.data)
        space = self.search.model_dump(mode="json", exclude={"trials"})
        key = recipe_load.digest([space, list(base.keys.values()), self.model, self.score])
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
                    f"{self.root} holds a search of another recipe, space or data",
                    hint="choose another folder with --out, or remove this one",
                )
            if known is None:
                if self.search.method == "grid":
                    for point in combinations(self.search):
                        study.enqueue_trial(point, skip_if_exists=True)
                study.set_user_attr("key", key)
        return study

    def _alone(self) -> contextlib.AbstractContextManager[object]:
        """One process at a time decides what is tried next."""
        return held(self.root / ".lock")


def is_begun(folder: SweepDir, variant: str) -> bool:
    """Is there a study of this variant?"""
    return (folder.root / "search" / variant / "study.db").is_file()


def wanted(search: SearchSpec, trials: int | None = None) -> int:
    """How many trials a search makes: as asked, as the recipe says, or all that there are."""
    if search.method == "grid":
        return sum(1 for _ in combinations(search))
    if search.method == "coordinate":
        return coordinate.count(coordinate.axes_of(search))
    return trials or search.trials


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
