"""From an entry point to a loaded plugin, and what each way of failing tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import StartPlugin

GREETER = "class Polite:\n    def greet(self, name: str) -> str:\n        return 'Good day, ' + name\n"


def test_a_module_that_is_not_there_is_named_with_the_files_that_are(start_plugin: StartPlugin) -> None:
    host = start_plugin(GREETER, other="")
    host.greet()
    fault = host.failure(host.call("cardcage.load", host.load_request("Polite", module="polite")))
    assert fault.code == "entrypoint_not_found"
    assert fault.message == (
        'plugin "polite" 1.2.0: expected module "polite" in the package, found the files other.py, plugin.py'
    )
    assert fault.data == {
        "code": "entrypoint_not_found",
        "expected": "polite",
        "found": ["other.py", "plugin.py"],
    }


def test_a_file_that_is_not_there_is_named_with_the_files_that_are(start_plugin: StartPlugin) -> None:
    host = start_plugin(GREETER)
    host.greet()
    fault = host.failure(host.call("cardcage.load", host.load_request(file="optimizer.py")))
    assert fault.code == "entrypoint_not_found"
    assert 'expected the file "optimizer.py" in the package, found the files plugin.py' in fault.message


def test_an_attribute_that_is_not_there_is_named_with_the_classes_that_are(start_plugin: StartPlugin) -> None:
    host = start_plugin(GREETER + "def extra():\n    pass\n")
    host.greet()
    fault = host.failure(host.call("cardcage.load", host.load_request("Politest")))
    assert fault.code == "entrypoint_not_found"
    assert 'to have "Politest", found the classes Polite and the functions extra' in fault.message
    assert fault.data["found"] == ["Polite", "extra"]


def test_an_attribute_that_is_no_class_is_refused(start_plugin: StartPlugin) -> None:
    host = start_plugin("def greet(name):\n    return name\n")
    host.greet()
    fault = host.failure(host.call("cardcage.load", host.load_request("greet")))
    assert (fault.code, fault.data["found"]) == ("entrypoint_not_found", "function")


@pytest.mark.parametrize(
    ("source", "told", "kind"),
    [
        ("raise ValueError('no licence')", "raised ValueError: no licence", "ValueError"),
        ("import sys; sys.exit(3)", "exited with sys.exit(3)", "SystemExit"),
        ("import nothing_of_the_kind", "No module named 'nothing_of_the_kind'", "ModuleNotFoundError"),
        ("raise KeyboardInterrupt", "raised KeyboardInterrupt", "KeyboardInterrupt"),
        ("def broken(:", "raised SyntaxError", "SyntaxError"),
    ],
)
@pytest.mark.parametrize("file", [None, "plugin.py", "odd-name.py"])
def test_a_module_that_fails_to_import_tells_how_and_the_process_stays(
    start_plugin: StartPlugin, source: str, told: str, kind: str, file: str | None
) -> None:
    host = start_plugin(source, **{"odd-name": source})
    host.greet()
    fault = host.failure(host.call("cardcage.load", host.load_request("Polite", file=file)))
    assert fault.code == "import_failed"
    assert fault.message.startswith('plugin "polite" 1.2.0: expected ')
    assert told in fault.message
    assert fault.data["type"] == kind
    assert "cardcage_sdk" not in fault.data["traceback"]
    assert host.dismiss() == 0


def test_a_file_without_a_class_named_is_its_one_plugin_class(start_plugin: StartPlugin) -> None:
    host = start_plugin(
        optimizer="""
        from cardcage_sdk import Plugin

        class _Base(Plugin):
            pass

        class Extra:
            pass

        class Optimizer(_Base):
            def analyze(self):
                return "analysed"

        def extra():
            pass
        """
    )
    assert host.load(file="optimizer.py")["style"] == "plugin"
    assert host.ask("analyze") == "analysed"


def test_several_plugin_classes_in_a_file_are_refused_by_name(start_plugin: StartPlugin) -> None:
    host = start_plugin("from cardcage_sdk import Plugin\nclass A(Plugin): ...\nclass B(Plugin): ...\n")
    host.greet()
    fault = host.failure(host.call("cardcage.load", host.load_request(file="plugin.py")))
    assert "expected one plugin class" in fault.message
    assert fault.data["found"] == ["A", "B"]


def test_a_file_with_nothing_in_it_is_refused(start_plugin: StartPlugin) -> None:
    host = start_plugin("X = 1\n")
    host.greet()
    fault = host.failure(host.call("cardcage.load", host.load_request(file="plugin.py")))
    assert "found no classes and no functions" in fault.message


def test_a_file_of_functions_is_a_plugin_of_its_own(start_plugin: StartPlugin) -> None:
    host = start_plugin(
        functions="""
        from sys import exit as stop

        started = []

        def start():
            started.append(True)

        def total(amounts: list[int]) -> int:
            "Add up."
            return sum(amounts)

        def state():
            return started

        def _hidden():
            pass
        """
    )
    description = host.load(file="functions.py")
    assert description["style"] == "module"
    assert [method["name"] for method in description["methods"]] == ["total", "state"]
    host.ask("cardcage.start")
    host.ask("cardcage.stop")
    assert host.ask("state") == [True]
    assert host.failure(host.call("total", ["12"])).code == "invalid_params"
    assert host.ask("total", [1, 2]) == 3


def test_a_file_with_one_plain_class_is_that_class(start_plugin: StartPlugin) -> None:
    host = start_plugin(GREETER)
    assert host.load(file="plugin.py")["style"] == "class"
    assert host.ask("greet", "Ada") == "Good day, Ada"


def test_an_object_may_be_the_entry_point(start_plugin: StartPlugin) -> None:
    host = start_plugin(
        GREETER + "from cardcage_sdk import Plugin\nclass Told(Plugin, Polite):\n"
        "    def told(self): return [self.config, self.context.plugin]\npolite = Told()\n"
    )
    host.load("polite", config={"a": 1})
    assert host.ask("greet", "Ada") == "Good day, Ada"
    assert host.ask("told") == [{"a": 1}, "polite"]


def test_a_module_named_like_one_of_the_standard_library_is_the_packages_own(start_plugin: StartPlugin) -> None:
    host = start_plugin(platform=GREETER)
    host.load("Polite", module="platform")
    assert host.ask("greet", "Ada") == "Good day, Ada"


def test_modules_of_the_package_import_each_other(start_plugin: StartPlugin) -> None:
    host = start_plugin(
        "from words import WORD\nclass Polite:\n    def word(self): return WORD\n", words="WORD = 'hi'\n"
    )
    host.load("Polite")
    assert host.ask("word") == "hi"


@pytest.mark.parametrize("file", [None, "plugin.py"])
def test_modules_of_a_folder_with_an_init_may_import_each_other_relatively(
    start_plugin: StartPlugin, file: str | None
) -> None:
    host = start_plugin(
        "from .words import WORD\nfrom polite.words import WORD as SAME\n"
        "class Polite:\n    def word(self): return [WORD, SAME, __name__]\n",
        words="WORD = 'hi'\n",
        __init__="",
    )
    host.load("Polite", file=file)
    assert host.ask("word") == ["hi", "hi", "polite.plugin"]


def test_a_relative_import_outside_of_a_package_fails_to_import(start_plugin: StartPlugin) -> None:
    host = start_plugin("from .words import WORD\n", words="WORD = 'hi'\n")
    host.greet()
    fault = host.failure(host.call("cardcage.load", host.load_request("Polite")))
    assert (fault.code, "no known parent package" in fault.message) == ("import_failed", True)


@pytest.mark.parametrize(
    ("signature", "body", "answer"),
    [
        ("self", "None", None),
        ("self, config", "config['word']", "Ahoy"),
        ("self, config: dict", "config['word']", "Ahoy"),
        ("self, context", "context.plugin", "polite"),
        ("self, context, config", "[context.version, config['word']]", ["1.2.0", "Ahoy"]),
        ("self, flavour='plain'", "flavour", "plain"),
        ("self, *rest, **named", "[len(rest), len(named)]", [0, 0]),
    ],
)
def test_a_plain_class_is_made_with_what_it_asks_for(
    start_plugin: StartPlugin, signature: str, body: str, answer: object
) -> None:
    lines = [
        "class Plain:",
        f"    def __init__({signature}):",
        f"        self.got = {body}",
        "    def get(self):",
        "        return self.got",
    ]
    host = start_plugin("\n".join(lines))
    host.load("Plain", config={"word": "Ahoy"})
    assert host.ask("get") == answer


def test_a_constructor_that_needs_more_is_refused_by_the_parameters_name(start_plugin: StartPlugin) -> None:
    host = start_plugin("class Plain:\n    def __init__(self, database):\n        pass\n")
    host.greet()
    fault = host.failure(host.call("cardcage.load", host.load_request("Plain")))
    assert fault.code == "entrypoint_not_found"
    assert 'found Plain, which needs "database"' in fault.message


def test_a_constructor_that_raises_is_a_plugin_error(start_plugin: StartPlugin) -> None:
    host = start_plugin("class Plain:\n    def __init__(self):\n        raise ValueError('no table')\n")
    host.greet()
    fault = host.failure(host.call("cardcage.load", host.load_request("Plain")))
    assert (fault.code, fault.data["message"]) == ("plugin_error", "no table")


def test_a_malformed_load_request_is_invalid_params(start_plugin: StartPlugin) -> None:
    host = start_plugin(GREETER)
    host.greet()
    assert host.failure(host.call("cardcage.load", {"entrypoint": 3})).code == "invalid_params"
    assert host.failure(host.call("cardcage.load", [])).code == "invalid_params"


def test_the_load_request_may_come_as_the_one_positional_argument(start_plugin: StartPlugin) -> None:
    host = start_plugin(GREETER)
    host.greet()
    assert host.answer(host.call("cardcage.load", [host.load_request("Polite")]))["style"] == "class"
