"""Speaks to the host past its SDK, in frames of its own making.

The wire is descriptor 3. While a method runs, the SDK neither reads nor writes, so all that the host hears meanwhile is
what this writes.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from typing import Any

from cardcage_sdk import Plugin

WIRE = 3
ARRAY_OF_3, ARRAY_OF_4 = b"\x93", b"\x94"
RESULT, LOG = b"\x03", b"\x09"
ID_FAR_AWAY = b"\xcd\x7f\xff"  # 32767
NIL, EMPTY_MAP = b"\xc0", b"\x80"


def write(data: bytes) -> None:
    """All of it, however long the host takes to read."""
    while data:
        data = data[os.write(WIRE, data) :]


def frame(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


class Evil:
    """Runs a program wherever it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (open, (self.path, "w"))


class WireLiar(Plugin):
    """Every method is one attempt; `self.current_id` is guessed from what the host sends next."""

    def raw(self, data: bytes) -> None:
        """Whatever the test wants said, and then silence, so that nothing else ends the connection."""
        write(data)
        time.sleep(60)

    def announce(self, length: int) -> None:
        """A frame that is said to be long, and its beginning."""
        write(struct.pack(">I", length) + bytes(1000))
        time.sleep(60)

    def really_send(self, length: int) -> None:
        """The same, sent to its end where the host goes on reading."""
        write(struct.pack(">I", length))
        for _ in range(length >> 20):
            write(bytes(1 << 20))
        time.sleep(60)

    def pickle(self, path: str) -> bytes:
        """As a result: a host that unpickles what looks like a pickle would run it."""
        import pickle

        return pickle.dumps(Evil(path))

    def pickle_for_a_frame(self, path: str) -> None:
        import pickle

        write(frame(pickle.dumps(Evil(path))))
        time.sleep(60)

    def deep(self, levels: int) -> None:
        write(frame(ARRAY_OF_3 + RESULT + b"\x01" + b"\x91" * levels + NIL))
        time.sleep(60)

    def deep_value(self, levels: int) -> Any:
        value: Any = None
        for _ in range(levels):
            value = [value]
        return value

    def heavy_value(self, count: int) -> Any:
        """Few bytes on the wire, and a hundred times as many in the memory of whoever reads them."""
        empty: dict[str, int] = {}
        return [empty] * count

    def trickle(self) -> None:
        """Begin a frame and send a byte now and then, for ever."""
        write(struct.pack(">I", 1000))
        while True:
            write(b"\0")
            time.sleep(0.05)

    def never_answer(self) -> None:
        while True:
            time.sleep(60)

    def answer_another(self) -> None:
        write(frame(ARRAY_OF_3 + RESULT + ID_FAR_AWAY + NIL))
        time.sleep(60)

    def answer_twice(self) -> str:
        """Answer every call that may be open, this one among them; then the SDK answers once more."""
        for call_id in range(1, 100):
            write(frame(ARRAY_OF_3 + RESULT + bytes([call_id]) + NIL))
        return "again"

    def cancel_what_it_never_called(self) -> None:
        write(frame(ARRAY_OF_3 + b"\x05" + ID_FAR_AWAY + b"\xa1x"))
        time.sleep(60)

    def give_itself_credit(self) -> None:
        write(frame(ARRAY_OF_3 + b"\x06" + ID_FAR_AWAY + NIL))
        time.sleep(60)

    def hello_again(self) -> None:
        write(frame(b"\x92\x00\x91\x01"))
        time.sleep(60)

    def call_the_host_without_end(self, most: int) -> None:
        """Calls that the host has to keep: each takes up a place until it is answered."""
        for number in range(10_000, 10_000 + most):
            write(frame(b"\x94\x02\xcd" + struct.pack(">H", number) + b"\xa1x\x90"))
        time.sleep(60)

    def stop_reading(self) -> None:
        time.sleep(600)

    def flood_log(self, lines: int) -> int:
        one = frame(ARRAY_OF_3 + LOG + b"\xa4info\xa5flood")
        for _ in range(lines // 100):
            write(one * 100)
        return lines

    def flood_output(self, lines: int) -> int:
        for _ in range(lines // 100):
            os.write(1, b"flood\n" * 100)
        return lines

    def long_line(self, length: int) -> None:
        os.write(2, b"x" * length + b"\n")

    def steer_terminal(self, text: str) -> str:
        print(text, file=sys.stderr)
        self.context.logger.warning(text)
        raise ValueError(text)

    def forge_event(self, name: str) -> None:
        encoded = name.encode()
        write(frame(ARRAY_OF_3 + b"\x08" + bytes([0xA0 | len(encoded)]) + encoded + EMPTY_MAP))

    def call_host(self, method: str, *args: Any) -> Any:
        return self.context.api_client.call(method, *args)

    def hang_up_and_go_on(self) -> None:
        os.close(WIRE)
        time.sleep(600)
