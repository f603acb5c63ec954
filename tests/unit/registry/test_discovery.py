"""Finding packages in folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cardcage.foundation.errors import InvalidDocument
from cardcage.registry import Candidate, MemoryCache, discover


def make(folder: Path, name: str, version: str = "1.0.0") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plugin.yaml").write_text(f"name: {name}\nversion: {version}\nentrypoint: main:Main\n")
    (folder / "main.py").write_text("")
    return folder


class CountingCache(MemoryCache):
    """Counts what had to be read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def put(self, key: str, candidate: Candidate) -> None:
        self.read.append(candidate.package_dir.name)
        super().put(key, candidate)


def test_a_path_may_be_one_plugin_or_a_folder_of_plugins(tmp_path: Path) -> None:
    make(tmp_path / "single", "single")
    make(tmp_path / "many" / "b", "beta")
    make(tmp_path / "many" / "a", "alpha")
    found = discover([tmp_path / "single", tmp_path / "many"])
    assert [each.name for each in found.candidates] == ["single", "alpha", "beta"]


def test_folders_without_a_manifest_are_passed_over(tmp_path: Path) -> None:
    make(tmp_path / "plugin", "plugin")
    (tmp_path / "empty").mkdir()
    make(tmp_path / ".hidden", "hidden")
    (tmp_path / "README.md").write_text("")
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "code.py").write_text("")
    assert [each.name for each in discover([tmp_path]).candidates] == ["plugin"]


def test_a_bad_package_is_reported_beside_the_good_ones(tmp_path: Path) -> None:
    make(tmp_path / "a", "alpha")
    (make(tmp_path / "b", "beta") / "main.py").unlink()
    make(tmp_path / "c", "gamma")
    found = discover([tmp_path])
    assert [release.manifest.name for release in found.releases] == ["alpha", "gamma"]
    [rejected] = found.rejected
    assert rejected.package_dir == tmp_path / "b"
    assert isinstance(rejected.fault, InvalidDocument)
    assert "main.py" in str(rejected.fault)


def test_of_two_with_one_name_the_first_path_wins_and_the_other_is_reported(tmp_path: Path) -> None:
    make(tmp_path / "late" / "x", "polite", "2.0.0")
    make(tmp_path / "early" / "x", "polite", "1.0.0")
    found = discover([tmp_path / "early", tmp_path / "late"])
    assert [release.manifest.version for release in found.releases] == ["1.0.0"]
    [shadowed] = found.shadowed
    assert shadowed.package_dir == tmp_path / "late" / "x"
    assert shadowed.shadowed_by == tmp_path / "early" / "x"


def test_in_one_folder_the_first_folder_name_wins(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        make(tmp_path / name, "polite")
    found = discover([tmp_path])
    assert found.releases[0].package_dir.name == "a"
    assert [each.package_dir.name for each in found.shadowed] == ["b", "c"]


def test_a_package_that_is_reached_twice_is_one(tmp_path: Path) -> None:
    make(tmp_path / "plugins" / "polite", "polite")
    (tmp_path / "plugins" / "alias").symlink_to("polite")
    found = discover([tmp_path / "plugins", str(tmp_path / "plugins" / "polite")])
    assert len(found.candidates) == 1


def test_a_path_that_is_not_there_is_reported_and_stops_nothing(tmp_path: Path) -> None:
    make(tmp_path / "plugins" / "polite", "polite")
    found = discover([tmp_path / "nowhere", tmp_path / "plugins"])
    assert [release.manifest.name for release in found.releases] == ["polite"]
    [rejected] = found.rejected
    assert rejected.fault is not None
    assert rejected.fault.code == "plugin_path_unusable"
    assert str(tmp_path / "nowhere") in str(rejected.fault)


def test_an_unchanged_package_is_not_read_again_and_a_changed_one_is(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make(tmp_path / name, name)
    (make(tmp_path / "broken", "broken") / "main.py").unlink()
    cache = CountingCache()
    first = discover([tmp_path], cache=cache)
    assert cache.read == ["a", "b", "broken"]
    assert discover([tmp_path], cache=cache) == first
    assert cache.read == ["a", "b", "broken"]
    (tmp_path / "b" / "main.py").write_text("x = 1")
    second = discover([tmp_path], cache=cache)
    assert cache.read == ["a", "b", "broken", "b"]
    assert second.releases[1].digest != first.releases[1].digest


@pytest.mark.parametrize("what", ["times set back", "another file in its place", "made executable", "a new file"])
def test_a_change_is_seen_even_where_size_and_time_stay(tmp_path: Path, what: str) -> None:
    main = make(tmp_path / "a", "a") / "main.py"
    main.write_text("x = 1")
    cache = CountingCache()
    discover([tmp_path], cache=cache)
    before = main.stat()
    match what:
        case "times set back":
            main.write_text("x = 2")
        case "another file in its place":
            shutil.copy(main, tmp_path / "other")
            (tmp_path / "other").replace(main)
        case "made executable":
            main.chmod(0o755)
        case _:
            (tmp_path / "a" / "new.py").write_text("")
    os.utime(main, ns=(before.st_atime_ns, before.st_mtime_ns))
    discover([tmp_path], cache=cache)
    assert cache.read == ["a", "a"]


def test_the_cache_forgets_the_longest_unused(tmp_path: Path) -> None:
    cache = MemoryCache(entries_max=2)
    entries = {name: Candidate(package_dir=tmp_path / name) for name in ("a", "b", "c")}
    cache.put("a", entries["a"])
    cache.put("b", entries["b"])
    assert cache.get("a") is entries["a"]
    cache.put("c", entries["c"])
    assert cache.get("b") is None
    assert (cache.get("a"), cache.get("c")) == (entries["a"], entries["c"])


def test_ten_thousand_folders_without_plugins_do_not_hide_the_one_with(tmp_path: Path) -> None:
    for number in range(10_000):
        (tmp_path / f"folder{number:05}").mkdir()
    make(tmp_path / "folder05000", "needle")
    assert [each.name for each in discover([tmp_path]).candidates] == ["needle"]
