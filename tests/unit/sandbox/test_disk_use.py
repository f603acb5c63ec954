"""Measuring a folder that somebody hostile writes to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cardcage.sandbox.disk_use import DiskUse, measure


def test_an_empty_folder_takes_up_nothing(tmp_path: Path) -> None:
    assert measure(tmp_path, files_max=10) == DiskUse()


def test_files_and_folders_count_and_what_they_take_up_is_summed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x" * 100_000)
    found = measure(tmp_path, files_max=10)
    assert found.files == 3
    assert 100_000 <= found.used_bytes <= 100_000 + 3 * 65_536


def test_a_hole_takes_up_nothing(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    assert measure(tmp_path, files_max=10).used_bytes < 1 << 20


def test_a_file_of_several_names_takes_up_its_place_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * 100_000)
    once = measure(tmp_path, files_max=10).used_bytes
    for number in range(5):
        os.link(tmp_path / "one", tmp_path / str(number))
    found = measure(tmp_path, files_max=10)
    assert (found.files, found.used_bytes) == (6, once)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/usr")
    (tmp_path / "round").symlink_to(tmp_path)
    assert measure(tmp_path, files_max=10).files == 2


@pytest.mark.parametrize("swapped", ["a", "a/b"])
def test_a_link_that_takes_a_folders_place_meanwhile_is_not_followed(
    swapped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "a" / "b").mkdir(parents=True)
    (outside / "b").mkdir(parents=True)
    for folder in (outside, outside / "b"):
        (folder / "of_the_host").write_bytes(b"x" * 100_000)

    def swap_before(act: Callable[..., Any]) -> Callable[..., Any]:
        def swap_and_act(path: Any, *args: Any) -> Any:
            if path == f"{inside}/a/b":  # it was seen to be a folder, and is about to be looked into
                (inside / swapped).rename(tmp_path / "away")
                (inside / swapped).symlink_to(outside)
            return act(path, *args)

        return swap_and_act

    monkeypatch.setattr(os, "open", swap_before(os.open))
    monkeypatch.setattr(os, "scandir", swap_before(os.scandir))
    found = measure(inside, files_max=10)
    assert (found.files, found.used_bytes < 65_536, found.problem) == (2, True, "")


def test_counting_ends_above_the_most(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / str(number)).touch()
    assert measure(tmp_path, files_max=10).files == 11


def test_what_is_too_deep_to_be_reached_is_a_problem(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    name = "d" * 200
    for _ in range(40):
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    assert "File name too long" in measure(tmp_path, files_max=1000).problem


@pytest.mark.skipif(os.geteuid() == 0, reason="must not run as root: that can look into every folder")
def test_a_folder_that_is_closed_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    assert "Permission denied" in measure(tmp_path, files_max=10).problem


def test_a_folder_that_is_gone_takes_up_nothing(tmp_path: Path) -> None:
    assert measure(tmp_path / "gone", files_max=10) == DiskUse()
