"""A stage as a graph: models, and terms that look from some of them to one of them.

The distiller runs every model once per batch, then every term once. It knows no method's name.
It guarantees, once and for all terms: frozen models in eval mode and without gradient; sources
detached, their heads too; losses in fp32 outside autocast; only the taps that are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekd.errors import RecipeError
from edgekd.losses.base import Batch, Clock, Facts, Loss, Outputs
from edgekd.models.network import Network, OnnxTeacher
from edgekd.models.taps import Recorder, head_of
from edgekd.plugins import check_arguments, load
from edgekd.recipe import StageSpec, Term

TERM = "term_"  # before the names of terms, some of which nn.ModuleDict would refuse (`type`)


def build_terms(stage: StageSpec, where: str, folders: Sequence[Path], task: str) -> nn.ModuleDict:
    """Make the loss of every term of a stage.

    Raises RecipeError for an unknown loss, a parameter that it does not take, or a task that it
    is not for.
    """
    terms = nn.ModuleDict()
    for name, term in stage.losses.items():
        place = f"{where}.losses.{name}"
        cls = load("losses", term.loss or name, Loss, folders=folders)
        params = check_arguments(cls, term.params, f"{place}.params")
        if task not in cls.tasks:
            raise RecipeError(f"{place}: loss '{term.loss or name}' is not for task '{task}'")
        if cls.needs_teacher and not term.from_:
            raise RecipeError(f"{place}: this loss needs a teacher", hint="set its `from:`")
        if not cls.needs_teacher and term.from_:
            raise RecipeError(f"{place}: this loss takes no teacher", hint="remove its `from:`")
        try:
            terms[f"{TERM}{name}"] = cls(**params)
        except ValueError as error:
            raise RecipeError(f"{place}.params: {error}") from None
    return terms


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
        self._heads: dict[str, Callable[[Tensor], Tensor]] = {}
        self._recorders: dict[str, Recorder] = {}
        for name in present:
            network = networks[name]
            wanted = {
                tap
                for key, term in self.specs.items()
                if name == term.to or name in term.from_
                for tap in self._taps_of(key)
            }
            if wanted and isinstance(network.net, OnnxTeacher):
                raise RecipeError(
                    f"{where}: '{name}' is an ONNX file and gives logits only, but a term asks "
                    f"for {sorted(wanted)}"
                )
            self._recorders[name] = Recorder(network, wanted, name)
            self._heads[name] = head_of(network)

    def _taps_of(self, key: str) -> tuple[str, ...]:
        loss = self.terms[f"{TERM}{key}"]
        assert isinstance(loss, Loss)
        return loss.taps

    def setup(self, batch: Batch, facts: Facts) -> None:
        """Let every term build its adapters from one small batch."""
        was_training = self.training
        self.eval()
        with torch.no_grad():
            outputs = self._run_models(batch)
        for key, term in self.specs.items():
            loss = self.terms[f"{TERM}{key}"]
            assert isinstance(loss, Loss)
            loss.setup(outputs[term.to], [outputs[name] for name in term.from_], facts)
        self.train(was_training)

    def train(self, mode: bool = True) -> Distiller:
        """Frozen models stay in eval mode: their BatchNorm statistics must not move."""
        super().train(mode)
        for name, network in self.networks.items():
            if name not in self.trained:
                network.eval()
        return self

    def forward(self, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        """The unweighted value of every term."""
        outputs = self._run_models(batch)
        values = {}
        with torch.autocast(batch.images.device.type, enabled=False):
            for key, term in self.specs.items():
                sources = [
                    self._detached(name, outputs[name]) if term.stop_gradient else outputs[name]
                    for name in term.from_
                ]
                values[key] = self.terms[f"{TERM}{key}"](outputs[term.to], sources, batch, clock)
        return values

    def total(self, values: dict[str, Tensor]) -> Tensor:
        """The weighted sum that is minimised."""
        return torch.stack([self.specs[key].weight * value for key, value in values.items()]).sum()

    def adapters(self) -> list[nn.Parameter]:
        """Parameters that only distillation needs; never exported."""
        return list(self.terms.parameters())

    def _run_models(self, batch: Batch) -> dict[str, Outputs]:
        outputs = {}
        for name, network in self.networks.items():
            with torch.set_grad_enabled(torch.is_grad_enabled() and name in self.trained):
                logits = network(batch.images)
            outputs[name] = Outputs(
                logits=logits.float(), taps=self._recorders[name].take(), head=self._heads[name]
            )
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
