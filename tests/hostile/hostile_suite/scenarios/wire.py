"""A hostile plugin at the other end of the wire, and the host's memory, log and temper meanwhile."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from cardcage import CardcageError
from cardcage.foundation.limits import LOG_BURST_LINES, LOG_LINE_CHARS_MAX
from cardcage_sdk.wire import Kind

from ..behaviour import Attempt, NotStopped, Stop
from ..weaken import hurried
from .lifetimes import gone

if TYPE_CHECKING:
    from ..arena import Arena

_LIAR: Final = "wire-liar"
_MIB: Final = 1 << 20
_PATIENCE_S: Final = 30.0


def resident_bytes() -> int:
    """The host's own memory, now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def frame(*array: Any) -> bytes:
    """One message as it is on the wire."""
    body = msgspec.msgpack.encode(array)
    return struct.pack(">I", len(body)) + body


async def _refused(arena: Arena, what: str, method: str, *arguments: Any, code: str = "protocol_error") -> Stop:
    """The call must end with this code, and the connection with it."""
    await arena.ensure(arena.walled, _LIAR)
    pid = arena.pid_of(_LIAR)
    label, detail = await arena.attempt(
        arena.walled, Attempt(plugin=_LIAR, method=method, arguments=arguments, stopped_by={}, timeout_s=15.0)
    )
    if label != code:
        raise NotStopped(f"{what}: {label} ({detail}), expected {code}")
    if await asyncio.to_thread(gone, [pid]):
        raise NotStopped(f"{what}: the process went on after its connection was closed")
    return Stop(seen=code, layer="wire limits")


async def send_pickle(arena: Arena) -> list[Stop]:
    """As a result it is bytes, and stays bytes."""
    await arena.ensure(arena.walled, _LIAR)
    got = await arena.walled.call(_LIAR, "pickle", arena.planted.marker)
    if not isinstance(got, bytes) or Path(arena.planted.marker).exists():
        raise NotStopped(f"a pickle was read: {got!r}")
    return [Stop(seen="stays bytes", layer="no pickle")]


async def send_oversized(arena: Arena) -> list[Stop]:
    """A frame that is really sent, for as long as the host reads it: its memory must stay as it was."""
    before = resident_bytes()
    stop = await _refused(arena, "a frame of 64 MiB", "really_send", 64 * _MIB)
    grown = resident_bytes() - before
    if grown > 24 * _MIB:
        raise NotStopped(f"the host grew by {grown // _MIB} MiB")
    return [stop]


MALFORMED: Final[dict[str, bytes]] = {
    "an empty frame": struct.pack(">I", 0),
    "bytes that are no message": frame()[:4] + b"\xc1",
    "a map for a message": struct.pack(">I", 1) + b"\x80",
    "an unknown kind": frame(99, 1),
    "a kind that is text": frame("call", 1),
    "a field missing": frame(int(Kind.CALL), 1),
    "a field of the wrong type": frame(int(Kind.CALL), "one", 5, {}),
    "an id that is too large": frame(int(Kind.RESULT), 2**60, None),
    "a negative id": frame(int(Kind.RESULT), -1, None),
    "a name of a megabyte": frame(int(Kind.EVENT), "x" * _MIB, None),
    "text that is not UTF-8": struct.pack(">I", 6) + b"\x93\x08\xa2\xff\xfe\xc0",
    "an array that says it is longer than the frame": struct.pack(">I", 5) + b"\xdd\xff\xff\xff\xff",
    "a text that says it is longer than the frame": struct.pack(">I", 7) + b"\x93\x08\xdb\xff\xff\xff\xff",
    "bytes after the message": struct.pack(">I", 4) + b"\x92\x0b\x01\xc0",
    "an answer to a ping that was not sent": frame(int(Kind.PONG), 77),
    "a version it was not offered": frame(int(Kind.READY), 1),
}


async def send_malformed(arena: Arena) -> list[Stop]:
    """One of each kind. Every one ends the connection with a sentence that says what was wrong."""
    return [await _refused(arena, what, "raw", data) for what, data in MALFORMED.items()]


async def trickle(arena: Arena) -> list[Stop]:
    """A frame that is begun and never finished; its deadline is 1 s here, where it usually is 10."""
    with hurried():
        await arena.renew(_LIAR)
    stop = await _refused(arena, "a frame without end", "trickle", code="deadline_exceeded")
    return [Stop(seen=stop.seen, layer="deadlines")]


async def answer_twice(arena: Arena) -> list[Stop]:
    """It answers ids by guess, its own call among them: at the first that is not open the connection ends."""
    await arena.ensure(arena.walled, _LIAR)
    pid = arena.pid_of(_LIAR)
    try:
        await arena.walled.call(_LIAR, "answer_twice")
    except CardcageError as error:
        if error.code != "protocol_error":
            raise NotStopped(f"answering twice: {error.code}: {error.message}") from None
    if await asyncio.to_thread(gone, [pid]):
        raise NotStopped("a plugin that answered twice is still connected")
    return [Stop(seen="disconnected", layer="wire limits")]


async def never_read(arena: Arena) -> list[Stop]:
    """Callers wait, memory does not grow, and in the end it is disconnected: after 1 s here, usually 60."""
    with hurried():
        await arena.renew(_LIAR)
    pid, before = arena.pid_of(_LIAR), resident_bytes()
    block = bytes(4 * _MIB)
    calls = [
        asyncio.ensure_future(arena.walled.call(_LIAR, "stop_reading", timeout_s=_PATIENCE_S)),
        *(asyncio.ensure_future(arena.walled.call(_LIAR, "echo", block, timeout_s=_PATIENCE_S)) for _ in range(20)),
    ]
    ended = await asyncio.gather(*calls, return_exceptions=True)
    grown = resident_bytes() - before
    if not all(isinstance(each, CardcageError) for each in ended):
        raise NotStopped(f"calls to a plugin that does not read ended with {ended}")
    if grown > 64 * _MIB:
        raise NotStopped(f"the host holds {grown // _MIB} MiB for a plugin that does not read")
    if await asyncio.to_thread(gone, [pid]):
        raise NotStopped("a plugin that does not read is still connected")
    return [Stop(seen="disconnected", layer="deadlines")]


async def flood_log(arena: Arena) -> list[Stop]:
    """By messages, by its output, and by one line of a megabyte."""
    await arena.renew(_LIAR)
    await arena.walled.call(_LIAR, "flood_log", 100_000, timeout_s=_PATIENCE_S)
    await arena.walled.call(_LIAR, "flood_output", 20_000, timeout_s=_PATIENCE_S)
    await arena.walled.call(_LIAR, "long_line", _MIB)
    lines = arena.walled.logs(_LIAR)
    flooded = [line for line in lines if line.text == "flood"]
    if len(flooded) > 2 * LOG_BURST_LINES:
        raise NotStopped(f"{len(flooded)} lines of a flood were kept")
    if longest := [len(line.text) for line in lines if len(line.text) > 4 * LOG_LINE_CHARS_MAX]:
        raise NotStopped(f"a line of {longest[0]} characters was kept")
    return [Stop(seen=f"{len(flooded)} of 120000 lines kept", layer="log limits")]


ESCAPES: Final = "\x1b]0;owned\x07\x1b[2J\x1b[31mroot@host# \r\nWARNING forged line\u202eedoc\x9b31m\u2028"


async def steer_terminal(arena: Arena) -> list[Stop]:
    """In its log, in what it prints, in its errors and in the names of its package."""
    await arena.renew(_LIAR)
    try:
        await arena.walled.call(_LIAR, "steer_terminal", ESCAPES)
    except CardcageError as error:
        _plain("the error", error.message.replace("\n", ""))
    seen = await _until(lambda: [line.text for line in arena.walled.logs(_LIAR) if "owned" in line.text])
    for text in seen:
        _plain("the log", text)
    package = arena.package("escapes")
    (package / "name\x1b[2J.py").write_text("")
    try:
        await arena.walled.register_plugin(package)
    except CardcageError as error:
        _plain("the fault", error.message)
        return [Stop(seen="escaped", layer="log limits"), Stop(seen=error.code, layer="package checks")]
    raise NotStopped("a file whose name steers the terminal was registered")


def _plain(what: str, text: str) -> None:
    control = [character for character in text if not character.isprintable()]
    if control:
        raise NotStopped(f"{what} carries {control!r}")


async def _until(look: Callable[[], list[str]]) -> list[str]:
    """What the host sees of something that is on its way."""
    async with asyncio.timeout(_PATIENCE_S):
        while not (found := look()):
            await asyncio.sleep(0.01)
    return found


async def call_without_grant(arena: Arena) -> list[Stop]:
    """A service that the host really has, behind a capability that was not granted."""
    called: list[str] = []

    def read_cost_data(_: object, what: str) -> None:
        called.append(what)

    async with arena.manager("serving-host") as manager:
        manager.register_service("ReadCostData", read_cost_data, capability="ReadCostData")
        await manager.start_plugin(_LIAR)
        try:
            await manager.call(_LIAR, "call_host", "ReadCostData", "everything")
        except CardcageError as error:
            if "is not granted" not in error.message or called:
                raise NotStopped(f"{error.message}; the host served {called}") from None
            return [Stop(seen="is not granted", layer="grants")]
    raise NotStopped("a service was given without a grant")


async def forge_events(arena: Arena) -> list[Stop]:
    """Events that operators and other plugins would believe the host had sent."""
    await arena.renew(_LIAR)
    heard: list[str] = []
    end = arena.walled.subscribe("*", lambda event: heard.append(event.name))
    try:
        for name in ("plugin.started", "plugin.crashed", "cardcage.stop", "host.shutdown", "a b", "\x1b[2J", "x\n"):
            await arena.walled.call(_LIAR, "forge_event", name)
        await arena.walled.call(_LIAR, "forge_event", "cost.spike")
        await _until(lambda: [name for name in heard if name == "cost.spike"])
    finally:
        end()
    if forged := [name for name in heard if name != "cost.spike"]:
        raise NotStopped(f"forged events were passed on: {forged}")
    return [Stop(seen="refused and noted", layer="grants")]


async def pass_descriptor(arena: Arena) -> list[Stop]:
    """Descriptors sent along with bytes: the host must not end up holding them."""
    smuggler = "smuggler"
    await arena.renew(smuggler)
    own = f"{arena.walled.plan(smuggler).inside.package_dir}/smuggler.py"
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        try:
            await arena.walled.call(smuggler, "pass_descriptor_to_host", own)
        except CardcageError as error:
            if error.code not in ("protocol_error", "plugin_error"):
                raise
            await arena.ensure(arena.walled, smuggler)
    if (after := len(os.listdir("/proc/self/fd"))) > before:
        raise NotStopped(f"the host held {before} descriptors and now holds {after}")
    return [Stop(seen="not taken", layer="wire limits")]


_LIES = """
class Main:
    def greet(self, name):
        return {"name": ["not", "a", "text"], "n": 1} if name == "map" else 2 ** 40
"""


async def answer_wrong_types(arena: Arena) -> list[Stop]:
    """Through a typed proxy: a wrong shape is the plugin's fault, with the path in the value."""
    from typing import Protocol

    from cardcage import extension_point

    @extension_point("hostile-greeter", version=1)
    class Greeter(Protocol):
        async def greet(self, name: str) -> str: ...

    package = arena.package("lies", _LIES, provides=["hostile-greeter@1"])
    async with arena.manager("lied-to", plugin_paths=[package.parent], extension_points=[Greeter]) as manager:
        await manager.start_plugin("lies")
        for name in ("map", "number"):
            try:
                answer = await manager.provider(Greeter, "lies").greet(name)
            except CardcageError as error:
                if error.code != "invalid_result":
                    raise
            else:
                raise NotStopped(f"a text was declared, and {answer!r} was taken")
    return [Stop(seen="invalid_result", layer="declared types")]
