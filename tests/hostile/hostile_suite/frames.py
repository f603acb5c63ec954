"""Frames that a plugin may send: honest ones, mutated ones and noise, and a host at the other end that must bear it."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from cardcage import CardcageError
from cardcage.channel import Channel, ChannelLimits, Peer
from cardcage_sdk.wire import Encoding, RemoteProtocolError, Role, Session, State

VECTORS: Final = Path(__file__).parents[3] / "protocol" / "vectors"
WHO: Final = Peer(plugin="hostile", version="6.6.6", instance="hostile")
WANTED: Final = (Any, str, int, list[Any], dict[str, Any], dict[str, list[int]], bytes, list[dict[str, float]])

_INTERESTING: Final = bytes.fromhex("00 01 7f 80 8f 90 9f a0 bf c0 c1 c6 c9 cb d8 db dd df ff")
_CONNECTION_FRAMES: Final = 20


def seeds(encoding: Encoding) -> list[bytes]:
    """The frame of every message that the protocol's own vectors hold."""
    found = json.loads((VECTORS / "messages.json").read_text())
    return [frame_of(vector, encoding) for vector in found]


def frame_of(vector: Mapping[str, Any], encoding: Encoding) -> bytes:
    """A vector's frame as it is on the wire."""
    if encoding is Encoding.JSON:
        return vector["json"].encode() + b"\n"
    return bytes.fromhex(vector["binary"])


class Mutator:
    """Makes frames of honest ones. The same seed makes the same frames."""

    def __init__(self, seed: int, encoding: Encoding) -> None:
        self.random = random.Random(seed)
        self.encoding = encoding
        self.seeds = seeds(encoding)

    def frames(self) -> Iterator[bytes]:
        """One after another, without end."""
        choose = self.random
        while True:
            match choose.randrange(10):
                case 0:
                    yield self.framed(choose.randbytes(choose.randrange(60)))
                case 1:
                    yield choose.randbytes(choose.randrange(1, 40))
                case 2:
                    yield choose.choice(self.seeds)
                case 3 | 4 | 5:
                    yield self.framed(self.message())
                case _:
                    yield self.mutated(choose.choice(self.seeds))

    def framed(self, body: bytes) -> bytes:
        """A body with the length that it has, so that it is looked at."""
        if self.encoding is Encoding.JSON:
            return body.replace(b"\n", b" ") + b"\n"
        return struct.pack(">I", len(body)) + body

    def mutated(self, frame: bytes) -> bytes:
        """Some bytes changed, cut out, doubled or put in; mostly with its length put right again."""
        body = bytearray(frame[4:] if self.encoding is Encoding.BINARY else frame[:-1])
        choose = self.random
        for _ in range(choose.randrange(1, 5)):
            at = choose.randrange(len(body) + 1)
            match choose.randrange(6):
                case 0 if at < len(body):
                    body[at] ^= 1 << choose.randrange(8)
                case 1 if at < len(body):
                    body[at] = choose.choice(_INTERESTING)
                case 2:
                    del body[at : at + choose.randrange(1, 8)]
                case 3:
                    body[at:at] = body[at : at + choose.randrange(1, 16)] * choose.randrange(1, 4)
                case 4:
                    body[at:at] = bytes(choose.choice(_INTERESTING) for _ in range(choose.randrange(1, 9)))
                case _:
                    other = choose.choice(self.seeds)
                    body[at:] = other[choose.randrange(len(other)) :]
        if choose.randrange(20) == 0 and self.encoding is Encoding.BINARY:
            return struct.pack(">I", choose.getrandbits(choose.choice((8, 16, 25, 32)))) + bytes(body)
        return self.framed(bytes(body))

    def message(self) -> bytes:
        """A message of the right shape with numbers, names and values of any kind."""
        array = (self.random.randrange(15), self.random.choice((0, 1, 2, 3, 2**53, -1)), *map(self.value, range(3)))
        return msgspec.json.encode(array) if self.encoding is Encoding.JSON else msgspec.msgpack.encode(array)

    def value(self, depth: int) -> Any:
        """Something that a message may carry."""
        choose = self.random
        match choose.randrange(9 if depth < 6 else 6):
            case 0:
                return choose.getrandbits(choose.choice((1, 8, 32, 63)))
            case 1:
                return "x" * choose.randrange(300)
            case 2:
                return choose.choice((None, True, "work", "info", "counter", "plugin_error"))
            case 3:
                return choose.random() * 10.0 ** choose.randrange(-300, 300)
            case 4:
                return choose.randbytes(choose.randrange(40))
            case 5:
                return {}
            case 6:
                return [self.value(depth + 1) for _ in range(choose.randrange(5))]
            case _:
                return {str(key): self.value(depth + 1) for key in range(choose.randrange(5))}


@dataclass(slots=True)
class Tally:
    """What came of the frames."""

    frames: int = 0
    messages: int = 0
    faults: dict[str, int] = field(default_factory=dict[str, int])
    refused_values: int = 0
    connections: int = 0


def busy_host(encoding: Encoding) -> Session:
    """A host in the middle of a conversation: calls in flight, one of them a stream, one cancelled, and a ping."""
    host = Session(Role.HOST)
    host.receive_data(Session(Role.PLUGIN, encoding=encoding).hello())
    host.ready()
    for credit in (0, 0, 0, 2):
        host.call("work", [], credit=credit)
    host.cancel(3, "cancelled")
    host.ping(1)
    return host


def feed_session(count: int, *, seed: int, encoding: Encoding, tally: Tally) -> None:
    """Let a session take `count` frames; it is a new one after each fault. Anything else that is raised is a bug."""
    frames = Mutator(seed, encoding).frames()
    host = busy_host(encoding)
    for number in range(count):
        try:
            messages = host.receive_data(next(frames))
        except RemoteProtocolError as fault:
            messages = fault.received
            tally.faults[fault.code] = tally.faults.get(fault.code, 0) + 1
        tally.frames += 1
        tally.messages += len(messages)
        for message in messages:
            _read_values(host, message, WANTED[number % len(WANTED)], tally)
        if host.state is not State.READY or host.mid_frame or not host.calls_open:
            host = busy_host(encoding)
            tally.connections += 1


def _read_values(host: Session, message: Any, wanted: Any, tally: Tally) -> None:
    for name in ("args", "value", "data", "fields"):
        raw = getattr(message, name, None)
        if isinstance(raw, msgspec.Raw):
            try:
                host.decode(raw, wanted)
            except msgspec.ValidationError:
                tally.refused_values += 1


class Deaf:
    """A handler that takes everything and keeps nothing."""

    async def on_call(self, method: str, args: Any, meta: Mapping[str, Any]) -> Any:
        return args

    def on_event(self, name: str, data: Any) -> None:
        pass

    def on_log(self, level: str, message: str, fields: Mapping[str, Any] | None) -> None:
        pass

    def on_metric(self, name: str, kind: str, value: float, tags: Mapping[str, str] | None) -> None:
        pass


async def feed_channels(count: int, *, seed: int, encoding: Encoding, tally: Tally) -> None:
    """Let channels on real sockets take `count` frames, a handful each, with calls in flight that must all end."""
    frames = Mutator(seed, encoding).frames()
    while count > 0:
        some = b"".join(next(frames) for _ in range(min(count, _CONNECTION_FRAMES)))
        count -= _CONNECTION_FRAMES
        await _one_channel(some, encoding)
        tally.frames += _CONNECTION_FRAMES
        tally.connections += 1


async def _one_channel(data: bytes, encoding: Encoding) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(Session(Role.PLUGIN, encoding=encoding).hello())
        limits = ChannelLimits(frame_s=5.0, goodbye_s=0.0)
        channel = await Channel.open(ours, handler=Deaf(), who=WHO, limits=limits)
        calls = [asyncio.ensure_future(channel.call("work", [number], timeout_s=30.0)) for number in range(3)]
        await asyncio.sleep(0)
        theirs.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_sendall(theirs, data)
        except OSError:
            pass  # it has hung up on us already
        theirs.close()
        for ended in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(ended, BaseException) and not isinstance(ended, CardcageError):
                raise ended
        await channel.close()
