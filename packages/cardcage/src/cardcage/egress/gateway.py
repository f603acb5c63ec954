"""What the relays of one host share: where names and secrets come from, the authority, and a buffer."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cardcage.egress.events import Tell
from cardcage.egress.injection import Injection
from cardcage.egress.relay import ListenerPlace, Relay
from cardcage.egress.resolver import Resolver, SystemResolver
from cardcage.egress.rules import EgressRules
from cardcage.egress.signing import make_signer
from cardcage.egress.splice import CHUNK_BYTES
from cardcage.permissions.credentials import SecretSource
from cardcage.trust.authority import Authority


class Gateway:
    """Opens the relay of each process. Belongs to one event loop."""

    def __init__(
        self,
        *,
        resolver: Resolver | None = None,
        secrets: SecretSource | None = None,
        authority: Callable[[], Authority] | None = None,
        ca_file: Path | None = None,
    ) -> None:
        """`secrets` and `authority` are needed where credentials are to be added. `ca_file` holds the certificates by
        which servers are checked there, where it is not to be the system's."""
        self._system = SystemResolver() if resolver is None else None
        self._resolver: Resolver = resolver or self._system or SystemResolver()
        self._secrets = secrets
        self._open_authority = authority
        self._ca_file = ca_file
        self._authority: Authority | None = None
        self._outside_tls: ssl.SSLContext | None = None
        self._buffer: memoryview | None = None

    def prepare(self, rules: EgressRules) -> Sequence[Injection]:
        """What adds the credentials of one process, made before it starts: their secrets are read now.

        Raises `Refused` where a secret is missing or cannot be used.
        """
        if not rules.credentials:
            return ()
        assert self._secrets is not None
        assert self._open_authority is not None
        if self._authority is None or self._outside_tls is None:
            self._authority = self._open_authority()
            self._outside_tls = ssl.create_default_context(cafile=self._ca_file)
            self._outside_tls.set_alpn_protocols(["http/1.1"])
        return [
            Injection(
                credential,
                make_signer(credential, self._secrets.secret),
                authority=self._authority,
                outside_tls=self._outside_tls,
            )
            for credential in rules.credentials
        ]

    def open(
        self,
        rules: EgressRules,
        listeners: Iterable[tuple[ListenerPlace, socket.socket]],
        tell: Tell,
        injections: Sequence[Injection] = (),
    ) -> Relay:
        """The relay of one process, which owns the listeners from now on."""
        if self._buffer is None:
            self._buffer = memoryview(bytearray(CHUNK_BYTES))
        return Relay(rules, listeners, resolver=self._resolver, tell=tell, buffer=self._buffer, injections=injections)

    def close(self) -> None:
        """Let go of the threads that look names up."""
        if self._system is not None:
            self._system.close()
