"""Shipped plugins in two ways: imported as their package stands, and served by the SDK in a process of their own."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import yaml

from cardcage_sdk.wire import Call, Error, Hello, Item, Message, Result, Role, Session

P = TypeVar("P")
T = TypeVar("T")

WAIT_S = 30.0
"""The bound of every wait: far above what anything here takes, so that only a hang reaches it."""


def entry_of(folder: Path) -> tuple[str, str]:
    """Module and class of a plugin's entry point."""
    module, _, attribute = yaml.safe_load((folder / "plugin.yaml").read_text("utf-8"))["entrypoint"].partition(":")
    return module, attribute


class Shipped:
    """Makes shipped plugins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, name: str, base: type[P], config: Mapping[str, Any], context: Any = None) -> P:
        """A plugin imported into this process, loaded with a config."""
        folder = self.folder / name
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        module, attribute = entry_of(folder)
        made: Any = getattr(importlib.import_module(module), attribute)()
        if context is not None:
            made.context = context
        made.load(dict(config))
        plugin: object = made
        assert isinstance(plugin, base)
        return plugin

    def serve(self, name: str, config: Mapping[str, Any], data_dir: Path) -> Served:
        """The same plugin behind the SDK's loop, in a process of its own."""
        return self.serve_folder(self.folder / name, config, data_dir)

    def serve_folder(self, folder: Path, config: Mapping[str, Any], data_dir: Path) -> Served:
        """Any package behind the SDK's loop."""
        return Served(folder, config, data_dir)


class Served:
    """One plugin process and the conversation with it. Use it as a context manager."""

    def __init__(self, folder: Path, config: Mapping[str, Any], data_dir: Path) -> None:
        self.session = Session(Role.HOST)
        self.received: list[Message] = []
        self.asked: list[tuple[str, Any]] = []
        """The plugin's own calls of the host; each is answered with True."""
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(WAIT_S)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cardcage_sdk.serve", "--fd", str(theirs.fileno())],
                cwd=folder,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._wait(lambda: next((one for one in self.received if isinstance(one, Hello)), None))
        self.sock.sendall(self.session.ready())
        module, attribute = entry_of(folder)
        context = {
            "config": dict(config),
            "data_dir": str(data_dir),
            "temp_dir": str(data_dir),
            "plugin": folder.name,
            "version": "0.1.0",
            "instance": folder.name,
            "log_level": "info",
        }
        entry = {"module": module, "attribute": attribute or None, "manifest_name": folder.name, "version": "0.1.0"}
        self.description = self._call("cardcage.load", {"entrypoint": entry, "context": context}, Any)
        assert self._call("cardcage.initialize", [], Any) is True
        assert self._call("cardcage.start", [], Any) is True

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
        try:
            self.process.wait(WAIT_S)
        finally:
            self.process.kill()
            self.process.wait()

    def call(self, result: Any, method: str, *args: Any) -> Any:
        """Call a method; its result in the declared type."""
        return self._call(method, msgspec.to_builtins(args), result)

    def stream(self, item: type[T], method: str, *args: Any) -> list[T]:
        """All items of a stream, in the declared type."""
        call_id, data = self.session.call(method, args, credit=4)
        self.sock.sendall(data)
        taken = 0
        while self._answer(call_id) is None:
            self._receive()
            items = sum(isinstance(one, Item) and one.id == call_id for one in self.received)
            if items > taken and self.session.is_waiting(call_id):
                self.sock.sendall(self.session.credit(call_id, items - taken))
            taken = items
        self._result(call_id)
        items = [one for one in self.received if isinstance(one, Item) and one.id == call_id]
        return [self.session.decode(one.value, item) for one in items]

    def _call(self, method: str, args: Any, result: Any) -> Any:
        call_id, data = self.session.call(method, args)
        self.sock.sendall(data)
        self._wait(lambda: self._answer(call_id))
        return self.session.decode(self._result(call_id).value, result)

    def _result(self, call_id: int) -> Result:
        answer = self._answer(call_id)
        assert isinstance(answer, Result), answer
        return answer

    def _answer(self, call_id: int) -> Result | Error | None:
        answers = (one for one in self.received if isinstance(one, Result | Error))
        return next((one for one in answers if one.id == call_id), None)

    def _wait(self, look: Callable[[], object]) -> None:
        while look() is None:
            self._receive()

    def _receive(self) -> None:
        data = self.sock.recv(1 << 16)
        assert data, "the plugin hung up"
        for message in self.session.receive_data(data):
            self.received.append(message)
            if isinstance(message, Call):
                self.asked.append((message.method, self.session.decode(message.args)))
                self.sock.sendall(self.session.result(message.id, True))


@pytest.fixture
def shipped(project_root: Path) -> Shipped:
    """The shipped plugins of this checkout."""
    return Shipped(project_root / "plugins")


ROW = {
    "BilledCost": "1.5",
    "BillingAccountId": "1",
    "BillingAccountName": "Example",
    "BillingCurrency": "USD",
    "BillingPeriodEnd": "2025-02-01T00:00:00Z",
    "BillingPeriodStart": "2025-01-01T00:00:00Z",
    "ChargeCategory": "Usage",
    "ChargeClass": "",
    "ChargeDescription": "an hour",
    "ChargePeriodEnd": "2025-01-02T01:00:00Z",
    "ChargePeriodStart": "2025-01-02T00:00:00Z",
    "ContractedCost": "1.5",
    "EffectiveCost": "1.2",
    "InvoiceIssuerName": "Example Cloud",
    "ListCost": "2.0",
    "PricingQuantity": "1",
    "PricingUnit": "Hours",
    "ProviderName": "Example Cloud",
    "PublisherName": "Example Cloud",
    "ServiceCategory": "Compute",
    "ServiceName": "Virtual Machines",
}


class Bills:
    """Writes small FOCUS bills."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def text(
        self, *rows: Mapping[str, str], header: Mapping[str, str] | None = None, drop: tuple[str, ...] = ()
    ) -> str:
        """A bill of these rows, each over the usual one; `header` renames columns."""
        names = [name for name in dict.fromkeys([*ROW, *(key for row in rows for key in row)]) if name not in drop]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([(header or {}).get(name, name) for name in names])
        writer.writerows([(ROW | dict(row)).get(name, "") for name in names] for row in rows)
        return out.getvalue()

    def write(self, content: str | bytes, name: str = "bill.csv") -> str:
        """Put it into a file; its path."""
        path = self.folder / name
        data = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)


@pytest.fixture
def bills(tmp_path: Path) -> Bills:
    """Small bills in a folder of the test's own."""
    return Bills(tmp_path)
