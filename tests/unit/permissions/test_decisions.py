"""Nothing is allowed that was not granted, and whatever was granted is allowed."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from cardcage.foundation.errors import InvalidDocument, Misuse
from cardcage.permissions import Grants, Permission, PermissionKind, PermissionRequest, decide, expand, missing


def allowed(asked: str, *granted: str) -> bool:
    return decide(Permission.parse(asked), Grants.parse(granted)).allowed


labels = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=4).map(".".join)
ports = st.integers(1, 65535)
port_texts = st.one_of(
    ports.map(str), st.just("*"), st.tuples(ports, ports).map(lambda pair: f"{min(pair)}-{max(pair)}")
)
addresses = st.ip_addresses().map(lambda address: f"[{address}]" if address.version == 6 else str(address))
hosts = st.one_of(names, names.map("*.{}".format), st.just("*"), addresses)
components = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="/$\x7f"), min_size=1
).filter(lambda text: text not in (".", ".."))


def _path(parts: list[str], folder: bool) -> str:
    return "/" + "/".join(parts) + ("/" if folder and parts else "")


path_texts = st.builds(_path, st.lists(components, max_size=4), st.booleans())
endpoints = st.tuples(hosts, port_texts).map(":".join)
programs = path_texts.filter(lambda path: path[-1] != "/") | st.just("*")
permissions = st.one_of(
    st.builds(Permission, st.just(PermissionKind.NETWORK), endpoints),
    st.builds(Permission, st.sampled_from([PermissionKind.READ, PermissionKind.WRITE]), path_texts),
    st.builds(Permission, st.just(PermissionKind.SECRET), st.from_regex(r"[A-Z_]{1,8}", fullmatch=True)),
    st.builds(Permission, st.just(PermissionKind.CAPABILITY), st.sampled_from(["A", "B", "ReadCostData"])),
    st.builds(Permission, st.just(PermissionKind.SUBPROCESS), programs),
)
grant_sets = st.frozensets(permissions, max_size=6).map(Grants)


@given(permissions)
def test_nothing_is_allowed_by_default(asked: Permission) -> None:
    decision = decide(asked, Grants())
    assert not decision.allowed
    assert decision.reason.endswith("is not granted")
    assert decision.grant is None


@given(permissions, grant_sets)
def test_a_grant_equal_to_what_is_asked_always_allows_it(asked: Permission, others: Grants) -> None:
    assert decide(asked, others | Grants(frozenset({asked}))).allowed


@given(permissions, grant_sets, grant_sets)
def test_more_grants_never_allow_less(asked: Permission, some: Grants, more: Grants) -> None:
    if decide(asked, some).allowed:
        assert decide(asked, some | more).allowed


@given(permissions, permissions, permissions)
def test_covering_is_transitive(first: Permission, second: Permission, third: Permission) -> None:
    if first.covers(second) and second.covers(third):
        assert first.covers(third)


@given(permissions)
def test_a_permission_covers_itself(permission: Permission) -> None:
    assert permission.covers(permission)


@given(permissions, permissions)
def test_two_that_cover_each_other_are_spelt_alike(first: Permission, second: Permission) -> None:
    assert (first.covers(second) and second.covers(first)) == (first == second)


@given(permissions, permissions)
def test_overlapping_goes_both_ways_and_follows_from_covering(first: Permission, second: Permission) -> None:
    assert first.overlaps(second) == second.overlaps(first)
    if first.covers(second):
        assert first.overlaps(second)


@given(permissions, permissions, permissions)
def test_what_two_permissions_both_cover_makes_them_overlap(
    first: Permission, second: Permission, inner: Permission
) -> None:
    if first.covers(inner) and second.covers(inner):
        assert first.overlaps(second)


@given(permissions, permissions, permissions)
def test_whoever_overlaps_a_part_overlaps_the_whole(whole: Permission, part: Permission, other: Permission) -> None:
    if whole.covers(part) and part.overlaps(other):
        assert whole.overlaps(other)


@pytest.mark.parametrize(
    ("first", "second", "answer"),
    [
        ("network:a.example:400-500", "network:a.example:450-600", True),
        ("network:a.example:400-500", "network:a.example:501-600", False),
        ("network:*.example:443", "network:*.a.example:443", True),
        ("network:*.a.example:443", "network:*.b.example:443", False),
        ("network:10.0.0.0/8:443", "network:10.1.0.0/16:*", True),
        ("network:10.0.0.0/8:443", "network:inside.example:443", False),
        ("network:10.0.0.0/8:443", "network:*:443", True),
        ("read:/", "read:/etc/", True),
        ("read:/etc/shadow", "read:/etc/", True),
        ("read:/etc/", "write:/etc/", False),
        ("subprocess:*", "subprocess:/usr/bin/git", True),
    ],
)
def test_what_overlaps_what(first: str, second: str, answer: bool) -> None:
    assert Permission.parse(first).overlaps(Permission.parse(second)) is answer


@pytest.mark.parametrize(
    ("text", "broad"),
    [
        ("network:*:443", True),
        ("network:*.example.com:443", True),
        ("network:example.com:*", True),
        ("network:example.com:443", False),
        ("network:example.com:400-500", False),
        ("network:10.0.0.0/8:443", True),
        ("network:10.0.0.1:443", False),
        ("read:/", True),
        ("write:/srv/", False),
        ("subprocess:*", True),
        ("subprocess:/usr/bin/git", False),
        ("secret:TOKEN", False),
        ("network:${config.host}:443", False),
    ],
)
def test_a_permission_is_broad_where_it_stands_for_what_nobody_named(text: str, broad: bool) -> None:
    assert Permission.parse(text).is_broad is broad


@given(permissions, grant_sets)
def test_what_is_allowed_is_allowed_by_one_grant_of_the_same_kind(asked: Permission, grants: Grants) -> None:
    decision = decide(asked, grants)
    if decision.allowed:
        assert decision.grant is not None
        assert decision.grant in grants.permissions
        assert decision.grant.kind is asked.kind
        assert decision.grant.covers(asked)


@given(permissions)
def test_the_text_form_reads_back_as_the_same_permission(permission: Permission) -> None:
    assert Permission.parse(str(permission)) == permission


@given(path_texts, path_texts)
def test_a_folder_covers_itself_and_what_lies_beneath_it_and_nothing_else(folder: str, path: str) -> None:
    assume(folder.endswith("/"))
    grant, asked = Permission(PermissionKind.READ, folder), Permission(PermissionKind.READ, path)
    beneath = path.strip("/").split("/")[: len(folder.strip("/").split("/"))] == folder.strip("/").split("/")
    assert grant.covers(asked) == (folder == "/" or beneath)


@given(path_texts, st.sampled_from(["/..", "/../x", "/.", "/./x", "/x/../../y"]))
def test_a_path_that_climbs_is_no_permission(path: str, climb: str) -> None:
    with pytest.raises(Misuse, match="without"):
        Permission(PermissionKind.READ, path.rstrip("/") + climb)


@given(names, names)
@example("example.com", "bad")
def test_a_wildcard_covers_names_beneath_it_on_a_label_boundary_only(parent: str, child: str) -> None:
    wildcard = f"network:*.{parent}:443"
    assert allowed(f"network:{child}.{parent}:443", wildcard)
    assert allowed(f"network:{child.upper()}.{parent.upper()}.:443", wildcard)
    assert not allowed(f"network:{parent}:443", wildcard)
    assert not allowed(f"network:{child}{parent}:443", wildcard)
    assume(not f"{parent}.evil".endswith(f".{parent}"))
    assert not allowed(f"network:{child}.{parent}.evil:443", wildcard)


@pytest.mark.parametrize(
    ("asked", "granted", "answer"),
    [
        ("network:API.example.com:443", "network:api.Example.com:443", True),
        ("network:api.example.com:443", "network:api.example.com:80", False),
        ("network:api.example.com:443", "network:api.example.com:400-500", True),
        ("network:api.example.com:400-501", "network:api.example.com:400-500", False),
        ("network:api.example.com:399-500", "network:api.example.com:400-500", False),
        ("network:api.example.com:300", "network:api.example.com:400-500", False),
        ("network:api.example.com:*", "network:api.example.com:1-65535", True),
        ("network:a.b.example.com:443", "network:*.example.com:443", True),
        ("network:*.a.example.com:443", "network:*.example.com:443", True),
        ("network:*.example.com:443", "network:a.example.com:443", False),
        ("network:*.com:443", "network:*.example.com:443", False),
        ("network:badexample.com:443", "network:*.example.com:443", False),
        ("network:10.1.2.3:80", "network:10.0.0.0/8:80", True),
        ("network:11.1.2.3:80", "network:10.0.0.0/8:80", False),
        ("network:10.0.0.0/8:80", "network:10.0.0.0/16:80", False),
        ("network:[::ffff:10.1.2.3]:80", "network:10.0.0.0/8:80", True),
        ("network:[2001:db8::1]:443", "network:[2001:DB8::/32]:443", True),
        ("network:[2001:db9::1]:443", "network:[2001:db8::/32]:443", False),
        ("network:10.1.2.3:80", "network:[::/0]:80", False),
        ("network:internal.example:80", "network:0.0.0.0/0:80", False),
        ("network:10.1.2.3:80", "network:*:80", True),
        ("network:https://api.example.com/v1?x=1", "network:api.example.com:443", True),
        ("read:/srv/data/x", "read:/srv/data/", True),
        ("read:/srv/data", "read:/srv/data/", True),
        ("read:/srv/data/", "read:/srv/data", False),
        ("read:/srv/data/x", "read:/srv/data", False),
        ("read:/srv/database", "read:/srv/data/", False),
        ("read:/srv/DATA/x", "read:/srv/data/", False),
        ("read://srv///data//x", "read:/srv/data/", True),
        ("write:/srv/data/x", "read:/srv/data/", False),
        ("read:/srv/data/x", "write:/srv/data/", False),
        ("read:/anything", "read:/", True),
        ("secret:TOKEN", "secret:token", False),
        ("capability:ReadCostData", "capability:ReadCostData", True),
        ("capability:ReadCostData2", "capability:ReadCostData", False),
        ("subprocess:/usr/bin/git", "subprocess:*", True),
        ("subprocess:/usr/bin/git", "subprocess:/usr/bin/gi", False),
        ("subprocess:*", "subprocess:/usr/bin/git", False),
    ],
)
def test_what_covers_what(asked: str, granted: str, answer: bool) -> None:
    assert allowed(asked, granted) is answer


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ReadCostData", "expected kind:value"),
        ("disk:/srv", "kinds network, read, write, secret, capability, subprocess"),
        ("network:example.com", "expected host:port"),
        ("network:example.com:0", "ports from 1 to 65535"),
        ("network:example.com:90-80", "in rising order"),
        ("network:example.com:99999", "ports from 1 to 65535"),
        ("network:127.1:80", "IPv4 address"),
        ("network:0x7f000001:80", "four numbers"),
        ("network:2130706433:80", "IPv4 address"),
        ("network:010.0.0.1:80", "IPv4 address"),
        ("network:10.0.0.1/8:80", "host bits"),
        ("network:::1:80", "in brackets"),
        ("network:[fe80::1%eth0]:80", "without a zone"),
        ("network:b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example:443", "ASCII host name"),
        ("network:\N{KELVIN SIGN}.example:443", "ASCII host name"),
        ("network:a*.example.com:443", "host name"),
        ("network:*.*.com:443", "host name"),
        ("network:http://user@example.com/", "without a user name"),
        ("network:ftp://example.com/", "schemes"),
        ("read:srv/bill.csv", "absolute path"),
        ("read:/srv/../etc/shadow", 'without ".."'),
        ("read:/srv/\x00", "control characters"),
        ("read:/srv/\udcff", "UTF-8"),
        ("read:~/x", "absolute path"),
        ("secret:two words", "name of a secret"),
        ("capability:*", "name of a capability"),
        ("subprocess:git", "absolute path"),
        ("subprocess:/usr/bin/", "path of a file"),
        ("read:${env.HOME}", "placeholders of the form"),
        ("read:/" + "x" * 5000, "at most 4096 characters"),
    ],
)
def test_what_is_no_permission_is_refused_with_what_was_expected(text: str, words: str) -> None:
    with pytest.raises(Misuse, match=words) as caught:
        Permission.parse(text)
    assert caught.value.code == "bad_permission"


@given(st.text(max_size=40), st.sampled_from(list(PermissionKind)))
def test_no_text_does_worse_than_being_refused(text: str, kind: PermissionKind) -> None:
    try:
        permission = Permission(kind, text)
    except Misuse:
        return
    # What is accepted is canonical: saying it again changes nothing.
    assert Permission(kind, permission.value) == permission


def test_a_reason_is_a_sentence_that_shows_what_is_granted_of_the_kind() -> None:
    grants = Grants.parse(["read:/a", "read:/b", "read:/c", "read:/d", "secret:S"])
    assert decide(Permission.parse("read:/etc/shadow"), grants).reason == (
        "reading /etc/shadow is not granted (granted: read:/a, read:/b, read:/c and 1 more)"
    )
    assert decide(Permission.parse("secret:S"), grants).reason == "secret S is granted"
    assert decide(Permission.parse("network:a.example:80"), Grants.parse(["network:*:80"])).reason == (
        "network access to a.example:80 is granted by network:*:80"
    )


def request(text: str, *, optional: bool = False) -> PermissionRequest:
    return PermissionRequest(permission=Permission.parse(text), optional=optional)


def test_missing_lists_every_request_that_was_not_granted() -> None:
    requests = [request("read:/a"), request("read:/b", optional=True), request("read:/c")]
    found = missing(requests, Grants.parse(["read:/a"]))
    assert [(str(asked.permission), asked.optional) for asked, _ in found] == [("read:/b", True), ("read:/c", False)]
    assert all(not decision.allowed for _, decision in found)


def test_placeholders_become_the_values_of_the_configuration() -> None:
    requests = [
        request("network:${config.endpoint}"),
        request("network:${config.host}:${config.port}"),
        request("read:${config.files}"),
        request("read:/srv/${config.team.name}/"),
        request("secret:FIXED"),
        request("secret:${config.absent}", optional=True),
    ]
    config = {
        "endpoint": "http://prometheus.local:9090/api",
        "host": "db.example",
        "port": 5432,
        "files": ["/a.csv", "/b.csv"],
        "team": {"name": "blue"},
    }
    assert [str(expanded.permission) for expanded in expand(requests, config)] == [
        "network:prometheus.local:9090",
        "network:db.example:5432",
        "read:/a.csv",
        "read:/b.csv",
        "read:/srv/blue/",
        "secret:FIXED",
    ]


def test_every_placeholder_that_cannot_be_filled_is_reported_at_once() -> None:
    requests = [request(f"read:${{config.{key}}}") for key in ("absent", "relative", "again", "climbs", "number.x")]
    config = {"relative": "bill.csv", "again": "${config.relative}", "climbs": "/srv/../etc", "number": 3}
    with pytest.raises(InvalidDocument) as caught:
        expand(requests, config)
    assert [fault.path for fault in caught.value.faults] == ["absent", "relative", "again", "climbs", "number.x"]
    assert caught.value.code == "config_invalid"


def test_a_configured_text_is_never_expanded_a_second_time() -> None:
    with pytest.raises(InvalidDocument, match=r"found '\$\{config.b\}'"):
        expand([request("read:${config.a}")], {"a": "${config.b}", "b": "/etc/shadow"})


def test_what_still_holds_a_placeholder_is_neither_granted_nor_allowed() -> None:
    asked = Permission.parse("read:${config.bill}")
    assert decide(asked, Grants.parse(["read:/"])).reason.endswith("still awaits a value from the configuration")
    with pytest.raises(Misuse, match="placeholder"):
        Grants(frozenset({asked}))
