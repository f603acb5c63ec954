"""What an operator grants can be reached, as it is granted and no further."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from cardcage.foundation.errors import PluginFault, Refused


@pytest.fixture
def bills(tmp_path: Path) -> Path:
    """A private folder of the host's user with two bills and a place for reports."""
    folder = tmp_path / "bills"
    (folder / "reports").mkdir(parents=True)
    for month in ("may", "june"):
        (folder / f"{month}.csv").write_text(month)
        (folder / f"{month}.csv").chmod(0o600)
    folder.chmod(0o700)
    return folder


def test_a_granted_file_is_read_and_its_neighbour_is_not_there(enter: Any, bills: Path) -> None:
    plugin = enter(f"read:{bills}/may.csv")
    assert plugin.attempt("read_file", f"{bills}/may.csv") == {"value": "may"}
    assert plugin.attempt("read_file", f"{bills}/june.csv") == {"error": "ENOENT"}
    assert plugin.attempt("open_to_write", f"{bills}/may.csv")["error"] in {"EROFS", "EACCES"}


def test_a_granted_folder_is_read_with_all_beneath_it(enter: Any, bills: Path) -> None:
    plugin = enter(f"read:{bills}/")
    assert plugin.attempt("list_folder", str(bills)) == {"value": ["june.csv", "may.csv", "reports"]}
    assert plugin.attempt("read_file", f"{bills}/june.csv") == {"value": "june"}
    assert plugin.attempt("write_file", f"{bills}/reports/new.txt")["error"] in {"EROFS", "EACCES"}


def test_a_folder_granted_for_writing_takes_files_that_belong_to_its_owner(enter: Any, bills: Path) -> None:
    plugin = enter(f"read:{bills}/", f"write:{bills}/reports/")
    assert plugin.attempt("write_file", f"{bills}/reports/new.txt", "42") == {"value": "written"}
    written = bills / "reports" / "new.txt"
    assert written.read_text() == "42"
    assert written.stat().st_uid == bills.stat().st_uid
    assert plugin.attempt("write_file", f"{bills}/new.txt")["error"] in {"EROFS", "EACCES"}


def test_no_link_is_left_where_another_plugin_or_the_operator_would_follow_it(
    enter: Any, machine: Any, bills: Path
) -> None:
    if not machine.landlock_abi:
        pytest.skip("needs Landlock: without it links can be made in granted folders")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        plugin = enter(f"write:{folder}/", f"read:{folder}/")
        assert plugin.attempt("make_link", "/etc/shadow", f"{folder}/report.csv") == {"error": "EACCES"}
        assert plugin.attempt("make_link", "/etc/shadow", "/data/report.csv") == {"value": "made"}
        assert plugin.attempt("move", "/data/report.csv", f"{folder}/report.csv")["error"] in {"EXDEV", "EACCES"}
        assert not list(Path(folder).iterdir())
    # Beneath /tmp, where the plugin has a folder of its own, too.
    plugin = enter(f"write:{bills}/reports/")
    assert plugin.attempt("make_link", "/etc/shadow", f"{bills}/reports/june.csv") == {"error": "EACCES"}


def test_a_grant_to_write_is_none_to_read(enter: Any, machine: Any) -> None:
    if not machine.landlock_abi:
        pytest.skip("needs Landlock: without it a write grant shows the file as well")
    # Not beneath /tmp, which is the plugin's own inside and readable with all that is shown in it.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        report = Path(folder, "report.csv")
        report.write_text("old")
        plugin = enter(f"write:{report}")
        assert plugin.attempt("write_file", str(report), "new") == {"value": "written"}
        assert plugin.attempt("read_file", str(report)) == {"error": "EACCES"}
        assert report.read_text() == "new"


def test_a_file_in_the_temporary_folder_of_the_host_can_be_granted(enter: Any, tmp_path: Path) -> None:
    granted = tmp_path / "granted.txt"
    granted.write_text("here")
    plugin = enter(f"read:{granted}")
    assert plugin.attempt("read_file", str(granted)) == {"value": "here"}
    assert plugin.attempt("list_folder", str(tmp_path))["value"] == ["granted.txt"]


def test_a_granted_program_can_be_started_and_no_other(enter: Any, unconfined: Any) -> None:
    plugin = enter("subprocess:/usr/bin/true")
    assert plugin.attempt("run_program", "/usr/bin/true") == {"value": "ran"}
    assert plugin.attempt("run_program", "/usr/bin/false")["error"] in {"ENOENT", "EACCES"}
    assert unconfined.attempt("run_program", "/usr/bin/false") == {"value": "ran"}


def test_a_folder_granted_as_a_file_is_refused_with_what_to_write_instead(
    loop: Any, zygote: Any, make_spec: Any, bills: Path
) -> None:
    with pytest.raises(PluginFault, match=f"{bills}/ grants all beneath it") as caught:
        loop.run(zygote.start(make_spec(f"read:{bills}")))
    assert caught.value.code == "setup_failed"


def test_a_granted_file_that_is_missing_is_named(loop: Any, zygote: Any, make_spec: Any, tmp_path: Path) -> None:
    with pytest.raises(PluginFault, match=f"No such file or directory.*{tmp_path}/missing.csv"):
        loop.run(zygote.start(make_spec(f"read:{tmp_path}/missing.csv")))


@pytest.mark.parametrize("isolation", ["process"], indirect=True, scope="session")
def test_more_grants_than_a_request_can_carry_are_refused_and_the_next_start_succeeds(
    loop: Any, zygote: Any, make_spec: Any, enter: Any, tmp_path: Path
) -> None:
    with pytest.raises(PluginFault, match="its plan could not be sent") as caught:
        loop.run(zygote.start(make_spec(*(f"read:{tmp_path}/{number}/{'x' * 200}" for number in range(2000)))))
    assert caught.value.code == "setup_failed"
    assert enter().attempt("identity")["value"]["uid"] == 1000


@pytest.mark.parametrize("path", ["/", "/proc/", "/dev/null", "/plugin/x", "/data/", "/cardcage/lib/"])
def test_a_grant_where_the_sandbox_keeps_its_own_is_refused(make_spec: Any, path: str) -> None:
    with pytest.raises(Refused, match="cannot be shown inside its walls") as caught:
        make_spec(f"read:{path}")
    assert caught.value.code == "grant_impossible"


def test_a_start_below_the_floor_is_refused_and_names_what_is_missing(loop: Any, zygote: Any, make_spec: Any) -> None:
    with pytest.raises(Refused, match="cgroup_limits") as caught:
        loop.run(zygote.start(make_spec(floor=("mount_namespace", "cgroup_limits"))))
    assert caught.value.code == "below_floor"


def test_a_plan_that_leaves_root_as_root_is_below_the_floor(
    loop: Any, zygote: Any, make_spec: Any, as_root: bool
) -> None:
    if not as_root:
        pytest.skip("must run as root: an ordinary user has no other uid to give")
    import dataclasses

    import msgspec

    from cardcage.sandbox.plan import Identity

    spec = make_spec()
    careless = dataclasses.replace(spec, plan=msgspec.structs.replace(spec.plan, identity=Identity()))
    with pytest.raises(Refused, match="own_uid"):
        loop.run(zygote.start(careless))
