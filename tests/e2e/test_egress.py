"""Granted endpoints over a whole manager: what the operator's words make of connections, and the record of them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cardcage import PluginManager
from cardcage.audit import Action, MemoryAuditor
from cardcage.broker.events import Event
from cardcage.foundation.errors import InvalidDocument
from cardcage.sandbox.doctor import examine
from cardcage.sandbox.plan import STRICT_FLOOR

WritePlugin = Callable[..., Path]

CONNECTS = """
    import os
    import socket

    class Main:
        def say(self, host, port, text):
            received = b""
            try:
                with socket.create_connection((host, port), timeout=20) as sock:
                    sock.sendall(text.encode())
                    sock.shutdown(socket.SHUT_WR)
                    while part := sock.recv(65536):
                        received += part
            except OSError as error:
                return f"{type(error).__name__}"
            return received.decode()

        def die(self):
            os._exit(3)
"""


@pytest.fixture(scope="module", autouse=True)
def walls() -> None:
    if missing := examine().below(STRICT_FLOOR):
        pytest.skip(f"walls cannot be put up here: {', '.join(f'{layer.name}: {layer.detail}' for layer in missing)}")


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server on loopback that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock:
                while part := sock.recv(65536):
                    sock.sendall(part)

    threading.Thread(target=run, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


async def test_a_name_of_the_operators_own_leads_where_he_says_and_is_counted(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path, echo: int
) -> None:
    write_plugin("caller", CONNECTS, manifest={"permissions": {"network": [f"api.test:{echo}"]}})
    settings = {"network": {"hosts": {"API.test": "127.0.0.1"}}}
    grants = {"caller": [f"network:api.test:{echo}"]}
    auditor = MemoryAuditor()
    async with PluginManager(
        settings, plugin_paths=[plugins_dir], state_dir=state_dir, grants=grants, audit=auditor
    ) as manager:
        assert await manager.call("caller", "say", "api.test", echo, "hello") == "hello"
        assert await manager.call("caller", "say", "127.0.0.1", echo, "hello") != "hello"
        (count,) = manager.egress("caller")
        assert (count.endpoint, count.connections, count.bytes_up, count.bytes_down) == (f"api.test:{echo}", 1, 5, 5)
    closed = auditor.of(Action.EGRESS_CLOSED)
    assert [(event.fields["endpoint"], event.fields["bytes_out"]) for event in closed] == [(f"api.test:{echo}", 5)]
    assert closed[0].fields["address"] == "127.0.0.1"


async def test_an_address_is_not_opened_by_a_grant_of_everything_and_the_refusal_is_recorded(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path, echo: int
) -> None:
    """The manifest names the host's own loopback; the operator granted any host, and meant the internet."""
    write_plugin("caller", CONNECTS, manifest={"permissions": {"network": [f"127.0.0.1:{echo}"]}})
    auditor = MemoryAuditor()
    told: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
    async with PluginManager(
        plugin_paths=[plugins_dir], state_dir=state_dir, grants={"caller": [f"network:*:{echo}"]}, audit=auditor
    ) as manager:
        manager.subscribe("plugin.egress_refused", told.set_result)
        assert await manager.call("caller", "say", "127.0.0.1", echo, "hello") != "hello"
        async with asyncio.timeout(30):
            assert (await told).data["endpoint"] == f"127.0.0.1:{echo}"
        assert any("refused" in line.text for line in manager.logs("caller"))
    (refused,) = auditor.of(Action.EGRESS_REFUSED)
    assert (refused.allowed, refused.fields["endpoint"]) == (False, f"127.0.0.1:{echo}")
    assert "a loopback address that no grant names" in refused.reason


async def test_a_restarted_process_has_its_endpoints_again(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path, echo: int
) -> None:
    write_plugin("caller", CONNECTS, manifest={"permissions": {"network": [f"127.0.0.1:{echo}"]}})
    grants = {"caller": [f"network:127.0.0.1:{echo}"]}
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, grants=grants) as manager:
        assert await manager.call("caller", "say", "127.0.0.1", echo, "one") == "one"
        with pytest.raises(Exception, match="crashed"):
            await manager.call("caller", "die")
        assert await manager.call("caller", "say", "127.0.0.1", echo, "two") == "two"
        assert manager.egress("caller")[0].connections == 1


@pytest.mark.parametrize("hosts", [{"*.test": "127.0.0.1"}, {"api.test": "localhost"}, {"127.0.0.1": "127.0.0.1"}])
def test_a_mapping_that_is_none_is_refused_with_its_place(hosts: dict[str, str]) -> None:
    with pytest.raises(InvalidDocument) as refused:
        PluginManager({"network": {"hosts": hosts}})
    assert refused.value.faults[0].path == f"network.hosts.{next(iter(hosts))}"
