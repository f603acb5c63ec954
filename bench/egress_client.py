"""A plugin's side of the egress measurements: connects, exchanges a byte, streams. Runs behind walls and without."""

import json
import socket
import time


def main(wire: socket.socket) -> None:
    """Answer orders, one JSON object a line."""
    with wire.makefile("rw", encoding="utf-8") as lines:
        for line in lines:
            order = json.loads(line)
            measure = connections if order["what"] == "connections" else stream
            lines.write(json.dumps(measure(order["port"], order["count"])) + "\n")
            lines.flush()


def connections(port: int, count: int) -> list[float]:
    """Seconds for each of `count` connections, with a byte there and back."""
    took: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(b"e")
            sock.recv(1)
        took.append(time.perf_counter() - began)
    return took


def stream(port: int, count: int) -> list[float]:
    """Seconds for `count` bytes to the server, until it has said that it has them all."""
    block = bytes(1 << 18)
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        for _ in range(count // len(block)):
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)
    return [time.perf_counter() - began]
