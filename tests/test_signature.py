"""Signed bundles: every changed, missing or added byte, wrong keys, and no network."""

from __future__ import annotations

import base64
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.bundle import SIGNATURE, close_bundle, open_bundle, read_manifest
from edgekd.errors import BundleError
from edgekd.signature import check_signature, is_signed, open_key, sign
from edgekd.verify import verify
from tests.keys import signed_bundle, three_pairs
from tests.tiny_bundle import write_bundle


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def blocked(*_: object, **__: object) -> None:
        raise AssertionError("signing and verifying must not use a network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, blocked)
    monkeypatch.setattr(socket, "getaddrinfo", blocked)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return three_pairs(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Path:
    return signed_bundle(tmp_path_factory.mktemp("made") / "bundle", keys / "key.pem")


@pytest.fixture
def signed(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def refused(bundle: Path, key: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        check_signature(bundle, key)
    assert caught.value.exit_code == 2


def test_a_signed_bundle_is_verified(signed: Path, keys: Path) -> None:
    rows = verify(signed, keys / "pub.pem")
    assert [row["check"] for row in rows[:3]] == ["signature", "files", "preprocessing"]
    assert {row["result"] for row in rows} == {"ok"}


def test_signing_leaves_nothing_else_behind(signed: Path, keys: Path) -> None:
    before = sorted(signed.rglob("*"))
    sign(signed, open_key(keys / "key.pem"))
    assert sorted(signed.rglob("*")) == before
    assert [path.name for path in signed.parent.iterdir()] == ["bundle"]
    assert SIGNATURE not in open_bundle(signed).files


def test_through_a_link_to_the_bundle(signed: Path, keys: Path) -> None:
    link = signed.parent / "link"
    link.symlink_to(signed)
    sign(link, open_key(keys / "key.pem"))
    check_signature(link, keys / "pub.pem")


def test_without_a_key_it_is_said_that_the_signature_was_not_checked(signed: Path) -> None:
    row = verify(signed)[0]
    assert (row["check"], row["result"]) == ("signature", "skipped")
    assert "not checked" in row["reason"]


def test_with_a_key_an_unsigned_bundle_is_refused(signed: Path, keys: Path) -> None:
    (signed / SIGNATURE).unlink()
    refused(signed, keys / "pub.pem", "is not signed")


def test_another_key(signed: Path, keys: Path) -> None:
    refused(signed, keys / "other-pub.pem", "was not signed with the key of .*other-pub")


def test_measurements_may_grow(signed: Path, keys: Path) -> None:
    (signed / "bench" / "device.jsonl").write_text("{}\n")
    (signed / "bench" / "another.jsonl").write_text("{}\n")
    check_signature(signed, keys / "pub.pem")


def every_file(made: Path) -> list[str]:
    return [path.relative_to(made).as_posix() for path in sorted(made.rglob("*"))
            if path.is_file() and "bench" not in path.parts]  # fmt: skip


def test_one_changed_bit_in_any_file(signed: Path, keys: Path) -> None:
    names = every_file(signed)
    assert len(names) > 12
    for name in names:
        path = signed / name
        content = bytearray(path.read_bytes())
        for place in (0, len(content) // 2, len(content) - 1):
            changed = bytearray(content)
            changed[place] ^= 1
            path.write_bytes(changed)
            expected = SIGNATURE if name == SIGNATURE else f"{name} was changed"
            refused(signed, keys / "pub.pem", expected)
        path.write_bytes(content)
    check_signature(signed, keys / "pub.pem")


def test_every_byte_of_the_signature_counts(signed: Path, keys: Path) -> None:
    path = signed / SIGNATURE
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        for changed in (
            content[:place] + b" " + content[place:],
            content[:place] + content[place + 1 :],
        ):
            path.write_bytes(changed)
            refused(signed, keys / "pub.pem", SIGNATURE)
    path.write_bytes(content + b"\n")
    refused(signed, keys / "pub.pem", SIGNATURE)


def test_any_missing_or_added_file(signed: Path, keys: Path) -> None:
    for name in every_file(signed):
        if name == SIGNATURE:
            continue
        path, aside = signed / name, signed.parent / "aside"
        path.rename(aside)
        refused(signed, keys / "pub.pem", f"{name} is missing")
        aside.rename(path)
    for name in (
        "evil.onnx",
        "golden/evil.png",
        ".gitignore",
        ".git/config",
        "benchmark",
        "model.sig2",
    ):
        path = signed / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        refused(signed, keys / "pub.pem", f"{name} was added")
        path.unlink()


def test_a_manifest_rewritten_to_fit_another_model(signed: Path, keys: Path) -> None:
    """Hashes alone would be satisfied."""
    signature = (signed / SIGNATURE).read_bytes()
    (signed / "model.fp32.onnx").write_bytes(b"another")
    close_bundle(signed, read_manifest(signed))
    assert not is_signed(signed)  # it is not kept where what it signed has changed
    (signed / SIGNATURE).write_bytes(signature)
    open_bundle(signed)
    refused(signed, keys / "pub.pem", "manifest.json was changed; model.fp32.onnx was changed")


def test_a_signature_moved_from_another_bundle(signed: Path, keys: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_bundle(other)
    (other / "model-card.md").write_text("another")
    close_bundle(other, read_manifest(other))
    shutil.copy(signed / SIGNATURE, other / SIGNATURE)
    refused(other, keys / "pub.pem", "model-card.md was added")


def rewrap(bundle: Path, key: Path, change: Callable[[dict], None]) -> None:
    """Sign a changed statement with the right key, as another tool could."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    tree = json.loads((bundle / SIGNATURE).read_text())
    statement = json.loads(base64.b64decode(tree["dsseEnvelope"]["payload"]))
    change(statement)
    payload = json.dumps(statement).encode()
    kind = "application/vnd.in-toto+json"
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    private = load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    signature = private.sign(signed, ec.ECDSA(hashes.SHA256()))
    tree["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    tree["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    (bundle / SIGNATURE).write_text(json.dumps(tree, separators=(",", ":")))


def test_a_statement_that_leaves_files_out_is_refused(signed: Path, keys: Path) -> None:
    rewrap(signed, keys / "key.pem", lambda statement: None)
    check_signature(signed, keys / "pub.pem")

    def leave_out(statement: dict) -> None:
        statement["predicate"]["serialization"]["ignore_paths"].append("model.fp32.onnx")

    rewrap(signed, keys / "key.pem", leave_out)
    refused(signed, keys / "pub.pem", "does not cover the whole bundle")


def test_the_tool_of_the_standard_agrees(signed: Path, keys: Path) -> None:
    from model_signing import verifying

    config = verifying.Config().use_elliptic_key_verifier(public_key=keys / "pub.pem")
    config.verify(signed, signed / SIGNATURE)
    (signed / "model.fp32.onnx").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"model\.fp32\.onnx"):
        config.verify(signed, signed / SIGNATURE)


def test_nothing_of_a_model_is_opened_before_all_checks_have_passed(
    signed: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def poisoned(name: str) -> Callable[..., None]:
        return lambda *_, **__: opened.append(name)

    for name in ("edgekd.verify.open_session", "edgekd.verify.read_golden",
                 "edgekd.image.Image.open", "onnxruntime.InferenceSession"):  # fmt: skip
        monkeypatch.setattr(name, poisoned(name))
    model = signed / "model.fp32.onnx"
    model.write_bytes(model.read_bytes() + b"poison")
    with pytest.raises(BundleError, match=r"model\.fp32\.onnx"):
        verify(signed, keys / "pub.pem")
    with pytest.raises(BundleError, match=r"model\.fp32\.onnx"):
        verify(signed)
    close_bundle(signed, read_manifest(signed))  # now only the signature could tell
    with pytest.raises(BundleError, match="is not signed"):
        verify(signed, keys / "pub.pem")
    assert opened == []


def test_a_damaged_bundle_is_not_signed(signed: Path, keys: Path) -> None:
    (signed / "model.fp32.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match="truncated"):
        sign(signed, open_key(keys / "key.pem"))
