"""A whole manager where namespaces are forbidden: refused by default, and what a policy that allows it gives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cardcage.sandbox.syscalls import MACHINE, NUMBERS

TIMEOUT_S = 90

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
import asyncio, ctypes, json, os, struct, sys

plugins, state, policy, port, refused = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
program = bytes.fromhex(refused)
buffer = ctypes.create_string_buffer(program, len(program))
header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, header, 0, 0) == 0

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

REFUSE, ALLOW = (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)
NO_UNSHARE = ((0x20, 0, 0, 0), (0x15, 0, 1, NUMBERS.get(MACHINE, {}).get("unshare", 0)), REFUSE, ALLOW)
"""A filter that refuses new namespaces, code by code: architecture apart, as the test's own calls need none."""


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
def run_host(
    open_folder: Path, libraries: Any, python: Any, echo: int, tmp_path: Path
) -> Callable[[str], dict[str, Any]]:
    """Runs a manager with a plugin in a process that may make no namespaces, and hands back what it told."""
    import struct

    plugins, state = open_folder / f"plugins-{echo}", open_folder / f"state-{echo}"
    package = plugins / "caller"
    package.mkdir(parents=True)
    (package / "main.py").write_text(textwrap.dedent(PLUGIN))
    manifest = {"name": "caller", "version": "1.0.0", "entrypoint": "main:Main"}
    (package / "plugin.json").write_text(json.dumps({**manifest, "permissions": {"network": [f"api.test:{echo}"]}}))
    for path in (plugins, package):
        path.chmod(0o755)
    program = b"".join(struct.pack("HBBI", *step) for step in NO_UNSHARE).hex()
    places = [str(libraries[0][1].parent), *(path for path in sys.path if path and not _is_stdlib(path))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(policy: str) -> dict[str, Any]:
        done = subprocess.run(
            [python.executable, "-c", HOST, str(plugins), str(state), policy, str(echo), program],
            env=environment,
            stdout=subprocess.PIPE,
            timeout=TIMEOUT_S,
            check=True,
        )
        return json.loads(done.stdout)

    return run


def _is_stdlib(path: str) -> bool:
    """Whether it is a part of this very Python, which need not be the one that runs the host."""
    return path.startswith(sys.base_prefix) and "site-packages" not in path


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
