"""Keys that sign and verify, those that cannot, and what the commands say."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.bundle import SIGNATURE, close_bundle, read_manifest
from edgekd.cli import main
from edgekd.errors import EdgekdError, MissingOnHost
from edgekd.signature import NEW_KEY, PASSWORD, PUBLIC, check_signature, open_key, sign
from tests.keys import signed_bundle, three_pairs, write_keys


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return three_pairs(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Path:
    return signed_bundle(tmp_path_factory.mktemp("made") / "bundle", keys / "key.pem")


@pytest.fixture
def signed(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bundle"))


class TestKeys:
    @pytest.mark.parametrize("curve", ["SECP384R1", "SECP521R1"])
    def test_larger_curves(self, signed: Path, tmp_path: Path, curve: str) -> None:
        write_keys(tmp_path, "k", "p", curve=curve)
        sign(signed, open_key(tmp_path / "k.pem"))
        check_signature(signed, tmp_path / "p.pem")

    def test_a_password(self, signed: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        locked = keys / "locked.pem"
        with pytest.raises(EdgekdError, match="needs a password") as caught:
            open_key(locked)
        assert caught.value.hint is not None
        assert PASSWORD in caught.value.hint
        with pytest.raises(EdgekdError, match="not the key's password"):
            open_key(locked, lambda: "wrong")
        sign(signed, open_key(locked, lambda: "sesame"))
        check_signature(signed, keys / "locked-pub.pem")
        monkeypatch.setenv(PASSWORD, "sesame")
        key = open_key(locked, lambda: pytest.fail("the environment has it"))
        assert "sesame" not in repr(key)
        open_key(keys / "key.pem")  # it has none, and needs none

    @pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not here")
    def test_the_commands_of_the_guide_make_a_pair(
        self, signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        guide = (Path(__file__).parents[1] / "docs/guides/signing.md").read_text(encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        for command in (NEW_KEY, PUBLIC):
            assert f"\n{command}\n" in guide
            subprocess.run(shlex.split(command), check=True, capture_output=True)
        sign(signed, open_key(Path("KEY.pem")))
        check_signature(signed, Path("PUB.pem"))

    def test_what_is_no_private_key(self, keys: Path, tmp_path: Path) -> None:
        (tmp_path / "text.pem").write_text("not a key")
        for path in (tmp_path / "text.pem", keys / "pub.pem"):
            with pytest.raises(EdgekdError, match="not a private key"):
                open_key(path)
        with pytest.raises(EdgekdError, match="no such key file"):
            open_key(tmp_path / "none.pem")

    def test_what_is_no_public_key(self, signed: Path, keys: Path, tmp_path: Path) -> None:
        with pytest.raises(EdgekdError, match="not a public key") as caught:
            check_signature(signed, keys / "key.pem")
        assert "-pubout" in str(caught.value.hint)
        with pytest.raises(EdgekdError, match="no such key file"):
            check_signature(signed, tmp_path / "none.pem")

    @pytest.mark.parametrize("kind", ["SECP256K1", "ed25519"])
    def test_keys_of_other_kinds(self, signed: Path, tmp_path: Path, kind: str) -> None:
        write_keys(tmp_path, "k", "p", curve=kind)
        with pytest.raises(EdgekdError, match="expected an elliptic-curve key, P-256 or"):
            open_key(tmp_path / "k.pem")
        with pytest.raises(EdgekdError, match="expected an elliptic-curve key"):
            check_signature(signed, tmp_path / "p.pem")

    def test_a_private_key_inside_the_bundle(self, signed: Path, keys: Path) -> None:
        shutil.copy(keys / "key.pem", signed / "bench" / "key.pem")
        with pytest.raises(EdgekdError, match="lies inside the bundle"):
            sign(signed, open_key(signed / "bench" / "key.pem"))

    def test_without_the_package(
        self, keys: Path, monkeypatch: pytest.MonkeyPatch, signed: Path
    ) -> None:
        monkeypatch.setitem(sys.modules, "model_signing", None)
        for call in (lambda: open_key(keys / "key.pem"),
                     lambda: check_signature(signed, keys / "pub.pem")):  # fmt: skip
            with pytest.raises(MissingOnHost) as caught:
                call()
            assert caught.value.hint == "pip install 'edgekd[sign]'"


class TestCommands:
    def test_export_signs_a_bundle_that_is_up_to_date(
        self, signed: Path, keys: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        close_bundle(signed, read_manifest(signed).model_copy(update={"recipe": {}}))
        key, public = str(keys / "key.pem"), str(keys / "pub.pem")
        assert main(["export", str(signed), "--make", "onnx-fp32", "--sign", key]) == 0
        assert "signed" in capsys.readouterr().err
        assert main(["verify", str(signed), "--key", public]) == 0
        assert "check=signature" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda b: (b / "model.fp32.onnx").write_bytes(b"x"), "model.fp32.onnx was changed"),
            (lambda b: (b / SIGNATURE).unlink(), "is not signed"),
            (lambda b: (b / SIGNATURE).write_text("{}"), "is damaged"),
            (lambda b: (b / SIGNATURE).write_text("[" * 100_000), "is damaged"),
            (lambda b: (b / "manifest.json").unlink(), "neither a bundle nor a run"),
        ],
    )
    def test_one_clear_line_and_exit_code_2(
        self,
        signed: Path,
        keys: Path,
        capsys: pytest.CaptureFixture[str],
        change: Callable[[Path], object],
        message: str,
    ) -> None:
        change(signed)
        assert main(["verify", str(signed), "--key", str(keys / "pub.pem")]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert message in said.err
        assert said.err.count("error: ") == 1

    def test_a_folder_that_is_no_bundle(
        self, tmp_path: Path, keys: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["verify", str(tmp_path), "--key", str(keys / "pub.pem")]) == 2
        assert "neither a bundle nor a run" in capsys.readouterr().err

    def test_a_bad_key_is_found_before_anything_is_made(
        self, signed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["export", str(signed), "--sign", str(tmp_path / "none.pem")]) == 2
        assert "no such key file" in capsys.readouterr().err
