"""What a plugin tells about itself at load, and the hooks, tools and schedules that it offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conftest import StartPlugin

EVERYTHING = '''
    import msgspec
    from typing import Any, Protocol
    from cardcage_sdk import Plugin, hook, on_event, schedule, tool

    class Context(msgspec.Struct):
        daily_spike: float
        note: str = ""

    class Shape(Protocol):
        daily_spike: float

    class Everything(Plugin):
        LIMIT = 3

        @property
        def lazy(self):
            raise AssertionError("a property is not to be read")

        class Inner:
            pass

        def visible(self, name: str) -> str:
            """Say it.

            Twice:
                and again.
            """
            return name

        def _hidden(self):
            pass

        @staticmethod
        def fixed(number: int) -> int:
            return number

        @classmethod
        def of_class(cls) -> str:
            return cls.__name__

        @hook("post_cost_analysis", priority=10)
        @hook("pre_cost_analysis")
        def typed_hook(self, context: Context):
            context.note = "seen"
            return context

        @hook("shape")
        def shape_hook(self, context: Shape):
            return context.daily_spike

        @hook("untyped")
        def untyped_hook(self, context):
            context.inner.added = context.items[0].id
            return context

        @hook("without")
        def hook_without_context(self):
            return None

        @on_event("cost.*")
        @on_event("bill.read")
        def _on_cost(self, event_type, data):
            pass

        @schedule("*/5 * * * *")
        def _refresh(self):
            return "refreshed"

        @tool
        def find(self, query: str, limit: int = 10, where: Context | None = None, *, exact: bool = False) -> list:
            "Find things."
            return [query, limit, exact]

        @tool(name="other", description="Another one.")
        def _renamed(self, value: Any, odd: Shape = None):
            yield value

        def get_config_schema(self):
            return {"type": "object"}
'''


def test_the_description_tells_methods_hooks_events_tools_and_schedules(start_plugin: StartPlugin) -> None:
    host = start_plugin(EVERYTHING)
    told = host.load("Everything")
    assert {method["name"] for method in told["methods"]} == {
        *("visible", "fixed", "of_class", "typed_hook", "shape_hook", "untyped_hook", "hook_without_context", "find"),
    }
    assert told["methods"][0] == {"name": "visible", "stream": False, "doc": "Say it.\n\nTwice:\n    and again."}
    assert told["hooks"] == [
        {"name": "post_cost_analysis", "method": "typed_hook", "priority": 10},
        {"name": "pre_cost_analysis", "method": "typed_hook", "priority": 50},
        {"name": "shape", "method": "shape_hook", "priority": 50},
        {"name": "untyped", "method": "untyped_hook", "priority": 50},
        {"name": "without", "method": "hook_without_context", "priority": 50},
    ]
    assert told["events"] == ["cost.*", "bill.read"]
    assert told["schedules"] == [{"cron": "*/5 * * * *", "method": "_refresh"}]
    assert told["config_schema"] == {"type": "object"}
    assert (told["metadata"], told["capabilities"]) == (None, None)


def test_static_and_class_methods_and_scheduled_ones_can_be_called(start_plugin: StartPlugin) -> None:
    host = start_plugin(EVERYTHING)
    host.load("Everything")
    assert host.ask("fixed", 3) == 3
    assert host.ask("of_class") == "Everything"
    assert host.ask("_refresh") == "refreshed"
    assert host.failure(host.call("_hidden")).code == "method_not_found"
    assert host.failure(host.call("__init__")).code == "method_not_found"
    assert host.failure(host.call("get_config_schema")).code == "method_not_found"


def test_a_tools_parameters_are_a_json_schema(start_plugin: StartPlugin) -> None:
    host = start_plugin(EVERYTHING)
    find, other = host.load("Everything")["tools"]
    assert (find["name"], find["description"]) == ("find", "Find things.")
    assert find["parameters"]["required"] == ["query"]
    assert find["parameters"]["additionalProperties"] is False
    properties = find["parameters"]["properties"]
    assert properties["query"] == {"type": "string"}
    assert properties["limit"] == {"type": "integer", "default": 10}
    assert {"$ref": "#/$defs/Context"} in properties["where"]["anyOf"]
    assert find["parameters"]["$defs"]["Context"]["required"] == ["daily_spike"]
    assert (other["name"], other["description"]) == ("other", "Another one.")
    assert other["parameters"]["properties"] == {"value": {}, "odd": {"default": None}}


def test_a_tool_is_run_by_name_with_named_or_positional_arguments(start_plugin: StartPlugin) -> None:
    host = start_plugin(EVERYTHING)
    host.load("Everything")
    assert host.ask("cardcage.tool", "find", {"query": "x", "exact": True}) == ["x", 10, True]
    assert host.ask("cardcage.tool", "find", ["x", 2]) == ["x", 2, False]
    assert host.ask("cardcage.tool", "other", {"value": 1}) == [1]
    fault = host.failure(host.call("cardcage.tool", ["find", {"query": 1}]))
    assert (fault.code, fault.data["path"]) == ("invalid_params", "query")
    assert "it has: find, other" in host.failure(host.call("cardcage.tool", ["lost", {}])).message


def test_a_hooks_context_has_attributes_unless_a_type_is_declared(start_plugin: StartPlugin) -> None:
    host = start_plugin(EVERYTHING)
    host.load("Everything")
    context = {"daily_spike": 0.5}
    assert host.ask("cardcage.hook", "post_cost_analysis", "typed_hook", context) == {
        "daily_spike": 0.5,
        "note": "seen",
    }
    assert host.ask("cardcage.hook", "shape", "shape_hook", context) == 0.5
    nested: dict[str, object] = {"inner": {}, "items": [{"id": "i-1"}]}
    assert host.ask("cardcage.hook", "untyped", "untyped_hook", nested)["inner"] == {"added": "i-1"}
    assert host.ask("cardcage.hook", "without", "hook_without_context", context) is None


def test_a_hook_that_cannot_be_run_says_why(start_plugin: StartPlugin) -> None:
    host = start_plugin(EVERYTHING)
    host.load("Everything")
    fault = host.failure(host.call("cardcage.hook", ["post_cost_analysis", "typed_hook", {"daily_spike": "much"}]))
    assert (fault.code, fault.data["path"]) == ("invalid_params", "context.daily_spike")
    assert "no function" in host.failure(host.call("cardcage.hook", ["post_cost_analysis", "visible", {}])).message
    missing = host.failure(host.call("cardcage.hook", ["untyped", "untyped_hook", {"items": [{"id": 1}], "daily": 1}]))
    assert missing.message.startswith('hook "untyped" in method "untyped_hook" raised AttributeError')
    assert missing.data["message"] == "the context has no 'inner' (it has: items, daily)"


def test_reserved_methods_check_their_arguments(start_plugin: StartPlugin) -> None:
    host = start_plugin(EVERYTHING)
    host.load("Everything")
    assert host.failure(host.call("cardcage.hook", ["only-a-name"])).code == "invalid_params"
    assert host.failure(host.call("cardcage.start", [1])).code == "invalid_params"
    assert host.failure(host.call("cardcage.unheard_of")).code == "method_not_found"


def test_what_cannot_be_told_before_initialize_is_left_out_with_a_warning(start_plugin: StartPlugin) -> None:
    host = start_plugin(
        """
        from cardcage_sdk import CloudMindPluginBase

        class Late(CloudMindPluginBase):
            def load(self, config):
                self.endpoint = config["endpoint"]

            def capabilities(self):
                return {"endpoint": self.endpoint}
        """
    )
    assert host.load("Late", config={"endpoint": "here"})["capabilities"] is None
    assert "capabilities() was left out of the description" in host.logs()[0].message
    assert host.ask("cardcage.initialize") is True
    assert host.ask("cardcage.describe")["capabilities"] == {"endpoint": "here"}
