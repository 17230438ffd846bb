"""A stage as a graph: models, and terms that look from some of them to one of them.

The distiller runs every model once per batch (or takes what the batch says is known of it), then
every term once. It knows no method's name.
It guarantees, once and for all terms: frozen models in eval mode and without gradient; sources
detached, their heads too; losses in fp32 outside autocast; only the taps that are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError
from edgekd.losses.base import Batch, Clock, Facts, Loss, Outputs
from edgekd.models.neck import freeze_grafted
from edgekd.models.network import Network, OnnxTeacher, still
from edgekd.models.quantized import is_quantized
from edgekd.models.taps import Recorder, head_of
from edgekd.recipe import StageSpec, Term
from edgekd.train.terms import TERM, named
from edgekd.train.together import gathered, gathered_batch

TIED = "needs_full_batches"


class Distiller(nn.Module):
    """The models and terms of one stage."""

    def __init__(
        self,
        stage: StageSpec,
        networks: dict[str, Network],
        terms: nn.ModuleDict,
        where: str = "stage",
    ) -> None:
        super().__init__()
        self.where = where
        self.rank = 0  # of the processes that train together
        self.specs: dict[str, Term] = dict(stage.losses)
        self.trained = list(stage.train)
        present = [*stage.train, *stage.frozen]
        for name in present:
            if hasattr(nn.ModuleDict(), name):
                raise RecipeError(f"models.{name}: this name is taken, choose another")
        self.networks = nn.ModuleDict({name: networks[name] for name in present})
        self.terms = terms
        for name in stage.frozen:
            self.networks[name].requires_grad_(False)
        for name in stage.train:
            self.networks[name].requires_grad_(True)
            freeze_grafted(self.networks[name])
        sources = {name for term in self.specs.values() for name in term.from_}
        taught = {term.to for term in self.specs.values()}
        # a variant without a teacher's terms need not pay for the teacher
        self._asked = [name for name in present if name in {*self.trained, *sources, *taught}]
        self._heads: dict[str, Callable[[Tensor], Tensor]] = {}
        self._recorders: dict[str, Recorder] = {}
        self._classes = {name: networks[name].classes for name in present}
        for name in present:
            network = networks[name]
            wanted = {
                tap
                for key, term in self.specs.items()
                if name == term.to or name in term.from_
                for tap in self.taps_of(key)
            }
            if wanted and isinstance(network.net, OnnxTeacher):
                raise RecipeError(
                    f"{where}: '{name}' is an ONNX file and gives logits only, but a term asks "
                    f"for {sorted(wanted)}"
                )
            self._recorders[name] = Recorder(network, wanted, name)
            self._heads[name] = head_of(network)

    def taps_of(self, key: str) -> tuple[str, ...]:
        """The taps that a term asks for, of its student and of its teachers."""
        loss = self.terms[f"{TERM}{key}"]
        assert isinstance(loss, Loss)
        return loss.taps

    def tied_to_batch(self) -> list[str]:
        """The terms that take batches of one size only."""
        return [key for key in self.specs if getattr(self.terms[f"{TERM}{key}"], TIED)]

    def to_be_scored(self) -> list[str]:
        """The frozen models whose scores a term wants to know."""
        wanted = {
            name
            for key, term in self.specs.items()
            for name in term.from_
            if getattr(self.terms[f"{TERM}{key}"], "needs_scores", False)
        }
        return [name for name in self._asked if name in wanted and name not in self.trained]

    def notes(self) -> dict[str, float]:
        """What the terms want to keep with an epoch, by `TERM/NAME`."""
        return {
            f"{key}/{name}": value
            for key in self.specs
            for name, value in self.terms[f"{TERM}{key}"].notes().items()  # type: ignore[operator]
        }

    def cacheable(self, where: str) -> dict[str, list[str]]:
        """What a teacher cache keeps of each frozen model: `logits`, and `pooled` if a term asks.

        Raises RecipeError that names a term which needs more than that.
        """
        kept = {name: ["logits"] for name in self._asked if name not in self.trained}
        for key, term in self.specs.items():
            for name in [*term.from_, term.to]:
                if name not in kept:
                    continue
                more = sorted(set(self.taps_of(key)) - {"pooled"})
                if more:
                    raise RecipeError(
                        f"{where}.cache: term '{key}' needs {', '.join(more)} of '{name}'; only "
                        "logits and the tap `pooled` are cached",
                        hint=f"leave out the term, or the cache: {where}.cache=null",
                    )
                if "pooled" in self.taps_of(key) and "pooled" not in kept[name]:
                    kept[name].append("pooled")
        return kept

    def setup(self, batch: Batch, facts: Facts) -> None:
        """Let every term build its adapters from one small batch."""
        was_training = self.training
        self.eval()
        with torch.no_grad():
            outputs = self._run_models(batch, self.specs)
        for key, term in self.specs.items():
            loss = self.terms[f"{TERM}{key}"]
            assert isinstance(loss, Loss)
            own = replace(facts, student=term.to, teachers=tuple(term.from_))
            with named(key, loss):
                loss.setup(outputs[term.to], [outputs[name] for name in term.from_], own)
        self.train(was_training)

    def train(self, mode: bool = True) -> Distiller:
        """Frozen models stay in eval mode: their BatchNorm statistics must not move.

        Nor do those of a quantized one: the export folds them into weights, and batches of
        rounded values would give other ones than the device has.
        """
        super().train(mode)
        for name, network in self.networks.items():
            assert isinstance(network, Network)
            if name not in self.trained:
                network.eval()
            elif is_quantized(network.net):
                for module in network.modules():
                    if isinstance(module, nn.modules.batchnorm._BatchNorm):
                        module.eval()
        return self

    def forward(self, batch: Batch, clock: Clock, only: str | None = None) -> dict[str, Tensor]:
        """The unweighted value of every term, or of those that teach the model `only`.

        Where several processes train together (`batch.shares`), a term is of the whole batch, or
        of this process's images if it is a mean of images.

        In the latter case nothing else learns: the others answer without gradient and without
        moving the statistics of their BatchNorm. Raises RecipeError that names a term which fails.
        """
        specs = {key: term for key, term in self.specs.items() if only in (None, term.to)}
        outputs = self._run_models(batch, specs, only)
        values = {}
        whole = gathered_batch(batch, batch.shares, self.rank) if batch.shares else batch
        with torch.autocast(batch.images.device.type, enabled=False):
            for key, term in specs.items():
                loss = self.terms[f"{TERM}{key}"]
                seen, said = batch, outputs
                if batch.shares and not self.is_mean(key):
                    names = (term.to, *term.from_)
                    seen = whole
                    said = {name: self._gathered(outputs[name], batch, key) for name in names}
                sources = [
                    self._detached(name, said[name]) if term.stop_gradient else said[name]
                    for name in term.from_
                ]
                with named(key, loss):
                    value = loss(said[term.to], sources, seen, clock)
                if not isinstance(value, Tensor) or value.ndim:
                    is_tensor = isinstance(value, Tensor)
                    raise RecipeError(
                        f"term '{key}' ({type(loss).__name__}) returned "
                        f"{tuple(value.shape) if is_tensor else type(value).__name__}, expected a "
                        "tensor of one number, without dimensions",
                        hint="end it with .mean()" if is_tensor else None,
                    )
                values[key] = value
        return values

    def is_mean(self, key: str) -> bool:
        """Is a term a plain mean over images?"""
        return bool(getattr(self.terms[f"{TERM}{key}"], "is_mean_of_images", False))

    def _gathered(self, outputs: Outputs, batch: Batch, key: str) -> Outputs:
        taps = [tap for tap in self.taps_of(key) if tap in outputs.taps]
        return gathered(outputs, batch.shares, self.rank, taps)

    def total(self, values: dict[str, Tensor], shares: Sequence[int] = ()) -> Tensor:
        """The weighted sum that is minimised.

        Of several processes, whose gradients are averaged, each counts means of its images by
        their number in `shares`.
        """
        factor = len(shares) * shares[self.rank] / sum(shares) if shares else 1.0
        return torch.stack([
            self.specs[key].weight * (factor if self.is_mean(key) else 1.0) * value
            for key, value in values.items()
        ]).sum()  # fmt: skip

    def outweighing(self, means: dict[str, float]) -> dict[str, float]:
        """Terms that are larger than they say they should be, with their multiple of the task's.

        `means` are the unweighted values of an epoch. The task's part is that of the terms without
        a teacher that teach the same model.
        """
        found = {}
        for key, term in self.specs.items():
            loss = self.terms[f"{TERM}{key}"]
            assert isinstance(loss, Loss)
            task = sum(
                other.weight * means[name]
                for name, other in self.specs.items()
                if not other.from_ and other.to == term.to
            )
            if loss.most_of_task is not None and term.weight * means[key] > (
                loss.most_of_task * task
            ):
                found[key] = term.weight * means[key] / task if task else math.inf
        return found

    def adapters(self) -> list[nn.Parameter]:
        """Parameters that only distillation needs; never exported."""
        return list(self.terms.parameters())

    def adapters_of(self, key: str) -> Iterator[tuple[str, nn.Parameter]]:
        """The adapters of one term by name."""
        yield from self.terms[f"{TERM}{key}"].named_parameters()

    def ask(self, name: str, images: Tensor) -> Outputs:
        """Run one model on images (B, 3, S, S) in [0, 1]; a frozen one without gradient."""
        self._recorders[name].start()
        with torch.set_grad_enabled(torch.is_grad_enabled() and name in self.trained):
            logits = self.networks[name](images)
        return Outputs(
            logits=logits.float(),
            taps=self._recorders[name].take(),
            head=self._heads[name],
            classes=self._classes[name],
        )

    def _run_models(
        self, batch: Batch, specs: dict[str, Term], only: str | None = None
    ) -> dict[str, Outputs]:
        needed = {name for term in specs.values() for name in (*term.from_, term.to)}
        outputs = {}
        for name in self._asked if only is None else [n for n in self._asked if n in needed]:
            if name in batch.known:
                taps = dict(batch.known[name])
                logits = taps.pop("logits")
                outputs[name] = Outputs(logits, taps, self._heads[name], self._classes[name])
            elif only in (None, name):
                outputs[name] = self.ask(name, batch.images)
            else:
                with torch.no_grad(), still(self.networks[name]):
                    outputs[name] = self.ask(name, batch.images)
        return outputs

    def _detached(self, name: str, outputs: Outputs) -> Outputs:
        """What a term may see of a source: values without a way back to the source's weights.

        Gradients still pass through its head to the head's input (SRRL, UMKD need that).
        """
        network = self.networks[name]
        assert isinstance(network, Network)

        def head(pooled: Tensor) -> Tensor:
            trainable = [p for p in network.net.parameters() if p.requires_grad]
            for parameter in trainable:
                parameter.requires_grad_(False)
            try:
                return outputs.head(pooled)
            finally:
                for parameter in trainable:
                    parameter.requires_grad_(True)

        return Outputs(
            logits=outputs.logits.detach(),
            taps={tap: value.detach() for tap, value in outputs.taps.items()},
            head=head,
            classes=outputs.classes,
        )
