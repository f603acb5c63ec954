"""Checkpoints: lines of the log that sign everything before them, with a key that the log's folder holds.

The chain shows a change to whoever knows a later hash; a checkpoint makes every hash before it known to whoever has the
public key. Without the private key nobody can change a line and mend all that follows.

    signature = Ed25519 over "cardcage audit checkpoint 1\\n<log>\\n<seq>\\n<prev>\\n<at>\\n"

in which `seq`, `prev` and `at` are those of the checkpoint's own line and `log` is the log's id.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cardcage.audit.actions import Action, Actor
from cardcage.audit.chain import FORMAT, Entry, Head, time_text

_REASON: Final = "signs every line before it"


def key_id(public: Ed25519PublicKey) -> str:
    """How lines name a key: the first half of the SHA-256 of its 32 bytes, in hexadecimal digits."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:32]


def public_text(public: Ed25519PublicKey) -> str:
    """The 32 bytes of a public key in base64, as the first line of a log has them."""
    return base64.b64encode(public.public_bytes_raw()).decode()


def public_from_text(text: str) -> Ed25519PublicKey | None:
    """The public key that a base64 text spells, or None."""
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except ValueError:
        return None


def checkpoint_entry(key: Ed25519PrivateKey, *, log: str, head: Head, now_s: float) -> Entry:
    """The line that signs everything up to `head`."""
    unsigned = _unsigned(log=log, seq=head.seq + 1, prev=head.hash, at=time_text(now_s), key=key_id(key.public_key()))
    signature = base64.b64encode(key.sign(_message(unsigned))).decode()
    return _unsigned(
        log=log,
        seq=unsigned.seq,
        prev=unsigned.prev,
        at=unsigned.at,
        key=key_id(key.public_key()),
        signature=signature,
    )


def signed_by(entry: Entry) -> str:
    """The id of the key that a checkpoint says it was made with."""
    return str(entry.fields.get("key_id", ""))


def checkpoint_fault(entry: Entry, public: Ed25519PublicKey) -> str | None:
    """What is wrong with a checkpoint, or None. It must be made by this key and say nothing but what it signs."""
    log, signature = str(entry.fields.get("log", "")), str(entry.fields.get("signature", ""))
    expected = _unsigned(log=log, seq=entry.seq, prev=entry.prev, at=entry.at, key=key_id(public), signature=signature)
    if entry != expected:
        return "says something that checkpoints do not say"
    try:
        public.verify(base64.b64decode(signature, validate=True), _message(entry))
    except (InvalidSignature, ValueError):
        return "has a signature that does not fit what it signs"
    return None


def _unsigned(*, log: str, seq: int, prev: str, at: str, key: str, signature: str = "") -> Entry:
    return Entry(
        v=FORMAT,
        seq=seq,
        prev=prev,
        at=at,
        actor=str(Actor.HOST),
        action=str(Action.AUDIT_CHECKPOINT),
        allowed=None,
        plugin="",
        version="",
        instance="",
        reason=_REASON,
        fields={"key_id": key, "log": log, "signature": signature},
    )


def _message(entry: Entry) -> bytes:
    parts = ("cardcage audit checkpoint 1", str(entry.fields["log"]), str(entry.seq), entry.prev, entry.at)
    return ("\n".join(parts) + "\n").encode()
