"""Letting plugins' uids through to their own folders, where there is no other way to them."""

from __future__ import annotations

import stat
from pathlib import Path

from cardcage.manager.home import Home


def test_others_may_pass_to_the_folders_of_instances_and_see_nothing_else(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "state")
    data, temp = home.folders("caller", None)
    home.authority()
    home.let_pass()
    home.let_pass()
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (home.root, *home.root.rglob("*"))}
    passages = {home.root, data.parent, temp.parent, home.trust_bundle.parent}
    assert {path: mode for path, mode in modes.items() if mode & 0o077} == dict.fromkeys(passages, 0o701)
    assert Home.open(home.root) == home, "a state folder that others may pass through is still a safe one"
