"""Tries every way to carry data out of the machine or to reach a service in it."""

from __future__ import annotations

import os
import socket
import struct

MSG_FASTOPEN = 0x20000000
TCP_FASTOPEN_CONNECT = 30


class FoundNothing(Exception):
    """Nothing was there to be reached."""


class Smuggler:
    """Every method is one attempt."""

    def connect(self, host: str, port: int) -> str:
        with socket.create_connection((host, port), timeout=3):
            return f"connected to {host}:{port}"

    def connect_everywhere(self, port: int) -> str:
        """The addresses under which a host may be found from a container or a sandbox."""
        for host in ("127.0.0.1", "127.1.2.3", "0.0.0.0", "::1", "::", "172.17.0.1", "10.0.2.2", "192.168.122.1"):
            try:
                return self.connect(host, port)
            except OSError:
                continue
        raise FoundNothing("no address leads to the host")

    def connect_without_blocking(self, host: str, port: int) -> str:
        with socket.socket() as sock:
            sock.setblocking(False)
            code = sock.connect_ex((host, port))
            if code not in (0, 115):
                raise OSError(code, os.strerror(code))
            import select

            select.select([], [sock], [], 3)
            if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code))
            sock.getpeername()
        return f"connected to {host}:{port}"

    def send_datagram(self, host: str, port: int) -> str:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"the data", (host, port))
        return f"sent to {host}:{port}"

    def send_datagram_and_hear(self, host: str, port: int) -> str:
        """Towards an address where somebody answers."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(1)
            sock.connect((host, port))
            sock.send(b"anybody there?")
            return sock.recv(100).decode()

    def broadcast(self) -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.sendto(b"the data", ("255.255.255.255", 9))
        return "broadcast"

    def resolve(self, name: str) -> str:
        """The name itself carries the data: whoever runs the zone reads it in its log."""
        return str(socket.getaddrinfo(name, 443))

    def ask_name_server(self, server: str) -> str:
        """A query made by hand, past the resolver of the C library."""
        query = struct.pack(">HHHHHH", 1, 0x100, 1, 0, 0, 0) + b"\x04data\x07example\x03com\0\0\1\0\1"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(1)
            sock.sendto(query, (server, 53))
            return sock.recv(500).hex()

    def fast_open(self, host: str, port: int) -> str:
        with socket.socket() as sock:
            sock.sendto(b"the data", MSG_FASTOPEN, (host, port))
        return "sent with the connection"

    def fast_open_by_message(self, host: str, port: int) -> str:
        with socket.socket() as sock:
            sock.sendmsg([b"the data"], [], MSG_FASTOPEN, (host, port))
        return "sent with the connection"

    def fast_open_by_option(self, host: str, port: int) -> str:
        with socket.socket() as sock:
            sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
            sock.settimeout(3)
            sock.connect((host, port))
        return "connected with fast open"

    def connect_unix(self, address: str) -> str:
        """A path, or an abstract name written with an @."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
        return f"connected to {address}"

    def send_unix_datagram(self, address: str) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"the data", "\0" + address[1:])
        return f"sent to {address}"

    def open_socket(self, family: int, kind: int, protocol: int) -> str:
        socket.socket(family, kind, protocol).close()
        return f"a socket of family {family}"

    def open_pair(self, family: int) -> str:
        for sock in socket.socketpair(family):
            sock.close()
        return f"a pair of family {family}"

    def serve(self, port: int) -> str:
        """A back door that somebody outside comes to."""
        with socket.create_server(("0.0.0.0", port)) as listener:
            return f"listens on {listener.getsockname()}, and the host sees whether it can come in"

    def list_interfaces(self) -> list[str]:
        names = [name for _, name in socket.if_nameindex()]
        if names == ["lo"]:
            raise FoundNothing("only a loopback of its own")
        return names

    def list_connections(self, port: int) -> str:
        """Who talks to whom on the host."""
        for table in ("tcp", "tcp6", "udp", "unix"):
            with open(f"/proc/net/{table}", encoding="ascii") as file:
                if f":{port:04X} " in file.read():
                    return f"the host's sockets are listed in /proc/net/{table}"
        raise FoundNothing("only its own sockets are listed")

    def pass_descriptor_to_host(self, path: str) -> str:
        """Hand an open descriptor to the host over the wire: it must not be taken."""
        with socket.socket(fileno=os.dup(3)) as wire, open(path, "rb") as file:
            socket.send_fds(wire, [b""], [file.fileno()])
        return "sent; the host looks whether it holds more"
