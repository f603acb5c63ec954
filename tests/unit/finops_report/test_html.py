"""The HTML report as text. What it does in a browser is tested in tests/e2e/test_report_page.py."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from cardcage_finops.pipeline.result import Analysis
from cardcage_finops.report.html import html_report, script_json


class _Page(HTMLParser):
    """The elements, the scripts and styles, and the texts of a page, as a browser would cut them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in self.inside:
            self.inside[self._open][-1] += data


def test_hostile_names_add_no_element_and_no_attribute(analysis: Analysis) -> None:
    page = _Page(html_report(analysis))
    assert [tag for tag, _ in page.elements if tag == "img"] == []
    assert len(page.inside["script"]) == 3
    names = {name for _, attributes in page.elements for name in attributes}
    assert not [name for name in names if name.startswith("on") or name == "style"]


def test_no_control_character_reaches_the_page(analysis: Analysis) -> None:
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html_report(analysis))


def test_nothing_in_the_page_names_a_resource_elsewhere(analysis: Analysis) -> None:
    page = _Page(html_report(analysis))
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "img", "base", "form")
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")


def test_the_content_security_policy_allows_exactly_the_page_s_own_scripts_and_styles(analysis: Analysis) -> None:
    page = _Page(html_report(analysis))
    policy = next(attributes["content"] for _, attributes in page.elements if "http-equiv" in attributes)
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    scripts = [text for text in page.inside["script"] if not text.startswith("{")]
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    assert allowed == {
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (*scripts, *page.inside["style"])
    }


def test_exact_totals_are_in_the_page_beside_the_rounded_ones(analysis: Analysis) -> None:
    page = html_report(analysis)
    main = analysis.main
    assert main is not None
    exact = format(main.totals.billed, "f").rstrip("0")
    assert f'<data value="{exact}" title="{exact} ">' in page
    assert 'rows-taken">120<' in page


def test_the_chart_library_s_licence_comes_with_it(analysis: Analysis) -> None:
    page = html_report(analysis)
    assert "Permission is hereby granted, free of charge" in page
    assert "Leon Sorokin" in page


def test_a_failed_plugin_is_told_at_the_top(analysis: Analysis) -> None:
    assert "The notification channel failed:" in html_report(analysis)


def test_two_currencies_get_a_table_and_a_warning(make_analysis: Callable[..., Analysis]) -> None:
    page = html_report(make_analysis("USD", "EUR"))
    assert 'id="currencies-table"' in page
    assert "never added together" in page


_plain = st.recursive(
    st.one_of(st.text(), st.integers(-(2**63), 2**63), st.none()),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=8,
)


@given(_plain)
def test_data_for_a_script_is_the_same_data_and_can_not_end_its_element(value: object) -> None:
    text = str(script_json(value))
    assert json.loads(text) == value
    assert not re.search("[<>&\u2028\u2029]", text)
