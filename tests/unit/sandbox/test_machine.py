"""What is found on this machine: the doctor's report and the layout of Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cardcage.foundation.errors import Unavailable
from cardcage.sandbox import doctor
from cardcage.sandbox.control_groups import KEPT_MAX
from cardcage.sandbox.doctor import examine
from cardcage.sandbox.group_search import find_groups
from cardcage.sandbox.plan import STRICT_FLOOR
from cardcage.sandbox.python_layout import core_libraries, find_library, find_python_layout
from cardcage.sandbox.report import LayerName, LayerStatus, MachineReport, Mode

TIMEOUT_S = 120


@pytest.fixture(scope="module")
def report() -> MachineReport:
    return examine()


def test_the_doctor_has_a_word_on_every_layer(report: MachineReport) -> None:
    assert [layer.name for layer in report.layers] == list(LayerName)


def test_the_doctor_leaves_nothing_behind() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as own:  # others of this machine may be at work in the shared one
        Path(own).chmod(0o711)
        environment = {**os.environ, "TMPDIR": own}
        program = (
            "import json, tempfile; from cardcage.sandbox.doctor import examine; "
            "print(json.dumps([tempfile.gettempdir(), examine().mode.value]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, timeout=TIMEOUT_S, check=True
        )
        assert json.loads(done.stdout) == [own, examine().mode.value]
        assert list(Path(own).iterdir()) == []


def test_what_is_not_enforced_says_why(report: MachineReport) -> None:
    for layer in report.layers:
        assert layer.status is LayerStatus.ENFORCED or layer.detail, layer.name


def test_egress_is_called_enforced_where_a_granted_endpoint_was_reached_and_no_other(report: MachineReport) -> None:
    if report.mode is Mode.NONE:
        pytest.skip("no walls can be put up here")
    (layer,) = (layer for layer in report.layers if layer.name == LayerName.EGRESS)
    assert layer.status in (LayerStatus.ENFORCED, LayerStatus.BEST_EFFORT)  # the second where there is no IPv6
    assert "granted endpoints can be reached, and no others" in layer.detail


def test_limits_are_called_enforced_exactly_where_control_groups_keep_them_all(report: MachineReport) -> None:
    found = find_groups()
    keeps: frozenset[str] = frozenset()
    if found.driver is not None:
        keeps = found.driver.keeps
        found.driver.close()
    enforced = report.status(LayerName.CGROUP_LIMITS) is LayerStatus.ENFORCED
    assert enforced is (keeps == set(KEPT_MAX))


def test_the_report_is_plain_data(report: MachineReport) -> None:
    document = json.loads(json.dumps(report.to_json()))
    assert {layer["name"] for layer in document["layers"]} == set(LayerName)
    assert set(STRICT_FLOOR) <= set(LayerName)


def test_the_layout_is_of_the_interpreter_itself_and_hides_what_is_installed() -> None:
    layout = find_python_layout()
    assert Path(layout.stdlib, "os.py").is_file()
    assert layout.version == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert Path(layout.executable).resolve() == Path(layout.executable)
    for name in ("site-packages", "dist-packages"):
        assert (name in layout.hidden) is Path(layout.stdlib, name).is_dir()


def test_libraries_are_found_one_by_one() -> None:
    assert [name for name, _ in core_libraries()] == ["cardcage_sdk", "msgspec"]
    assert find_library("msgspec")[1].name == "msgspec"
    with pytest.raises(Unavailable, match="no_such_library"):
        find_library("no_such_library")


def test_what_fails_in_a_child_of_a_busy_program_is_tried_again_by_a_new_interpreter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hang(act: object, *, own_pid_namespace: Mode | None = None) -> str:
        return "the child ended without a word"

    in_quiet = examine()
    # A child forked while another thread holds a lock hangs, and is ended without having said anything.
    monkeypatch.setattr(doctor, "_in_child", hang)
    in_trouble = examine()
    for name in ("user_namespace", "mount_namespace", "read_only_root", "capabilities", "system_call_filter"):
        assert in_trouble.status(name) is in_quiet.status(name)
