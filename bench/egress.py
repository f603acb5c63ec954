"""What the way out of the walls costs: a connection, and bytes a second, beside the same without walls.

Run it as `python bench/egress.py`: both are taken in turns. The server is a process of its own; the relay runs here.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import socket
import tempfile
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from cardcage.egress import EgressRules, Gateway
from cardcage.foundation.names import InstanceId
from cardcage.launch.runner import LaunchSpec, Process, Runner
from cardcage.launch.unconfined import UnconfinedRunner
from cardcage.launch.zygote import ZygoteRunner
from cardcage.permissions import Permission
from cardcage.permissions.network import parse_endpoint
from cardcage.sandbox.doctor import examine
from cardcage.sandbox.plan import PlanRequest, make_plan
from cardcage.sandbox.python_layout import core_libraries, find_python_layout

CLIENT = ("egress_client", Path(__file__).parent / "egress_client.py")
LIBRARIES = (*core_libraries(), CLIENT)
ROUNDS = 5
CONNECTIONS = 100  # below the pace that one instance is held to
STREAM_BYTES = 512 << 20
_BENCH_UID = 65_531


def serve(answer: Connection) -> None:
    """Take a first byte; `e` is sent back, and anything else is the start of a stream to be swallowed."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    answer.send(listener.getsockname()[1])
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_serve_one, args=(sock,), daemon=True).start()


def _serve_one(sock: socket.socket) -> None:
    buffer = bytearray(1 << 20)
    with sock:
        if sock.recv_into(buffer, 1) and buffer.startswith(b"e"):
            sock.sendall(b"e")
            return
        while sock.recv_into(buffer):
            pass
        sock.sendall(b".")


async def start(isolation: str, port: int, folder: Path) -> tuple[Runner, Process, Any]:
    """A process behind walls with its relay, or one without."""
    machine = examine()
    for name in ("package", "data", "temp"):
        (folder / isolation / name).mkdir(parents=True)
    package, data, temp = (folder / isolation / name for name in ("package", "data", "temp"))
    endpoint = f"127.0.0.1:{port}"
    request = PlanRequest(
        plugin="bench",
        version="1.0.0",
        instance="bench",
        isolation=isolation,
        package_dir=package,
        data_dir=data,
        temp_dir=temp,
        library_dirs=LIBRARIES,
        permissions=(Permission.parse(f"network:{endpoint}"),),
        python=find_python_layout(),
        uid=_BENCH_UID if os.geteuid() == 0 else None,
    )
    spec = LaunchSpec(
        instance=InstanceId("bench"),
        plugin="bench",
        version="1.0.0",
        plan=make_plan(request, machine),
        package_dir=package,
        data_dir=data,
        temp_dir=temp,
    )
    runner: Runner = (
        ZygoteRunner(main="egress_client:main", libraries=LIBRARIES)
        if isolation == "process"
        else UnconfinedRunner(main="egress_client:main")
    )
    process = await runner.start(spec)
    process.sock.setblocking(False)
    relay = None
    if isolation == "process":
        endpoints = (parse_endpoint(endpoint),)
        rules = EgressRules(plugin="bench", instance="bench", endpoints=endpoints, granted=endpoints)
        listeners, process.listeners = process.listeners, []
        relay = Gateway().open(rules, listeners, lambda event: None)
    return runner, process, relay


async def ask(process: Process, what: str, port: int, count: int) -> list[float]:
    """One order and its answer."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(process.sock, (json.dumps({"what": what, "port": port, "count": count}) + "\n").encode())
    said = b""
    while not said.endswith(b"\n"):
        said += await loop.sock_recv(process.sock, 1 << 16)
    return json.loads(said)


async def run(port: int, folder: Path) -> None:
    """Both in turns, and a table of what came of it."""
    sides = {isolation: await start(isolation, port, folder) for isolation in ("process", "unconfined")}
    took: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for isolation, (_, process, _) in sides.items():
            for what, count in (("connections", CONNECTIONS), ("stream", STREAM_BYTES)):
                took.setdefault((what, isolation), []).extend(await ask(process, what, port, count))
    print("| what | through the relay | direct |\n|---|--:|--:|")
    both = [took["connections", isolation] for isolation in ("process", "unconfined")]
    print(f"| a connection and a byte back, p50 | {median(both[0]) * 1e3:.2f} ms | {median(both[1]) * 1e3:.2f} ms |")
    tails = [quantiles(one, n=20)[-1] for one in both]
    print(f"| the same, p95 | {tails[0] * 1e3:.2f} ms | {tails[1] * 1e3:.2f} ms |")
    size = f"{STREAM_BYTES >> 20} MiB"
    speeds = [STREAM_BYTES / min(took["stream", isolation]) / 1e9 for isolation in ("process", "unconfined")]
    print(f"| one stream of {size}, the best of {ROUNDS} | {speeds[0]:.2f} GB/s | {speeds[1]:.2f} GB/s |")
    for runner, process, relay in sides.values():
        if relay is not None:
            await relay.aclose()
        runner.kill(process)
        await runner.wait(process)
        await runner.aclose()
        process.sock.close()


def main() -> None:
    """Start the server, measure, and end it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(run(ours.recv(), Path(folder)))
    finally:
        server.kill()
        server.join()


if __name__ == "__main__":
    main()
