"""The documents say what is: links resolve, recipes validate, commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import typer
import yaml

from edgekd.cli import app
from edgekd.recipe import Recipe

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
SPOKEN = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?edgekd ([a-z][^#]*)")


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def anchors(document: Path) -> set[str]:
    """The headings of a document, as they appear in links."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(document)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def test_documents_are_found() -> None:
    assert len(DOCUMENTS) > 20


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(document: Path) -> None:
    for link in LINK.findall(FENCE.sub("", text_of(document))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), f"{document.name}: {link}"
        assert target.is_relative_to(ROOT), f"{document.name}: {link} leaves the repository"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{document.name}: {link}"


def recipes() -> list[tuple[str, str]]:
    found = []
    for document in DOCUMENTS:
        for number, (language, body) in enumerate(FENCE.findall(text_of(document))):
            if language == "yaml" and re.search(r"^edgekd: 1$", body, re.MULTILINE):
                found.append((f"{document.relative_to(ROOT)}[{number}]", body))
    return found


def test_recipes_in_the_documents_are_valid() -> None:
    found = recipes()
    assert len(found) >= 2
    for where, body in found:
        assert Recipe.model_validate(yaml.safe_load(body)).name, where


def commands(group: click.Command, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], set[str]]:
    """Every command of the command line with its options."""
    found = {path: {name for p in group.params for name in [*p.opts, *p.secondary_opts]}}
    for name, command in getattr(group, "commands", {}).items():
        found |= commands(command, (*path, name))
    return found


def spoken(document: Path) -> list[str]:
    """What follows `edgekd` where the document shows it as code."""
    text = text_of(document)
    lines = [line for _, body in FENCE.findall(text) for line in body.splitlines()]
    lines += INLINE.findall(FENCE.sub("", text))
    return [match.group(1) for line in lines if (match := SPOKEN.match(line.strip()))]


def test_commands_in_the_documents_exist() -> None:
    known = commands(typer.main.get_command(app))
    assert len(known) >= 13
    seen = 0
    for document in DOCUMENTS:
        for line in spoken(document):
            seen += 1
            where = f"{document.relative_to(ROOT)}: edgekd {line}"
            words = line.split()
            path: tuple[str, ...] = ()
            for word in words[:2]:  # `recipes list|show|copy` names several at once
                choices = [(*path, part) for part in word.split("|")]
                if not all(choice in known for choice in choices):
                    break
                path = choices[-1]
            assert path, where
            is_group = any(len(other) > len(path) and other[: len(path)] == path for other in known)
            assert not is_group or len(words) == 1, where
            for word in words:
                if word.startswith("--"):
                    option = word.partition("=")[0].strip("[]")
                    assert option in known[path] | {"--help", "--debug"}, where
    assert seen > 15


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The plug-ins that CONTRIBUTING.md shows, as files in folders."""
    found = {}
    for language, body in FENCE.findall(text_of(ROOT / "CONTRIBUTING.md")):
        named = re.match(r"# (\w+)/(\w+)\.py\n", body)
        if language == "python" and named:
            kind, name = named.groups()
            folder = tmp_path_factory.mktemp(kind)
            (folder / f"{name}.py").write_text(body, encoding="utf-8")
            found[kind] = folder
    assert sorted(found) == ["data", "losses", "runtimes"]
    return found


def test_contributing_example_loss(examples: dict[str, Path]) -> None:
    import torch

    from edgekd.losses.base import Batch, Clock, Loss, Outputs
    from edgekd.plugins import check_arguments, load

    cls = load("losses", "logit_mse", Loss, folders=[examples["losses"]])
    check_arguments(cls, {"centred": True}, "params")
    loss = cls(centred=True)
    logits = torch.randn(4, 3, requires_grad=True)
    student = Outputs(logits, {}, torch.nn.Identity())
    same = Outputs(logits.detach() + 5.0, {}, torch.nn.Identity())
    batch = Batch(torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.long))
    value = loss(student, [same], batch, Clock(1, 1, 0, 1))
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-10)
    assert logits.grad is not None


def test_contributing_example_data(examples: dict[str, Path], tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    from edgekd.data.read import open_source
    from edgekd.recipe_data import DataSpec

    for name in ("ann_benign_1", "ann_malignant_2", "bob_benign_3"):
        Image.fromarray(np.zeros((9, 7, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    spec = DataSpec(name="by_prefix", root=str(tmp_path), params={"suffix": ".png"})
    source = open_source(spec, [examples["data"]])
    assert source.classes == ("benign", "malignant")
    assert source.targets().tolist() == [0, 1, 0]
    assert list(source.groups()) == ["ann", "ann", "bob"]
    assert source[1].image.shape == (9, 7, 3)
    assert source.fingerprint()


def test_contributing_example_runtime(examples: dict[str, Path], tmp_path: Path) -> None:
    import numpy as np
    from onnx import TensorProto, helper, save

    from edgekd.plugins import load
    from edgekd.runtimes.base import Runtime

    cls = load("runtimes", "onnx_reference", Runtime, folders=[examples["runtimes"]])  # type: ignore[type-abstract]
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["input"], ["logits"], axes=[2, 3], keepdims=0)],
        "mean",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
    )
    path = tmp_path / "mean.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)
    assert cls.probe().available
    images = np.random.default_rng(0).random((2, 3, 4, 4), dtype=np.float32)
    with cls(path) as runtime:
        logits = runtime.run({"input": images})["logits"]
    assert np.allclose(logits, images.mean(axis=(2, 3)))
