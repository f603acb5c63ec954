"""What a manager does around a plugin where namespaces are forbidden: its books of refusals, secrets, other walls."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ATTEMPTS = 20_000
LINES_MAX = 200
"""More than are written of a flood in the seconds that it takes, and far fewer than its attempts."""

PLUGIN = """
    import socket

    from cardcage_sdk import Plugin

    class Main(Plugin):
        def attempt(self, family, address):
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                try:
                    sock.connect(tuple(address) if isinstance(address, list) else address)
                except OSError as error:
                    return type(error).__name__
                return "connected"

        def flood(self, port, times):
            refused = 0
            for number in range(times):
                with socket.socket() as sock:
                    refused += bool(sock.connect_ex(("127.0.0.1", port + number % 500)))
            return refused

        def secrets(self):
            return self.context.secrets
"""

HOST = """
import asyncio, json

plugins, state, settings = sys.argv[1:]

from cardcage import PluginManager
from cardcage.audit import Action, MemoryAuditor
from cardcage.foundation.errors import CardcageError

async def main():
    settings_ = json.loads(settings)
    calls, awaited = settings_.pop("calls"), settings_.pop("awaited")
    auditor = MemoryAuditor()
    told = {"answers": []}
    async with PluginManager(
        settings_, plugin_paths=[plugins], state_dir=state, policy="permissive", packs=(), auto_start=False,
        audit=auditor,
    ) as manager:
        try:
            await manager.load_plugin("caller")
            await manager.start_plugin("caller")
            for method, *arguments in calls:
                told["answers"].append(await manager.call("caller", method, *arguments, timeout_s=60))
            async with asyncio.timeout(30):  # answers and refusals come by different ways
                while len(auditor.of(Action.EGRESS_REFUSED)) < awaited:
                    await asyncio.sleep(0.005)
            told["fallback"] = manager.plan("caller").fallback
            told["counts"] = [count.to_json() for count in manager.egress("caller")]
            told["log"] = [line.text for line in manager.logs("caller")]
        except CardcageError as error:
            told["code"], told["message"], told["hint"] = error.code, error.message, error.hint
    told["refused"] = [
        [event.fields.get("endpoint"), event.reason, event.allowed, str(event.actor), event.fields.get("count", 0)]
        for event in auditor.of(Action.EGRESS_REFUSED)
    ]
    told["handed"] = [event.fields["secret"] for event in auditor.of(Action.SECRET_HANDED)]
    print(json.dumps(told))

asyncio.run(main())
"""


@pytest.fixture
def run_host(open_folder: Path, run_filtered: Any) -> Callable[..., dict[str, Any]]:
    """Runs a manager with a plugin where there are no namespaces, has it make calls, and hands back what it told."""
    place = open_folder / f"host-{len(list(open_folder.iterdir()))}"
    package = place / "plugins" / "caller"
    package.mkdir(parents=True)
    (package / "main.py").write_text(textwrap.dedent(PLUGIN))
    for path in (place, package.parent, package):
        path.chmod(0o755)

    def run(
        *calls: list[Any],
        manifest: dict[str, Any] | None = None,
        entry: dict[str, Any] | None = None,
        awaited: int = 0,
        **settings: Any,
    ) -> dict[str, Any]:
        whole = {"name": "caller", "version": "1.0.0", "entrypoint": "main:Main", **(manifest or {})}
        (package / "plugin.json").write_text(json.dumps(whole))
        plugins = {"caller": {"enabled": True, **(entry or {})}}
        given = json.dumps({"plugins": plugins, **settings, "calls": calls, "awaited": awaited})
        return run_filtered(HOST, str(place / "plugins"), str(place / "state"), given)

    return run


def test_a_refused_connection_is_in_the_audit_log_and_the_instances_log_with_its_address(run_host: Any) -> None:
    told = run_host(
        ["attempt", 2, ["127.0.0.1", 9]],
        ["attempt", 10, ["::1", 9]],
        ["attempt", 2, ["127.100.0.2", 444]],
        ["attempt", 1, "/run/some.sock"],
        manifest={"permissions": {"network": ["api.test:443"]}},
        entry={"grants": ["network:api.test:443"]},
        awaited=4,
    )
    assert told["answers"] == ["OSError", "OSError", "OSError", "PermissionError"], told
    assert told["fallback"]
    wanted = ["127.0.0.1:9", "[::1]:9", "api.test:444"]
    assert [row[0] for row in told["refused"]] == [*wanted, "/run/some.sock"]
    for endpoint, reason, allowed, actor, _ in told["refused"]:
        assert f"connection to {endpoint} refused: " in reason
        assert (allowed, actor) == (False, "plugin")
        assert reason in told["log"]
    assert "no grant covers it" in told["refused"][0][1]
    assert told["counts"][-1]["refused"] == 4


def test_one_without_any_grant_is_heard_of_too(run_host: Any) -> None:
    told = run_host(["attempt", 2, ["127.0.0.1", 9]])
    assert [row[0] for row in told["refused"]] == ["127.0.0.1:9"], told


def test_a_flood_of_refusals_is_counted_whole_and_told_in_part(run_host: Any) -> None:
    told = run_host(["flood", 20_000, ATTEMPTS])
    assert told["answers"] == [ATTEMPTS], told
    rows = told["refused"]
    assert 10 < len(rows) < LINES_MAX
    assert sum(1 + row[4] for row in rows) == ATTEMPTS


@pytest.mark.parametrize(
    ("isolation", "why"),
    [
        ("container", "a container is made of namespaces"),
        ("vm", "QEMU is started behind the full walls, which are made of namespaces"),
    ],
)
def test_a_container_and_a_machine_are_refused_and_nothing_weaker_is_taken_for_them(
    isolation: str, why: str, run_host: Any
) -> None:
    told = run_host(["secrets"], manifest={"isolation": isolation})
    assert told["code"] == "isolation_unavailable"
    assert told["message"] == (
        f'plugin "caller" 1.0.0 was not started: isolation {isolation} cannot be had here, because {why}, and this '
        "machine gives none (unshare: Operation not permitted)"
    )
    assert told["hint"] == "allow user namespaces: `cardcage doctor` says how"
    assert told["answers"] == []


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    """The host's setting for a folder with one secret."""
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    file = folder / "API_TOKEN"
    file.touch(mode=0o600)
    file.write_text("known to the host alone\n")
    return {"folder": str(folder)}


def test_a_granted_secret_is_handed_over(run_host: Any, secrets: dict[str, str]) -> None:
    asking = {"permissions": ["secret:API_TOKEN"]}
    told = run_host(["secrets"], manifest=asking, entry={"grants": ["secret:API_TOKEN"]}, secrets=secrets)
    assert told["answers"] == [{"API_TOKEN": "known to the host alone"}], told
    assert (told["handed"], told["fallback"]) == (["API_TOKEN"], True)


def test_credentials_are_refused_with_the_wall_as_the_reason(run_host: Any, secrets: dict[str, str]) -> None:
    entry = {"grants": ["network:api.test:443"], "credentials": [{"endpoint": "api.test:443", "bearer": "API_TOKEN"}]}
    manifest = {"permissions": {"network": ["api.test:443"]}}
    told = run_host(["secrets"], manifest=manifest, entry=entry, secrets=secrets)
    assert told["code"] == "credential_impossible"
    assert told["message"] == (
        'plugin "caller" was not started: credentials are to be added to its requests, and that is not to be had '
        "behind the wall without namespaces, the only one that this machine gives"
    )
    assert told["hint"] == (
        "take its credentials out of the host configuration, or allow user namespaces (`cardcage doctor` says how)"
    )
    assert told["answers"] == []
