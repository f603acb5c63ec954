"""A manifest's permissions are replaced, and not a letter of the rest."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardcage.manifest import parse_manifest
from cardcage.manifest.rewrite import permissions_block, with_entry_point, with_permissions
from cardcage.permissions import Permission

HEAD = "# mine\nname: a\nversion: 1.10.0 # as text\nentrypoint: a:B\n"
NEW = 'permissions:\n  files:\n    read:\n    - "/srv/x"\n'
ASKED = [Permission.parse("read:/srv/x")]

permissions = st.lists(
    st.sampled_from(
        [
            "network:a.example:443",
            "network:[::1]:80",
            "read:/srv/with space/x",
            'read:/srv/quote"d',
            "write:/srv/'single'/",
            "secret:TOKEN",
            "capability:ReadCostData",
            "subprocess:/usr/bin/git",
            "read:/srv/\N{SNOWMAN}",
        ]
    ).map(Permission.parse),
    unique=True,
)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (HEAD, HEAD + NEW),
        (HEAD + "permissions: [ReadCostData]\n", HEAD + NEW),
        (HEAD + "permissions: [ReadCostData,\n  B] # why\nlimits: {cpu: 1}\n", HEAD + NEW + "limits: {cpu: 1}\n"),
        (
            HEAD + "permissions:\n- A\n- B\n\n# limits\nlimits: {cpu: 1}\n",
            HEAD + NEW + "\n# limits\nlimits: {cpu: 1}\n",
        ),
        (
            HEAD + "permissions:\n  network:\n  # inside\n  - a.b:1\n  files: {read: [/x]}\n# end\n",
            HEAD + NEW + "# end\n",
        ),
        ("permissions: {}\n" + HEAD, NEW + HEAD),
        (HEAD + "permissions:\n", HEAD + NEW),
        (HEAD.rstrip("\n"), HEAD + NEW),
        (
            "{name: a, version: 1.0.0, entrypoint: 'a:B'}\n",
            '{name: a, version: 1.0.0, entrypoint: \'a:B\', permissions: {"files": {"read": ["/srv/x"]}}}\n',
        ),
        (
            "{name: a, permissions: [A], version: 1.0.0, entrypoint: 'a:B',}\n",
            '{name: a, permissions: {"files": {"read": ["/srv/x"]}}, version: 1.0.0, entrypoint: \'a:B\',}\n',
        ),
    ],
)
def test_the_block_takes_the_place_of_the_old_one(before: str, after: str) -> None:
    found = with_permissions(before, ASKED)
    assert found == after
    assert [str(request.permission) for request in parse_manifest(found).permissions] == ["read:/srv/x"]


@settings(deadline=None)
@given(permissions, permissions, st.booleans())
def test_whatever_is_written_reads_back_and_changes_nothing_else(
    first: list[Permission], second: list[Permission], at_the_end: bool
) -> None:
    block = permissions_block(first)
    text = HEAD + block + "# kept\nlimits: {cpu: 1}\n" if not at_the_end else HEAD + block
    before, after = parse_manifest(text), parse_manifest(with_permissions(text, second))
    assert {request.permission for request in before.permissions} == set(first)
    assert {request.permission for request in after.permissions} == set(second)
    assert before.model_copy(update={"permissions": after.permissions}) == after
    assert ("# kept" in with_permissions(text, second)) is not at_the_end


def test_json_manifests_stay_json_in_their_order() -> None:
    text = json.dumps({"name": "a", "permissions": ["A"], "version": "1.0.0", "entry_point": "a:B"})
    found = with_entry_point(with_permissions(text, ASKED, as_json=True), "c:D", as_json=True)
    assert list(json.loads(found)) == ["name", "permissions", "version", "entry_point"]
    manifest = parse_manifest(found, encoding="json")
    assert (manifest.entrypoint.raw, len(manifest.permissions)) == ("c:D", 1)


def test_an_entry_point_is_replaced_under_its_own_spelling() -> None:
    assert with_entry_point(HEAD, "c:D") == HEAD.replace("entrypoint: a:B", 'entrypoint: "c:D"')
    other = HEAD.replace("entrypoint", "entry_point")
    assert with_entry_point(other, "c:D") == other.replace("entry_point: a:B", 'entry_point: "c:D"')
