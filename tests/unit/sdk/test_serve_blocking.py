"""The blocking loop, seen from the host's end of a real connection."""

from __future__ import annotations

from typing import Any

GREETER = """
    from cardcage_sdk import Plugin

    class Polite(Plugin):
        def greet(self, name: str) -> str:
            "Greet somebody."
            return f"{self.config.get('word', 'Good day')}, {name}."
"""


def test_a_public_method_is_called_by_its_name(start_plugin: Any) -> None:
    host = start_plugin(GREETER)
    host.load("Polite", config={"word": "Ahoy"})
    assert host.ask("greet", "Ada") == "Ahoy, Ada."
    assert host.ask("greet", name="Bo") == "Ahoy, Bo."
