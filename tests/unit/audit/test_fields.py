"""What an event may carry."""

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cardcage.audit import Action, Actor, AuditFields, MemoryAuditor, Trail
from cardcage.audit.fields import FIELD_NAMES, LIST_ITEMS_MAX, TEXT_CHARS_MAX, clean_fields, clean_text

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(FIELD_NAMES)) | st.text(max_size=12), anything, max_size=6))
def test_whatever_the_fields_hold_what_is_kept_is_small_plain_and_printable(fields: dict[str, object]) -> None:
    kept = clean_fields(fields)
    assert set(kept) <= FIELD_NAMES
    assert list(kept) == sorted(kept)
    text = msgspec.json.encode(kept).decode()
    assert json.loads(text) == kept
    assert text.isprintable() or not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text)
    for value in kept.values():
        assert not isinstance(value, str) or len(value) <= TEXT_CHARS_MAX
        assert not isinstance(value, list) or len(value) <= LIST_ITEMS_MAX + 1


def test_a_name_that_is_not_on_the_list_is_dropped_and_counted() -> None:
    assert clean_fields({"password": "hunter2", "config": {"a": 1}, "port": 443}) == {"dropped_fields": 2, "port": 443}


def test_no_name_on_the_list_could_hold_a_secret() -> None:
    assert (
        not {"config", "value", "password", "token", "credential", "header", "body", "argument", "args"} & FIELD_NAMES
    )


def test_credentials_in_an_address_are_hidden() -> None:
    shown = clean_text("GET https://ada:hunter2@example.com/x?token=abc123&page=2 with Bearer eyJhbGciOiJIUzI1NiJ9")
    for secret in ("hunter2", "abc123", "eyJhbGciOiJIUzI1NiJ9"):
        assert secret not in shown
    assert "example.com/x" in shown


def test_a_line_break_in_a_text_cannot_begin_another_line() -> None:
    assert clean_text('x\n{"seq":1}\x1b[2J\u202e') == 'x\\n{"seq":1}\\x1b[2J\\u202e'


def test_a_permission_is_not_taken_for_a_credential() -> None:
    for text in ("secret:SLACK_TOKEN is not granted", "network:*.example.com:443", "read:/srv/bill.csv is granted"):
        assert clean_text(text) == text


def test_a_trail_says_whom_each_event_is_about() -> None:
    kept = MemoryAuditor()
    trail = Trail(auditor=kept, plugin="ocr", version="1.2.0", instance="ocr/eu")
    trail.note(Action.EGRESS_REFUSED, "no grant covers it", allowed=False, actor=Actor.PLUGIN, endpoint="a.example:443")
    (event,) = kept.of(Action.EGRESS_REFUSED)
    assert (event.plugin, event.version, event.instance, event.allowed) == ("ocr", "1.2.0", "ocr/eu", False)
    assert event.fields == AuditFields(endpoint="a.example:443")


def test_what_is_kept_in_memory_has_a_bound() -> None:
    kept = MemoryAuditor(events_max=3)
    for number in range(10):
        Trail(auditor=kept).note(Action.LIMIT_HIT, str(number))
    assert [event.reason for event in kept.events] == ["7", "8", "9"]


def test_a_number_of_any_length_can_be_kept() -> None:
    for number in (10**5000, -(10**5000)):
        kept = clean_fields({"count": number})["count"]
        assert isinstance(kept, str)
        assert len(kept) <= TEXT_CHARS_MAX
