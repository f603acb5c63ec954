"""The search for the fewest permissions, over plugins that exist only as a rule of what they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardcage.launch.recorder import Deed, Tried
from cardcage.manager.generalised import generalise
from cardcage.manager.learned import NOTHING_THERE, Bounds, FileKind, Learned, Outcome, guess, learn
from cardcage.permissions import Grants, Permission, decide

ALL = Bounds(within=("/srv", "/opt"), network=True)


@dataclass
class Host:
    """Files by path; those of `private` are not for everybody."""

    files: Mapping[str, FileKind]
    programs: frozenset[str] = frozenset()
    private: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()

    def is_itself(self, path: str) -> bool:
        return path not in self.links

    def kind(self, path: str) -> FileKind:
        return self.files.get(path, "")

    def is_open_to_all(self, path: str) -> bool:
        return path in self.files and path not in self.private

    def is_program(self, path: str) -> bool:
        return path in self.programs


@dataclass
class Plugin:
    """Needs things one after the other, and tries others besides; it stops at the first need that is not met."""

    needs: Sequence[str]
    noise: Sequence[Tried] = ()
    runs: list[tuple[frozenset[Permission], bool]] = field(default_factory=list[tuple[frozenset[Permission], bool]])

    async def run(self, granted: Sequence[Permission], *, recording: bool) -> Outcome:
        self.runs.append((frozenset(granted), recording))
        tried = list(self.noise)
        for need in self.needs:
            permission = Permission.parse(need)
            tried.append(trying(permission))
            if not decide(permission, Grants(frozenset(granted))).allowed:
                return Outcome(passed=False, reason=f"no {need}", tried=tuple(tried) if recording else ())
        return Outcome(passed=True, tried=tuple(tried) if recording else ())


def trying(permission: Permission) -> Tried:
    deeds = {"read": Deed.READ, "write": Deed.WRITE, "subprocess": Deed.RUN, "network": Deed.CONNECT}
    return Tried(deeds[permission.kind], permission.value)


def host_with(*texts: str) -> Host:
    values = {text.partition(":")[2] for text in texts if not text.startswith("network")}
    programs = {text.partition(":")[2] for text in texts if text.startswith("subprocess")}
    return Host(dict.fromkeys(values, "file"), programs=frozenset(programs))


things = st.sampled_from(
    [f"{kind}:/srv/f{number}" for kind in ("read", "write") for number in range(6)]
    + [f"subprocess:/opt/p{number}" for number in range(3)]
    + [f"network:h{number}.example:443" for number in range(3)]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(things, max_size=6), st.lists(things, max_size=6))
async def test_what_is_learnt_is_exactly_what_is_needed(needs: list[str], noise: list[str]) -> None:
    plugin = Plugin(needs, [trying(Permission.parse(each)) for each in noise])
    learned = await learn(plugin, host_with(*needs, *noise), ALL, visible=())
    assert learned.passed
    assert learned.minimal
    assert set(map(str, learned.permissions)) == set(needs)
    assert learned.runs == len(plugin.runs) <= ALL.runs_max
    assert {each.what for each in learned.left_out} == set(noise) - set(needs)
    # The last word is that of the real walls: with these it passes, and without any one of them it does not.
    real = {granted for granted, recording in plugin.runs if not recording}
    assert frozenset(learned.permissions) in real


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(things, min_size=1, max_size=5, unique=True), st.integers(2, 5))
async def test_a_search_that_is_cut_short_says_that_it_may_not_be_the_smallest(needs: list[str], runs: int) -> None:
    plugin = Plugin(needs, [trying(Permission.parse(each)) for each in ("read:/srv/x", "read:/srv/y")])
    bounds = Bounds(within=("/srv", "/opt"), network=True, runs_max=runs)
    learned = await learn(plugin, host_with(*needs, "read:/srv/x", "read:/srv/y"), bounds, visible=())
    assert learned.runs <= runs + 1
    if learned.passed:
        assert {*map(str, learned.permissions)} >= set(needs)
        assert not learned.minimal or {*map(str, learned.permissions)} == set(needs)


async def result(needs: Sequence[str], host: Host, bounds: Bounds) -> Learned:
    return await learn(Plugin(needs), host, bounds, visible=("/data", "/lib"))


async def test_what_may_not_be_tried_is_not_given_and_told_of() -> None:
    host = Host({"/home/a/.ssh/id": "file"}, private=frozenset({"/home/a/.ssh/id"}))
    learned = await result(["read:/home/a/.ssh/id"], host, Bounds())
    assert (learned.passed, learned.permissions, learned.reason) == (False, (), "no read:/home/a/.ssh/id")
    assert "not for every user" in learned.left_out[0].reason
    learned = await result(["network:a.example:443"], host, Bounds())
    assert (learned.passed, learned.left_out[0].what) == (False, "network:a.example:443")
    assert (await result(["network:a.example:443"], host, Bounds(network=True))).passed
    learned = await result(["write:/srv/f"], host_with("write:/srv/f"), Bounds(within=("/opt",)))
    assert (learned.passed, learned.left_out[0].what) == (False, "write:/srv/f")


async def test_a_link_is_followed_only_to_what_is_for_everybody() -> None:
    closed = Host({"/srv/f": "file"}, private=frozenset({"/srv/f"}), links=frozenset({"/srv/f"}))
    learned = await result(["read:/srv/f"], closed, Bounds(within=("/srv",)))
    assert (learned.passed, learned.left_out[0].what) == (False, "read:/srv/f")
    assert (await result(["read:/srv/f"], Host({"/srv/f": "file"}, links=frozenset({"/srv/f"})), Bounds())).passed


@pytest.mark.parametrize(
    ("tried", "wanted", "left_out"),
    [
        (Tried(Deed.READ, "/srv/a"), "read:/srv/a", None),
        (Tried(Deed.LOOK, "/srv/a"), "read:/srv/a", None),
        (Tried(Deed.LIST, "/srv"), "read:/srv/", None),
        (Tried(Deed.LOOK, "/srv"), None, "it was only looked for"),
        (Tried(Deed.READ, "/srv/none"), None, NOTHING_THERE),
        (Tried(Deed.READ, "/data/x"), None, None),
        (Tried(Deed.READ, "/lib/x.so"), None, None),
        (Tried(Deed.LOOK, "/"), None, None),
        (
            Tried(Deed.READ, "/root/key"),
            None,
            "it is not for every user to read, and not in a folder that may be tried",
        ),
        (Tried(Deed.WRITE, "/srv/a"), "write:/srv/a", None),
        (Tried(Deed.WRITE, "/srv/new/deep"), "write:/srv/", None),
        (Tried(Deed.MAKE, "/srv/a"), "write:/srv/", None),
        (Tried(Deed.WRITE, "/nowhere/x"), None, "there is no folder on this host to write it in"),
        (Tried(Deed.WRITE, "/etc/x"), None, "it is not in a folder that may be tried"),
        (Tried(Deed.WRITE, "/proc/self/x"), None, None),
        (Tried(Deed.READ, "/tmp/own"), None, None),
        (Tried(Deed.WRITE, "/tmp/own"), None, None),
        (Tried(Deed.MAKE, "/tmp/own/deep"), None, None),
        (Tried(Deed.READ, "/tmp/theirs/x"), "read:/tmp/theirs/x", None),
        (Tried(Deed.WRITE, "/tmp/theirs/new"), None, "it is not in a folder that may be tried"),
        (Tried(Deed.RUN, "/opt/p"), "subprocess:/opt/p", None),
        (Tried(Deed.RUN, "/bin/none"), None, None),
        (Tried(Deed.CONNECT, "a.example:443"), "network:a.example:443", None),
        (Tried(Deed.CONNECT, "[::1]:80"), "network:[::1]:80", None),
        (Tried(Deed.ASK, "b.example"), None, "it was asked for, and nothing was connected to"),
    ],
)
def test_what_was_tried_becomes_a_permission_or_a_reason(
    tried: Tried, wanted: str | None, left_out: str | None
) -> None:
    files: dict[str, FileKind] = {
        "/srv": "folder",
        "/srv/a": "file",
        "/root/key": "file",
        "/etc": "folder",
        "/": "folder",
        "/tmp": "folder",
        "/tmp/theirs": "folder",
        "/tmp/theirs/x": "file",
    }
    host = Host(files, programs=frozenset({"/opt/p"}), private=frozenset({"/root/key"}))
    found = guess(Outcome(passed=False, tried=(tried,)), host, ALL, ["/data", "/tmp", "/lib", "/etc/hosts"])
    assert list(map(str, found.permissions)) == ([wanted] if wanted else [])
    assert [each.reason for each in found.left_out] == ([left_out] if left_out else [])


def test_paths_are_made_wider_only_for_three_files_and_values_of_the_config() -> None:
    texts = ["read:/srv/b/1", "read:/srv/b/2", "read:/srv/b/3", "read:/srv/c/1", "write:/srv/b/1", "read:/x", "read:/y"]
    permissions = [Permission.parse(text) for text in [*texts, "read:/z", "network:api.example:443"]]
    config = {"server": {"url": "https://api.example/v1"}, "bill": "/srv/c/1", "other": "no path"}
    assert list(map(str, generalise(permissions, config))) == [
        "network:${config.server.url}",
        "read:${config.bill}",
        "read:/srv/b/",
        "read:/x",
        "read:/y",
        "read:/z",
        "write:/srv/b/1",
    ]
