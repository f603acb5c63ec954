"""A host for one plugin process, over a real socket pair, blocking and in plain sight."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cardcage_sdk.wire import (
    Call,
    Error,
    Hello,
    Item,
    Log,
    Message,
    Result,
    Role,
    Session,
)

T = TypeVar("T")

WAIT_S = 20.0
"""The bound of every wait: far above what anything here takes, so that only a hang reaches it."""


class CallFailed(Exception):
    """The plugin answered with an error."""

    def __init__(self, code: str, message: str, data: Any) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.data: dict[str, Any] = data or {}


class FakeHost:
    """Speaks to one plugin process. Everything that arrives is kept in `received`, in order."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(WAIT_S)
        self.session = Session(Role.HOST)
        self.received: list[Message] = []
        self.services: dict[str, Callable[..., Any]] = {"cardcage.subscribe": bool}
        self.calls_seen: list[tuple[str, Any]] = []
        with theirs, (package / "stdout").open("wb") as out, (package / "stderr").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cardcage_sdk.serve", "--fd", str(theirs.fileno())],
                cwd=package,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def later(self, *_: Any) -> Any:
        """A service that is not answered."""
        return self.later

    # What the process printed

    @property
    def stdout(self) -> str:
        return (self.package / "stdout").read_text("utf-8")

    @property
    def stderr(self) -> str:
        return (self.package / "stderr").read_text("utf-8")

    # The conversation

    def greet(self) -> Hello:
        """Wait for the hello and answer it."""
        hello = self.wait_for(Hello)
        self.sock.sendall(self.session.ready())
        return hello

    def load(
        self,
        attribute: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        module: str | None = "plugin",
        file: str | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        """Greet, and have the plugin loaded; its description."""
        self.greet()
        return self.ask("cardcage.load", self.load_request(attribute, config, module, file, **settings))

    def load_request(
        self,
        attribute: str | None = None,
        config: Mapping[str, Any] | None = None,
        module: str | None = "plugin",
        file: str | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        entry = {"module": None if file else module, "file": file, "attribute": attribute}
        context = {
            "config": config or {},
            "data_dir": str(self.package / "data"),
            "temp_dir": str(self.package / "temp"),
            "plugin": "polite",
            "version": "1.2.0",
            "instance": "polite",
            "log_level": "debug",
        }
        return {
            "entrypoint": entry | {"manifest_name": "polite", "version": "1.2.0"},
            "context": context | settings,
        }

    def ask(self, method: str, /, *args: Any, deadline_ms: int | None = None, **named: Any) -> Any:
        """Call and wait for the answer. `cardcage.load` takes its one argument as the map itself."""
        whole = args[0] if method == "cardcage.load" else (named or args)
        return self.answer(self.call(method, whole, deadline_ms=deadline_ms))

    def call(self, method: str, args: Any = (), *, deadline_ms: int | None = None, credit: int = 0) -> int:
        """Begin a call."""
        call_id, data = self.session.call(method, args, deadline_ms=deadline_ms, credit=credit)
        self.sock.sendall(data)
        return call_id

    def answer(self, call_id: int) -> Any:
        """Wait for the answer of a call. Raises `CallFailed`."""
        message = self.wait_until(lambda: self.answer_to(call_id))
        if isinstance(message, Error):
            raise CallFailed(message.code, message.message, self.session.decode(message.data))
        assert isinstance(message, Result)
        return self.session.decode(message.value)

    def failure(self, call_id: int) -> CallFailed:
        """Wait for a call to fail."""
        with pytest.raises(CallFailed) as caught:
            self.answer(call_id)
        return caught.value

    def stream(self, method: str, args: Any = (), *, credit: int = 1) -> list[Any]:
        """Take a whole stream, giving credit for one more item with each that came."""
        call_id = self.call(method, args, credit=credit)
        taken = 0
        while self.answer_to(call_id) is None:
            self.receive()
            for _ in range(len(self.items(call_id)) - taken):
                if self.session.is_waiting(call_id):
                    self.sock.sendall(self.session.credit(call_id, 1))
                taken += 1
        self.answer(call_id)
        return self.items(call_id)

    def items(self, call_id: int) -> list[Any]:
        """The items of a stream that have come."""
        found = [each for each in self.received if isinstance(each, Item) and each.id == call_id]
        return [self.session.decode(each.value) for each in found]

    def wait_for_items(self, call_id: int, count: int) -> list[Any]:
        """Wait until so many items have come."""
        self.wait_until(lambda: len(self.items(call_id)) >= count or None)
        return self.items(call_id)

    def logs(self) -> list[Log]:
        return [each for each in self.received if isinstance(each, Log)]

    def wait_for(self, kind: type[T]) -> T:
        """Wait for the first message of a kind."""
        return self.wait_until(lambda: next((each for each in self.received if isinstance(each, kind)), None))

    def wait_until(self, look: Callable[[], T | None]) -> T:
        """Read until `look` finds something."""
        while (found := look()) is None:
            self.receive()
        return found

    def receive(self) -> None:
        """Read once, serving the plugin's own calls."""
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(f"the plugin hung up; it printed: {self.stdout}{self.stderr}")
        for message in self.session.receive_data(data):
            self.received.append(message)
            if isinstance(message, Call):
                self._serve(message)

    def _serve(self, call: Call) -> None:
        args = self.session.decode(call.args)
        self.calls_seen.append((call.method, args))
        service = self.services.get(call.method)
        if service is None:
            self.sock.sendall(self.session.error(call.id, "method_not_found", f"no {call.method}"))
            return
        try:
            value = service(**args) if isinstance(args, dict) else service(*args)
        except CallFailed as fault:
            self.sock.sendall(self.session.error(call.id, fault.code, fault.message, fault.data))
            return
        if value != self.later:
            self.sock.sendall(self.session.result(call.id, value))

    def answer_to(self, call_id: int) -> Result | Error | None:
        """The answer of a call, if it has come."""
        answers = (each for each in self.received if isinstance(each, Result | Error))
        return next((each for each in answers if each.id == call_id), None)

    def dismiss(self) -> int:
        """Say goodbye and wait for the process; its exit status."""
        self.sock.sendall(self.session.goodbye("stopping"))
        return self.wait_exit()

    def wait_exit(self) -> int:
        """Read to the end of the stream and wait for the process."""
        while data := self.sock.recv(65536):
            self.received += self.session.receive_data(data)
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        """Hang up; the process ends with that, and is killed where it does not."""
        self.sock.close()
        try:
            self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


StartPlugin = Callable[..., FakeHost]


@pytest.fixture
def start_plugin(tmp_path: Path) -> Iterator[StartPlugin]:
    """Write the source of a plugin (or several files) and start a process for it."""
    hosts: list[FakeHost] = []

    def start(source: str = "", **files: str) -> FakeHost:
        package = tmp_path / f"package{len(hosts)}"
        package.mkdir()
        for name, text in {"plugin": source, **files}.items():
            (package / f"{name}.py").write_text(textwrap.dedent(text), "utf-8")
        host = FakeHost(package)
        hosts.append(host)
        return host

    yield start
    for host in hosts:
        host.close()
