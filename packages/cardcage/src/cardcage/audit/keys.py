"""The key that signs checkpoints: made at first use in the log's folder, readable by its owner alone."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cardcage.foundation.errors import Misuse

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PRIVATE_NAME: Final = "key.pem"
PUBLIC_NAME: Final = "key.pub.pem"
_KEY_BYTES_MAX: Final = 4096


def open_key(folder: Path) -> Ed25519PrivateKey:
    """The folder's key, made where there is none yet. Raises `Misuse` where it is none or others may read it."""
    path = folder / PRIVATE_NAME
    if not path.exists():
        _make_key(folder)
    key = _read_private(path)
    if not (folder / PUBLIC_NAME).exists():
        write_apart(folder / PUBLIC_NAME, public_pem(key.public_key()).encode(), mode=0o644)
    return key


def read_public(path: Path) -> Ed25519PublicKey:
    """The Ed25519 public key in a PEM file. Raises `Misuse` where there is none."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_read(path))
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise Misuse(
            f"{path} holds no Ed25519 public key in PEM",
            code="audit_key_invalid",
            hint="cardcage audit key prints the one of a state folder",
        )
    return key


def public_pem(public: Ed25519PublicKey) -> str:
    """The public key as text, to be kept elsewhere."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def write_apart(path: Path, data: bytes, *, mode: int) -> None:
    """Put a whole file in place at once: whoever reads it sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _make_key(folder: Path) -> None:
    """Whoever comes first makes it; called under the log's lock."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_apart(folder / PUBLIC_NAME, public_pem(key.public_key()).encode(), mode=0o644)
    write_apart(folder / PRIVATE_NAME, private, mode=0o600)


def _read_private(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise Misuse(
            f"the key of the audit log {path} may be read by others (mode {mode:04o}), who could forge its checkpoints",
            code="audit_key_unsafe",
            hint=f"move it away, so that a new one is made; or, if nobody has read it: chmod 600 {path}",
        )
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise Misuse(
            f"{path} holds no Ed25519 private key in PEM",
            code="audit_key_invalid",
            hint="move it away, so that a new one is made; checkpoints are signed with that one from then on",
        )
    return key


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_KEY_BYTES_MAX)
    except OSError as error:
        raise Misuse(f"the key {path} cannot be read: {error.strerror}", code="audit_key_unreadable") from error
