"""Logs to be tampered with."""

from collections.abc import Callable, Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cardcage.audit import Action, AuditEvent
from cardcage.audit.sink import MemorySink

MakeLog = Callable[..., list[bytes]]


@pytest.fixture(scope="session")
def signing_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture(scope="session")
def make_log(signing_key: Ed25519PrivateKey) -> MakeLog:
    """The lines (without line breaks) of a log of so many events, with a checkpoint after every few and at the end."""

    def make(reasons: Sequence[str], *, checkpoint_each: int = 4, log: str = "ab" * 16) -> list[bytes]:
        sink = MemorySink(signing_key, log=log, now_s=1_700_000_000.0)
        for number, reason in enumerate(reasons, 1):
            event = AuditEvent(action=Action.PERMISSION_DECIDED, reason=reason, allowed=number % 2 == 0, plugin="ocr")
            sink.append([event])
            if number % checkpoint_each == 0:
                sink.checkpoint()
        sink.checkpoint()
        return [line.rstrip(b"\n") for line in sink.lines]

    return make
