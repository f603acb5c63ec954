"""What a plugin does to reach an address, with every kind of client. Runs inside the walls."""

import os
import socket
import ssl
import subprocess
from typing import Any

import walled_probe
from walled_probe import main, probe

__all__ = ["main"]

TIMEOUT_S = 20
assert walled_probe.PROBES


@probe
def with_urllib(url: str, trust: str = "") -> str:
    import urllib.request

    _trust(trust)
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        return answer.read().decode()


@probe
def with_requests(url: str, trust: str = "") -> str:
    _trust(trust)
    import requests

    return requests.get(url, timeout=TIMEOUT_S).text


@probe
def with_httpx(url: str, trust: str = "") -> str:
    _trust(trust)
    import httpx

    return httpx.get(url, timeout=TIMEOUT_S).text


@probe
def with_aiohttp(url: str, trust: str = "") -> str:
    _trust(trust)  # before the import, which makes a TLS context already
    import asyncio

    import aiohttp

    async def fetch() -> str:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session, session.get(url) as answer:
            return await answer.text()

    return asyncio.run(fetch())


@probe
def with_curl(url: str, trust: str = "") -> str:
    _trust(trust)
    done = subprocess.run(
        ["/usr/bin/curl", "-sS", "--max-time", str(TIMEOUT_S), url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        raise ConnectionError(done.stdout.decode())
    return done.stdout.decode()


@probe
def curl_trusting(url: str, trust_file: str) -> str:
    """curl with the environment that it finds, and one more authority."""
    return with_curl(url) if not trust_file else _run_curl("--cacert", trust_file, url)


def _run_curl(*arguments: str) -> str:
    done = subprocess.run(
        ["/usr/bin/curl", "-sS", "--max-time", str(TIMEOUT_S), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.stdout.decode()


@probe
def with_socket(url: str, trust: str = "") -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    assert parts.hostname
    port = parts.port or (443 if parts.scheme == "https" else 80)
    sock = socket.create_connection((parts.hostname, port), timeout=TIMEOUT_S)
    if parts.scheme == "https":
        sock = ssl.create_default_context(cadata=trust or None).wrap_socket(sock, server_hostname=parts.hostname)
    with sock:
        sock.sendall(f"GET {parts.path or '/'} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
        received = b""
        while part := sock.recv(65536):
            received += part
    return received.partition(b"\r\n\r\n")[2].decode()


@probe
def post(url: str, body: str, headers: dict[str, str], trust: str = "") -> list[Any]:
    """Status, headers and text of the answer to a POST."""
    _trust(trust)
    import requests

    answer = requests.post(url, data=body.encode(), headers=headers, timeout=TIMEOUT_S)
    return [answer.status_code, dict(answer.headers), answer.text]


@probe
def exchange(host: str, port: int, size: int) -> int:
    """Send `size` bytes, say that this was all, and count what comes back."""
    with socket.create_connection((host, port), timeout=TIMEOUT_S) as sock:
        import threading

        received = 0

        def send() -> None:
            sock.sendall(b"x" * size)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        while part := sock.recv(1 << 16):
            received += len(part)
        sender.join()
    return received


@probe
def say(host: str, port: int, text: str) -> str:
    """Send a text and read to the end."""
    received = b""
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT_S) as sock:
            sock.sendall(text.encode("latin-1"))
            while part := sock.recv(65536):
                received += part
    except (ConnectionResetError, BrokenPipeError):
        received += b"[reset]"
    return received.decode("latin-1")


@probe
def open_many(host: str, port: int, count: int) -> int:
    """How many of `count` connections are answered with a byte each while all stay open."""
    socks: list[socket.socket] = []
    answered = 0
    for _ in range(count):
        try:
            sock = socket.create_connection((host, port), timeout=TIMEOUT_S)
            socks.append(sock)
            sock.sendall(b"?")
            answered += sock.recv(1) == b"?"
        except (ConnectionResetError, BrokenPipeError):
            pass
    for sock in socks:
        sock.close()
    return answered


@probe
def connect_without_blocking(host: str, port: int) -> list[bool]:
    """Whether a socket that was set not to block does so once it is connected, is inherited, and can be waited for."""
    import select

    with socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex((host, port))
        ready = select.select([], [sock], [], TIMEOUT_S)[1]
        return [os.get_blocking(sock.fileno()), sock.get_inheritable(), bool(ready)]


@probe
def connect_a_file(host: str, port: int) -> str:
    """connect() with the number of something that is no socket."""
    import ctypes
    import struct

    libc = ctypes.CDLL(None, use_errno=True)
    address = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)
    with open("/dev/null", "rb") as file:
        if libc.connect(file.fileno(), address, len(address)) == -1:
            raise OSError(ctypes.get_errno(), "refused")
    return "connected"


@probe
def change_address_meanwhile(host: str, port: int, other: int, times: int) -> dict[str, int]:
    """Connect while another thread writes another port into the address again and again."""
    import ctypes
    import struct
    import threading

    libc = ctypes.CDLL(None, use_errno=True)
    ports = struct.pack("!H", port), struct.pack("!H", other)
    raw = struct.pack("=H", socket.AF_INET) + ports[0] + socket.inet_aton(host) + bytes(8)
    address = ctypes.create_string_buffer(raw, len(raw))
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            address[2:4] = ports[number % 2]

    changer = threading.Thread(target=change)
    changer.start()
    met = {"granted": 0, "other": 0, "refused": 0}
    for _ in range(times):
        with socket.socket() as sock:
            if libc.connect(sock.fileno(), address, len(raw)) == -1:
                met["refused"] += 1
                continue
            sock.settimeout(TIMEOUT_S)
            sock.sendall(b"GET /who HTTP/1.0\r\n\r\n")
            met["granted" if b"you asked" in sock.makefile("rb").read() else "other"] += 1
    stop.set()
    changer.join()
    return met


@probe
def variables() -> dict[str, str]:
    return dict(os.environ)


@probe
def descriptors() -> list[str]:
    """What each descriptor of this process and its parent is."""
    found: list[str] = []
    for process in ("self", str(os.getppid())):
        folder = f"/proc/{process}/fd"
        for name in os.listdir(folder):
            try:
                found.append(os.readlink(f"{folder}/{name}"))
            except OSError:
                continue
    return found


@probe
def bind_and_listen(host: str, port: int) -> str:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, port))
        sock.listen()
    return "listening"


@probe
def remembers(reversed_text: str) -> list[str]:
    """Where in the memory and the environment of this process and its parent a text stands. It is given backwards."""
    needle = reversed_text[::-1].encode()
    places: list[str] = []
    for process in ("self", str(os.getppid())):
        with open(f"/proc/{process}/environ", "rb") as file:
            if needle in file.read():
                places.append(f"{process} environ")
        if process != "self":
            continue
        with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
            for line in maps:
                span, rights, *rest = line.split()
                if not rights.startswith("r") or (rest and rest[-1] in ("[vvar]", "[vsyscall]")):
                    continue
                low, high = (int(number, 16) for number in span.split("-"))
                try:
                    memory.seek(low)
                    block = memory.read(high - low)
                except (OSError, ValueError, OverflowError):
                    continue
                if block.count(needle) > 0 and _is_foreign(block, needle):
                    places.append(line.strip())
                del block
    return places


def _is_foreign(block: bytes, needle: bytes) -> bool:
    """Whether it stands there besides as the search term itself, which has its object's length before it."""
    start, header = 0, len(needle).to_bytes(8, "little")
    while (found := block.find(needle, start)) >= 0:
        if header not in block[max(0, found - 24) : found]:
            return True
        start = found + 1
    return False


def _trust(pem: str) -> None:
    """Let every client trust one more authority, as a program would that is deployed with it."""
    if not pem:
        return
    path = "/tmp/trust.pem"
    with open(path, "w", encoding="ascii") as file:
        file.write(pem)
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        os.environ[name] = path
