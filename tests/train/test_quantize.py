"""`quantize: int8` in a stage: a network learns as it will compute, and leaves as plain weights."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from edgekd.cli import main
from edgekd.errors import RecipeError
from edgekd.export.judge import logits_of_model
from edgekd.export.onnx_from_torch import to_onnx
from edgekd.export.quantize import finish, quantize
from edgekd.image import to_input
from edgekd.models.network import Network
from edgekd.models.quantized import FakeQuantize, is_quantized, plain, quantized
from edgekd.recipe_load import load
from edgekd.stage_keys import stage_keys
from tests import tiny
from tests.train.test_resume import distill, no_trial_export, run_and_kill, weights

__all__ = ["no_trial_export"]  # the fixture, which acts on every test of this module too


def squares(count: int, *, seed: int = 0, size: int = 32) -> np.ndarray[Any, Any]:
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return blocks.repeat(size // 4, axis=1).repeat(size // 4, axis=2)


def net(width: int = 8) -> nn.Module:
    namespace: dict[str, Any] = {"__name__": "nets"}
    exec(tiny.NETS, namespace)
    torch.manual_seed(0)
    built: nn.Module = namespace["build"](5, width)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # one pass makes the statistics those of the images
    built.train()
    with torch.no_grad():
        Network(built)(torch.from_numpy(to_input(squares(64))))
    return built.eval()


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(net()).eval()


class TestFakeQuantize:
    def test_an_activation_is_rounded_to_signed_int8(self) -> None:
        values = torch.linspace(-3, 3, 61)
        found = FakeQuantize(torch.tensor(2.0)).eval()(values)
        scale = np.float64(2.0) / 127
        wanted = np.clip(np.rint(values.double().numpy() / scale), -128, 127) * scale
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)

    def test_a_weight_has_the_range_of_each_channel(self) -> None:
        weight = torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(0))
        found = FakeQuantize(torch.ones(3, 1, 1, 1), axis=0)(weight)
        for channel, original in zip(found.numpy(), weight.double().numpy(), strict=True):
            scale = np.abs(original).max() / 127
            np.testing.assert_allclose(channel, np.rint(original / scale) * scale, atol=1e-6)

    def test_gradients_pass_inside_the_range_and_stop_outside(self) -> None:
        values = torch.tensor([-5.0, -0.5, 0.0, 0.7, 5.0], requires_grad=True)
        FakeQuantize(torch.tensor(1.0)).eval()(values).sum().backward()  # type: ignore[no-untyped-call]
        assert values.grad is not None
        assert values.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]

    def test_the_range_follows_training_only(self) -> None:
        module = FakeQuantize(torch.tensor(1.0))
        module.eval()(torch.tensor([3.0]))
        assert module.amax.item() == 1.0
        module.train()(torch.tensor([3.0]))
        assert module.amax.item() == pytest.approx(0.99 * 1.0 + 0.01 * 3.0)

    @pytest.mark.parametrize("axis", [None, 0])
    def test_zeros_and_half_precision(self, axis: int | None) -> None:
        amax = torch.zeros(2, 1) if axis == 0 else torch.zeros(())
        found = FakeQuantize(amax, axis).eval()(torch.zeros(2, 3, dtype=torch.bfloat16))
        assert found.dtype == torch.bfloat16
        assert not found.any()


class TestQuantized:
    def test_it_has_the_quantizers_of_the_export_and_computes_alike(
        self, network: Network, tmp_path: Path
    ) -> None:
        images = squares(48)
        to_onnx(network, tmp_path / "m.onnx", size=32)
        fp32 = onnx.load(tmp_path / "m.onnx")
        int8 = quantize(fp32, images, artifact="onnx-int8")
        finish(int8, fp32)
        ours = quantized(network, images)
        made = [m for m in ours.net.modules() if isinstance(m, FakeQuantize)]
        operators = [node.op_type for node in int8.graph.node]
        assert sum(m.axis is None for m in made) == operators.count("QuantizeLinear")
        with torch.no_grad():
            found = ours(torch.from_numpy(to_input(images))).numpy()
        theirs, exact = (logits_of_model(model, images) for model in (int8, fp32))
        assert np.abs(found - exact).max() > 0
        assert np.abs(found - theirs).max() < 0.1 * np.abs(exact).max()

    def test_one_output_channel_is_a_weight_still(self) -> None:
        torch.manual_seed(0)
        small = nn.Sequential(
            nn.Conv2d(3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 1)
        )
        with pytest.raises(RecipeError, match=r"is an nn\.Sequential"):
            quantized(Network(small), squares(8))

        class Small(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = small

            def forward(self, images: torch.Tensor) -> torch.Tensor:
                return self.layers(images)

        ours = quantized(Network(Small()).eval(), squares(8))
        made = [m for m in ours.net.modules() if isinstance(m, FakeQuantize)]
        assert sum(m.axis is not None for m in made) == 2

    def test_the_network_given_is_left_as_it_was(self, network: Network) -> None:
        before = {key: value.clone() for key, value in network.state_dict().items()}
        quantized(network, squares(8))
        assert not is_quantized(network.net)
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())

    def test_its_weights_are_those_of_the_plain_network(self, network: Network) -> None:
        ours = quantized(network, squares(8))
        assert is_quantized(ours.net)
        state, wanted = plain(ours.net.state_dict()), network.net.state_dict()
        assert set(state) == set(wanted)
        assert all(torch.equal(state[key], wanted[key]) for key in wanted)

    def test_a_pixel_normalisation_other_than_imagenets_stays(self) -> None:
        ours = quantized(Network(net(), mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7)), squares(8))
        assert ours.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
        assert ours.std.flatten().tolist() == pytest.approx([0.9, 0.8, 0.7])


def recipe_of(folder: Path, **changes: Any) -> Path:
    """The tiny recipe, whose second stage trains in int8 with its teacher and taps."""
    tree = tiny.tree(folder)
    tree["stages"]["distill"]["quantize"] = "int8"
    tree["export"]["calibration"] = {"images": 16}
    tree.update(changes)
    return tiny.write(folder, tree)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("quantize")
    path = recipe_of(folder)
    assert distill(path, folder / "runs" / "whole") == 0
    return path, folder / "runs" / "whole"


class TestStage:
    def test_the_student_leaves_as_plain_weights(self, reference: tuple[Path, Path]) -> None:
        _, run = reference
        state = load_file(run / "models" / "student.safetensors")
        assert set(state) == set(net(4).state_dict())

    def test_batch_norm_statistics_stay_as_they_were(self, reference: tuple[Path, Path]) -> None:
        """This student is quantized from its random start, so they are those of the start."""
        state = load_file(reference[1] / "models" / "student.safetensors")
        means = [value for key, value in state.items() if key.endswith("running_mean")]
        assert len(means) == 3
        assert not any(value.any() for value in means)

    def test_every_term_taught_it(self, reference: tuple[Path, Path]) -> None:
        rows = (reference[1] / "stages/distill/metrics.jsonl").read_text().splitlines()
        assert {*json.loads(rows[0])["terms"]} == {"ce", "kd", "fitnet"}

    def test_a_killed_run_continues_to_the_same_bits(
        self, reference: tuple[Path, Path], tmp_path: Path
    ) -> None:
        path, whole = reference
        out = tmp_path / "runs" / "killed"
        assert run_and_kill(path, out, 2, 4, signal.SIGKILL) == -signal.SIGKILL
        assert distill(path, out) == 0
        assert weights(out) == weights(whole)

    def test_compiling_it_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = recipe_of(tmp_path, hardware={"accelerator": "cpu", "compile": True})
        assert distill(path, tmp_path / "run") == 2
        assert "stages.distill.quantize: a compiled network" in capsys.readouterr().err

    def test_doctor_tries_it(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["doctor", str(recipe_of(tmp_path))]) == 0
        assert "quantizers' first ranges from 16 training images" in capsys.readouterr().err


class TestKey:
    def keys(self, folder: Path, *overrides: str) -> dict[str, str]:
        return stage_keys(load(tiny.write(folder, tiny.tree(folder)), overrides=overrides), "data")

    def test_quantization_and_its_images_are_part_of_it(self, tmp_path: Path) -> None:
        without = self.keys(tmp_path)
        of = "stages.distill.quantize=int8"
        assert self.keys(tmp_path, of)["distill"] != without["distill"]
        assert self.keys(tmp_path, of)["teacher"] == without["teacher"]
        other = "export.calibration.images=64"
        assert self.keys(tmp_path, of, other)["distill"] != self.keys(tmp_path, of)["distill"]
        assert self.keys(tmp_path, other) == without  # a float stage does not calibrate
