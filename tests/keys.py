"""Key pairs for the tests, made when they are needed."""

from __future__ import annotations

from pathlib import Path

from edgekd.signature import open_key, sign
from tests.tiny_bundle import write_bundle


def write_keys(
    folder: Path,
    private: str,
    public: str,
    *,
    curve: str = "SECP256R1",
    password: bytes | None = None,
) -> None:
    """Write PRIVATE.pem and PUBLIC.pem; `curve` is a name of cryptography's, or `ed25519`."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    key = (ed25519.Ed25519PrivateKey.generate() if curve == "ed25519"
           else ec.generate_private_key(getattr(ec, curve)()))  # fmt: skip
    lock = (serialization.BestAvailableEncryption(password) if password
            else serialization.NoEncryption())  # fmt: skip
    pem = serialization.Encoding.PEM
    (folder / f"{private}.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, lock)
    )
    (folder / f"{public}.pem").write_bytes(
        key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def three_pairs(folder: Path) -> Path:
    """key.pem, pub.pem; other.pem and other-pub.pem; locked.pem with the password `sesame`."""
    write_keys(folder, "key", "pub")
    write_keys(folder, "other", "other-pub")
    write_keys(folder, "locked", "locked-pub", password=b"sesame")
    return folder


def signed_bundle(folder: Path, key: Path) -> Path:
    """A small bundle with a measurement made after it was closed, signed."""
    write_bundle(folder)
    (folder / "bench").mkdir()
    (folder / "bench" / "device.jsonl").write_text("")
    sign(folder, open_key(key))
    return folder
