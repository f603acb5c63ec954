"""A whole manager where namespaces are forbidden: refused by default, and what a policy that allows it gives."""

from __future__ import annotations

import json
import os
import socket
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PLUGIN = """
    import os
    import socket
    import tempfile

    class Main:
        def say(self, host, port, text):
            with socket.create_connection((host, port), timeout=20) as sock:
                sock.sendall(text.encode())
                sock.shutdown(socket.SHUT_WR)
                return sock.recv(65536).decode()

        def read(self, path):
            try:
                with open(path) as file:
                    return file.read(10)
            except OSError as error:
                return type(error).__name__

        def keep(self):
            with tempfile.NamedTemporaryFile() as file:
                file.write(b"x")
            return os.getuid()
"""

HOST = """
import asyncio, json, sys

plugins, state, policy, port = sys.argv[1:]

from cardcage import PluginManager
from cardcage.foundation.errors import CardcageError

async def main():
    settings = {"network": {"hosts": {"api.test": "127.0.0.1"}}}
    grants = {"caller": [f"network:api.test:{port}"]}
    told = {}
    async with PluginManager(
        settings, plugin_paths=[plugins], state_dir=state, grants=grants, policy=policy, packs=(), auto_start=False
    ) as manager:
        try:
            await manager.load_plugin("caller")
            await manager.start_plugin("caller")
            told["said"] = await manager.call("caller", "say", "api.test", int(port), "hello")
            told["read"] = await manager.call("caller", "read", "/etc/passwd")
            told["uid"] = await manager.call("caller", "keep")
            told["plan"] = manager.plan("caller").fallback
            told["counted"] = manager.egress("caller")[0].connections
        except CardcageError as error:
            told["code"], told["message"], told["hint"] = error.code, error.message, error.hint
    print(json.dumps(told))

asyncio.run(main())
"""


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


@pytest.fixture
def run_host(open_folder: Path, run_filtered: Any, echo: int) -> Callable[[str], dict[str, Any]]:
    """Runs a manager with a plugin in a process that may make no namespaces, and hands back what it told."""
    plugins, state = open_folder / f"plugins-{echo}", open_folder / f"state-{echo}"
    package = plugins / "caller"
    package.mkdir(parents=True)
    (package / "main.py").write_text(textwrap.dedent(PLUGIN))
    manifest = {"name": "caller", "version": "1.0.0", "entrypoint": "main:Main"}
    (package / "plugin.json").write_text(json.dumps({**manifest, "permissions": {"network": [f"api.test:{echo}"]}}))
    for path in (plugins, package):
        path.chmod(0o755)
    return lambda policy: run_filtered(HOST, str(plugins), str(state), policy, str(echo))


def test_by_default_the_start_is_refused_with_what_is_missing_and_how_to_mend_it(run_host: Any) -> None:
    told = run_host("standard")
    assert told["code"] == "fallback_not_allowed"
    assert "unshare: Operation not permitted" in told["message"]
    assert "user namespaces" in told["hint"]
    assert "fallback: allow" in told["hint"]


def test_where_the_policy_allows_it_a_plugin_runs_and_reaches_what_it_was_granted(run_host: Any) -> None:
    told = run_host("permissive")
    assert told.get("said") == "hello", told
    assert (told["read"], told["plan"], told["counted"]) == ("PermissionError", True, 1)
    assert (told["uid"] != os.getuid()) is (os.geteuid() == 0)
