"""The files of a new plugin: a pure function from a name and a type to their texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cardcage.cli.stubs import MethodStub, PointStub
from cardcage.foundation.errors import Misuse
from cardcage.foundation.names import PLUGIN_NAME_CHARS_MAX, is_plugin_name

_GREETER_CONFIG: dict[str, Any] = {
    "greeting": {"type": "string", "default": "Good day", "description": "The words before the name.", "minLength": 1}
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold:
    """What is to be made: the plugin's name, and where it has a type, that type with its extension point's source."""

    name: str
    type: str | None = None
    ref: str | None = None
    stub: PointStub | None = None

    @property
    def class_name(self) -> str:
        return "".join(word.capitalize() for word in re.split(r"[-_.]", self.name))


def check_name(name: str) -> None:
    """Raises `Misuse` where `name` cannot name a plugin."""
    if not is_plugin_name(name):
        raise Misuse(
            f"{name[:120]!r} cannot name a plugin: expected lower-case words joined by -, _ or ., "
            f"beginning with a letter, at most {PLUGIN_NAME_CHARS_MAX} characters",
            code="bad_plugin_name",
            hint="for example ec2-optimizer",
        )


def files(scaffold: Scaffold) -> dict[str, str]:
    """Every file of the package by its path in the folder."""
    return {
        "plugin.yaml": _manifest(scaffold),
        "plugin.py": _code(scaffold),
        "config_schema.json": _config_schema(scaffold),
        "tests/__init__.py": "",
        "tests/test_plugin.py": _tests(scaffold),
        "docs/README.md": _readme(scaffold),
        "requirements.txt": "# Packages that the plugin needs besides cardcage-sdk, one a line.\n",
    }


def _manifest(scaffold: Scaffold) -> str:
    what = f"An {scaffold.type}" if (scaffold.type or "")[:1] in tuple("aeiou") else f"A {scaffold.type}"
    lines = [
        f"name: {scaffold.name}",
        "version: 0.1.0",
        f"description: {what if scaffold.type else 'A plugin that greets'}.",
        f"entrypoint: plugin:{scaffold.class_name}",
    ]
    if scaffold.type:
        lines.append(f"type: {scaffold.type}")
    if scaffold.ref:
        lines.append(f"provides: [{scaffold.ref}]")
    lines += [
        "requires:",
        '  cardcage: ">=0.1"',
        "# What the plugin may do beyond its own folders, each for the operator to grant:",
        "# permissions:",
        '#   network: ["api.example.com:443"]',
        "#   files:",
        '#     read: ["${config.path}"]',
    ]
    return "\n".join(lines) + "\n"


def _code(scaffold: Scaffold) -> str:
    stub = scaffold.stub
    if stub is None:
        return f'''"""{scaffold.name}: greets by name."""

from __future__ import annotations

from cardcage_sdk import Plugin


class {scaffold.class_name}(Plugin):
    """Greets by name, in the words that its config gives."""

    def greet(self, name: str) -> str:
        """The greeting for `name`."""
        self.logger.info("greeting %s", name)
        return f"{{self.config['greeting']}}, {{name}}."
'''
    methods = "\n\n".join(map(_method, stub.methods))
    return f'''"""{scaffold.name}: provides {scaffold.ref}."""

from __future__ import annotations

{_imports(stub.imports, "cardcage_sdk", "Plugin")}


class {scaffold.class_name}(Plugin):
    """{stub.doc}"""

{methods}
'''


def _method(method: MethodStub) -> str:
    head = f"    def {method.name}(self{method.parameters}) -> {method.result}:"
    return f'{head}\n        """{method.doc}"""\n        {method.body}'


def _imports(needed: Mapping[str, tuple[str, ...]], *extra: str) -> str:
    """The import lines: the standard library first, then the rest, as import sorters leave them."""
    modules = {module: list(names) for module, names in needed.items()}
    module, name = extra
    modules.setdefault(module, []).append(name)
    standard = ("collections.abc", "datetime", "decimal", "typing", "uuid")
    groups = [
        [f"from {each} import {', '.join(modules[each])}" for each in sorted(modules) if (each in standard) is wanted]
        for wanted in (True, False)
    ]
    return "\n\n".join("\n".join(group) for group in groups if group)


def _config_schema(scaffold: Scaffold) -> str:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": _GREETER_CONFIG if scaffold.stub is None else {},
        "additionalProperties": False,
    }
    return json.dumps(schema, indent=2) + "\n"


def _tests(scaffold: Scaffold) -> str:
    name = scaffold.class_name
    if scaffold.stub is None:
        imports, bodies = _imports({}, "cardcage_sdk.testing", "PluginTestCase"), _greeter_test(name)
    else:
        imports = _imports(scaffold.stub.test_imports, "cardcage_sdk.testing", "PluginTestCase")
        bodies = "\n\n".join(_method_test(name, method) for method in scaffold.stub.methods)
    return f'''"""Tests of {scaffold.name}, without a host: `pytest` in this folder."""

from __future__ import annotations

{imports}

from plugin import {name}


class Test{name}(PluginTestCase):
{bodies}
'''


def _greeter_test(name: str) -> str:
    return f'''    def test_it_greets_in_the_configured_words(self) -> None:
        plugin = self.create_plugin({name}, config={{"greeting": "Hello"}})
        assert plugin.greet("Ada") == "Hello, Ada."'''


def _method_test(name: str, method: MethodStub) -> str:
    called = f"plugin.{method.name}({method.arguments})"
    return f"""    def test_{method.name}_answers(self) -> None:
        plugin = self.create_plugin({name})
        assert {f"list({called})" if method.stream else called} == {method.answer}"""


def _readme(scaffold: Scaffold) -> str:
    first = scaffold.stub.methods[0].name if scaffold.stub else "greet"
    provides = f"It provides the extension point `{scaffold.ref}`.\n\n" if scaffold.ref else ""
    return f"""# {scaffold.name}

{provides}| | |
|---|---|
| check the package | `cardcage plugin validate .` |
| run its tests | `pytest` |
| register it, and see it load behind its walls | `cardcage plugin load .` |
| call it | `cardcage plugin call {scaffold.name} {first} ...` |

The config is described in `config_schema.json`, what the plugin may do in `plugin.yaml`.
"""
