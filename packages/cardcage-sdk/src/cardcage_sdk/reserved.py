"""The methods that the host calls on the platform's own behalf: names that start with `cardcage.`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec

from cardcage_sdk.driver import Driver
from cardcage_sdk.entrypoint import EntryPoint
from cardcage_sdk.signature import Decode, InvalidArguments

LOAD: Final = "cardcage.load"


class LoadRequest(msgspec.Struct, kw_only=True):
    """What `cardcage.load` brings: where the plugin is, and the settings of its context."""

    entrypoint: EntryPoint
    context: dict[str, Any]


# Types are resolved at the first use; this one is the fork server's rather than that of each of its children.
msgspec.msgpack.Decoder(LoadRequest)


class Reserved(NamedTuple):
    """A reserved method: the type of its argument list, and what it does."""

    arguments: Any
    run: Callable[[Driver, Any, Decode], Awaitable[Any]]


def _step(name: str) -> Reserved:
    """A lifecycle method of the driver, which takes nothing."""

    async def run(driver: Driver, _: Any, __: Decode) -> Any:
        return await getattr(driver, name)()

    return Reserved(tuple[()], run)


async def _handle_event(driver: Driver, arguments: tuple[str, Any], _: Decode) -> None:
    await driver.handle_event(*arguments)


async def _hook(driver: Driver, arguments: tuple[str, str, Any], _: Decode) -> Any:
    return await driver.run_hook(*arguments)


async def _tool(driver: Driver, arguments: tuple[str, msgspec.Raw], decode: Decode) -> Any:
    return await driver.run_tool(*arguments, decode)


RESERVED: Final = {
    "cardcage.initialize": _step("initialize"),
    "cardcage.start": _step("start"),
    "cardcage.stop": _step("stop"),
    "cardcage.cleanup": _step("cleanup"),
    "cardcage.health_check": _step("health_check"),
    "cardcage.describe": _step("describe"),
    "cardcage.handle_event": Reserved(tuple[str, Any], _handle_event),
    "cardcage.hook": Reserved(tuple[str, str, Any], _hook),
    "cardcage.tool": Reserved(tuple[str, msgspec.Raw], _tool),
}


def decoded(method: str, raw: msgspec.Raw, decode: Decode, type_: Any) -> Any:
    """The arguments of a reserved method. Raises `InvalidArguments`."""
    try:
        return decode(raw, type_)
    except msgspec.ValidationError as error:
        raise InvalidArguments(f"{method}: {error}", method=method, expected=str(type_), found=str(error)) from None


def load_request(raw: msgspec.Raw, decode: Decode) -> LoadRequest:
    """The arguments of `cardcage.load`, by name, or a list that holds the one map. Raises `InvalidArguments`."""
    first = memoryview(raw)[:1].tobytes()
    if first == b"[" or b"\x90" <= first <= b"\x9f":
        return decoded(LOAD, raw, decode, tuple[LoadRequest])[0]
    return decoded(LOAD, raw, decode, LoadRequest)
