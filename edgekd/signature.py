"""A bundle's signature: OpenSSF Model Signing with a local elliptic-curve key, without a network.

`model.sig` names every file of the bundle with its sha256, the manifest too, and is signed as a
whole. Outside it are only itself and `bench/`, which grows on the device. Whatever is decided here
the package `model-signing` decides; what is added are exact forms, and words for what is wrong.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekd.bundle import SIGNATURE, UNLISTED, is_unlisted, members, open_bundle
from edgekd.errors import BundleError, EdgekdError
from edgekd.plugins import missing_package
from edgekd.rundir import only_one_on, sha256, write_text

PASSWORD = "EDGEKD_SIGN_PASSWORD"  # environment variable; on a command line others could read it
CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
OUTSIDE = sorted((*UNLISTED, SIGNATURE))
NEW_KEY = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out KEY.pem"
PUBLIC = "openssl pkey -in KEY.pem -pubout -out PUB.pem"
SHOWN = 3  # of the files that are not as signed

Say = Callable[[str], None]


@dataclass(frozen=True)
class SigningKey:
    """A private key that can be used: its file, and the password if it has one."""

    path: Path
    password: str | None = field(default=None, repr=False)


def is_signed(folder: Path) -> bool:
    """Whether there is a signature; whose it is, and whether it holds, `check_signature` says."""
    return (folder / SIGNATURE).is_file()


def open_key(path: Path, ask: Callable[[], str | None] = lambda: None) -> SigningKey:
    """Try a private key, so that a wrong one is found before anything is made.

    The password of an encrypted one is taken from the environment (PASSWORD), else from `ask`.
    Raises EdgekdError for a file that is no such key, MissingOnHost without `model-signing`.
    """
    _packages()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read_key(path, NEW_KEY)
    password: str | None = None
    try:
        key = load_pem_private_key(content, None)
    except TypeError:  # it is encrypted
        password = os.environ.get(PASSWORD) or ask()
        if not password:
            raise EdgekdError(f"{path}: the key needs a password",
                              hint=f"set the environment variable {PASSWORD}, or type it in a "
                              "terminal") from None  # fmt: skip
        try:
            key = load_pem_private_key(content, password.encode())
        except ValueError:
            raise EdgekdError(f"{path}: this is not the key's password") from None
    except Exception:  # cryptography: ValueError, UnsupportedAlgorithm
        raise EdgekdError(f"{path} is not a private key in PEM form", hint=NEW_KEY) from None
    _check_curve(path, key.public_key(), NEW_KEY)
    return SigningKey(path, password)


def sign(folder: Path, key: SigningKey) -> None:
    """Sign a finished bundle, in place of any older signature; all of it or nothing.

    Raises BundleError for a bundle that is not whole, EdgekdError for a key that lies inside.
    """
    hashing, signing, _ = _packages()
    check_outside(key, folder)
    root = folder.resolve()
    with only_one_on(root), tempfile.TemporaryDirectory(
        dir=root.parent, prefix=f".{root.name}."
    ) as place:  # fmt: skip
        open_bundle(folder)
        draft = Path(place) / SIGNATURE
        config = signing.Config().set_hashing_config(_scope(hashing))
        try:
            config.use_elliptic_key_signer(private_key=key.path, password=key.password)
        except TypeError:  # 1.1 hands the password on as it comes, and bytes are wanted
            config.use_elliptic_key_signer(
                private_key=key.path, password=(key.password or "").encode()
            )
        config.sign(root, draft)
        tree = json.loads(draft.read_text(encoding="utf-8"))
        write_text(draft, _form(tree))
        draft.replace(root / SIGNATURE)


def check_outside(key: SigningKey, folder: Path) -> None:
    """Raise EdgekdError for a key inside the bundle: it would travel, or go with the old files."""
    if key.path.resolve().is_relative_to(folder.resolve()):
        raise EdgekdError(f"{key.path}: the private key lies inside the bundle {folder}",
                          hint="keep it where no bundle is")  # fmt: skip


def check_signature(folder: Path, public: Path) -> None:
    """Raise BundleError unless the bundle, byte for byte, is what the owner of this key signed.

    No file of it is interpreted but the signature; all others are hashed. Also raises EdgekdError
    for a file that is no public key, MissingOnHost without `model-signing`.
    """
    hashing, _, verifying = _packages()
    hint = _key_hint(public)
    if not is_signed(folder):
        raise BundleError(f"{folder} is not signed: it has no {SIGNATURE}",
                          hint=f"edgekd export {folder} --sign KEY.pem, where the key is"
                          )  # fmt: skip
    present = members(folder)
    signed = _read(folder)
    if signed.hint != hint:
        raise BundleError(f"{folder} was not signed with the key of {public}, or {SIGNATURE} was "
                          "changed")  # fmt: skip
    config = verifying.Config().set_hashing_config(_scope(hashing))
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for data
            config.use_elliptic_key_verifier(public_key=public)
            config.verify(folder.resolve(), folder / SIGNATURE)
    except Exception as error:  # ValueError, and InvalidSignature of cryptography
        if isinstance(error, ValueError) and (found := _differences(signed, present)):
            more = f" (and {len(found) - SHOWN} more)" if len(found) > SHOWN else ""
            raise BundleError(
                f"{folder} is not what was signed: {'; '.join(found[:SHOWN])}{more}",
                hint="copy the whole bundle again; do not run this one",
            ) from None
        raise BundleError(f"{folder}: {SIGNATURE} was changed: it is not a signature by the key of "
                          f"{public}") from None  # fmt: skip


@contextlib.contextmanager
def saying_if_removed(folders: Sequence[Path], say: Say) -> Iterator[None]:
    """Say so where a bundle was signed before and is not afterwards."""
    before = [folder for folder in folders if is_signed(folder)]
    yield
    for folder in before:
        if not is_signed(folder):
            say(f"{folder}: what was signed has changed, so its signature is gone; "
                f"edgekd export {folder} --sign KEY.pem signs it again")  # fmt: skip


@dataclass(frozen=True)
class _Signed:
    """What `model.sig` says, proven or not."""

    hint: str  # sha256 of the public key in PEM form
    files: dict[str, str]  # name -> sha256


def _read(folder: Path) -> _Signed:
    """Raises BundleError unless every byte has the place and the form that `sign` gives it.

    The signature covers the list of files only; what stands around it could be changed unnoticed.
    """
    path = folder / SIGNATURE
    try:
        text = path.read_text(encoding="utf-8")
        tree = json.loads(text)
        signed = json.loads(_decoded(tree["dsseEnvelope"]["payload"]))["predicate"]
        scope = signed["serialization"]
        is_ours = text == _form(tree) and scope["hash_type"] == "sha256"
        is_whole = scope["method"] == "files" and sorted(scope["ignore_paths"]) == OUTSIDE
        files = {entry["name"]: entry["digest"] for entry in signed["resources"]}
        found = _Signed(tree["verificationMaterial"]["publicKey"]["hint"], files)
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        is_ours = False
    if not is_ours:
        raise BundleError(f"{path} is damaged, or was not written by `edgekd export --sign`",
                          hint="copy the whole bundle again")  # fmt: skip
    if not is_whole:
        raise BundleError(f"{path} does not cover the whole bundle",
                          hint="edgekd export BUNDLE --sign KEY.pem, where the key is"
                          )  # fmt: skip
    return found


def _form(tree: dict[str, Any]) -> str:
    """The one way to write a signature. Raises KeyError, TypeError, ValueError for what is none."""
    envelope = tree["dsseEnvelope"]
    payload, sign = envelope["payload"], envelope["signatures"][0]["sig"]
    _decoded(payload), _decoded(sign)
    form = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {
            "publicKey": {"hint": tree["verificationMaterial"]["publicKey"]["hint"]},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": payload,
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": sign, "keyid": ""}],
        },
    }
    return json.dumps(form, separators=(",", ":"))


def _decoded(text: str) -> bytes:
    content = base64.b64decode(text, validate=True)
    if base64.b64encode(content).decode() != text:  # its last character has bits to spare
        raise binascii.Error("not the shortest base64")
    return content


def _differences(signed: _Signed, present: dict[str, Path]) -> list[str]:
    """What is not as it was signed, one phrase per file."""
    here = {name: path for name, path in present.items()
            if name != SIGNATURE and not is_unlisted(name)}  # fmt: skip
    found = []
    for name in sorted({*signed.files, *here}):
        if name not in here:
            found.append(f"{name} is missing")
        elif name not in signed.files:
            found.append(f"{name} was added")
        elif sha256(here[name]) != signed.files[name]:
            found.append(f"{name} was changed")
    return found


def _scope(hashing: Any) -> Any:
    return hashing.Config().set_ignored_paths(paths=OUTSIDE, ignore_git_paths=False)


def _key_hint(public: Path) -> str:
    import hashlib

    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_public_key(_read_key(public, PUBLIC))
    except EdgekdError:
        raise
    except Exception:  # cryptography: ValueError, UnsupportedAlgorithm
        raise EdgekdError(f"{public} is not a public key in PEM form", hint=PUBLIC) from None
    _check_curve(public, key, PUBLIC)
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(pem).hexdigest()


def _read_key(path: Path, hint: str) -> bytes:
    if not path.is_file():
        raise EdgekdError(f"{path}: no such key file", hint=hint)
    return path.read_bytes()


def _check_curve(path: Path, key: Any, hint: str) -> None:
    curve = getattr(getattr(key, "curve", None), "name", None)
    if curve not in CURVES:
        raise EdgekdError(f"{path}: {curve or type(key).__name__.strip('_')} cannot sign models; "
                          f"expected an elliptic-curve key, {' or '.join(CURVES.values())}",
                          hint=hint)  # fmt: skip


def _packages() -> tuple[Any, Any, Any]:
    """`model_signing`'s modules hashing, signing, verifying; they take a second to import."""
    try:
        from model_signing import hashing, signing, verifying
    except ModuleNotFoundError as error:
        package = (error.name or "model_signing").split(".")[0]
        raise missing_package(package, "a signature") from None
    return hashing, signing, verifying
