"""Looks at, signals and traces processes that are not its own, and searches environments for secrets."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.ptrace.restype = ctypes.c_long


class FoundNothing(Exception):
    """It looked everywhere, and there was nothing to see."""


def _refused() -> OSError:
    return OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _everything_in(name: str) -> bytes:
    """One file of /proc, of every process that shows it."""
    found = b""
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/{name}", "rb") as file:
                found += file.read(100_000)
        except OSError:
            continue
    return found


class ProcessSpy:
    """Every method is one attempt. A secret is given spelled backwards, or the search would find what it was given."""

    def search_own_environment(self, backwards: str) -> str:
        if backwards[::-1] not in str(dict(os.environ)):
            raise FoundNothing(f"{len(os.environ)} variables, none of them worth anything")
        return "the secret is in its environment"

    def search_every_environment(self, backwards: str) -> str:
        if backwards[::-1].encode() not in _everything_in("environ"):
            raise FoundNothing("no process shows a secret")
        return "the secret is in the environment of a process"

    def read_environment_of_init(self) -> str:
        with open("/proc/1/environ", "rb") as file:
            if content := file.read():
                return content[:200].decode(errors="replace")
        raise FoundNothing("it is empty")

    def inherited_variables(self) -> list[str]:
        """What a host may leave that changes how programs are loaded."""
        names = ("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "SSH_AUTH_SOCK")
        found = [name for name in names if name in os.environ]
        if not found:
            raise FoundNothing("none of them is set")
        return found

    def list_processes(self, own: int) -> list[int]:
        """`own` is how many belong to one instance."""
        seen = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        if len(seen) <= own:
            raise FoundNothing(f"only {seen}")
        return seen

    def read_command_lines(self, backwards: str) -> str:
        if backwards[::-1].encode() not in _everything_in("cmdline"):
            raise FoundNothing("no command line of another")
        return "it knows how another process was started"

    def signal(self, pid: int) -> str:
        os.kill(pid, 0)
        return f"process {pid} can be signalled"

    def signal_by_descriptor(self, pid: int) -> str:
        descriptor = os.pidfd_open(pid)
        signal.pidfd_send_signal(descriptor, 0)
        return f"process {pid} can be signalled"

    def signal_groups_around(self) -> str:
        """Groups and sessions that it may have been born into: the fork server's, the host's."""
        for group in {os.getpgid(0), os.getsid(0), os.getppid(), 0, 1} - {os.getpid()}:
            if group > 1:
                os.killpg(group, 0)
                raise FoundNothing("only its own group")
        raise FoundNothing("it knows of no other group")

    def trace(self, pid: int) -> str:
        if _libc.ptrace(16, pid, 0, 0) == -1:
            raise _refused()
        os.waitpid(pid, 0)  # let go before it has stopped, it would stay stopped for ever
        _libc.ptrace(17, pid, 0, 0)
        return f"process {pid} can be traced"

    def be_traced(self) -> str:
        """Let a child of its own trace it: the filter must refuse the call itself."""
        if _libc.ptrace(0, 0, 0, 0) == -1:
            raise _refused()
        return "traced by its parent"

    def read_memory(self, number: int, pid: int) -> str:
        """process_vm_readv and its siblings, of one byte: what counts is who says no."""
        buffer = ctypes.create_string_buffer(1)
        local = struct.pack("QQ", ctypes.addressof(buffer), 1)
        remote = struct.pack("QQ", 0x1000, 1)
        if _libc.syscall(number, pid, local, 1, remote, 1, 0) == -1:
            raise _refused()
        return f"the memory of process {pid} can be read"

    def open_memory(self, pid: int) -> str:
        with open(f"/proc/{pid}/mem", "rb") as file:
            file.seek(0x400000)
            return file.read(1).hex()

    def take_descriptor(self, number: int, pid: int) -> str:
        """pidfd_getfd: a descriptor out of another process."""
        descriptor = os.pidfd_open(pid)
        if _libc.syscall(number, descriptor, 0, 0) == -1:
            raise _refused()
        return f"a descriptor of process {pid}"

    def use_inherited_descriptors(self, backwards: str) -> str:
        """Read from everything above the wire that it was born with."""
        held = [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 3]
        for descriptor in held:
            try:
                if backwards[::-1].encode() in os.pread(descriptor, 100, 0):
                    return f"descriptor {descriptor} is a file of the host"
            except OSError:
                continue
        left = [os.readlink(f"/proc/self/fd/{number}") for number in held if os.path.lexists(f"/proc/self/fd/{number}")]
        # What its own SDK has opened since: a queue to wait on, and nothing of the host's.
        if foreign := [target for target in left if not target.startswith("anon_inode:")]:
            return f"left open: {foreign}"
        raise FoundNothing("only the wire and the standard streams")

    def raise_limits(self, files: int) -> str:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        return "limits can be raised"

    def limit_another(self, pid: int) -> str:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0))
        return f"process {pid} has no descriptors left"

    def be_more_important(self) -> int:
        os.setpriority(os.PRIO_PROCESS, 0, -10)
        return os.getpriority(os.PRIO_PROCESS, 0)

    def run_in_real_time(self) -> str:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
        return "runs before everything else"

    def become(self, uid: int) -> int:
        os.setuid(uid)
        return os.getuid()

    def drop_groups(self) -> str:
        os.setgroups([])
        return "groups are gone"

    def hold_capabilities(self) -> str:
        with open("/proc/self/status", encoding="ascii") as file:
            held = {line.split()[0]: int(line.split()[1], 16) for line in file if line.startswith("Cap")}
        if not any(held.values()):
            raise FoundNothing("every set is empty")
        return str(held)

    def may_gain_rights(self) -> str:
        with open("/proc/self/status", encoding="ascii") as file:
            if any(line.split() == ["NoNewPrivs:", "1"] for line in file):
                raise FoundNothing("no_new_privs is set")
        return "set-id programs work"

    def write_id_map(self) -> str:
        with open("/proc/self/uid_map", "w", encoding="ascii") as file:
            file.write("0 0 1")
        return "mapped to root"

    def run_program(self, path: str) -> str:
        child = os.posix_spawn(path, [path], {})
        os.waitpid(child, 0)
        return f"{path} ran"

    def run_from_memory(self) -> str:
        """A program that is in no file."""
        descriptor = os.memfd_create("program")
        os.write(descriptor, b"#!/bin/true\n")
        child = os.fork()
        if child == 0:
            try:
                os.execve(descriptor, ["program"], {})
            except OSError as error:
                os._exit(error.errno or 1)
        os.close(descriptor)
        _, status = os.waitpid(child, 0)
        if code := os.waitstatus_to_exitcode(status):
            raise OSError(code, os.strerror(code))
        return "ran from memory"

    def leave_core_dump(self) -> str:
        soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
        if (soft, hard) == (0, 0):
            raise FoundNothing("core files may have no bytes")
        return f"core files of up to {hard} bytes"

    def watch_terminal(self) -> str:
        with open("/dev/tty", "rb") as file:
            return str(file.fileno())
