"""A plugin whose every word the test says, at the other end of a real socket pair."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import pytest

from cardcage.channel import Channel, ChannelLimits, Peer
from cardcage_sdk.wire import Encoding, Message, Role, Session, WireLimits

M = TypeVar("M")

WHO = Peer(plugin="ocr", version="1.2.0", instance="ocr")
PATIENCE_S = 60.0


class ScriptedPlugin:
    """The plugin's end. `session` makes its messages; `send` writes bytes of any kind."""

    def __init__(self, sock: socket.socket, encoding: Encoding) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.session = Session(Role.PLUGIN, encoding=encoding)
        self._arrived: list[Message] = []

    async def send(self, *frames: bytes) -> None:
        """Write frames as they are."""
        await asyncio.get_running_loop().sock_sendall(self.sock, b"".join(frames))

    async def next(self, of_type: type[M]) -> M:
        """The next message, which must be of this type."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._arrived:
                data = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
                assert data, f"the host hung up where a {of_type.__name__} was expected"
                self._arrived += self.session.receive_data(data)
        message = self._arrived.pop(0)
        assert isinstance(message, of_type), f"expected {of_type.__name__}, found {message}"
        return message

    async def until_host_hangs_up(self) -> list[Message]:
        """The messages that still come before the host closes the connection."""
        loop = asyncio.get_running_loop()
        messages = self._arrived
        async with asyncio.timeout(PATIENCE_S):
            try:
                while data := await loop.sock_recv(self.sock, 65536):
                    messages += self.session.receive_data(data)
            except ConnectionResetError:
                pass
        return messages

    def hang_up(self) -> None:
        """Close the plugin's end."""
        self.sock.close()


class Recorder:
    """A handler that keeps what it is told, and answers calls with `answer`."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.logs: asyncio.Queue[tuple[str, str, Mapping[str, Any] | None]] = asyncio.Queue()
        self.metrics: asyncio.Queue[tuple[str, str, float, Mapping[str, str] | None]] = asyncio.Queue()
        self.answer: Callable[[str, Any], Awaitable[Any]] = self._echo

    async def _echo(self, method: str, args: Any) -> Any:
        return {"method": method, "args": args}

    async def on_call(self, method: str, args: Any, meta: Mapping[str, Any]) -> Any:
        return await self.answer(method, args)

    def on_event(self, name: str, data: Any) -> None:
        if data == "the host's own bug":
            raise RuntimeError("a bug of the host")
        self.events.put_nowait((name, data))

    def on_log(self, level: str, message: str, fields: Mapping[str, Any] | None) -> None:
        self.logs.put_nowait((level, message, fields))

    def on_metric(self, name: str, kind: str, value: float, tags: Mapping[str, str] | None) -> None:
        self.metrics.put_nowait((name, kind, value, tags))


class Bench:
    """Makes connected pairs of a channel and a scripted plugin, and clears them away."""

    def __init__(self) -> None:
        self.handler = Recorder()
        self._channels: list[Channel] = []
        self._plugins: list[ScriptedPlugin] = []

    def pair(self, encoding: Encoding = Encoding.BINARY) -> tuple[socket.socket, ScriptedPlugin]:
        """A socket for the host and a plugin at its other end; nothing is said yet."""
        host, sock = socket.socketpair()
        plugin = ScriptedPlugin(sock, encoding)
        self._plugins.append(plugin)
        return host, plugin

    async def connect(
        self,
        *,
        encoding: Encoding = Encoding.BINARY,
        limits: ChannelLimits = ChannelLimits(),  # noqa: B008 - frozen
        wire: WireLimits = WireLimits(),  # noqa: B008 - frozen
    ) -> tuple[Channel, ScriptedPlugin]:
        """An open channel and the plugin at its other end."""
        host, plugin = self.pair(encoding)
        await plugin.send(plugin.session.hello(sdk="scripted"))
        channel = await self.open(host, limits=limits, wire=wire)
        plugin.session.receive_data(await asyncio.get_running_loop().sock_recv(plugin.sock, 65536))
        return channel, plugin

    async def open(self, host: socket.socket, timeout_s: float = PATIENCE_S, **limits: Any) -> Channel:
        """The host's side of opening."""
        channel = await Channel.open(host, handler=self.handler, who=WHO, timeout_s=timeout_s, **limits)
        self._channels.append(channel)
        return channel

    async def clear_away(self) -> None:
        for plugin in self._plugins:
            plugin.hang_up()
        for channel in self._channels:
            await channel.close()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A maker of connected pairs."""
    bench = Bench()
    yield bench
    await bench.clear_away()
