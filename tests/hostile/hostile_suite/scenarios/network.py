"""Back doors, and names that change where they lead."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING
from unittest import mock

from cardcage import CardcageError, PluginManager
from cardcage.egress import resolver
from cardcage.sandbox.report import LayerStatus

from ..behaviour import NotStopped, Stop

if TYPE_CHECKING:
    from ..arena import Arena

_PORT = 47_613

_SERVES = """
import socket

class Main:
    def serve(self, port):
        self.listener = socket.create_server(("0.0.0.0", port))
        return "listening"
"""


async def serve(arena: Arena) -> list[Stop]:
    """It may listen in a network of its own, or not at all; nobody of the host reaches it."""
    package = arena.package("serves", _SERVES)
    async with arena.manager("serving", plugin_paths=[package.parent]) as manager:
        await manager.start_plugin("serves")
        try:
            await manager.call("serves", "serve", _PORT)
        except CardcageError as error:
            if "Errno" in error.message:
                return [Stop(seen="may not listen", layer="landlock_network")]
            raise
        with contextlib.closing(socket.socket()) as caller:
            caller.settimeout(3)
            if caller.connect_ex(("127.0.0.1", _PORT)) == 0:
                raise NotStopped(f"the host reaches the back door on port {_PORT}")
    return [Stop(seen="nobody comes in", layer="network_namespace")]


_RESOLVES = """
import socket

class Main:
    def talk(self, host, port):
        with socket.create_connection((host, port), timeout=5) as sock:
            sock.settimeout(5)
            sock.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            if not sock.recv(100):
                raise ConnectionResetError("hung up on")
            return "answered"
"""

_NAME = "rebound.example.com"


async def resolve_to_private(arena: Arena) -> list[Stop]:
    """A name that was granted, whose owner points it at the machine itself and at the network around it."""
    package = arena.package("resolves", _RESOLVES, permissions={"network": [f"{_NAME}:{_PORT}"]})
    grants = {"resolves": [f"network:{_NAME}:{_PORT}"]}
    with socket.create_server(("127.0.0.1", _PORT)) as service:
        service.setblocking(False)
        async with arena.manager("resolving", plugin_paths=[package.parent], grants=grants) as manager:
            await manager.start_plugin("resolves")
            report = manager.report("resolves")
            for address in ("127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "10.0.0.1", "0.0.0.0", "fd00::1"):
                # The name server's answer is all that is made up.
                with mock.patch.object(resolver, "_look_up", mock.Mock(return_value=[address])):
                    await _talks_to_nobody(manager, address)
        with contextlib.suppress(BlockingIOError):
            raise NotStopped(f"a service of the host was reached from {service.accept()[1]}")
    enforced = report is not None and report.status("egress") is LayerStatus.ENFORCED
    return [Stop(seen="the address is refused", layer="egress", enforced=enforced)]


async def _talks_to_nobody(manager: PluginManager, address: str) -> None:
    try:
        await manager.call("resolves", "talk", _NAME, _PORT)
    except CardcageError as error:
        if error.code != "plugin_error":
            raise
        return
    raise NotStopped(f"a granted name led to {address}")
