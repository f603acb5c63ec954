"""The walls themselves, on the real kernel: what a process behind them is and sees, and that its filter lets nothing
through but its profile. What hostile plugins try, and the same without walls, is `tests/hostile`."""

from __future__ import annotations

import os
import stat
from typing import Any

import pytest

from cardcage.sandbox.plan import STRICT_FLOOR
from cardcage.sandbox.profile import profile
from cardcage.sandbox.report import Mode
from cardcage.sandbox.syscalls import MACHINE, NUMBERS


def test_no_number_but_those_of_the_profile_gets_through(walled: Any) -> None:
    words = profile(execute=False)
    # Newer kernels ask no filter about these two, and have nothing for who is not being probed.
    probes = tuple(name for name in ("uretprobe", "uprobe") if name in NUMBERS[MACHINE])
    let_through = {NUMBERS[MACHINE][name] for name in (*words.allowed, *words.conditional, *probes)}
    numbers = [number for number in range(max(NUMBERS[MACHINE].values()) + 64) if number not in let_through]
    assert len(numbers) > 150
    answers = walled.attempt("system_calls", numbers)["value"]
    assert {int(number) for number in answers} == set(numbers)
    absent = {NUMBERS[MACHINE][name] for name in words.absent}
    for number, answer in answers.items():
        missing = int(number) in absent or int(number) > max(NUMBERS[MACHINE].values())
        assert answer == ("ENOSYS" if missing else "EPERM"), number
    for name in probes:
        answer = walled.attempt("system_calls", [NUMBERS[MACHINE][name]])
        assert answer.get("signal") == "SIGILL" or answer["value"].popitem()[1] in ("EPERM", "ENXIO"), name


def test_options_and_requests_that_no_plugin_has_a_use_for_are_refused(walled: Any, unconfined: Any) -> None:
    assert walled.attempt("attach_socket_filter") == {"error": "ENOPROTOOPT"}
    assert unconfined.attempt("attach_socket_filter") == {"value": "attached"}
    assert walled.attempt("ask_a_device") == {"error": "ENOTTY"}
    assert "value" in unconfined.attempt("ask_a_device")
    assert walled.attempt("ordinary_requests") == {"value": "False"}


def test_no_namespace_is_shared_with_the_host_or_with_another_instance(walled: Any, enter: Any) -> None:
    # Three in a row: the fork server makes some for its next child while the one before is on its way.
    answers = [prober.attempt("namespaces")["value"] for prober in (walled, enter(), enter(), enter())]
    host = {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    assert {"user", "pid", "mnt", "net", "ipc", "uts", "cgroup"} <= host.keys()
    for name in host:
        seen = [host[name], *(answer[name] for answer in answers)]
        assert len(set(seen)) == len(seen), f"the {name} namespace is shared: {seen}"


def test_clone3_is_said_not_to_exist_so_that_libraries_use_clone(walled: Any) -> None:
    assert walled.attempt("system_call", NUMBERS[MACHINE]["clone3"], 0, 0) == {"error": "ENOSYS"}


def test_a_call_that_is_newer_than_the_filter_is_said_not_to_exist(walled: Any) -> None:
    assert walled.attempt("system_call", max(NUMBERS[MACHINE].values()) + 100) == {"error": "ENOSYS"}


def test_it_is_an_unprivileged_user_to_itself_and_to_the_kernel(walled: Any, machine: Any) -> None:
    seen = walled.attempt("identity")["value"]
    assert (seen["uid"], seen["gid"], seen["host"]) == (1000, 1000, "plugin")
    assert os.getgid() not in seen["groups"]
    outside = os.stat(f"/proc/{walled.process.pid}").st_uid
    assert outside != 0
    if machine.mode is Mode.ROOT:
        assert outside >= 62_000


def test_it_may_write_its_data_and_its_temporary_folder(walled: Any) -> None:
    assert walled.attempt("write_file", "/data/mine.txt") == {"value": "written"}
    assert walled.attempt("read_file", "/data/mine.txt") == {"value": "x"}
    assert walled.attempt("write_file", "/tmp/mine.txt") == {"value": "written"}
    assert walled.attempt("read_file", "/plugin/module.py") == {"value": ""}


def test_the_standard_library_does_not_tell_where_the_host_keeps_it(walled: Any) -> None:
    for path in walled.attempt("module_files")["value"]:
        assert path.startswith("/cardcage/"), path


def test_the_whole_floor_is_reported_as_enforced(walled: Any, machine: Any) -> None:
    asked = [name for name in STRICT_FLOOR if name != "own_uid" or machine.mode is Mode.ROOT]
    assert walled.report.below(asked) == ()


def test_the_data_folder_belongs_to_the_instance_alone(walled: Any, machine: Any) -> None:
    if machine.mode is not Mode.ROOT:
        pytest.skip("must run as root: an ordinary user has one uid for all")
    spec = walled.process.handle.spec
    found = spec.data_dir.stat()
    assert (found.st_uid, stat.S_ISDIR(found.st_mode)) == (spec.plan.identity.outside_uid, True)
