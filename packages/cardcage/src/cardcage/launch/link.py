"""The host's side of an enciphered link: who may be at the other end, and the pump under the event loop.

A link is mutual TLS 1.3. For each start the manager's authority issues a certificate for that one instance; its key
goes to the process that stands before the plugin, which alone may use it. The host takes no other certificate for that
link, be it of the same authority; the other side takes none but the host's.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import ssl
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Final
from urllib.parse import quote

from cardcage.foundation.errors import PluginFault
from cardcage.foundation.limits import CONNECT_TIMEOUT_S
from cardcage.foundation.names import InstanceId
from cardcage.launch.runner import LaunchSpec
from cardcage.trust.authority import Authority, Certificate
from cardcage_sdk.secure import HOST_NAME, INSTANCE_URI, LinkError, SecurePump, host_context, peer_names

_PLAIN: Final = 0
_STREAM: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkKeys:
    """What the other end of one link is given: whom to trust, and who it is."""

    ca_pem: str
    own_pem: str = field(repr=False)


class Links:
    """Makes the links of one manager. Holds the host's own certificate, and renews it in time.

    Without an authority it makes one of its own, which is kept nowhere. `issued` is told of each certificate.
    """

    def __init__(
        self, authority: Authority | None = None, *, issued: Callable[[InstanceId, Certificate], None] | None = None
    ) -> None:
        self._authority = authority or Authority.ephemeral()
        self._issued = issued
        self._own: Certificate | None = None
        self._context: ssl.SSLContext | None = None

    def issue(self, instance: InstanceId) -> Certificate:
        """A certificate for one start of `instance`."""
        made = self._authority.issue(str(instance), server=False, client=True, names=(instance_uri(instance),))
        if self._issued is not None:
            self._issued(instance, made)
        return made

    def keys(self, certificate: Certificate) -> LinkKeys:
        """What is handed to the process that `certificate` was issued for."""
        return LinkKeys(
            ca_pem=self._authority.ca_pem.decode(), own_pem=(certificate.cert_pem + certificate.key_pem).decode()
        )

    async def open(
        self,
        stream: socket.socket,
        certificate: Certificate,
        *,
        plugin: str,
        version: str,
        timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> tuple[socket.socket, Link]:
        """Wait until both sides have proved who they are; the plain socket for the channel, and what moves its bytes.

        `stream` is the link's from here on, also where this fails. Raises `PluginFault` with code `link_failed`.
        """
        ours, theirs = socket.socketpair()
        try:
            link = Link(stream, theirs, self._host_context(), lambda tls: _check(tls, certificate))
        except BaseException:
            for sock in (stream, ours, theirs):
                sock.close()
            raise
        try:
            async with asyncio.timeout(timeout_s):
                await link.secure
        except BaseException as error:
            ours.close()
            link.close()
            if isinstance(error, LinkError | TimeoutError):
                why = str(error) or f"no handshake within {timeout_s:g} s"
                raise PluginFault(
                    f'plugin "{plugin}" {version} could not be linked: expected its own certificate over TLS 1.3, '
                    f"found: {why}",
                    code="link_failed",
                    plugin=plugin,
                    version=version,
                ) from error
            raise
        return ours, link

    async def lay(self, control: socket.socket, stream: socket.socket, spec: LaunchSpec) -> tuple[socket.socket, Link]:
        """Hand a key for this start to the process at the other end of `control`, and open the link with it."""
        certificate = self.issue(spec.instance)
        try:
            control.send(json.dumps(asdict(self.keys(certificate))).encode())
        except OSError:
            pass  # it has ended; the link finds out
        return await self.open(stream, certificate, plugin=spec.plugin, version=spec.version)

    def _host_context(self) -> ssl.SSLContext:
        own = (
            self._authority.issue("host", server=True, client=False, names=(HOST_NAME,))
            if self._own is None
            else self._authority.renew(self._own)
        )
        if self._context is None or own is not self._own:
            self._own = own
            self._context = host_context(self._authority.ca_pem.decode(), own.cert_pem + own.key_pem)
        return self._context


def instance_uri(instance: InstanceId) -> str:
    """The name that an instance's certificate is for."""
    return INSTANCE_URI + quote(str(instance))


def _check(tls: ssl.SSLObject, expected: Certificate) -> None:
    names = peer_names(tls)
    if names != expected.names:
        raise LinkError(f"a certificate for {', '.join(names) or 'nobody'}, not for {expected.names[0]}")
    if tls.getpeercert(binary_form=True) != ssl.PEM_cert_to_DER_cert(expected.cert_pem.decode()):
        raise LinkError(f"a certificate for {names[0]} that was not issued for this start")


class Link:
    """One pump under the event loop. `secure` is done once both sides are who they should be, or says why not."""

    def __init__(
        self,
        stream: socket.socket,
        plain: socket.socket,
        context: ssl.SSLContext,
        check: Callable[[ssl.SSLObject], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socks = (plain, stream)
        self._pump = SecurePump(plain, stream.fileno(), context, server=True, check=check)
        self._watched = [0, 0]
        self.secure: asyncio.Future[None] = self._loop.create_future()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        """Done when the link has ended, in order or not."""
        self._watch()

    def close(self) -> None:
        """End both sides at once. What was under way is lost."""
        if self.closed.done():
            return
        for place in (_PLAIN, _STREAM):
            self._set_watch(place, 0)
            self._socks[place].close()
        self.closed.set_result(None)
        if not self.secure.done():
            self._refuse(LinkError("the other side hung up before it had proved who it is"))

    def _refuse(self, error: LinkError) -> None:
        self.secure.set_exception(error)
        self.secure.exception()  # seen: nobody need be waiting for it

    def _on_ready(self, place: int, mask: int) -> None:
        try:
            self._pump.step(mask if place == _PLAIN else 0, mask if place == _STREAM else 0)
        except LinkError as error:
            if not self.secure.done():
                self._refuse(error)
            self.close()  # later faults end the connection, as for any other that breaks
            return
        if self._pump.finished:
            self.close()
            return
        if self._pump.secure and not self.secure.done():
            self.secure.set_result(None)
        self._watch()

    def _watch(self) -> None:
        for place, wanted in enumerate(self._pump.wanted()):
            if wanted != self._watched[place]:
                self._set_watch(place, wanted)

    def _set_watch(self, place: int, wanted: int) -> None:
        before, sock = self._watched[place], self._socks[place]
        changed = before ^ wanted
        if changed & select.POLLIN:
            if wanted & select.POLLIN:
                self._loop.add_reader(sock, self._on_ready, place, select.POLLIN)
            else:
                self._loop.remove_reader(sock)
        if changed & select.POLLOUT:
            if wanted & select.POLLOUT:
                self._loop.add_writer(sock, self._on_ready, place, select.POLLOUT)
            else:
                self._loop.remove_writer(sock)
        self._watched[place] = wanted
