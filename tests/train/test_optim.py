"""Whose learning rate is how large."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from edgekd.errors import RecipeError
from edgekd.recipe import OptimizerSpec
from edgekd.train.distiller import Distiller
from edgekd.train.optim import build_optimizer
from tests.train.test_distiller import make

HINT = {"loss": "common_features", "from": "t", "to": "s", "params": {"tap": "s1", "hidden": 4}}


def distiller(**term: Any) -> Distiller:
    filtered = {**HINT["params"], "filter": "low_pass"}
    return make({"ce": {"to": "s"}, "sfa": {**HINT, "params": filtered, **term}})


def scales(found: Distiller, **scale: float) -> dict[str, float]:
    """The multiple of the base rate of one parameter of each part."""
    optimizer = build_optimizer(OptimizerSpec(lr=0.01, scale=scale), found)
    of = {id(p): group["scale"] for group in optimizer.param_groups for p in group["params"]}
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(0.01 * group["scale"])
    network, terms = found.networks["s"], found.terms["term_sfa"]
    every = [p for p in found.parameters() if p.requires_grad]
    assert sorted(of) == sorted(id(p) for p in every)  # each once
    return {
        "body": of[id(next(network.net.one.parameters()))],
        "head": of[id(network.net.fc.weight)],
        "filter": of[id(next(terms.filter.parameters()))],
        "common": of[id(next(terms.common.parameters()))],
    }


def test_heads_and_adapters_have_a_scale_of_their_own() -> None:
    assert set(scales(distiller()).values()) == {1.0}
    found = scales(distiller(), heads=10, adapters=5)
    assert found == {"body": 1, "head": 10, "filter": 5, "common": 5}


def test_a_terms_rates_multiply_that_of_parts_of_its_adapters() -> None:
    found = scales(distiller(rates={"filter": 0.1}), adapters=10)
    assert found == {"body": 1, "head": 1, "filter": 1, "common": 10}


def test_a_part_that_the_term_does_not_have_is_an_error() -> None:
    with pytest.raises(
        RecipeError, match=r"stage\.losses\.sfa\.rates: .* no adapter 'filtre'"
    ) as caught:
        build_optimizer(OptimizerSpec(), distiller(rates={"filtre": 0.1}))
    assert "did you mean 'filter'" in (caught.value.hint or "")
    plain = make({"ce": {"to": "s"}, "kd": {"from": "t", "to": "s", "rates": {"x": 1}}})
    with pytest.raises(RecipeError) as caught:
        build_optimizer(OptimizerSpec(), plain)
    assert caught.value.hint == "it has no adapters"


@pytest.mark.parametrize("rate", [-1, float("nan"), float("inf")])
def test_a_rate_that_would_train_uphill_is_refused(rate: float) -> None:
    with pytest.raises(ValidationError, match="rates"):
        distiller(rates={"filter": rate})
    with pytest.raises(ValidationError, match="scale"):
        OptimizerSpec(scale={"heads": rate})
